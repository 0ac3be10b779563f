"""Average precision of many ranked lists at once, from their true positives alone.

A list is the detections of one class at one IoU threshold, and all lists lie in one flat tensor,
one after another. Between two true positives precision only falls, so the monotone curve of
precision over recall is decided at the true positives.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

# The 11 recalls of VOC 2007 as the products k · 0.1, not as tenths: 6 * 0.1 is a little more than
# 0.6, so a recall of exactly 3/5 does not reach it. Published VOC numbers rest on this grid (the
# devkit's `t=0:0.1:1`, py-faster-rcnn's `np.arange(0., 1.1, 0.1)`).
VOC_RECALLS: NDArray[np.float64] = np.arange(11, dtype=np.float64) * 0.1


class RankedLists(NamedTuple):
    """The detections of S lists that may be true positives, by list and falling score.

    Attributes:
        lists: `[E]` the number of the list 0 … S−1, never falling.
        is_true: `[E]` whether the entry is a true positive; others are passed over.
        precision: `[E]` float64, true positives over all that count, up to and with the entry.
        num_objects: `[S]` the objects that each list is to find.
    """

    lists: Int[Tensor, "E"]
    is_true: Bool[Tensor, "E"]
    precision: Float[Tensor, "E"]
    num_objects: Int[Tensor, "S"]


def count_within(flags: Bool[Tensor, "E"], lists: Int[Tensor, "E"], num_lists: int) -> Tensor:
    """How many flags of its own list stand before each entry or at it, `[E]` int64."""
    running = flags.cumsum(0)
    return running - _before_each_list(flags, lists, num_lists)[lists]


def num_true(ranked: RankedLists) -> Int[Tensor, "S"]:
    """The true positives of each list."""
    return _count_by_list(ranked.is_true, ranked.lists, len(ranked.num_objects))


def envelope(ranked: RankedLists) -> Float[Tensor, "E"]:
    """The best precision at each entry or behind it in its list: the monotone curve."""
    precision = torch.where(ranked.is_true, ranked.precision, 0.0)
    return best_from_each(precision, ranked.lists)


def best_from_each(
    values: Float[Tensor, "E *columns"], lists: Int[Tensor, "E"]
) -> Float[Tensor, "E *columns"]:
    """The greatest value at each entry or behind it in its list; values are 0 or more.

    A running maximum by doubling: after k rounds each entry knows the best of the 2ᵏ entries from
    it on.
    """
    best, distance, longest = values, 1, _longest_list(lists)
    while distance < longest:
        is_same = lists[:-distance] == lists[distance:]
        is_same = is_same.reshape(-1, *[1] * (values.dim() - 1))
        ahead = torch.where(is_same, best[distance:], 0.0)
        best = torch.cat((torch.maximum(best[:-distance], ahead), best[-distance:]))
        distance *= 2
    return best


def area_under_curve(ranked: RankedLists, best: Float[Tensor, "E"]) -> Float[Tensor, "S"]:
    """The exact area under the monotone curve of each list; nan without objects to find.

    Args:
        ranked: the lists.
        best: their `envelope`.

    Source: Everingham et al. 2015, section 3.2.1.
    """
    heights = torch.where(ranked.is_true, best, 0.0)
    total = heights.new_zeros(len(ranked.num_objects)).index_add_(0, ranked.lists, heights)
    objects = ranked.num_objects.double()
    return torch.where(objects > 0, total / objects, torch.nan)


def precision_at_recalls(
    ranked: RankedLists, best: Float[Tensor, "E"], recalls: Float[Tensor, "R"]
) -> Float[Tensor, "R S"]:
    """The best precision at or beyond each recall: 0 where it is not reached.

    Args:
        ranked: the lists.
        best: their `envelope`.
        recalls: float64 in 0…1; the recall k / num_objects is compared with them as float64.

    Source: Everingham et al. 2010, section 4.2, equation 2.
    """
    num_lists = len(ranked.num_objects)
    if len(best) == 0:
        return recalls.new_zeros(len(recalls), num_lists)
    objects = ranked.num_objects.double()  # [S]
    # the first whole number of true positives whose recall is enough; the product may be off by one
    needed = (recalls[:, None] * objects).ceil()  # [R, S]
    needed = torch.where((needed - 1) / objects >= recalls[:, None], needed - 1, needed)
    needed = torch.where(needed / objects < recalls[:, None], needed + 1, needed)
    # a recall of 0 is reached by the first detection, and the curve there is that of the first hit
    needed = needed.clamp(min=1).long()
    running = ranked.is_true.cumsum(0)
    before = _before_each_list(ranked.is_true, ranked.lists, num_lists)
    entries = torch.searchsorted(running, before + needed).clamp(max=len(best) - 1)
    return torch.where(needed <= num_true(ranked), best[entries], 0.0)


def _count_by_list(flags: Bool[Tensor, "E"], lists: Int[Tensor, "E"], num_lists: int) -> Tensor:
    counts = torch.zeros(num_lists, dtype=torch.int64, device=lists.device)
    return counts.index_add_(0, lists, flags.long())


def _before_each_list(flags: Bool[Tensor, "E"], lists: Int[Tensor, "E"], num_lists: int) -> Tensor:
    counts = _count_by_list(flags, lists, num_lists)
    return counts.cumsum(0) - counts


def _longest_list(lists: Int[Tensor, "E"]) -> int:
    if lists.is_cuda or len(lists) == 0:
        return len(lists)  # the GPU need not be asked: it makes a few rounds more
    return int(lists.bincount().max())
