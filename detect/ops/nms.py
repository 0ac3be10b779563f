"""Non-maximum suppression: greedy, exact, and grouped so that groups never touch.

The greedy rule: take the boxes by falling score, ties to the lower index; a box is suppressed when
an already kept box of its group overlaps it with IoU > threshold.
"""

from typing import Literal

import torch
import torchvision
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detect.ops.iou import box_iou

NMSMethod = Literal["auto", "kernel", "matrix"]

# Pairs of boxes that are compared at a time by `matrix`: about half a gigabyte.
MATRIX_PAIRS = 16_000_000


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
    *,
    method: NMSMethod = "auto",
) -> Int[Tensor, "K"]:
    """Indices of the boxes that survive `nms` within their own group, by falling score.

    Args:
        boxes: in pixels; half precision is measured in float32.
        scores: any real numbers; nan is not allowed.
        groups: any integers; boxes of different groups never suppress each other. A detector
            numbers its groups image × class.
        iou_threshold: boxes are suppressed when their IoU is greater than this, in 0…1.
        method: `kernel` calls torchvision's kernel for one group after another; `matrix` treats all
            groups at once; `auto` takes the kernel on CPUs, where its calls cost next to nothing,
            and the matrix elsewhere.

    Boxes are not shifted apart by group, as torchvision's `batched_nms` does for small inputs: the
    shift loses precision and lets boxes beyond the image edge meet those of another group.
    """
    order = scores.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]  # by group, within a group by falling score
    if len(order) == 0:
        return order
    sizes = groups[order].unique_consecutive(return_counts=True)[1]
    sorted_boxes = _for_kernel(boxes)[order]
    if method == "matrix" or (method == "auto" and boxes.device.type != "cpu"):
        is_kept = _survivors(sorted_boxes, sizes, iou_threshold)
    else:
        is_kept = _survivors_by_kernel(sorted_boxes, sizes, iou_threshold)
    kept = order[is_kept].sort().values
    return kept[scores[kept].argsort(descending=True, stable=True)]


def _survivors_by_kernel(
    boxes: Float[Tensor, "N 4"], sizes: Int[Tensor, "G"], iou_threshold: float
) -> Bool[Tensor, "N"]:
    is_kept = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    start = 0
    for group in boxes.split(sizes.tolist()):
        is_kept[_nms_of_sorted(group, iou_threshold) + start] = True
        start += len(group)
    return is_kept


def _survivors(
    boxes: Float[Tensor, "N 4"], sizes: Int[Tensor, "G"], iou_threshold: float
) -> Bool[Tensor, "N"]:
    """All groups at once, in chunks of groups of like size.

    A box survives if no survivor of higher score overlaps it too much. Beginning with all boxes as
    survivors, this rule is applied until nothing changes. After n rounds the first n boxes of every
    group are decided, most of the others, too; the fixed point is the greedy result.
    """
    threshold = _rounded(iou_threshold, boxes.dtype)
    is_kept = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    starts = sizes.cumsum(0) - sizes
    by_size = sizes.argsort(descending=True)
    remaining = sizes[by_size].tolist()
    first = 0
    while first < len(remaining):
        length = remaining[first]
        count = max(1, MATRIX_PAIRS // length**2)
        chosen = by_size[first : first + count]
        first += count
        ranks = torch.arange(length, device=boxes.device)
        is_there = ranks < sizes[chosen][:, None]  # [G, L]
        rows = torch.where(is_there, starts[chosen][:, None] + ranks, 0)
        grouped = boxes[rows]  # [G, L, 4]
        suppresses = (box_iou(grouped, grouped) > threshold).triu(diagonal=1)
        suppresses &= is_there[:, :, None] & is_there[:, None, :]
        survives = is_there
        while True:
            refined = is_there & ~(suppresses & survives[:, :, None]).any(dim=1)
            if torch.equal(refined, survives):
                break
            survives = refined
        is_kept[rows[survives]] = True
    return is_kept


def _nms_of_sorted(boxes: Tensor, iou_threshold: float) -> Tensor:
    # The kernel sorts by score: ranks as scores keep the order that is there, ties included.
    ranks = torch.arange(len(boxes), 0, -1, dtype=boxes.dtype, device=boxes.device)
    kept: Tensor = torchvision.ops.nms(boxes, ranks, _rounded(iou_threshold, boxes.dtype))
    return kept


def _rounded(iou_threshold: float, dtype: torch.dtype) -> float:
    # The kernel compares the quotient with a float64 threshold, and the float32 of 3/5 is more than
    # the float64 0.6. Rounded alike, an IoU of exactly the threshold is not greater than it.
    return torch.tensor(iou_threshold, dtype=dtype).item()


def _for_kernel(boxes: Tensor) -> Tensor:
    return boxes if boxes.dtype == torch.float64 else boxes.float()
