"""Choices among pairs of a detection and an object: the best of each, and one-to-one matchings.

Both matchings are those of a loop that takes one pair after another, found in a few rounds over all
images at once.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detect.evaluation.ordering import stable_order
from detect.evaluation.pairs import BestObjects, Pairs


def best_of_pairs(pairs: Pairs, wanted: Bool[Tensor, "P"], num_detections: int) -> BestObjects:
    """The object of the greatest IoU for each detection, among the wanted pairs.

    Ties go to the first object; a detection without a wanted pair has overlap 0 and object 0.
    """
    owners, items, values = (column[wanted] for column in pairs)
    overlaps = torch.zeros(num_detections, dtype=torch.float64)
    overlaps.scatter_reduce_(0, owners, values, "amax")
    is_best = values == overlaps[owners]
    best = torch.zeros(num_detections, dtype=torch.int64)
    best.scatter_reduce_(0, owners[is_best], items[is_best], "amin", include_self=False)
    return BestObjects(overlaps, best)


def match_in_order(
    pairs: Pairs, order: Int[Tensor, "P"], num_detections: int, num_objects: int
) -> Bool[Tensor, "P"]:
    """The pairs that a loop takes which goes through them and matches what is still free.

    A pair that comes first both for its detection and for its object is taken by the loop, so all
    such pairs are taken at once; the pairs of what is matched then drop out.

    Args:
        pairs: of detections and objects.
        order: the pairs in the order of the loop.
        num_detections: rows of detections are less.
        num_objects: rows of objects are less.
    """
    taken = torch.zeros(len(order), dtype=torch.bool)
    owners, items = pairs.detections[order], pairs.objects[order]
    places = torch.arange(len(order))
    while len(places):
        of_owner = _least(places, owners[places], num_detections)
        of_item = _least(places, items[places], num_objects)
        is_first = (of_owner[owners[places]] == places) & (of_item[items[places]] == places)
        matched = places[is_first]
        taken[order[matched]] = True
        owner_is_matched = torch.zeros(num_detections, dtype=torch.bool)
        item_is_matched = torch.zeros(num_objects, dtype=torch.bool)
        owner_is_matched[owners[matched]] = True
        item_is_matched[items[matched]] = True
        free = ~owner_is_matched[owners[places]] & ~item_is_matched[items[places]]
        places = places[free]
    return taken


def match_by_detection(pairs: Pairs, num_objects: int) -> tuple[Int[Tensor, "M"], Int[Tensor, "M"]]:
    """Detections, lower rows first, each take the object of greatest IoU that is still free.

    That is the stable matching in which objects prefer the lower row, and it is found by rounds of
    proposals: each detection asks the next object on its list, each object keeps the lowest row
    that asked (Gale and Shapley 1962). Ties in IoU go to the first object.

    Returns:
        `(detections, objects)`, the rows of the M matches, by rising detection.
    """
    order = stable_order_by_falling(pairs.overlaps)
    order = order[stable_order(pairs.detections[order])]
    owners, items = pairs.detections[order], pairs.objects[order]
    asked = torch.ones(len(owners), dtype=torch.bool)
    asked[1:] = owners[1:] != owners[:-1]
    asked = asked.nonzero().flatten()  # the place of the pair by which each detection asks
    while True:
        holders = _least(owners[asked], items[asked], num_objects)
        is_refused = holders[items[asked]] != owners[asked]
        if not is_refused.any():
            return owners[asked], items[asked]
        following = asked + is_refused
        # whoever has come to the end of the list goes without
        has_next = following < len(owners)
        has_next &= owners[following.clamp(max=len(owners) - 1)] == owners[asked]
        asked = following[has_next]


def stable_order_by_falling(values: Float[Tensor, "P"]) -> Int[Tensor, "P"]:
    """The rows by falling value, ties to the lower row."""
    order: Tensor = values.argsort(descending=True, stable=True)
    return order


def _least(values: Int[Tensor, "K"], groups: Int[Tensor, "K"], num_groups: int) -> Tensor:
    """The least value of each group, a great number where it has none."""
    least = torch.full((num_groups,), torch.iinfo(torch.int64).max)
    return least.scatter_reduce_(0, groups, values, "amin")
