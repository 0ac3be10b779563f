import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from detect.ops import merge as merging
from detect.ops import merge_predictions
from tests.ops.random_boxes import integer_boxes, real_boxes
from tests.ops.random_boxes import scores_with_ties as draw_scores
from tests.reference import merge as reference

SIZES = (0, 1, 2, 17, 130)
LIMITS = (0.0, 0.75, math.inf)
WEIGHTS = ("count", "score", "plain")
SQUARE = torch.tensor([0.0, 0, 10, 10])


def scores_with_ties(count, seed, levels=16):
    """Multiples of a power of two: their sums are exact, so that float32 ranks them as float64."""
    return draw_scores(count, seed, levels)


def expected_of(boxes, scores, groups, max_match, max_candidates=128, weights="count"):
    """The oracle's rows as tensors of the type of the boxes."""
    rows = reference.merge(
        boxes.tolist(), scores.tolist(), groups.tolist(), max_match, max_candidates, weights
    )
    return (
        torch.tensor([box for _, box, _ in rows], dtype=boxes.dtype).reshape(-1, 4),
        torch.tensor([score for _, _, score in rows], dtype=scores.dtype),
        torch.tensor([group for group, _, _ in rows], dtype=groups.dtype),
    )


def assert_merged(result, expected):
    assert_close(result[2], expected[2])  # the groups first: they say which one has lost a box
    assert_close(result[1], expected[1])
    # corners are around 100, and each of up to 130 averages rounds them once
    assert_close(result[0], expected[0], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("max_match", LIMITS)
@pytest.mark.parametrize("count", SIZES)
def test_merging_equals_the_oracle(count, max_match, weights):
    boxes, scores = real_boxes(count, 1), scores_with_ties(count, 2)
    boxes[1::3] = boxes[0::3][: len(boxes[1::3])]  # duplicates
    for num_groups in (1, 5):
        groups = torch.arange(count) % num_groups
        expected = expected_of(boxes.double(), scores, groups, max_match, weights=weights)
        result = merge_predictions(boxes, scores, groups, max_match=max_match, weights=weights)
        assert result[0].dtype == torch.float32
        assert_merged((result[0].double(), *result[1:]), expected)


@pytest.mark.parametrize("max_match", LIMITS)
@pytest.mark.parametrize("seed", range(4))
def test_ties_go_to_the_lowest_indices_as_in_the_oracle(seed, max_match):
    # boxes and scores of few values: many pairs match equally well, and which one is merged first
    # decides what there is to merge next
    boxes, scores = integer_boxes(40, seed, extent=12).double(), scores_with_ties(40, seed, 4)
    groups = torch.arange(40) % 2
    expected = expected_of(boxes, scores, groups, max_match)
    assert_merged(merge_predictions(boxes, scores, groups, max_match=max_match), expected)


def test_of_two_equally_good_pairs_the_one_with_the_higher_scores_merges_first():
    # three boxes in a row, 2 px apart; when either pair has merged, the third box is too far off
    boxes = torch.stack([SQUARE, SQUARE + torch.tensor([2.0, 0, 2, 0]), SQUARE])
    boxes[2] += torch.tensor([4.0, 0, 4, 0])
    max_match = 0.2 + 1 - 8 / 12 + 1e-3
    for scores, merged, alone in (
        ([0.9, 0.8, 0.7], 1.0, 4.0),
        ([0.7, 0.8, 0.9], 3.0, 0.0),
        ([0.5, 0.5, 0.5], 1.0, 4.0),
    ):
        groups = torch.zeros(3, dtype=torch.int64)
        result = merge_predictions(boxes, torch.tensor(scores), groups, max_match=max_match)
        assert_close(result[0][:, 0], torch.tensor([merged, alone]))


def test_groups_of_very_different_sizes_equal_the_oracle_and_none_touches_another():
    sizes = [1, 130, 2, 3, 17, 1, 64, 65, 5]
    groups = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)) * 1000 - 3000
    shuffled = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(3))
    boxes, scores = real_boxes(sum(sizes), 4), scores_with_ties(sum(sizes), 5)
    groups = groups[shuffled]
    result = merge_predictions(boxes, scores, groups)
    expected = expected_of(boxes.double(), scores, groups, 0.75)
    assert_merged((result[0].double(), *result[1:]), expected)
    for group in groups.unique().tolist():
        own, found = groups == group, result[2] == group
        alone = merge_predictions(boxes[own], scores[own], groups[own])
        assert torch.equal(result[0][found], alone[0])
        assert torch.equal(result[1][found], alone[1])


