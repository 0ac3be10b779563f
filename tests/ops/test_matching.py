import pytest
import torch
from torch.testing import assert_close

from detect.ops import BACKGROUND, IGNORED, box_iou, match, sample_balanced
from tests.ops.random_boxes import SIZES, integer_boxes
from tests.reference import boxes as reference


@pytest.mark.parametrize("keep_best", [False, True])
@pytest.mark.parametrize("num_objects", [0, 1, 2, 31])
@pytest.mark.parametrize("count", SIZES)
def test_match_equals_the_oracle(count, num_objects, keep_best):
    candidates, objects = integer_boxes(count, 1), integer_boxes(num_objects, 2)
    objects[1:2] = objects[:1]  # two objects at one place: ties go to the first
    iou = box_iou(candidates.double(), objects.double())
    for positive, negative in ((0.7, 0.3), (0.5, 0.5), (0.6, 0.2), (1.0, 0.0)):
        result = match(iou, positive, negative, keep_best=keep_best)
        expected = reference.match(iou.tolist(), num_objects, positive, negative, keep_best)
        assert result.indices.tolist() == [index for index, _ in expected]
        assert result.overlaps.tolist() == [overlap for _, overlap in expected]
        assert result.indices.dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_thresholds_are_inclusive_above_and_exclusive_below(dtype):
    iou = torch.tensor([[0.5], [0.25], [0.375], [0.125]], dtype=dtype)
    indices = match(iou, 0.5, 0.25).indices
    assert indices.tolist() == [0, IGNORED, IGNORED, BACKGROUND]


def test_an_exact_ratio_reaches_its_threshold_in_float32():
    iou = box_iou(torch.tensor([[0.0, 0, 10, 6]]), torch.tensor([[0.0, 0, 10, 10]]))
    assert match(iou, 0.6, 0.6).indices.tolist() == [0]


def test_keep_best_gives_every_touched_object_its_best_candidates():
    iou = torch.tensor([[0.2, 0.0, 0.0], [0.2, 0.1, 0.0], [0.8, 0.05, 0.0], [0.0, 0.1, 0.0]])
    iou[2, 0] = 0.2  # three candidates tie for object 0
    without = match(iou, 0.5, 0.3).indices
    assert without.tolist() == [BACKGROUND] * 4
    # candidate 1 is the best of both: it takes the one it overlaps most; nobody touches object 2
    assert match(iou, 0.5, 0.3, keep_best=True).indices.tolist() == [0, 0, 0, 1]


def test_match_refuses_crossed_thresholds():
    with pytest.raises(ValueError, match=r"negative_threshold 0\.6 is greater"):
        match(torch.zeros(1, 1), 0.5, 0.6)


@pytest.mark.parametrize("num_positive", [0, 1, 10, 300])
@pytest.mark.parametrize("num_negative", [0, 1, 10, 300])
def test_balanced_sample(num_positive, num_negative):
    generator = torch.Generator().manual_seed(3)
    kinds = torch.tensor([1] * num_positive + [0] * num_negative + [-1] * 20)
    kinds = kinds[torch.randperm(len(kinds), generator=generator)]
    positives, negatives = sample_balanced(kinds == 1, kinds == 0, 64, 0.25, generator)
    assert len(positives) == min(num_positive, 16)
    assert len(negatives) == min(num_negative, 64 - len(positives))
    assert (kinds[positives] == 1).all()
    assert (kinds[negatives] == 0).all()
    assert len(set(positives.tolist())) == len(positives)
    assert len(set(negatives.tolist())) == len(negatives)


def test_a_balanced_sample_follows_its_generator_alone():
    positive = torch.arange(200) < 100

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return sample_balanced(positive, ~positive, 20, 0.5, generator)[0].tolist()

    first = draw(1)
    torch.manual_seed(99)
    assert draw(1) == first
    assert draw(2) != first


def test_a_balanced_sample_is_uniform():
    generator = torch.Generator().manual_seed(4)
    positive = torch.tensor([True] * 10 + [False] * 30)
    counts = torch.zeros(40)
    rounds = 2000
    for _ in range(rounds):
        for drawn in sample_balanced(positive, ~positive, 10, 0.5, generator):
            counts[drawn] += 1
    # each of 10 positives is drawn with 5/10, each of 30 negatives with 5/30; 0.05 is over 4 sigma
    expected = torch.where(positive, 5 / 10, 5 / 30)
    assert_close(counts / rounds, expected, atol=0.05, rtol=0)
