"""Which of the K boxes that a localizer predicts stands for which object of an image."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detect.ops import box_area, box_iou
from detect.structures import GroundTruth

Assignment = Literal["left_to_right", "by_size", "hungarian"]

# Weight of a class's probability against the IoU in the cost of a pair, which has both in 0…1.
CLASS_COST = 1.0


def choose_objects(truth: GroundTruth, count: int) -> Int[Tensor, "N"]:
    """The objects that K boxes can stand for: all, or the K largest, in their order."""
    if len(truth) <= count:
        return torch.arange(len(truth), device=truth.boxes.device)
    return box_area(truth.boxes).argsort(descending=True, stable=True)[:count].sort().values


def ordered_slots(truth: GroundTruth, count: int, assignment: Assignment) -> Int[Tensor, "N"]:
    """The objects of slots 0 … N−1, N ≤ K; the slots behind them stand for nothing.

    Args:
        truth: of the image.
        count: K.
        assignment: `left_to_right` by the center, `by_size` the largest first.
    """
    chosen = choose_objects(truth, count)
    boxes = truth.boxes[chosen]
    if assignment == "by_size":
        return chosen[box_area(boxes).argsort(descending=True, stable=True)]
    return chosen[(boxes[:, 0] + boxes[:, 2]).argsort(stable=True)]


@torch.no_grad()
def hungarian_slots(
    truth: GroundTruth, boxes: Float[Tensor, "K 4"], probabilities: Float[Tensor, "K C"]
) -> Int[Tensor, "N 2"]:
    """Pairs (slot, object) of least total cost: 1 − IoU − probability of the object's class.

    The assignment of Kuhn (1955), as set prediction has it (Carion et al. 2020, section 3.1).

    Args:
        truth: of the image.
        boxes: that the slots predict, in pixels.
        probabilities: that they give each class.
    """
    chosen = choose_objects(truth, len(boxes))
    overlap = box_iou(boxes, truth.boxes[chosen])  # [K, N]
    cost = -overlap - CLASS_COST * probabilities[:, truth.labels[chosen]]
    slots, objects = linear_sum_assignment(cost.cpu().numpy())
    pairs = torch.stack((torch.as_tensor(slots), torch.as_tensor(objects)), dim=1)
    pairs = pairs.to(boxes.device)
    return torch.stack((pairs[:, 0], chosen[pairs[:, 1]]), dim=1)
