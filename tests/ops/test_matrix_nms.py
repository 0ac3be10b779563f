import sys

import pytest
import torch
from torch.testing import assert_close

from detect.ops import matrix_nms
from tests.ops.random_boxes import integer_boxes, real_boxes, scores_with_ties
from tests.reference import suppression as reference

# the package has a function of the same name
matrix_nms_module = sys.modules["detect.ops.matrix_nms"]


def new_scores(boxes, scores, groups, decay, sigma):
    result = scores.clone()
    for group in groups.unique().tolist():
        members = groups == group
        lists = boxes[members].tolist(), scores[members].tolist()
        result[members] = scores.new_tensor(reference.matrix_nms(*lists, decay, sigma))
    return result


@pytest.mark.parametrize("most_pairs", [2**23, 100])
@pytest.mark.parametrize("draw", [real_boxes, integer_boxes])
@pytest.mark.parametrize("decay", ["linear", "gaussian"])
@pytest.mark.parametrize("count", [0, 1, 2, 120])
def test_matrix_nms_equals_the_oracle(count, decay, draw, most_pairs, monkeypatch):
    monkeypatch.setattr(matrix_nms_module, "MAX_PAIRS", most_pairs)
    boxes, scores = draw(count, 1).double(), scores_with_ties(count, 2).double()
    groups = torch.randint(-2, 4, (count,), generator=torch.Generator().manual_seed(3))
    expected = new_scores(boxes, scores, groups, decay, 0.5)
    result = matrix_nms(boxes, scores, groups, decay=decay)
    found = torch.zeros_like(scores)
    found[result.indices] = result.scores
    assert len(result.indices) == count
    assert (result.scores.diff() <= 0).all()
    assert_close(found, expected, atol=1e-10, rtol=1e-10)


def test_boxes_below_the_threshold_are_dropped():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [50, 50, 60, 60]])
    scores, groups = torch.tensor([0.8, 0.6, 0.5]), torch.zeros(3).long()
    result = matrix_nms(boxes, scores, groups, decay="linear", score_threshold=0.4)
    assert result.indices.tolist() == [0, 2]
    result = matrix_nms(boxes, scores, groups, decay="linear", score_threshold=0.3)
    assert_close(result.scores, torch.tensor([0.8, 0.5, 0.3]))


def test_a_box_that_is_itself_suppressed_hardly_suppresses():
    # in a chain, the third box overlaps the second alone, which the first overlaps as much
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10]])
    scores, groups = torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3).long()
    result = matrix_nms(boxes, scores, groups, decay="linear")
    assert_close(dict(zip(result.indices.tolist(), result.scores.tolist(), strict=True))[2], 0.7)


def test_equal_boxes_give_no_nan():
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3)
    result = matrix_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3).long(), decay="linear")
    assert_close(result.scores, torch.tensor([0.9, 0, 0]))


def test_negative_scores_are_refused():
    with pytest.raises(ValueError, match="scores: expected 0 or more"):
        matrix_nms(torch.zeros(1, 4), torch.tensor([-1.0]), torch.zeros(1).long())