def test_a_bound_on_the_pairs_held_at_a_time_changes_nothing(monkeypatch):
    boxes, scores, groups = real_boxes(257, 6), scores_with_ties(257, 7), torch.arange(257) % 20
    expected = merge_predictions(boxes, scores, groups)
    held = []
    merge_padded = merging._merge_padded

    def merge_and_note(entries, alive, max_match, plain):
        held.append(alive.shape[0] * alive.shape[1] ** 2)
        merge_padded(entries, alive, max_match, plain)

    monkeypatch.setattr(merging, "_merge_padded", merge_and_note)
    monkeypatch.setattr(merging, "MAX_PAIRS", 1000)
    for one, other in zip(merge_predictions(boxes, scores, groups), expected, strict=True):
        assert torch.equal(one, other)
    assert len(held) > 1
    assert max(held) <= 1000


def test_renaming_the_groups_renames_the_result():
    boxes, scores, groups = real_boxes(257, 8), scores_with_ties(257, 9), torch.arange(257) % 6
    names = torch.tensor([10**12, -7, 3, 0, 99, 4])
    before, after = (merge_predictions(boxes, scores, names) for names in (groups, names[groups]))
    for group, name in enumerate(names.tolist()):
        old, new = before[2] == group, after[2] == name
        assert torch.equal(before[0][old], after[0][new])
        assert torch.equal(before[1][old], after[1][new])


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.integers(0, 60), st.integers(0, 10**6), st.sampled_from(LIMITS))
def test_the_order_of_the_input_does_not_matter(count, seed, max_match):
    generator = torch.Generator().manual_seed(seed)
    boxes, groups = real_boxes(count, seed), torch.randint(0, 3, (count,), generator=generator)
    scores = (torch.randperm(count, generator=generator) + 1) / 64  # without ties
    expected = merge_predictions(boxes, scores, groups, max_match=max_match)
    order = torch.randperm(count, generator=generator)
    result = merge_predictions(boxes[order], scores[order], groups[order], max_match=max_match)
    for one, other in zip(result, expected, strict=True):
        assert torch.equal(one, other)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    st.integers(0, 60),
    st.integers(0, 10**6),
    st.sampled_from(LIMITS),
    st.sampled_from(WEIGHTS),
)
def test_scores_are_conserved_sorted_and_nothing_that_matches_is_left(
    count, seed, max_match, weights
):
    boxes, scores = real_boxes(count, seed).double(), scores_with_ties(count, seed + 1).double()
    groups = torch.randint(0, 3, (count,), generator=torch.Generator().manual_seed(seed))
    merged_boxes, merged_scores, merged_groups = merge_predictions(
        boxes, scores, groups, max_match=max_match, weights=weights
    )
    assert merged_groups.unique().tolist() == groups.unique().tolist()
    assert (merged_groups.diff() >= 0).all()
    for group in groups.unique().tolist():
        own, found = groups == group, merged_groups == group
        assert_close(merged_scores[found].sum(), scores[own].sum())
        assert (merged_scores[found].diff() <= 0).all()
        left = merging.match_score(merged_boxes[found][:, None], merged_boxes[found])
        assert (left.fill_diagonal_(math.inf) > max_match).all() or math.isinf(max_match)
        if math.isinf(max_match):
            assert found.sum() == 1
        # an average lies within its boxes
        assert (merged_boxes[found].amin(dim=0) >= boxes[own].amin(dim=0) - 1e-9).all()
        assert (merged_boxes[found].amax(dim=0) <= boxes[own].amax(dim=0) + 1e-9).all()


