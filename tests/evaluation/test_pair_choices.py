import pytest
import torch

from detect.evaluation.pair_choices import best_of_pairs, match_by_detection, match_in_order
from detect.evaluation.pairs import Pairs

NUM_DETECTIONS, NUM_OBJECTS = 40, 12


def random_pairs(seed):
    """About a third of all pairs, with few different overlaps, so that many are tied."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randint(0, 15, (NUM_DETECTIONS, NUM_OBJECTS), generator=generator) - 9
    detections, objects = (table > 0).nonzero().unbind(dim=1)
    return Pairs(detections, objects, table[table > 0].double() / 5)


@pytest.mark.parametrize("seed", range(5))
def test_best_of_pairs(seed):
    pairs = random_pairs(seed)
    wanted = torch.rand(len(pairs.overlaps), generator=torch.Generator().manual_seed(seed)) < 0.5
    best = best_of_pairs(pairs, wanted, NUM_DETECTIONS)
    for row in range(NUM_DETECTIONS):
        mine = [
            (-overlap, item)
            for owner, item, overlap, is_wanted in zip(
                *map(torch.Tensor.tolist, (*pairs, wanted)), strict=True
            )
            if owner == row and is_wanted
        ]
        overlap, item = min(mine, default=(0.0, 0))
        assert (best.overlaps[row], best.objects[row]) == (-overlap, item)


@pytest.mark.parametrize("seed", range(5))
def test_match_in_order_equals_the_loop(seed):
    pairs = random_pairs(seed)
    count = len(pairs.overlaps)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    owners, items, taken = set(), set(), [False] * count
    for place in order.tolist():
        owner, item = int(pairs.detections[place]), int(pairs.objects[place])
        if owner not in owners and item not in items:
            owners.add(owner)
            items.add(item)
            taken[place] = True
    assert match_in_order(pairs, order, NUM_DETECTIONS, NUM_OBJECTS).tolist() == taken
    assert sum(taken) == NUM_OBJECTS


@pytest.mark.parametrize("seed", range(5))
def test_match_by_detection_equals_the_loop(seed):
    pairs = random_pairs(seed)
    expected, items = [], set()
    for row in range(NUM_DETECTIONS):
        mine = [
            (-overlap, item)
            for owner, item, overlap in zip(*map(torch.Tensor.tolist, pairs), strict=True)
            if owner == row and item not in items
        ]
        if mine:
            expected.append((row, min(mine)[1]))
            items.add(min(mine)[1])
    found = match_by_detection(pairs, NUM_OBJECTS)
    assert list(zip(*map(torch.Tensor.tolist, found), strict=True)) == expected
    assert len(expected) == NUM_OBJECTS


def test_without_pairs():
    nothing = torch.zeros(0, dtype=torch.int64)
    pairs = Pairs(nothing, nothing, torch.zeros(0, dtype=torch.float64))
    assert best_of_pairs(pairs, nothing.bool(), 2).overlaps.tolist() == [0, 0]
    assert len(match_in_order(pairs, nothing, 2, 3)) == 0
    assert [len(rows) for rows in match_by_detection(pairs, 3)] == [0, 0]
