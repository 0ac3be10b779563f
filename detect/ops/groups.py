"""Groups of boxes that share an integer, such as class and image: order, parts of like size."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def by_group_and_score(groups: Int[Tensor, "N"], scores: Float[Tensor, "N"]) -> Int[Tensor, "N"]:
    """Indices by rising group, within a group by falling score, ties to the lower index."""
    order = scores.argsort(descending=True, stable=True)
    return order[groups[order].argsort(stable=True)]


class PaddedGroups(NamedTuple):
    """Groups of like size as the rows of a rectangle.

    Attributes:
        members: `[G]`; indices of the groups.
        rows: `[G, L]`; the place of each of their boxes in the order by group, 0 for padding.
        valid: `[G, L]`; whether there is a box.
    """

    members: Int[Tensor, "G"]
    rows: Int[Tensor, "G L"]
    valid: Bool[Tensor, "G L"]


def padded_groups(
    sizes: Int[Tensor, "G"], max_cells: int, *, cells_per_box: int = 0, max_size: int | None = None
) -> Iterator[PaddedGroups]:
    """The groups in parts of like size, the largest first; synchronizes once.

    Groups of one part differ in size by less than a third, beyond the smallest sizes, so there is
    little padding.

    Args:
        sizes: of contiguous groups.
        max_cells: of a part, unless it is one group.
        cells_per_box: of a padded group; 0 stands for its size, which makes a matrix of pairs.
        max_size: larger groups are left out.
    """
    starts = sizes.cumsum(0) - sizes
    by_size = sizes.argsort(descending=True, stable=True)
    remaining: list[int] = sizes[by_size].tolist()
    first = 0 if max_size is None else sum(size > max_size for size in remaining)
    while first < len(remaining) and remaining[first] > 0:
        length = remaining[first]
        most = max(1, max_cells // (length * (cells_per_box or length)))
        last = first + 1
        while (
            last < len(remaining)
            and last - first < most
            and remaining[last] > 0
            and 4 * remaining[last] + 16 > 3 * length
        ):
            last += 1
        members = by_size[first:last]
        ranks = torch.arange(length, device=sizes.device)
        valid = ranks < sizes[members, None]
        rows = torch.where(valid, starts[members, None] + ranks, 0)
        yield PaddedGroups(members, rows, valid)
        first = last