def test_what_a_merged_box_weighs():
    # at 0, 4 and 16 px; the first two merge first
    boxes = SQUARE + torch.tensor([[0.0], [4], [16]]) * torch.tensor([1.0, 0, 1, 0])
    boxes[:, 2:] += 40
    scores, groups = torch.tensor([0.5, 0.1, 0.2]), torch.zeros(3, dtype=torch.int64)
    for weights, left in (
        ("count", (0 + 4 + 16) / 3),
        ("plain", ((0 + 4) / 2 + 16) / 2),
        ("score", (0 * 0.5 + 4 * 0.1 + 16 * 0.2) / 0.8),
    ):
        merged = merge_predictions(boxes, scores, groups, max_match=math.inf, weights=weights)
        assert_close(merged[0], torch.tensor([[left, 0, left + 50, 50]]))
        assert_close(merged[1], torch.tensor([0.8]))


def test_many_equal_boxes_become_one_that_is_equal_to_the_last_bit():
    box = real_boxes(1, 10)
    for weights in WEIGHTS:
        merged = merge_predictions(
            box.repeat(100, 1),
            torch.full((100,), 0.25),
            torch.zeros(100, dtype=torch.int64),
            max_match=0,
            weights=weights,
        )
        assert torch.equal(merged[0], box)
        assert merged[1].tolist() == [25]


def test_agreement_outweighs_a_single_sure_window():
    boxes = torch.stack([SQUARE + 50, *([SQUARE] * 3)])
    scores, groups = torch.tensor([0.9, 0.4, 0.4, 0.4]), torch.zeros(4, dtype=torch.int64)
    merged = merge_predictions(boxes, scores, groups)
    assert_close(merged[0], torch.stack([SQUARE, SQUARE + 50]))
    assert_close(merged[1], torch.tensor([1.2, 0.9]))


def test_the_limit_is_inclusive():
    boxes = torch.stack([SQUARE, SQUARE + torch.tensor([0.0, 0, 10, 0])])  # one twice as wide
    scores, groups = torch.ones(2), torch.zeros(2, dtype=torch.int64)
    limit = float(merging.match_score(boxes[0], boxes[1]))
    assert len(merge_predictions(boxes, scores, groups, max_match=limit)[0]) == 1
    assert len(merge_predictions(boxes, scores, groups, max_match=limit - 1e-6)[0]) == 2


def test_match_score_of_known_pairs():
    others = torch.tensor(
        [
            [0.0, 0, 10, 10],  # equal
            [5, 0, 15, 10],  # shifted by half a side: IoU 1/3
            [0, 0, 40, 10],  # center 15 px off, sides 10 and 20
            [40, 30, 50, 40],  # apart
            [3, 3, 3, 9],  # without area
        ]
    )
    expected = torch.tensor(
        [0, 0.5 + 2 / 3, 15 / math.sqrt(200) + 3 / 4, 50 / 10 + 1, math.inf], dtype=torch.float64
    )
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        result = merging.match_score(SQUARE.to(dtype), others.to(dtype))
        assert_close(result, expected.to(result.dtype))
        assert_close(merging.match_score(others.to(dtype), SQUARE.to(dtype)), result)
    assert_close(  # at any scale, also where areas and their products leave float32
        merging.match_score(SQUARE * 1e17, others * 1e17), expected.float()
    )


def test_boxes_without_area_are_kept_and_merge_with_nothing():
    empty, inverted = torch.tensor([3.0, 3, 3, 9]), torch.tensor([8.0, 8, 2, 2])
    boxes = torch.stack([SQUARE, empty, empty, inverted, torch.zeros(4), SQUARE])
    scores, groups = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), torch.zeros(6).long()
    merged = merge_predictions(boxes, scores, groups, max_match=math.inf)
    assert_close(merged[0], torch.stack([SQUARE, empty, empty, inverted, torch.zeros(4)]))
    assert_close(merged[1], torch.tensor([1.3, 0.8, 0.7, 0.6, 0.5]))


def test_no_boxes():
    for dtype in (torch.float32, torch.float16):
        boxes, scores, groups = merge_predictions(
            torch.zeros(0, 4, dtype=dtype), torch.zeros(0, dtype=dtype), torch.zeros(0).long()
        )
        assert (boxes.shape, scores.shape, groups.shape) == ((0, 4), (0,), (0,))
        assert (boxes.dtype, scores.dtype, groups.dtype) == (torch.float32,) * 2 + (torch.int64,)


