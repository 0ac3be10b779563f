"""Non-maximum suppression: greedy, exact, and grouped so that groups never touch.

The greedy rule: take the boxes by falling score, ties to the lower index; a box is suppressed when
a kept box of its group overlaps it with IoU > threshold. Three methods give the same result, to the
last bit of every IoU:

- `kernel`: torchvision's kernel for CPUs, once for each group;
- `matrix`: plain torch, groups of like size at once (`detect.ops.nms_fixed_point`);
- `triton`: our kernels for GPUs, all groups at once (`detect.ops.nms_triton`).

The IoU is computed in float32, or in float64 for boxes of that type, and compared with the
threshold rounded to that type, so that an IoU of exactly 3/5 is not greater than 0.6.
"""

from typing import Literal, get_args

import torch
import torchvision  # noqa: F401  (registers the operator)
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detect.ops.groups import padded_groups
from detect.ops.nms_fixed_point import keep_of_part, pairs_at_a_time, survivors_by_fixed_point
from detect.ops.nms_triton import runs_on, survivors_by_triton

NMSMethod = Literal["auto", "kernel", "matrix", "triton"]

# On a CPU, a call of torchvision's kernel has an overhead of 30 to 50 microseconds and a matrix one
# of half a millisecond, so few or large groups go to the kernel. Measured on two cores: the matrix
# took a fifth of the time for 40 groups of 16 boxes, half for 40 of 64, as much for 40 of 128.
MAX_MATRIX_SIZE = 80
MIN_MATRIX_GROUPS = 10


def nms(
    boxes: Float[Tensor, "N 4"], scores: Float[Tensor, "N"], iou_threshold: float
) -> Int[Tensor, "K"]:
    """Indices of the boxes that survive greedy suppression as one group, by falling score.

    Args:
        boxes: in pixels; half precision is measured in float32.
        scores: any real numbers; nan is not allowed.
        iou_threshold: boxes are suppressed when their IoU is greater than this, in 0…1.
    """
    groups = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    return grouped_nms(boxes, scores, groups, iou_threshold)


def grouped_nms(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, "N"],
    groups: Int[Tensor, "N"],
    iou_threshold: float,
    *,
    max_kept: int | None = None,
    method: NMSMethod = "auto",
) -> Int[Tensor, "K"]:
    """Indices of the boxes that survive `nms` within their own group, by falling score.

    Args:
        boxes: as in `nms`.
        scores: as in `nms`.
        groups: any integers; boxes of different groups never suppress each other. A detector
            numbers its groups image × class, or by image for class-agnostic suppression.
        iou_threshold: as in `nms`.
        max_kept: survivors wanted of each group, the best ones; None takes all. The kernel for
            CPUs stops when it has them.
        method: as in `grouped_nms_mask`.

    On a GPU this synchronizes once, for the number of survivors; `grouped_nms_mask` does not. Boxes
    are not shifted apart by group, as in torchvision's `batched_nms` for small inputs: that loses
    precision and lets boxes beyond the image edge meet those of another group.

    Raises:
        ValueError: the method is unknown or does not run on the device of the boxes.
    """
    by_score = scores.argsort(descending=True, stable=True)
    is_kept = _keep_of_sorted(
        boxes.index_select(0, by_score), groups.gather(0, by_score), iou_threshold, method, max_kept
    )
    return by_score.masked_select(is_kept)


def grouped_nms_mask(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, "N"],
    groups: Int[Tensor, "N"],
    iou_threshold: float,
    *,
    method: NMSMethod = "auto",
) -> Bool[Tensor, "N"]:
    """Which boxes survive `nms` within their own group.

    With `triton` nothing synchronizes with the GPU, except the first call on a device, which
    compiles: the shape of the result is known beforehand.

    Args:
        boxes: as in `nms`.
        scores: as in `nms`.
        groups: as in `grouped_nms`.
        iou_threshold: as in `nms`.
        method: `kernel`, `matrix` or `triton`, as the module says. `auto` takes, on a CPU, the
            matrix for many small groups and the kernel for the others; on a CUDA device, `triton`
            where Triton is installed and works; elsewhere the matrix.

    Raises:
        ValueError: the method is unknown or does not run on the device of the boxes.
    """
    by_score = scores.argsort(descending=True, stable=True)
    is_kept = _keep_of_sorted(
        boxes.index_select(0, by_score), groups.gather(0, by_score), iou_threshold, method
    )
    return torch.empty_like(is_kept).scatter_(0, by_score, is_kept)


