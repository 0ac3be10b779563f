"""The losses of a regression head."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from detect.ops import elementwise_box_iou, from_center_size

BoxLoss = Literal["l2", "smooth_l1", "iou", "giou", "diou", "ciou"]


def box_regression_loss(
    predicted: Float[Tensor, "*N 4"], target: Float[Tensor, "*N 4"], kind: BoxLoss
) -> Float[Tensor, "*N"]:
    """The loss of each box, as (center x, center y, width, height) in units of the input.

    Args:
        predicted: as the regression head gives them.
        target: of the objects.
        kind: `l2` is half the squared distance (Sermanet et al. 2014, section 4.2); `smooth_l1`
            (Girshick 2015, equation 3) is linear beyond 0.1; `iou`, `giou`, `diou` and `ciou` are
            1 − that measure.
    """
    if kind == "l2":
        return (predicted - target).square().sum(dim=-1) / 2
    if kind == "smooth_l1":
        losses = functional.smooth_l1_loss(predicted, target, reduction="none", beta=0.1)
        return losses.sum(dim=-1)
    return 1 - elementwise_box_iou(from_center_size(predicted), from_center_size(target), kind)
