import math

import pytest
import torch
from torch.testing import assert_close

from detect.ops import soft_nms
from tests.ops.random_boxes import integer_boxes, real_boxes, scores_with_ties
from tests.reference import suppression as reference


def by_groups(boxes, scores, groups, **settings):
    found = []
    for group in sorted(set(groups.tolist())):
        members = (groups == group).nonzero().flatten().tolist()
        lists = ([boxes[i].tolist() for i in members], [scores[i].item() for i in members])
        found += [(members[i], score) for i, score in reference.soft_nms(*lists, **settings)]
    return sorted(found, key=lambda entry: (-entry[1], entry[0]))


@pytest.mark.parametrize("score_threshold", [0.0, 0.05])
@pytest.mark.parametrize("decay", ["linear", "gaussian"])
@pytest.mark.parametrize("count", [0, 1, 2, 257])
def test_soft_nms_equals_the_oracle(count, decay, score_threshold):
    settings = {"decay": decay, "iou_threshold": 0.3, "sigma": 0.5}
    settings["score_threshold"] = score_threshold
    boxes = real_boxes(count, 1).double()
    generator = torch.Generator().manual_seed(2)
    scores = torch.rand(count, generator=generator, dtype=torch.float64)
    groups = torch.randint(-2, 5, (count,), generator=generator)
    expected = by_groups(boxes, scores, groups, **settings)
    result = soft_nms(boxes, scores, groups, **settings)
    assert result.indices.tolist() == [index for index, _ in expected]
    values = torch.tensor([score for _, score in expected], dtype=torch.float64)
    assert_close(result.scores, values, atol=1e-12, rtol=1e-12)


def test_ties_and_an_overlap_of_exactly_the_threshold():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 10], [50, 50, 60, 60]])
    scores, groups = torch.tensor([0.5, 0.5, 0.5, 0.5]), torch.zeros(4).long()
    result = soft_nms(boxes, scores, groups, decay="linear", iou_threshold=0.5)
    assert result.indices.tolist() == [0, 3, 1]  # the equal one is at 0, below the threshold
    assert_close(result.scores, torch.tensor([0.5, 0.5, 0.25]))
    result = soft_nms(boxes, scores, groups, decay="linear", iou_threshold=0.51)
    assert result.scores.tolist() == [0.5, 0.5, 0.5]
    result = soft_nms(boxes[:2], scores[:2], groups[:2], sigma=0.25)
    assert_close(result.scores, torch.tensor([0.5, 0.5 * math.exp(-1)]))


def test_a_tie_that_arises_on_the_way_goes_to_the_lower_index():
    # box 2 falls from 0.8 to 0.4, the score of box 0
    boxes = torch.tensor([[30.0, 0, 40, 10], [0, 0, 10, 10], [0, 0, 10, 5], [100, 0, 110, 10]])
    scores, groups = torch.tensor([0.4, 0.9, 0.8, 0.1]), torch.zeros(4).long()
    result = soft_nms(boxes, scores, groups, decay="linear", iou_threshold=0.5)
    assert result.indices.tolist() == [1, 0, 2, 3]


def test_a_group_has_the_result_that_it_has_alone():
    boxes, scores = integer_boxes(300, 3), scores_with_ties(300, 4)
    groups = torch.randint(0, 9, (300,), generator=torch.Generator().manual_seed(5))
    expected = soft_nms(boxes, scores, groups)
    for group in range(9):
        members = (groups == group).nonzero().flatten()
        alone = soft_nms(boxes[members], scores[members], groups[members])
        of_group = groups[expected.indices] == group
        assert expected.indices[of_group].tolist() == members[alone.indices].tolist()
        assert_close(expected.scores[of_group], alone.scores)


def test_half_precision_is_computed_in_float32():
    boxes, scores = integer_boxes(50, 6), scores_with_ties(50, 7).half()
    groups = torch.zeros(50).long()
    expected = soft_nms(boxes, scores.float(), groups)
    result = soft_nms(boxes.half(), scores, groups)
    assert result.scores.dtype == torch.float32
    assert_close(result.scores, expected.scores)


def test_scores_that_factors_would_raise_are_refused():
    with pytest.raises(ValueError, match="scores: expected 0 or more, found -1"):
        soft_nms(torch.zeros(1, 4), torch.tensor([-1.0]), torch.zeros(1).long())
    with pytest.raises(ValueError, match="sigma: expected more than 0"):
        soft_nms(torch.zeros(1, 4), torch.ones(1), torch.zeros(1).long(), sigma=0.0)


def test_the_defaults_are_those_of_the_paper():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 9]])
    scores, groups = torch.tensor([0.9, 0.8, 0.004]), torch.zeros(3).long()
    result = soft_nms(boxes, scores, groups)
    assert_close(result.scores, torch.tensor([0.9, 0.8 * math.exp(-0.25 / 0.5)]))
    # an IoU of 1/2 is more than 0.3, the least that the linear decay acts on; one of 1/4 is less
    boxes[1, 3] = 2.5
    result = soft_nms(boxes[:2], scores[:2], groups[:2], decay="linear")
    assert_close(result.scores, torch.tensor([0.9, 0.8]))
