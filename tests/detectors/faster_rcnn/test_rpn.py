import pytest
import torch
from torch.testing import assert_close

from detect.detectors.fast_rcnn.pooling import FeatureMap
from detect.detectors.fast_rcnn.regions import pad_truths
from detect.detectors.faster_rcnn.anchors import base_anchors, grid_anchors
from detect.detectors.faster_rcnn.rpn import (
    BOX_BETA,
    AnchorOutputs,
    RegionProposalNetwork,
    anchor_losses,
    sample_anchors,
    select_proposals,
)
from detect.structures import GroundTruth
from tests.contracts import some_truth
from tests.reference import two_stage as reference

SIZE = (96, 128)
FRAMES = [[0.0, 0.0, 128.0, 96.0], [8.0, 0.0, 120.0, 96.0], [0.0, 30.0, 128.0, 40.0]]


def some_anchors():
    return grid_anchors(base_anchors((16, 32, 64), (0.5, 1.0, 2.0)), (6, 8), 16)


def some_outputs(seed=0, counts=None):
    generator = torch.Generator().manual_seed(seed)
    anchors = some_anchors()
    count = len(anchors)
    return AnchorOutputs(
        anchors,
        counts or (count,),
        torch.randn(3, count, generator=generator),
        torch.randn(3, count, 4, generator=generator) * 0.3,
    )


def some_truths():
    return [some_truth(SIZE, 3, 6, 1), GroundTruth.empty(), some_truth(SIZE, 3, 2, 2)]


def draw(count=10_000, **options):
    settings = {
        "anchors_per_image": count,
        "positive_iou": 0.7,
        "negative_iou": 0.3,
        "crossing": False,
        "generator": torch.Generator().manual_seed(0),
    }
    truths = some_truths()
    frames = torch.tensor(FRAMES)
    return sample_anchors(some_anchors(), pad_truths(truths), frames, **(settings | options))


# --- anchors --------------------------------------------------------------------------------------


def test_anchors_are_those_of_the_release():
    ours = grid_anchors(base_anchors((128, 256, 512), (0.5, 1.0, 2.0)), (1, 1), 16)
    # the release's last pixel is part of a box, ours is the border behind it
    inclusive = ours - torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert_close(inclusive, torch.tensor(reference.RELEASED_ANCHORS, dtype=torch.float32))


def test_anchors_stand_at_the_centers_of_positions_row_by_row():
    anchors = grid_anchors(base_anchors((8, 16), (1.0,)), (2, 3), 4)
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    expected = [[x, y] for y in (2.0, 6.0) for x in (2.0, 6.0, 10.0) for _ in range(2)]
    assert centers.tolist() == expected
    assert (anchors[:, 2] - anchors[:, 0]).tolist() == [8.0, 16.0] * 6


def test_outputs_stand_in_the_order_of_the_anchors():
    network = RegionProposalNetwork(4, 5, [(16, 32), (64, 128)], (0.5, 1.0, 2.0))
    maps = [
        FeatureMap(torch.randn(2, 4, 3, 5), 1 / 8),
        FeatureMap(torch.randn(2, 4, 2, 3), 1 / 16),
    ]
    outputs = network(maps)
    assert outputs.counts == (3 * 5 * 6, 2 * 3 * 6)
    assert outputs.anchors.shape == (sum(outputs.counts), 4)
    for level, (values, _) in enumerate(maps):
        hidden = network.convolution(values).relu()
        scores, moves = network.objectness(hidden), network.regressor(hidden)
        width = values.shape[3]
        for row, column, anchor in ((0, 0, 0), (1, 2, 5), (1, 1, 3)):
            place = sum(outputs.counts[:level]) + (row * width + column) * 6 + anchor
            assert_close(outputs.logits[:, place], scores[:, anchor, row, column])
            own = moves[:, 4 * anchor : 4 * anchor + 4, row, column]
            assert_close(outputs.deltas[:, place], own)
            center = outputs.anchors[place].view(2, 2).mean(dim=0)
            stride = 8 * 2**level
            assert center.tolist() == [(column + 0.5) * stride, (row + 0.5) * stride]


