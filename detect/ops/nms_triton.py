"""Greedy suppression on a GPU without synchronization: which kernels run, and on what.

The marks of all pairs are set by work items of like size, whatever the sizes of the groups; then
groups are swept side by side. Where the marks of all pairs would take more than `MARK_BYTES`, the
boxes are cut into panels: marks are only set within panels, and the survivors of one suppress the
boxes of the panels behind it, box against box, before the next one is swept. The numbers of groups
and survivors never leave the GPU.
"""

import functools
import importlib
import os
import warnings
from types import ModuleType

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MARK_BYTES = 2**28  # with fewer than 46,000 boxes there is one panel
# Smaller panels would need too many launches: more than 2 million boxes take 128 bytes each.
MIN_PANEL = 1024

BLOCK = 64  # boxes, the bits of a word
WORDS_AT_A_TIME = 8
BLOCKS_AT_A_TIME = 16
ROWS_AT_A_TIME = 1024


def survivors_by_triton(
    boxes: Float[Tensor, "N 4"], groups: Int[Tensor, "N"], threshold: float
) -> Bool[Tensor, "N"]:
    """Which boxes survive, for boxes that lie group by group, each by falling score.

    Args:
        boxes: in pixels, float32 or float64, on a CUDA device. On a CPU, Triton must interpret the
            kernels (the environment variable TRITON_INTERPRET is 1), which is slow.
        groups: equal integers lie together.
        threshold: representable in the type of `boxes`; a greater IoU suppresses.

    Raises:
        ValueError: the boxes are where no kernel runs, or Triton is missing.
    """
    kernels = _kernels()
    if kernels is None:
        raise ValueError("method 'triton' needs the package triton, which cannot be imported")
    is_interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if boxes.device.type != "cuda" and not is_interpreted:
        raise ValueError(f"method 'triton' needs boxes on a CUDA device, found {boxes.device}")
    is_kept = torch.zeros(len(boxes), dtype=torch.int8, device=boxes.device)
    if len(boxes) > 0:
        with torch.cuda.device_of(boxes):
            _launch(kernels, boxes, groups, threshold, is_kept)
    return is_kept.view(torch.bool)


@functools.cache
def runs_on(device: torch.device) -> bool:
    """Whether the kernels compile and run there; asks once, with a first small run."""
    if device.type != "cuda" or _kernels() is None:
        return False
    try:
        box = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).to(device)
        survivors_by_triton(box, torch.zeros(1, dtype=torch.int64, device=device), 0.5)
    except Exception as error:  # a missing compiler, a GPU that is too old: Triton has many ways
        warnings.warn(
            f"the suppression kernels do not run on {device}, so slower ones are taken: {error}",
            stacklevel=2,
        )
        return False
    return True


@functools.cache
def _kernels() -> ModuleType | None:
    try:
        return importlib.import_module("detect.ops.nms_triton_kernels")
    except ImportError:
        return None


def _launch(
    kernels: ModuleType,
    boxes: Float[Tensor, "N 4"],
    groups: Int[Tensor, "N"],
    threshold: float,
    is_kept: Int[Tensor, "N"],
) -> None:
    num_boxes = len(boxes)
    num_blocks = -(-num_boxes // BLOCK)
    num_words = min(max(MARK_BYTES * 8 // num_boxes, MIN_PANEL) // BLOCK, num_blocks)
    coordinates = boxes.T.contiguous()
    firsts, ends = _bounds(groups)
    # from a number on the CPU to a tensor by a fill: a copy would wait
    limit = torch.full((1,), threshold, dtype=boxes.dtype, device=boxes.device)
    marks = torch.empty(num_blocks * num_words * BLOCK, dtype=torch.int64, device=boxes.device)
    survivors = torch.empty(num_blocks, dtype=torch.int64, device=boxes.device)
    is_removed = torch.zeros_like(is_kept)
    is_double = boxes.dtype == torch.float64
    grid = (num_blocks, -(-num_words // WORDS_AT_A_TIME))
    kernels.mark[grid](
        coordinates, ends, limit, marks, num_boxes, num_words,
        words_at_a_time=WORDS_AT_A_TIME, is_double=is_double, enable_fp_fusion=False,
    )  # fmt: skip
    for first_block in range(0, num_blocks, num_words):
        last_block = min(first_block + num_words, num_blocks)
        kernels.sweep[(last_block - first_block,)](
            marks, firsts, ends, is_removed, survivors, is_kept, num_boxes, first_block, num_words,
            blocks_at_a_time=BLOCKS_AT_A_TIME, enable_fp_fusion=False,
        )  # fmt: skip
        if last_block == num_blocks:
            return
        panel = num_words * BLOCK
        grid = (num_blocks - last_block, -(-panel // ROWS_AT_A_TIME))
        kernels.remove[grid](
            coordinates, firsts, ends, limit, is_kept, is_removed, num_boxes,
            first_block * BLOCK, last_block * BLOCK,
            rows_at_a_time=ROWS_AT_A_TIME, is_double=is_double, enable_fp_fusion=False,
        )  # fmt: skip


def _bounds(groups: Int[Tensor, "N"]) -> tuple[Int[Tensor, "N"], Int[Tensor, "N"]]:
    """Of each box, where its group begins, and where the next one begins."""
    places = torch.arange(len(groups), device=groups.device)
    changes = groups[1:] != groups[:-1]
    edge = changes.new_ones(1)
    firsts = torch.where(torch.cat((edge, changes)), places, 0).cummax(0).values
    ends = torch.where(torch.cat((changes, edge)), places + 1, len(groups))
    return firsts.int(), ends.flip(0).cummin(0).values.flip(0).int()
