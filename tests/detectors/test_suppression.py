"""Suppression, which is one code for all detectors."""

import pytest
import torch
from torch.testing import assert_close

from detect.backbones import create_backbone
from detect.detectors import DETECTORS, YOLO
from detect.detectors.suppression import Suppressor
from detect.errors import DetectError
from detect.structures import GroundTruth
from tests.contracts import image_batch
from tests.reference import suppression as reference

METHODS = ("greedy", "soft", "matrix")
ALL = {"score_threshold": 0.0, "max_detections": 100_000, "input_size": 64}
RANDOM = {"proposals": "random-boxes", "proposal_options": {"count": 12}}
# Each family in a form that suppresses, and small.
FAMILIES = {
    "yolo": {"hidden_features": 8},
    "localizer": {"hidden_features": (8,), "num_objects": 4},
    "sliding_window": {"scales": (1.0, 1.5), "hidden_features": (8,), "combine": "nms"},
    "rcnn": {**RANDOM, "context": 4, "svm": False},
    "fast_rcnn": {**RANDOM, "shorter_side": None},
    "faster_rcnn": {"shorter_side": None, "test_proposals": (100, 30), "proposal_iou": 0.9},
}
# Two images, three candidates each, of which two overlap by an IoU of 81/119.
BOXES = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [40, 40, 60, 60]]).repeat(2, 1)
SCORES = torch.tensor([0.9, 0.8, 0.6, 0.5, 0.55, 0.01])
IMAGES = torch.tensor([0, 0, 0, 1, 1, 1])
SAME = torch.zeros(6, dtype=torch.int64)


def build(name, **options):
    torch.manual_seed(0)
    return DETECTORS[name](create_backbone("tiny"), 3, **{**ALL, **FAMILIES[name], **options})


def rows(found):
    return {
        (label, *box)
        for box, label in zip(found.boxes.tolist(), found.labels.tolist(), strict=True)
    }


def test_all_families_are_here():
    assert set(FAMILIES) == set(DETECTORS)


@pytest.mark.parametrize("name", FAMILIES)
def test_lowering_scores_keeps_what_greedy_suppression_keeps(name):
    batch = image_batch((64, 64), (GroundTruth.empty(),) * 2)
    greedy, soft, matrix = (
        build(name, suppression=m, iou_threshold=0.3).detect(batch) for m in METHODS
    )
    assert sum(map(len, greedy)) > 0
    assert sum(map(len, soft)) > sum(map(len, greedy))
    for strict, *lowered in zip(greedy, soft, matrix, strict=True):
        for found in lowered:
            assert rows(strict) <= rows(found)
            assert (found.scores[1:] <= found.scores[:-1]).all()


@pytest.mark.parametrize("decay", ["linear", "gaussian"])
@pytest.mark.parametrize("method", ["soft", "matrix"])
def test_a_detector_scores_as_the_oracle_does(method, decay):
    batch = image_batch((64, 64), (GroundTruth.empty(),))
    detector = build("yolo", grid_size=3, boxes_per_cell=1)
    (everything,) = build("yolo", grid_size=3, boxes_per_cell=1, iou_threshold=1.0).detect(batch)
    options = {"suppression_decay": decay, "suppression_sigma": 0.3, "iou_threshold": 0.2}
    detector.suppressor = Suppressor(method, max_detections=None, **options)
    (found,) = detector.detect(batch)
    for label in range(3):
        own = everything.labels == label
        boxes, scores = everything.boxes[own].tolist(), everything.scores[own].tolist()
        if method == "soft":
            pairs = reference.soft_nms(boxes, scores, decay, 0.2, 0.3, 0.0)
            expected = [score for _, score in pairs]
        else:
            expected = reference.matrix_nms(boxes, scores, decay, 0.3)
        got = found.scores[found.labels == label].sort(descending=True).values
        assert_close(got, torch.tensor(expected).sort(descending=True).values)


def test_images_and_classes_do_not_touch_and_the_best_are_kept():
    first, second = Suppressor(max_detections=2)(BOXES, SCORES, SAME, IMAGES, 2, 0.0)
    assert_close(first.scores, torch.tensor([0.9, 0.6]))
    assert_close(second.boxes, BOXES[[4, 5]])
    labels = torch.tensor([0, 1, 2, 2, 2, 2])
    first, second, third = Suppressor()(BOXES, SCORES, labels, IMAGES, 3, 0.0)
    assert first.labels.tolist() == [0, 1, 2]
    assert second.labels.tolist() == [2, 2]
    assert len(third) == 0


def test_lowered_scores_reach_the_threshold_and_margins_decay_towards_it():
    soft = Suppressor("soft", suppression_decay="linear")
    first, _ = soft(BOXES, SCORES, SAME, IMAGES, 2, 0.3)
    assert_close(first.scores, torch.tensor([0.9, 0.6]))  # 0.8 · (1 − 81/119) = 0.26
    first, _ = soft(BOXES, SCORES - 1, SAME, IMAGES, 2, -1.0)
    assert_close(first.scores, torch.tensor([0.9, 0.6, 0.8 * (1 - 81 / 119)]) - 1)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("localizer", {"num_objects": 1}, r"num_objects = 1 .* found soft"),
        ("sliding_window", {"combine": "merge"}, r"combine = merge .* found soft"),
    ],
)
def test_a_suppression_that_would_do_nothing_is_refused(name, options, reason):
    with pytest.raises(DetectError, match=r"^detector\.suppression: .*" + reason):
        build(name, suppression="soft", **options)


def test_options_come_alone_or_in_groups():
    suppressor = Suppressor("matrix", iou_threshold=0.4)
    detector = YOLO(
        create_backbone("tiny"), 3, input_size=64, suppressor=suppressor, max_detections=7
    )
    assert detector.suppressor == Suppressor("matrix", iou_threshold=0.4, max_detections=7)
    with pytest.raises(DetectError, match=r"^detector\.suppression_sigma: .*more than 0, found -1"):
        YOLO(create_backbone("tiny"), 3, suppressor=Suppressor(suppression_sigma=-1))
    with pytest.raises(TypeError, match="no_such_option"):
        YOLO(create_backbone("tiny"), 3, no_such_option=1)
