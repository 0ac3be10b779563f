import itertools

import pytest
import torch
from torch.testing import assert_close

from detect.detectors.localizer.assignment import choose_objects, hungarian_slots, ordered_slots
from detect.ops import box_iou
from detect.structures import GroundTruth
from tests.contracts import some_truth

SIZE = (64, 96)


def truth_of(*boxes, labels=None):
    count = len(boxes)
    return GroundTruth(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels or [0] * count, dtype=torch.int64),
        torch.zeros(count, dtype=torch.bool),
    )


RIGHT, LEFT, WIDE = (60.0, 0.0, 70.0, 10.0), (5.0, 5.0, 9.0, 9.0), (10.0, 30.0, 80.0, 60.0)


def test_left_to_right_goes_by_the_center():
    truth = truth_of(RIGHT, LEFT, WIDE)
    assert ordered_slots(truth, 4, "left_to_right").tolist() == [1, 2, 0]


def test_by_size_begins_with_the_largest():
    truth = truth_of(RIGHT, LEFT, WIDE)
    assert ordered_slots(truth, 4, "by_size").tolist() == [2, 0, 1]


@pytest.mark.parametrize("assignment", ["left_to_right", "by_size"])
def test_equal_objects_keep_their_order(assignment):
    truth = truth_of(LEFT, LEFT, LEFT)
    assert ordered_slots(truth, 3, assignment).tolist() == [0, 1, 2]


def test_of_too_many_objects_the_largest_count():
    truth = truth_of(RIGHT, LEFT, WIDE)
    assert choose_objects(truth, 2).tolist() == [0, 2]
    assert ordered_slots(truth, 2, "left_to_right").tolist() == [2, 0]
    assert ordered_slots(truth, 1, "left_to_right").tolist() == [2]


@pytest.mark.parametrize("count", [1, 3])
def test_an_image_without_objects(count):
    truth = GroundTruth.empty()
    assert ordered_slots(truth, count, "left_to_right").tolist() == []
    boxes, probabilities = torch.rand(count, 4), torch.rand(count, 2)
    assert hungarian_slots(truth, boxes, probabilities).shape == (0, 2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_objects", [1, 2, 4])
def test_hungarian_finds_the_least_cost_of_all_pairings(seed, num_objects):
    truth = some_truth(SIZE, 3, num_objects, seed)
    generator = torch.Generator().manual_seed(seed)
    boxes = some_truth(SIZE, 3, 4, seed + 100).boxes
    probabilities = torch.rand(4, 3, generator=generator)
    pairs = hungarian_slots(truth, boxes, probabilities)

    def cost(slots):
        overlap = box_iou(boxes, truth.boxes)
        return sum(
            float(1 - overlap[slot, n] - probabilities[slot, truth.labels[n]])
            for n, slot in enumerate(slots)
        )

    best = min(itertools.permutations(range(4), num_objects), key=cost)
    found = dict(zip(pairs[:, 1].tolist(), pairs[:, 0].tolist(), strict=True))
    assert_close(cost([found[n] for n in range(num_objects)]), cost(best))


def test_hungarian_uses_as_many_slots_as_there_are():
    truth = truth_of(RIGHT, LEFT, WIDE)
    pairs = hungarian_slots(truth, torch.tensor([LEFT, WIDE]), torch.zeros(2, 1))
    # the two largest objects: the wide one has its slot, the right one gets what is left
    assert sorted(pairs.tolist()) == [[0, 0], [1, 2]]
