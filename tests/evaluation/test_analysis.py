import json
import math

import pytest

from detect.errors import DetectError
from detect.evaluation import DetectionSet, VOCEvaluator, analyze_detections
from tests.evaluation.voc_cases import random_case

NUM_IMAGES = 12
IMAGE_IDS = tuple(map(str, range(NUM_IMAGES)))


def detection_set(case):
    return DetectionSet(tuple(case.class_names), IMAGE_IDS, tuple(case.detections))


def test_all_analyses_are_of_the_same_detections():
    case = random_case(1, NUM_IMAGES)
    analysis = analyze_detections(detection_set(case), case.class_names, IMAGE_IDS, case.truths)
    evaluator = VOCEvaluator(case.class_names)
    evaluator.update(case.detections, case.truths)
    report = evaluator.compute()
    assert analysis.tide.average_precision == pytest.approx(report.map_area)
    assert analysis.num_objects == report.protocol.num_objects
    assert analysis.num_difficult == report.protocol.num_difficult
    assert analysis.num_detections == report.protocol.num_detections
    assert analysis.confusion.score_threshold == analysis.score_curves.pooled.best_score
    assert analysis.recall.best_overlaps.shape[1] == analysis.num_objects
    for curve, entry in zip(analysis.score_curves.classes, report.classes.values(), strict=True):
        assert curve.num_objects == entry.num_objects
        if entry.num_detections:
            assert curve.precision[-1] == pytest.approx(entry.precision[-1])


def test_classes_and_images_are_matched_by_name():
    case = random_case(1, NUM_IMAGES)
    found = detection_set(case)
    rows = list(reversed(range(NUM_IMAGES)))
    turned = DetectionSet(
        found.class_names,
        tuple(IMAGE_IDS[row] for row in rows),
        tuple(found.detections[row] for row in rows),
    )
    expected = analyze_detections(found, case.class_names, IMAGE_IDS, case.truths)
    other = analyze_detections(turned, case.class_names, IMAGE_IDS, case.truths)
    assert other.as_dict() == expected.as_dict()
    with pytest.raises(DetectError, match="unknown image '0'"):
        analyze_detections(found, case.class_names, IMAGE_IDS[1:], case.truths[1:])


def test_scores_that_are_no_probabilities_leave_out_calibration_alone():
    case = random_case(1, NUM_IMAGES)
    analysis = analyze_detections(detection_set(case), case.class_names, IMAGE_IDS, case.truths)
    assert analysis.calibration is None
    assert len(analysis.notes) == 1
    assert "left out: calibration: expected scores in 0…1" in analysis.notes[0]
    assert analysis.as_dict()["calibration"] is None
    assert len(analysis.tables()) == 8


def test_settings_reach_the_analyses():
    case = random_case(1, NUM_IMAGES)
    analysis = analyze_detections(
        detection_set(case),
        case.class_names,
        IMAGE_IDS,
        case.truths,
        iou_threshold=0.3,
        score_threshold=0.1,
        similar_classes=[case.class_names[:2]],
    )
    assert analysis.confusion.score_threshold == 0.1
    assert analysis.hoiem.similar_classes == (tuple(case.class_names[:2]),)
    thresholds = {
        report.iou_threshold
        for report in (analysis.confusion, analysis.score_curves, analysis.sizes)
    }
    assert thresholds == {0.3}


def test_without_anything_every_number_is_none():
    empty = DetectionSet(("a", "b"), (), ())
    analysis = analyze_detections(empty, ("a", "b"), (), ())
    text = json.dumps(analysis.as_dict(), allow_nan=False)
    assert json.loads(text)["tide"]["average_precision"] is None
    assert math.isnan(analysis.tide.delta["missed"])
    assert len(analysis.tables()) == 9
    with pytest.raises(DetectError, match="iou_threshold: expected more than 0"):
        analyze_detections(empty, ("a", "b"), (), (), iou_threshold=0)