def _keep_of_sorted(
    boxes: Float[Tensor, "N 4"],
    groups: Int[Tensor, "N"],
    iou_threshold: float,
    method: NMSMethod,
    max_kept: int | None = None,
) -> Bool[Tensor, "N"]:
    """Which boxes survive, for boxes by falling score."""
    if method not in get_args(NMSMethod):
        raise ValueError(f"method: expected one of {get_args(NMSMethod)}, found {method!r}")
    boxes = boxes if boxes.dtype == torch.float64 else boxes.float()
    order = groups.argsort(stable=True)
    boxes, groups = boxes.index_select(0, order), groups.gather(0, order)
    threshold = _rounded(iou_threshold, boxes.dtype)
    if method == "triton" or (method == "auto" and runs_on(boxes.device)):
        is_kept = survivors_by_triton(boxes, groups, threshold)
    else:
        sizes = groups.unique_consecutive(return_counts=True)[1]
        is_on_cpu = boxes.device.type == "cpu"
        if method == "kernel" and not is_on_cpu:
            # elsewhere torchvision multiplies instead of dividing, so ties are decided differently
            raise ValueError(f"method 'kernel' needs boxes on the CPU, found {boxes.device}")
        if method == "kernel" or (method == "auto" and is_on_cpu):
            limit = 0 if method == "kernel" else MAX_MATRIX_SIZE
            is_kept = _survivors_on_a_cpu(boxes, sizes, threshold, max_kept, limit)
        else:
            is_kept = survivors_by_fixed_point(boxes, sizes, threshold)
    if max_kept is not None:
        is_kept = is_kept & (_rank_in_group(is_kept, groups) <= max_kept)
    return torch.empty_like(is_kept).scatter_(0, order, is_kept)


def _rank_in_group(is_kept: Bool[Tensor, "N"], groups: Int[Tensor, "N"]) -> Int[Tensor, "N"]:
    """How many of a group are kept up to and with each place; groups are contiguous."""
    counts = is_kept.cumsum(0)
    is_first = groups != groups.roll(1)
    is_first[:1] = True
    before = torch.where(is_first, counts - is_kept.long(), 0).cummax(0).values
    return counts - before


def _survivors_on_a_cpu(
    boxes: Float[Tensor, "N 4"],
    sizes: Int[Tensor, "G"],
    threshold: float,
    max_kept: int | None,
    max_matrix_size: int,
) -> Bool[Tensor, "N"]:
    """Parts of many groups of like size up to `max_matrix_size` as matrices, others by the kernel.

    Of each group at least the first `max_kept` survivors are found.
    """
    is_kept = torch.zeros(len(boxes), dtype=torch.bool)
    coordinates = boxes.T.contiguous()  # [4, N]
    for_kernel = [(sizes > max_matrix_size).nonzero().flatten()]
    limits = {"max_cells": pairs_at_a_time(boxes.device), "max_size": max_matrix_size}
    for part in padded_groups(sizes, **limits):
        if len(part.members) >= MIN_MATRIX_GROUPS:
            keep_of_part(coordinates, part, threshold, is_kept)
        else:
            for_kernel.append(part.members)
    members = torch.cat(for_kernel)
    starts = (sizes.cumsum(0) - sizes)[members]
    # The kernel sorts by score: ranks as scores keep the present order, ties included.
    ranks = torch.arange(len(boxes), 0, -1, dtype=boxes.dtype)
    kept = [ranks[:0].long()]
    for start, size in zip(starts.tolist(), sizes[members].tolist(), strict=True):
        wanted = size if max_kept is None else max_kept
        group = boxes[start : start + size]
        kept.append(_first_by_kernel(group, ranks[:size], threshold, wanted).add_(start))
    is_kept[torch.cat(kept)] = True
    return is_kept


def _first_by_kernel(
    boxes: Float[Tensor, "N 4"], ranks: Float[Tensor, "N"], threshold: float, wanted: int
) -> Int[Tensor, "K"]:
    """Numbers of a group's survivors in their order, at least `wanted` if there are that many.

    Worse boxes never affect better ones: begin with twice as many as wanted, and double the number
    while too few survive.
    """
    # the operator itself: torchvision's wrapper costs as much as a small group
    survivors = torch.ops.torchvision.nms
    length = 2 * wanted
    found: Tensor = survivors(boxes[:length], ranks[:length], threshold)
    while len(found) < wanted and length < len(boxes):
        length *= 2
        found = survivors(boxes[:length], ranks[:length], threshold)
    return found


def _rounded(iou_threshold: float, dtype: torch.dtype) -> float:
    # The kernel compares with a float64 threshold, and the float32 of 3/5 is more than the float64
    # 0.6. Rounded alike, an IoU of exactly the threshold is not greater than it.
    return torch.tensor(iou_threshold, dtype=dtype).item()
