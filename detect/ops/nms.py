"""Non-maximum suppression: greedy, exact, and grouped so that groups never touch.

The greedy rule: take the boxes by falling score, ties to the lower index; a box is suppressed when
an already kept box of its group overlaps it with IoU > threshold.

There are three ways to the same result, to the last bit of every IoU:

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

# On a CPU, a call of torchvision's kernel takes 30 to 50 microseconds beside its pairs and a matrix
# half a millisecond beside its own, so few or large groups go to the kernel. Measured on two cores:
# the matrix took a fifth of the time for 40 groups of 16 boxes, half for 40 of 64, as much for 40
# of 128, where its chunks hold only a few groups.
MAX_MATRIX_SIZE = 80
MIN_MATRIX_GROUPS = 10


def nms(
    boxes: Float[Tensor, "N 4"], scores: Float[Tensor, "N"], iou_threshold: float
) -> Int[Tensor, "K"]:
    """Indices of the boxes that survive greedy suppression, by falling score.

    All boxes are one group, so this is the class-agnostic form for one image.

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
        boxes: in pixels; half precision is measured in float32.
        scores: any real numbers; nan is not allowed.
        groups: any integers; boxes of different groups never suppress each other. A detector
            numbers its groups image × class, or by image alone for class-agnostic suppression.
        iou_threshold: boxes are suppressed when their IoU is greater than this, in 0…1.
        max_kept: of each group, the survivors that are wanted, the first ones by score; None takes
            all. The kernel for CPUs stops when it has them.
        method: as in `grouped_nms_mask`.

    On a GPU this waits once, for the number of survivors; `grouped_nms_mask` does not.

    Boxes are not shifted apart by group, as torchvision's `batched_nms` does for small inputs: the
    shift loses precision and lets boxes beyond the image edge meet those of another group.

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

    With `triton` nothing in here waits for the GPU, but for the first call on a device, which
    compiles: the shape of the result is known beforehand.

    Args:
        boxes: in pixels; half precision is measured in float32.
        scores: any real numbers; nan is not allowed.
        groups: as in `grouped_nms`.
        iou_threshold: boxes are suppressed when their IoU is greater than this, in 0…1.
        method: `kernel`, `matrix` or `triton`, as the module says. `auto` takes, on a CPU, the
            matrix for sets of many small groups and the kernel for the others; on a CUDA device,
            `triton` where Triton is installed and works; elsewhere the matrix.

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
        if method == "auto" and boxes.device.type == "cpu":
            is_kept = _survivors_on_a_cpu(boxes, sizes, threshold, max_kept)
        elif method == "kernel":
            is_kept = _survivors_by_kernel(boxes, sizes, threshold, max_kept)
        else:
            is_kept = survivors_by_fixed_point(boxes, sizes, threshold)
    if max_kept is not None:
        is_kept = is_kept & (_rank_in_group(is_kept, groups) <= max_kept)
    return torch.empty_like(is_kept).scatter_(0, order, is_kept)


def _rank_in_group(is_kept: Bool[Tensor, "N"], groups: Int[Tensor, "N"]) -> Int[Tensor, "N"]:
    """How many of a group are kept up to each place, itself included; groups stand together."""
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
) -> Bool[Tensor, "N"]:
    """The groups in parts of like size, each by the method that is the faster for it."""
    is_kept = torch.zeros(len(boxes), dtype=torch.bool)
    coordinates = boxes.T.contiguous()  # [4, N]
    for_kernel = [(sizes > MAX_MATRIX_SIZE).nonzero().flatten()]
    limits = {"max_cells": pairs_at_a_time(boxes.device), "max_size": MAX_MATRIX_SIZE}
    for part in padded_groups(sizes, **limits):
        if len(part.members) >= MIN_MATRIX_GROUPS:
            keep_of_part(coordinates, part, threshold, is_kept)
        else:
            for_kernel.append(part.members)
    members = torch.cat(for_kernel)
    starts = (sizes.cumsum(0) - sizes)[members]
    _keep_by_kernel(boxes, starts.tolist(), sizes[members].tolist(), threshold, max_kept, is_kept)
    return is_kept


def _survivors_by_kernel(
    boxes: Float[Tensor, "N 4"],
    sizes: Int[Tensor, "G"],
    threshold: float,
    max_kept: int | None,
) -> Bool[Tensor, "N"]:
    if boxes.device.type != "cpu":
        # elsewhere torchvision multiplies instead of dividing, so that it decides ties otherwise
        raise ValueError(f"method 'kernel' needs boxes on the CPU, found {boxes.device}")
    is_kept = torch.zeros(len(boxes), dtype=torch.bool)
    starts = sizes.cumsum(0) - sizes
    _keep_by_kernel(boxes, starts.tolist(), sizes.tolist(), threshold, max_kept, is_kept)
    return is_kept


def _keep_by_kernel(
    boxes: Float[Tensor, "N 4"],
    starts: list[int],
    sizes: list[int],
    threshold: float,
    max_kept: int | None,
    is_kept: Bool[Tensor, "N"],
) -> None:
    """Set `is_kept` at the survivors of the groups with these places, one after another.

    Of each group at least the first `max_kept` are set.
    """
    # The kernel sorts by score: ranks as scores keep the order that is there, ties included.
    ranks = torch.arange(len(boxes), 0, -1, dtype=boxes.dtype)
    kept = [ranks[:0].long()]
    for start, size in zip(starts, sizes, strict=True):
        wanted = size if max_kept is None else max_kept
        group = boxes[start : start + size]
        kept.append(_first_by_kernel(group, ranks[:size], threshold, wanted).add_(start))
    is_kept[torch.cat(kept)] = True


def _first_by_kernel(
    boxes: Float[Tensor, "N 4"], ranks: Float[Tensor, "N"], threshold: float, wanted: int
) -> Int[Tensor, "K"]:
    """Numbers of the survivors of a group in their order: at least `wanted`, if there are so many.

    The best boxes decide about themselves, so twice as many as are wanted are looked at first, and
    twice as many again where too few of those survive.
    """
    # the operator itself: what torchvision wraps around it costs as much as a small group
    survivors = torch.ops.torchvision.nms
    length = 2 * wanted
    found: Tensor = survivors(boxes[:length], ranks[:length], threshold)
    while len(found) < wanted and length < len(boxes):
        length *= 2
        found = survivors(boxes[:length], ranks[:length], threshold)
    return found


def _rounded(iou_threshold: float, dtype: torch.dtype) -> float:
    # The kernel compares the quotient with a float64 threshold, and the float32 of 3/5 is more than
    # the float64 0.6. Rounded alike, an IoU of exactly the threshold is not greater than it.
    return torch.tensor(iou_threshold, dtype=dtype).item()
