import inspect
from functools import cache

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from detect.ops import (
    box_iou,
    grouped_nms,
    grouped_nms_mask,
    nms,
    nms_fixed_point,
)
from tests.ops.random_boxes import SIZES, integer_boxes, real_boxes, scores_with_ties
from tests.reference.boxes import greedy_nms

# 0.3 and 0.6 are greater as float32 than as float64: an IoU of exactly 3/5 must not exceed 0.6
THRESHOLDS = (0.0, 0.3, 0.5, 0.6, 0.7, 1.0)


def random_case(count, seed, num_groups):
    generator = torch.Generator().manual_seed(seed + 2)
    groups = torch.randint(-3, num_groups - 3, (count,), generator=generator)
    return integer_boxes(count, seed), scores_with_ties(count, seed + 1), groups


@cache  # the oracle takes long, and all methods are held against it
def survivors_of(count, seed, num_groups, iou_threshold):
    """The rows that the oracle leaves of a random case."""
    boxes, scores, groups = random_case(count, seed, num_groups)
    return greedy_nms(boxes.tolist(), scores.tolist(), groups.tolist(), iou_threshold)


@pytest.mark.parametrize("iou_threshold", THRESHOLDS)
@pytest.mark.parametrize("count", SIZES)
def test_nms_equals_the_oracle(count, iou_threshold):
    boxes, scores, _ = random_case(count, 1, 1)
    expected = survivors_of(count, 1, 1, iou_threshold)
    assert nms(boxes, scores, iou_threshold).tolist() == expected


@pytest.mark.parametrize("method", ["auto", "kernel", "matrix"])
@pytest.mark.parametrize("iou_threshold", THRESHOLDS)
@pytest.mark.parametrize("count", SIZES)
def test_grouped_nms_equals_the_oracle(count, iou_threshold, method):
    boxes, scores, groups = random_case(count, 3, 12)
    expected = survivors_of(count, 3, 12, iou_threshold)
    assert grouped_nms(boxes, scores, groups, iou_threshold, method=method).tolist() == expected
    mask = grouped_nms_mask(boxes, scores, groups, iou_threshold, method=method)
    assert mask.nonzero().flatten().tolist() == sorted(expected)


@pytest.mark.parametrize("method", ["auto", "kernel", "matrix"])
@pytest.mark.parametrize("num_groups", [1, 3, 40])
@pytest.mark.parametrize("max_kept", [1, 7, 100, 5000])
@pytest.mark.parametrize("count", SIZES)
def test_the_first_survivors_of_each_group_are_those_of_the_oracle(
    count, max_kept, num_groups, method
):
    boxes, scores, groups = random_case(count, 6, num_groups)
    for threshold in (0.0, 0.5):  # few survive the one, so that more boxes must be looked at
        left = dict.fromkeys(groups.tolist(), max_kept)
        expected = []
        for row in survivors_of(count, 6, num_groups, threshold):
            left[int(groups[row])] -= 1
            if left[int(groups[row])] >= 0:
                expected.append(row)
        kept = grouped_nms(boxes, scores, groups, threshold, max_kept=max_kept, method=method)
        assert kept.tolist() == expected


@pytest.mark.parametrize("most_pairs", [1, 2000, 10**9])
def test_groups_of_any_sizes_in_chunks_of_any_size(most_pairs, monkeypatch):
    monkeypatch.setattr(nms_fixed_point, "MATRIX_PAIRS_CPU", most_pairs)
    boxes, scores = integer_boxes(240, 3), scores_with_ties(240, 4)
    groups = torch.tensor([0] * 1 + [1] * 2 + [2] * 120 + [3] * 40 + [4] * 38 + [5] * 39)
    expected = greedy_nms(boxes.tolist(), scores.tolist(), groups.tolist(), 0.4)
    assert grouped_nms(boxes, scores, groups, 0.4, method="matrix").tolist() == expected


def test_a_chain_of_suppression_is_followed_to_its_end():
    # each box overlaps its neighbors alone, so every second one survives
    lefts = torch.arange(50.0)[:, None] * 5
    boxes = torch.cat((lefts, lefts * 0, lefts + 10, lefts * 0 + 10), dim=1)
    scores = torch.linspace(1, 0, 50)
    kept = grouped_nms(boxes, scores, torch.zeros(50).long(), 0.3, method="matrix")
    assert kept.tolist() == list(range(0, 50, 2))


@pytest.mark.parametrize(
    ("height", "iou_threshold", "kept"),
    [
        (5, 0.5, [0, 1]),  # IoU exactly 1/2 is not greater
        (6, 0.5, [0]),
        (3, 0.3, [0, 1]),
        (6, 0.6, [0, 1]),
        (6, 0.59, [0]),
        (7, 0.7, [0, 1]),
    ],
)
def test_suppression_takes_more_than_the_threshold(height, iou_threshold, kept):
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, height]])
    scores = torch.tensor([0.9, 0.8])
    for dtype in (torch.float32, torch.float64, torch.float16):
        assert nms(boxes.to(dtype), scores, iou_threshold).tolist() == kept


def test_ties_go_to_the_lower_index():
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3)
    assert nms(boxes, torch.tensor([0.5, 0.5, 0.5]), 0.5).tolist() == [0]
    assert nms(boxes, torch.tensor([0.5, 0.7, 0.7]), 0.5).tolist() == [1]


def test_scores_may_be_margins():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]])
    assert nms(boxes, torch.tensor([-7.0, -3.0, -1e6]), 0.5).tolist() == [1, 2]


