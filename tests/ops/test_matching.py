import pytest
import torch
from torch.testing import assert_close

from detect.ops import (
    BACKGROUND,
    IGNORED,
    box_iou,
    match,
    sample_balanced,
    sample_balanced_batch,
)
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


def padded_overlaps(count, numbers):
    """IoU `[B, N, M]` of images with different numbers of objects; what is not there is < 0."""
    generator = torch.Generator().manual_seed(5)
    absent = -0.01 - torch.rand(len(numbers), count, max(numbers), generator=generator).double()
    for image, number in enumerate(numbers):
        candidates = integer_boxes(count, 10 + image).double()
        objects = integer_boxes(number, 20 + image).double()
        objects[1:2] = objects[:1]  # two objects at one place: ties go to the first
        absent[image, :, :number] = box_iou(candidates, objects)
    return absent


@pytest.mark.parametrize("keep_best", [False, True])
@pytest.mark.parametrize("numbers", [(0,), (0, 0), (1, 0), (3, 0, 1), (2, 31, 0, 1)])
@pytest.mark.parametrize("count", SIZES)
def test_a_batch_is_matched_image_by_image(count, numbers, keep_best):
    iou = padded_overlaps(count, numbers)
    for positive, negative in ((0.7, 0.3), (0.5, 0.5), (0.6, 0.2), (1.0, 0.0), (0.0, 0.0)):
        result = match(iou, positive, negative, keep_best=keep_best)
        assert result.indices.shape == result.overlaps.shape == (len(numbers), count)
        assert result.indices.dtype == torch.int64
        for image, number in enumerate(numbers):
            there = iou[image, :, :number].tolist()
            expected = reference.match(there, number, positive, negative, keep_best)
            assert result.indices[image].tolist() == [index for index, _ in expected]
            assert result.overlaps[image].tolist() == [overlap for _, overlap in expected]


@pytest.mark.parametrize("keep_best", [False, True])
def test_a_batch_may_have_several_dimensions(keep_best):
    iou = padded_overlaps(50, (2, 3, 0, 1, 5, 4))
    flat = match(iou, 0.5, 0.3, keep_best=keep_best)
    folded = match(iou.reshape(2, 3, 50, -1), 0.5, 0.3, keep_best=keep_best)
    assert torch.equal(folded.indices, flat.indices.reshape(2, 3, 50))
    assert torch.equal(folded.overlaps, flat.overlaps.reshape(2, 3, 50))


def test_nobody_stands_for_an_object_that_is_not_there():
    iou = torch.tensor([[[0.1, -1.0], [0.0, -0.5]], [[-1.0, -1.0], [-0.2, -0.3]]])
    for keep_best in (False, True):
        result = match(iou, 0.0, 0.0, keep_best=keep_best)
        assert result.indices.tolist() == [[0, 0], [BACKGROUND, BACKGROUND]]
        assert_close(result.overlaps, torch.tensor([[0.1, 0.0], [0.0, 0.0]]))
    # the best candidate of an object that is not there is no positive
    best = match(iou, 0.5, 0.3, keep_best=True)
    assert best.indices.tolist() == [[0, BACKGROUND], [BACKGROUND, BACKGROUND]]


def kinds_of_images(numbers):
    """1 positive, 0 negative, −1 neither: a row for each pair of numbers, of one length."""
    generator = torch.Generator().manual_seed(6)
    length = max(sum(pair) for pair in numbers)
    rows = []
    for num_positive, num_negative in numbers:
        num_others = length - num_positive - num_negative
        kinds = torch.tensor([1] * num_positive + [0] * num_negative + [-1] * num_others)
        rows.append(kinds[torch.randperm(length, generator=generator)])
    return torch.stack(rows).long()


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("size", [0, 1, 7, 64, 1000])
@pytest.mark.parametrize("counts", [(0,), (0, 1), (0, 1, 10, 300)])
def test_a_balanced_sample_of_a_batch(counts, size, fraction):
    numbers = [(positives, negatives) for positives in counts for negatives in counts]
    kinds = kinds_of_images(numbers)
    generator = torch.Generator().manual_seed(7)
    sample = sample_balanced_batch(kinds == 1, kinds == 0, size, fraction, generator)
    assert sample.indices.shape == sample.is_positive.shape == sample.is_drawn.shape
    # the number of places for positives is the same in all rows, and they come first
    assert (sample.is_positive == sample.is_positive[:1]).all()
    assert sample.is_positive[0].tolist() == sorted(sample.is_positive[0].tolist(), reverse=True)
    for row, (num_positive, num_negative) in enumerate(numbers):
        is_drawn, is_positive = sample.is_drawn[row], sample.is_positive[row]
        positives = sample.indices[row][is_drawn & is_positive]
        negatives = sample.indices[row][is_drawn & ~is_positive]
        assert len(positives) == min(num_positive, int(size * fraction))
        assert len(negatives) == min(num_negative, size - len(positives))
        assert (kinds[row][positives] == 1).all()
        assert (kinds[row][negatives] == 0).all()
        assert len(set(positives.tolist())) == len(positives)
        assert len(set(negatives.tolist())) == len(negatives)
        one = sample_balanced(kinds[row] == 1, kinds[row] == 0, size, fraction, generator)
        assert [len(positives), len(negatives)] == [len(indices) for indices in one]


@pytest.mark.parametrize("size", [0, 5])
def test_a_balanced_sample_of_no_candidates(size):
    nobody = torch.zeros(3, 0, dtype=torch.bool)
    sample = sample_balanced_batch(nobody, nobody, size, 0.5, torch.Generator())
    assert sample.indices.shape == (3, 0)
    assert not sample.is_drawn.any()
    nothing = torch.zeros(0, 9, dtype=torch.bool)
    assert len(sample_balanced_batch(nothing, nothing, size, 0.5, torch.Generator()).indices) == 0


def test_a_balanced_sample_of_a_batch_follows_its_generator_alone():
    positive = (torch.arange(200) < 100).expand(3, 200)

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return sample_balanced_batch(positive, ~positive, 20, 0.5, generator).indices.tolist()

    first = draw(1)
    torch.manual_seed(99)
    assert draw(1) == first
    assert draw(2) != first
    assert first[0] != first[1]  # each image has its own draw


def test_a_balanced_sample_of_a_batch_is_uniform():
    generator = torch.Generator().manual_seed(4)
    rounds = 2000
    positive = (torch.arange(40) % 4 == 0).expand(rounds, 40)
    sample = sample_balanced_batch(positive, ~positive, 10, 0.5, generator)
    together = torch.zeros(40, 40)
    for indices, is_drawn in zip(sample.indices, sample.is_drawn, strict=True):
        drawn = torch.zeros(40)
        drawn[indices[is_drawn]] = 1
        together += drawn[:, None] * drawn
    # each of 10 positives is drawn with 5/10, each of 30 negatives with 5/30; 0.05 is over 4 sigma
    expected = torch.where(positive[0], 5 / 10, 5 / 30)
    assert_close(together.diagonal() / rounds, expected, atol=0.05, rtol=0)
    # and so is each pair of them, of one kind without repetition, of two kinds independently
    pairs = expected[:, None] * expected
    pairs[positive[0][:, None] & positive[0]] = 5 / 10 * 4 / 9
    pairs[~positive[0][:, None] & ~positive[0]] = 5 / 30 * 4 / 29
    pairs.diagonal().copy_(expected)
    assert_close(together / rounds, pairs, atol=0.05, rtol=0)