@pytest.mark.parametrize("max_candidates", [1, 2, 16, 17, 200])
def test_candidates_beyond_the_limit_are_dropped_by_score(max_candidates):
    boxes, scores = real_boxes(150, 11), scores_with_ties(150, 12)
    groups = (torch.arange(150) < 130).long()
    result = merge_predictions(boxes, scores, groups, max_candidates=max_candidates)
    expected = expected_of(boxes.double(), scores, groups, 0.75, max_candidates)
    assert_merged((result[0].double(), *result[1:]), expected)
    kept = scores[groups == 1].sort(descending=True).values[:max_candidates]
    assert_close(result[1][result[2] == 1].sum(), kept.sum())


def test_negative_scores_are_summed_and_refused_as_weights():
    boxes, groups = SQUARE.repeat(3, 1), torch.tensor([0, 0, 1])
    scores = torch.tensor([0.5, -2.0, -1.0])
    assert merge_predictions(boxes, scores, groups)[1].tolist() == [-1.5, -1.0]
    with pytest.raises(ValueError, match=r"expected 0 or more with weights='score', found -2\.0"):
        merge_predictions(boxes, scores, groups, weights="score")


def test_scores_of_zero_are_weights_too():
    boxes = torch.stack([SQUARE, SQUARE + 1])
    for scores, left in (([0.0, 0.0], 0.5), ([0.5, 0.0], 0.0)):
        merged = merge_predictions(
            boxes, torch.tensor(scores), torch.zeros(2).long(), weights="score"
        )
        assert_close(merged[0], (SQUARE + left)[None])


def test_a_limit_below_one_candidate_is_refused():
    with pytest.raises(ValueError, match="max_candidates: expected 1 or more, found 0"):
        merge_predictions(real_boxes(3, 1), torch.ones(3), torch.zeros(3).long(), max_candidates=0)


def test_the_input_is_left_as_it_was_and_half_precision_is_computed_in_float32():
    boxes, scores = (integer_boxes(100, 13) * 7).half(), scores_with_ties(100, 14).half()
    groups = torch.arange(100) % 3
    copies = boxes.clone(), scores.clone(), groups.clone()
    result = merge_predictions(boxes, scores, groups)
    for one, other in zip((boxes, scores, groups), copies, strict=True):
        assert torch.equal(one, other)
    expected = merge_predictions(boxes.float(), scores.float(), groups)
    for one, other in zip(result, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_gradients_stop_here():
    boxes = real_boxes(5, 15).requires_grad_()
    merged = merge_predictions(boxes, torch.ones(5), torch.zeros(5).long(), max_match=math.inf)
    assert not merged[0].requires_grad


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("count", SIZES)
def test_on_a_gpu_the_result_is_that_of_the_cpu(count, weights):
    boxes, scores, groups = real_boxes(count, 16), scores_with_ties(count, 17), torch.arange(count)
    for num_groups in (1, 5):
        expected = merge_predictions(boxes, scores, groups % num_groups, weights=weights)
        result = merge_predictions(
            boxes.cuda(), scores.cuda(), groups.cuda() % num_groups, weights=weights
        )
        assert all(column.is_cuda for column in result)
        assert_merged([column.cpu() for column in result], expected)


def test_boxes_smaller_than_a_pixel_match_as_large_ones_do():
    large = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [30, 0, 40, 10]])
    for scale in (1.0, 0.01):
        found = merging.match_score(large[:1] * scale, large * scale)
        expected = torch.tensor([0.0, 0.4 + 1 - 60 / 140, 3 + 1])
        assert_close(found, expected)


@pytest.mark.parametrize("score", [-0.25, -3.0])
def test_negative_scores_are_no_weights(score):
    boxes, groups = torch.stack([SQUARE, SQUARE]), torch.zeros(2).long()
    with pytest.raises(ValueError, match=rf"scores: .* found {score}"):
        merge_predictions(boxes, torch.tensor([0.5, score]), groups, weights="score")
    assert len(merge_predictions(boxes, torch.tensor([0.5, score]), groups)[0]) == 1