def test_groups_never_touch_wherever_the_boxes_lie():
    # shifting boxes apart by group would let the far box of one group meet that of another
    boxes = torch.tensor([[0.0, 0, 10, 10], [-1e6, -1e6, -1e6 + 64, -1e6 + 64]] * 2)
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    groups = torch.tensor([0, 0, 10**12, 10**12])
    assert grouped_nms(boxes, scores, groups, 0.0).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_the_result_of_float32(dtype):
    boxes = (integer_boxes(257, 6) * 7).to(dtype)  # areas beyond the range of float16
    scores, groups = scores_with_ties(257, 7).to(dtype), torch.arange(257) % 3
    expected = grouped_nms(boxes.float(), scores.float(), groups, 0.5)
    assert grouped_nms(boxes, scores, groups, 0.5).tolist() == expected.tolist()
    assert 0 < len(expected) < 257


@pytest.mark.parametrize("count", SIZES)
def test_the_same_boxes_survive_as_in_torchvision(count):
    boxes = real_boxes(count, 8)
    scores = torch.rand(count, generator=torch.Generator().manual_seed(9))  # without ties
    groups = torch.arange(count) % 7
    expected = torchvision.ops.nms(boxes, scores, 0.45)
    assert nms(boxes, scores, 0.45).tolist() == expected.tolist()
    expected = torchvision.ops.batched_nms(boxes, scores, groups, 0.45)
    assert set(grouped_nms(boxes, scores, groups, 0.45).tolist()) == set(expected.tolist())


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.integers(0, 60), st.integers(0, 10**6), st.sampled_from(THRESHOLDS))
def test_nms_is_idempotent_and_sorted(count, seed, iou_threshold):
    boxes, scores = integer_boxes(count, seed), scores_with_ties(count, seed + 1)
    groups = torch.randint(0, 3, (count,), generator=torch.Generator().manual_seed(seed))
    kept = grouped_nms(boxes, scores, groups, iou_threshold)
    again = grouped_nms(boxes[kept], scores[kept], groups[kept], iou_threshold)
    assert again.tolist() == list(range(len(kept)))
    assert (scores[kept].diff() <= 0).all()


@pytest.mark.parametrize("method", ["auto", "kernel", "matrix"])
def test_all_methods_agree_on_boxes_of_any_coordinates(method):
    # where an IoU meets the threshold to the last bit, a rounding of its own would show
    generator = torch.Generator().manual_seed(10)
    for seed in range(20):
        boxes = real_boxes(400, seed)
        groups = torch.randint(0, 12, (400,), generator=generator)
        pairs = torch.randint(0, 400, (2,), generator=generator)
        iou_threshold = box_iou(boxes[pairs[:1]], boxes[pairs[1:]]).item()
        for dtype in (torch.float32, torch.float64):
            moved, scores = boxes.to(dtype), scores_with_ties(400, seed)
            expected = one_at_a_time(moved, scores, groups, iou_threshold)
            result = grouped_nms_mask(moved, scores, groups, iou_threshold, method=method)
            assert torch.equal(result, expected)


def one_at_a_time(boxes, scores, groups, iou_threshold):
    """The greedy rule with the package's own IoU, which has the bits of float32."""
    iou = box_iou(boxes, boxes)
    iou_threshold = torch.tensor(iou_threshold, dtype=boxes.dtype)
    suppresses = (iou > iou_threshold) & (groups[:, None] == groups)
    is_kept = torch.zeros(len(boxes), dtype=torch.bool)
    for index in scores.argsort(descending=True, stable=True):
        is_kept[index] = not (suppresses[index] & is_kept).any()
    return is_kept


def test_inverted_boxes_neither_suppress_nor_vanish():
    boxes = torch.tensor([[5.0, 5, 2, 2], [5, 5, 2, 2], [0, 0, 10, 10], [9, 0, 1, 10]])
    scores, groups = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.zeros(4).long()
    for method in ("kernel", "matrix"):
        assert grouped_nms_mask(boxes, scores, groups, 0.0, method=method).all()


def test_a_method_that_is_unknown_or_runs_elsewhere_is_refused():
    boxes, scores, groups = torch.zeros(1, 4), torch.zeros(1), torch.zeros(1).long()
    with pytest.raises(ValueError, match=r"needs boxes on a CUDA device|cannot be imported"):
        grouped_nms(boxes, scores, groups, 0.5, method="triton")
    with pytest.raises((ValueError, TypeError), match=r"method|Literal"):
        inspect.unwrap(grouped_nms)(boxes, scores, groups, 0.5, method="fastest")


@pytest.mark.slow
def test_ten_thousand_random_cases():
    generator = torch.Generator().manual_seed(11)
    for seed in range(10_000):
        count, classes = (int(torch.randint(1, most, (), generator=generator)) for most in (60, 6))
        boxes = integer_boxes(count, seed, extent=30)
        scores = torch.randperm(count, generator=generator) / count  # batched_nms sorts unstably
        groups = torch.randint(0, classes, (count,), generator=generator)
        iou_threshold = THRESHOLDS[seed % len(THRESHOLDS)]
        kept = grouped_nms(boxes, scores, groups, iou_threshold)
        oracle = greedy_nms(boxes.tolist(), scores.tolist(), groups.tolist(), iou_threshold)
        assert kept.tolist() == oracle
        if iou_threshold in (0.0, 0.5, 1.0):  # others it compares in two precisions
            rival = torchvision.ops.batched_nms(boxes, scores, groups, iou_threshold)
            assert set(kept.tolist()) == set(rival.tolist())
