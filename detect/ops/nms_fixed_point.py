"""Greedy suppression in plain torch: many groups at once, as the fixed point of a rule.

A box survives if no survivor of higher score overlaps it too much. Starting with all boxes as
survivors, apply this rule until nothing changes: after n rounds at least the first n boxes of every
group are decided, and the fixed point is the greedy result.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detect.ops.groups import PaddedGroups, padded_groups

# Groups compared at a time, times the square of their size: twice their pairs. On a CPU the
# temporaries stay in its cache, and just below 2^16 torch uses one thread: on busy cores, several
# would wait for one another a hundred times as long as they work. Elsewhere the temporaries take
# about 300 MB.
MATRIX_PAIRS_CPU = 2**16 - 2**10
MATRIX_PAIRS = 2**24


def survivors_by_fixed_point(
    boxes: Float[Tensor, "N 4"], sizes: Int[Tensor, "G"], threshold: float
) -> Bool[Tensor, "N"]:
    """Which boxes survive, for boxes that lie group by group, each by falling score.

    Args:
        boxes: in pixels, float32 or float64.
        sizes: of the groups; their sum is N.
        threshold: representable in the type of `boxes`; a greater IoU suppresses.
    """
    is_kept = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    coordinates = boxes.T.contiguous()  # [4, N]
    for part in padded_groups(sizes, pairs_at_a_time(boxes.device)):
        keep_of_part(coordinates, part, threshold, is_kept)
    return is_kept


def pairs_at_a_time(device: torch.device) -> int:
    """Pairs to compare at a time on `device`."""
    return MATRIX_PAIRS_CPU if device.type == "cpu" else MATRIX_PAIRS


def keep_of_part(
    coordinates: Float[Tensor, "4 N"],
    part: PaddedGroups,
    threshold: float,
    is_kept: Bool[Tensor, "N"],
) -> None:
    """Set `is_kept` at the survivors of the groups of one part."""
    most = pairs_at_a_time(coordinates.device)
    if part.rows.shape[1] ** 2 > most:  # a single group then
        rows = part.rows.flatten()
        is_kept[rows[_survivors_in_blocks(coordinates[:, rows], threshold, most)]] = True
        return
    # padding suppresses nothing: it has no area
    # (index_select and the like, because indexing uses threads for even a thousand boxes)
    padded = coordinates.index_select(1, part.rows.flatten()).reshape(4, *part.rows.shape)
    padded = torch.where(part.valid, padded, 0)  # [4, G, L]
    survives = _survivors(padded, threshold)
    is_kept[part.rows.masked_select(survives & part.valid)] = True


def _survivors(coordinates: Float[Tensor, "4 G L"], threshold: float) -> Bool[Tensor, "G L"]:
    shape = coordinates.shape[1:]
    length = shape[1]
    # each pair once: every box with the half of the others that follow it in a circle
    circle = torch.cat((coordinates, coordinates), dim=2)[..., 1 : length + length // 2]
    followers = circle.unfold(2, length // 2, 1) if length > 1 else circle[..., None, :0]
    exceeds = _exceeds(coordinates[..., None], followers, threshold)  # [G, L, L // 2]
    group, place, distance = exceeds.nonzero().unbind(dim=1)
    other = (place + distance + 1) % length
    first, second = torch.minimum(place, other), torch.maximum(place, other)
    # few pairs overlap that much, so the rest of the work is done with them alone
    first, second = group * length + first, group * length + second
    survives = torch.ones(shape.numel(), dtype=torch.bool, device=coordinates.device)
    while True:
        refined = torch.ones_like(survives)
        refined[second.masked_select(survives.gather(0, first))] = False
        if torch.equal(refined, survives):
            return survives.reshape(shape)
        survives = refined


def _survivors_in_blocks(
    coordinates: Float[Tensor, "4 N"], threshold: float, max_pairs: int
) -> Int[Tensor, "K"]:
    """Of one group too large for a matrix: the survivors of a block suppress all behind it."""
    num_rows = math.isqrt(max_pairs)
    remaining = torch.arange(coordinates.shape[1], device=coordinates.device)
    kept = [remaining[:0]]
    while len(remaining) > 0:
        block, remaining = remaining[:num_rows], remaining[num_rows:]
        block = block[_survivors(coordinates[:, None, block], threshold)[0]]
        kept.append(block)
        behind = [
            ~_exceeds(coordinates[:, block, None], coordinates[:, None, part], threshold).any(dim=0)
            for part in remaining.split(max_pairs // num_rows)
        ]
        if behind:
            remaining = remaining[torch.cat(behind)]
    return torch.cat(kept)


def _exceeds(
    a: Float[Tensor, "4 *#pairs"], b: Float[Tensor, "4 *#pairs"], threshold: float
) -> Bool[Tensor, "*pairs"]:
    """Whether IoU > threshold: the same operations in the same order as torchvision's kernel."""
    width = torch.minimum(a[2], b[2]).sub_(torch.maximum(a[0], b[0])).clamp_(min=0)
    height = torch.minimum(a[3], b[3]).sub_(torch.maximum(a[1], b[1])).clamp_(min=0)
    intersection = width.mul_(height)
    areas_a = (a[2] - a[0]) * (a[3] - a[1])
    areas_b = (b[2] - b[0]) * (b[3] - b[1])
    union = (areas_a + areas_b).sub_(intersection)
    return intersection.div_(union) > threshold  # 0/0 is nan, and nan is not greater