# --- targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("crossing", [False, True])
@pytest.mark.parametrize("thresholds", [(0.7, 0.3), (0.5, 0.4)])
def test_targets_equal_the_oracle(thresholds, crossing):
    positive, negative = thresholds
    # so many that all candidates but half of the positives' share are drawn
    targets = draw(positive_iou=positive, negative_iou=negative, crossing=crossing)
    anchors = some_anchors().tolist()
    for row, truth in enumerate(some_truths()):
        objects = truth.boxes.tolist()
        kinds = reference.anchor_kinds(
            anchors, objects, FRAMES[row], positive, negative, crossing=crossing
        )
        is_drawn = targets.sample.is_drawn[row]
        drawn = targets.sample.indices[row][is_drawn].tolist()
        is_positive = targets.sample.is_positive[row][is_drawn].tolist()
        assert len(drawn) == len(set(drawn))
        found = dict(zip(drawn, is_positive, strict=True))
        assert found == {n: kind >= 0 for n, kind in enumerate(kinds) if kind != -2}
        if objects and row == 0:
            assert any(found.values())
        for number, deltas in zip(drawn, targets.deltas[row][is_drawn].tolist(), strict=True):
            expected = (0.0,) * 4
            if kinds[number] >= 0:
                expected = reference.encode(objects[kinds[number]], anchors[number])
            assert_close(torch.tensor(deltas), torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_half_of_the_drawn_anchors_are_positive_at_most():
    everything = draw(positive_iou=0.31, crossing=True).sample
    positives = int((everything.is_positive & everything.is_drawn)[0].sum())
    assert positives > 8
    few = draw(12, positive_iou=0.31, crossing=True).sample
    assert int(few.is_drawn[0].sum()) == 12
    assert int((few.is_positive & few.is_drawn)[0].sum()) == 6
    # an image without objects gives background alone
    assert int(few.is_drawn[1].sum()) == 12
    assert not (few.is_positive & few.is_drawn)[1].any()


def test_no_anchor_of_a_narrow_image_is_inside():
    assert not draw().sample.is_drawn[2].any()
    assert draw(crossing=True).sample.is_drawn[2].any()


def test_losses_equal_the_oracle():
    outputs, targets = some_outputs(), draw(24)
    objectness, boxes = anchor_losses(outputs, targets)
    expected_objectness = expected_boxes = 0.0
    sample = targets.sample
    count = int(sample.is_drawn.sum())
    for row, column in sample.is_drawn.nonzero().tolist():
        anchor = int(sample.indices[row, column])
        is_positive = bool(sample.is_positive[row, column])
        logit = outputs.logits[row, anchor].double()
        expected_objectness += float(torch.log1p(torch.exp(-logit if is_positive else logit)))
        if is_positive:
            expected_boxes += reference.smooth_l1(
                outputs.deltas[row, anchor].tolist(),
                targets.deltas[row, column].tolist(),
                BOX_BETA,
            )
    assert count > 24
    assert float(objectness) == pytest.approx(expected_objectness / count, rel=1e-5)
    assert float(boxes) == pytest.approx(expected_boxes / count, rel=1e-5)


def test_losses_without_any_anchor_are_zero():
    targets = draw(positive_iou=0.7)
    nothing = targets._replace(
        sample=targets.sample._replace(is_drawn=torch.zeros_like(targets.sample.is_drawn))
    )
    objectness, boxes = anchor_losses(some_outputs(), nothing)
    assert (float(objectness), float(boxes)) == (0.0, 0.0)


# --- proposals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [(400, 50, 0.7, 1.0), (60, 1000, 0.5, 12.0), (1000, 5, 0.9, 4.0)]
)
def test_proposals_equal_the_oracle(settings):
    outputs = some_outputs()
    num_before, num_after, iou_threshold, min_size = settings
    found = select_proposals(
        outputs,
        torch.tensor(FRAMES),
        num_before=num_before,
        num_after=num_after,
        iou_threshold=iou_threshold,
        min_size=min_size,
    )
    for row, frame in enumerate(FRAMES):
        expected = reference.proposals(
            outputs.anchors.tolist(),
            outputs.logits[row].tolist(),
            outputs.deltas[row].tolist(),
            frame,
            *settings,
        )
        own = found.boxes[row][found.valid[row]]
        assert_close(own, torch.tensor(expected).reshape(-1, 4), atol=1e-3, rtol=1e-5)
    assert found.boxes.shape[1] == int(found.valid.sum(dim=1).max())


def test_levels_do_not_suppress_each_other():
    outputs = some_outputs()
    twice = AnchorOutputs(
        torch.cat((outputs.anchors, outputs.anchors)),
        (len(outputs.anchors),) * 2,
        torch.cat((outputs.logits, outputs.logits), dim=1),
        torch.cat((outputs.deltas, outputs.deltas), dim=1),
    )
    options = {"num_before": 50, "num_after": 1000, "iou_threshold": 0.5, "min_size": 1.0}
    frames = torch.tensor(FRAMES)
    once, both = (select_proposals(o, frames, **options) for o in (outputs, twice))
    assert both.valid.sum(dim=1).tolist() == (2 * once.valid.sum(dim=1)).tolist()


def test_an_image_where_no_proposal_survives():
    options = {"num_before": 50, "num_after": 10, "iou_threshold": 0.7}
    frames = torch.tensor(FRAMES)
    found = select_proposals(some_outputs(), frames, min_size=20.0, **options)
    assert found.valid.any(dim=1).tolist() == [True, True, False]  # 10 pixels high
    nothing = select_proposals(some_outputs(), frames, min_size=500.0, **options)
    assert nothing.boxes.shape == (3, 0, 4)
