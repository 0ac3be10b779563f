from typing import get_args

import pytest
import torch
from torch.testing import assert_close

from detect.ops import FusedScore, weighted_boxes_fusion
from tests.ops.random_boxes import integer_boxes, real_boxes, scores_with_ties
from tests.reference import suppression as reference

WEIGHTS = [1.0, 2.0, 0.5]


def fused_one_by_one(boxes, scores, groups, models, *settings):
    found = []
    for group in sorted(set(groups.tolist())):
        members = (groups == group).nonzero().flatten()
        lists = (boxes[members].tolist(), scores[members].tolist(), models[members].tolist())
        entries = reference.weighted_boxes_fusion(*lists, WEIGHTS, *settings)
        found += [(group, *entry) for entry in entries]
    return found


@pytest.mark.parametrize("allow_overflow", [False, True])
@pytest.mark.parametrize("fused_score", get_args(FusedScore))
@pytest.mark.parametrize("count", [0, 1, 2, 257])
def test_fusion_equals_the_oracle(count, fused_score, allow_overflow):
    generator = torch.Generator().manual_seed(1)
    boxes = real_boxes(count, 2).double()
    scores = torch.rand(count, generator=generator, dtype=torch.float64)
    groups = torch.randint(-2, 4, (count,), generator=generator)
    models = torch.randint(0, 3, (count,), generator=generator)
    settings = (0.4, 0.05, fused_score, allow_overflow)
    expected = fused_one_by_one(boxes, scores, groups, models, *settings)
    result = weighted_boxes_fusion(
        boxes, scores, groups, models, WEIGHTS,
        iou_threshold=0.4, skip_threshold=0.05,
        fused_score=fused_score, allow_overflow=allow_overflow,
    )  # fmt: skip
    assert result.groups.tolist() == [group for group, *_ in expected]
    assert result.counts.tolist() == [size for *_, size in expected]
    assert count < 257 or 1 < result.counts.max() < 100
    wanted = torch.tensor([box for _, box, *_ in expected], dtype=torch.float64).reshape(-1, 4)
    assert_close(result.boxes, wanted, atol=1e-10, rtol=1e-10)
    wanted = torch.tensor([score for _, _, score, _ in expected], dtype=torch.float64)
    assert_close(result.scores, wanted, atol=1e-10, rtol=1e-10)


def test_ties_go_to_the_lower_index_and_the_threshold_itself_does_not_join():
    boxes = integer_boxes(200, 3, extent=20).double()
    scores = scores_with_ties(200, 4).double()
    groups, models = torch.zeros(200).long(), torch.arange(200) % 3
    result = weighted_boxes_fusion(boxes, scores, groups, models, WEIGHTS, iou_threshold=0.5)
    settings = (0.5, 0.0, "average", False)
    expected = fused_one_by_one(boxes, scores, groups, models, *settings)
    rows = torch.cat((result.scores[:, None], result.boxes), dim=1).tolist()
    found = sorted([round(value, 9) for value in row] for row in rows)
    assert found == sorted(
        [round(value, 9) for value in (score, *box)] for _, box, score, _ in expected
    )
    pair = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])
    for threshold, count in ((0.5, 2), (0.49, 1)):
        result = weighted_boxes_fusion(
            pair, torch.tensor([0.9, 0.8]), groups[:2], models[:2], WEIGHTS, iou_threshold=threshold
        )
        assert len(result.boxes) == count


def test_two_models_that_agree():
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10]])
    scores, zeros = torch.tensor([0.6, 0.2]), torch.zeros(2).long()
    result = weighted_boxes_fusion(boxes, scores, zeros, torch.tensor([0, 1]), [1.0, 1.0])
    assert_close(result.boxes, torch.tensor([[0.5, 0, 10.5, 10]]))
    assert_close(result.scores, torch.tensor([0.4]))
    assert result.boxes.dtype == result.scores.dtype == torch.float32
    alone = weighted_boxes_fusion(boxes[:1], scores[:1], zeros[:1], zeros[:1], [1.0, 1.0])
    assert_close(alone.scores, torch.tensor([0.3]))  # half of the models saw it


@pytest.mark.parametrize(
    ("score", "model", "weight", "message"),
    [
        (-1.0, 0, 1.0, "scores: expected 0 or more, found -1"),
        (1.0, 0, 0.0, "model_weights: expected more than 0"),
        (1.0, 1, 1.0, "models: expected 0 to 0, as there are weights, found 1 to 1"),
    ],
)
def test_what_cannot_be_fused_is_refused(score, model, weight, message):
    with pytest.raises(ValueError, match=message):
        weighted_boxes_fusion(
            torch.zeros(1, 4), torch.tensor([score]), torch.zeros(1).long(),
            torch.tensor([model]), [weight],
        )  # fmt: skip
