"""The pairs of boxes of two sets with at least some IoU, for millions of boxes in each.

Two boxes of IoU t or more differ in width and in height by a factor of at most 1/t, and their
corners by at most 1 − t of a side. So the boxes of one set are put on shelves: by group, by the
powers of two below their width and height, and by strips of such a height, on a shelf by x1. For
each box of the other set, the IoU is measured only with boxes within reach on these shelves.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detect.ops.iou import elementwise_box_iou

# Pairs measured at a time, with about 150 bytes of temporaries each: 160 MB on a CPU, 1.3 GB
# elsewhere.
PAIRS_AT_A_TIME_CPU = 2**20
PAIRS_AT_A_TIME = 2**23

SLACK = 1e-5  # the search, in float64, takes a threshold lower by this share: IoU is rounded

EXPONENTS = 2**13  # more than a float64 has


class OverlappingPairs(NamedTuple):
    """Pairs by rising index of their first box, then of their second.

    Attributes:
        first: `[P]`; indices into `a`.
        second: `[P]`; indices into `b`.
        overlaps: `[P]`; their IoU.
    """

    first: Int[Tensor, "P"]
    second: Int[Tensor, "P"]
    overlaps: Float[Tensor, "P"]


def iou_at_least(
    a: Float[Tensor, "N 4"],
    b: Float[Tensor, "M 4"],
    threshold: float,
    *,
    groups_a: Int[Tensor, "N"] | None = None,
    groups_b: Int[Tensor, "M"] | None = None,
) -> OverlappingPairs:
    """All pairs of a box of `a` and one of `b` whose IoU is `threshold` or more.

    They are those of `box_iou(a, b) >= threshold`, to the last bit. Only pairs of boxes of similar
    size near each other are measured: in the worst case, all. Without gradient.

    Args:
        a: in pixels, finite, as are their areas; half precision is measured in float32.
        b: likewise.
        threshold: more than 0, at most 1.
        groups_a: any integers; pairs are only found within equal groups, such as images.
        groups_b: the groups of `b`; both are given or neither.

    Raises:
        ValueError: the threshold is not in (0, 1], or the groups of one side are missing.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: expected more than 0 and at most 1, found {threshold}")
    if (groups_a is None) != (groups_b is None):
        raise ValueError("groups_a and groups_b: expected both or neither")
    if groups_a is None or groups_b is None:
        groups_a, groups_b = (
            torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device) for boxes in (a, b)
        )
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    a, b = a.detach().to(dtype), b.detach().to(dtype)
    shelves = _Shelves(b, groups_b)
    indices = _with_sides(a)
    # neighbors search the same shelves, which are in the cache then
    indices = indices[a[indices, 1].argsort()]
    indices = indices[groups_a[indices].argsort(stable=True)]
    found = [(a.new_zeros(0, dtype=torch.int64), a.new_zeros(0, dtype=torch.int64), a.new_zeros(0))]
    for first, second in shelves.near(a.double(), groups_a, indices, threshold * (1 - SLACK)):
        overlaps = elementwise_box_iou(a[first], b[second])
        reached = overlaps >= threshold
        found.append((first[reached], second[reached], overlaps[reached]))
    first, second, overlaps = (torch.cat(column) for column in zip(*found, strict=True))
    order = (first * max(1, len(b)) + second).argsort()
    return OverlappingPairs(first[order], second[order], overlaps[order])


def _with_sides(boxes: Float[Tensor, "N 4"]) -> Int[Tensor, "K"]:
    """Finite boxes with width and height: others overlap nothing."""
    return ((boxes[:, 2:] > boxes[:, :2]).all(dim=1) & boxes.isfinite().all(dim=1)).nonzero()[:, 0]


