"""Non-maximum suppression: greedy, exact, and grouped so that groups never touch.

The greedy rule: take the boxes by falling score, ties to the lower index; a box is suppressed when
an already kept box of its group overlaps it with IoU > threshold.
"""

import torch
import torchvision
from jaxtyping import Float, Int
from torch import Tensor


def nms(
    boxes: Float[Tensor, "N 4"], scores: Float[Tensor, "N"], iou_threshold: float
) -> Int[Tensor, "K"]:
    """Indices of the boxes that survive greedy suppression, by falling score.

    Args:
        boxes: in pixels; half precision is measured in float32.
        scores: any real numbers; nan is not allowed.
        iou_threshold: boxes are suppressed when their IoU is greater than this, in 0…1.
    """
    order = scores.argsort(descending=True, stable=True)
    return order[_nms_of_sorted(_for_kernel(boxes)[order], iou_threshold)]


def grouped_nms(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, "N"],
    groups: Int[Tensor, "N"],
    iou_threshold: float,
) -> Int[Tensor, "K"]:
    """Indices of the boxes that survive `nms` within their own group, by falling score.

    Args:
        boxes: in pixels; half precision is measured in float32.
        scores: any real numbers; nan is not allowed.
        groups: any integers; boxes of different groups never suppress each other. A detector
            numbers its groups image × class.
        iou_threshold: boxes are suppressed when their IoU is greater than this, in 0…1.

    Boxes are not shifted apart by group, as torchvision's `batched_nms` does for small inputs: the
    shift loses precision and lets boxes beyond the image edge meet those of another group.
    """
    order = scores.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]  # by group, within a group by falling score
    sizes = groups[order].unique_consecutive(return_counts=True)[1]
    kept_ranks = []
    start = 0
    for group_boxes in _for_kernel(boxes)[order].split(sizes.tolist()):
        kept_ranks.append(_nms_of_sorted(group_boxes, iou_threshold) + start)
        start += len(group_boxes)
    if not kept_ranks:
        return order
    kept = order[torch.cat(kept_ranks)].sort().values
    return kept[scores[kept].argsort(descending=True, stable=True)]


def _nms_of_sorted(boxes: Tensor, iou_threshold: float) -> Tensor:
    # The kernel sorts by score: ranks as scores keep the order that is there, ties included.
    ranks = torch.arange(len(boxes), 0, -1, dtype=boxes.dtype, device=boxes.device)
    # The kernel compares the quotient with a float64 threshold, and the float32 of 3/5 is more than
    # the float64 0.6. Rounded alike, an IoU of exactly the threshold is not greater than it.
    threshold = torch.tensor(iou_threshold, dtype=boxes.dtype).item()
    kept: Tensor = torchvision.ops.nms(boxes, ranks, threshold)
    return kept


def _for_kernel(boxes: Tensor) -> Tensor:
    return boxes if boxes.dtype == torch.float64 else boxes.float()