class _Shelves:
    """The boxes of one side, where those of the other find them.

    Groups, strips and the like are replaced by their ranks, so that the place of a box is one
    integer: its shelf, then the rank of its x1.
    """

    def __init__(self, boxes: Float[Tensor, "M 4"], groups: Int[Tensor, "M"]) -> None:
        indices = _with_sides(boxes)
        x1, y1, x2, y2 = boxes[indices].double().unbind(dim=1)
        # a side is at least half of 2^exponent, and less than it
        exponents_x, exponents_y = torch.frexp(x2 - x1)[1], torch.frexp(y2 - y1)[1]
        classes, class_ranks = (exponents_x.long() * EXPONENTS + exponents_y).unique(
            return_inverse=True
        )
        class_exponents_y = (classes + EXPONENTS // 2) % EXPONENTS - EXPONENTS // 2
        class_exponents_x = (classes - class_exponents_y) // EXPONENTS
        self.classes: list[list[int]] = torch.stack(
            (class_exponents_x, class_exponents_y), dim=1
        ).tolist()
        heights = y1.new_tensor([_power_of_two(exponent) for _, exponent in self.classes])
        # by a power of two, so that nothing is rounded but down
        strips, strip_ranks = (y1 / heights[class_ranks]).floor().unique(return_inverse=True)
        rows, row_ranks = (class_ranks * len(strips) + strip_ranks).unique(return_inverse=True)
        self.groups, group_ranks = groups[indices].unique(return_inverse=True)
        self.num_rows = len(rows)
        self.shelves, shelf_ranks = (group_ranks * len(rows) + row_ranks).unique(
            return_inverse=True
        )
        self.x1, x1_ranks = x1.unique(return_inverse=True)
        self.places, order = (shelf_ranks * len(self.x1) + x1_ranks).sort()
        self.indices = indices[order]
        # the rows of a class lie together, by rising strip
        self.strips = strips[rows % max(1, len(strips))]
        edges = torch.arange(len(classes) + 1, device=boxes.device) * len(strips)
        self.first_rows: list[int] = torch.searchsorted(rows, edges).tolist()

    def near(
        self,
        boxes: Float[Tensor, "N 4"],
        groups: Int[Tensor, "N"],
        indices: Int[Tensor, "K"],
        threshold: float,
    ) -> Iterator[tuple[Int[Tensor, "P"], Int[Tensor, "P"]]]:
        """Pairs of `boxes` at `indices` (float64) with those here that may reach the IoU."""
        ranks, exists = _find(self.groups, groups[indices])
        indices, ranks = indices[exists], ranks[exists]
        x1, y1, x2, y2 = boxes[indices].unbind(dim=1)
        fits_x = _fitting(x2 - x1, {x for x, _ in self.classes}, threshold)
        fits_y = _fitting(y2 - y1, {y for _, y in self.classes}, threshold)
        for number, (exponent_x, exponent_y) in enumerate(self.classes):
            chosen = (fits_x[exponent_x] & fits_y[exponent_y]).nonzero().flatten()
            if len(chosen) == 0:
                continue
            first_row, end_row = self.first_rows[number : number + 2]
            low, high = _reach(y1[chosen], y2[chosen], exponent_y, threshold)
            height = _power_of_two(exponent_y)
            strips = self.strips[first_row:end_row]
            rows = first_row + torch.searchsorted(strips, (low / height).floor())
            end_rows = first_row + torch.searchsorted(strips, (high / height).floor(), right=True)
            low, high = _reach(x1[chosen], x2[chosen], exponent_x, threshold)
            low_ranks = torch.searchsorted(self.x1, low)
            high_ranks = torch.searchsorted(self.x1, high, right=True)
            for owners, offsets in _spread((end_rows - rows).clamp(min=0)):
                places, exists = _find(
                    self.shelves, ranks[chosen[owners]] * self.num_rows + rows[owners] + offsets
                )
                owners, places = owners[exists], places[exists] * len(self.x1)
                starts = torch.searchsorted(self.places, places + low_ranks[owners])
                ends = torch.searchsorted(self.places, places + high_ranks[owners])
                owners = indices[chosen[owners]]
                for lookers, distances in _spread((ends - starts).clamp(min=0)):
                    yield owners[lookers], self.indices[starts[lookers] + distances]


def _find(values: Int[Tensor, "K"], wanted: Int[Tensor, "N"]) -> tuple[Tensor, Tensor]:
    """The places of wanted numbers among sorted ones, and whether they are there."""
    places = torch.searchsorted(values, wanted)
    if len(values) == 0:
        return places, torch.zeros_like(places, dtype=torch.bool)
    return places, values[places.clamp(max=len(values) - 1)] == wanted


def _fitting(
    sides: Float[Tensor, "N"], exponents: set[int], threshold: float
) -> dict[int, Bool[Tensor, "N"]]:
    """For each exponent, which sides may reach the threshold with one in [2^(e−1), 2^e)."""
    return {
        exponent: (_power_of_two(exponent) >= threshold * sides)
        & (threshold * _power_of_two(exponent - 1) <= sides)
        for exponent in exponents
    }


def _power_of_two(exponent: int) -> float:
    return math.ldexp(1.0, exponent) if exponent < 1024 else math.inf


def _reach(
    low: Float[Tensor, "N"], high: Float[Tensor, "N"], exponent: int, threshold: float
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Between which coordinates a partner begins whose side is in [2^(e−1), 2^e).

    Both share at least t of either side: so the partner begins at most (1 − t) of its side before
    this one and (1 − t) of this side behind it.
    """
    side = high - low
    most = _power_of_two(exponent)
    least = torch.maximum(low - (1 - threshold) * most, low + threshold * side - most)
    greatest = torch.minimum(low + (1 - threshold) * side, high - threshold * most / 2)
    rounding = (low.abs() + high.abs() + most) * 1e-15
    return least - rounding, greatest + rounding


def _spread(counts: Int[Tensor, "N"]) -> Iterator[tuple[Int[Tensor, "P"], Int[Tensor, "P"]]]:
    """Each index as often as counted, and how often it came before, in chunks of bounded length."""
    most = PAIRS_AT_A_TIME_CPU if counts.device.type == "cpu" else PAIRS_AT_A_TIME
    ends = counts.cumsum(dim=0)
    starts = ends - counts
    total = int(ends[-1]) if len(ends) > 0 else 0
    for begin in range(0, total, most):
        end = min(begin + most, total)
        edges = torch.tensor((begin, end - 1), device=counts.device)
        first, last = torch.searchsorted(ends, edges, right=True).tolist()
        part = slice(first, last + 1)
        sizes = ends[part].clamp(max=end) - starts[part].clamp(min=begin)
        owners = torch.arange(first, last + 1, device=counts.device).repeat_interleave(sizes)
        yield owners, torch.arange(begin, end, device=counts.device) - starts[owners]
