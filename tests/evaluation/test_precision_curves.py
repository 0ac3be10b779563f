import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_curve

from detect.evaluation.analyses.precision_curves import measure_score_curves
from detect.evaluation.judged import judge_detections
from detect.evaluation.voc import average_precisions, judge
from tests.evaluation.flat_cases import flat_case


def expected_points(is_true, scores, num_objects):
    """By falling distinct score; scikit-learn's recall is of the true positives alone."""
    precision, recall, thresholds = precision_recall_curve(is_true, scores)
    share = is_true.sum() / num_objects
    return thresholds[::-1], precision[:-1][::-1], recall[:-1][::-1] * share


@pytest.mark.parametrize("iou_threshold", [0.3, 0.5])
@pytest.mark.parametrize("seed", range(6))
def test_curves_equal_those_of_scikit_learn(seed, iou_threshold):
    names, detections, objects = flat_case(seed, 30)
    curves = measure_score_curves(detections, objects, names, iou_threshold)
    judged = judge_detections(detections, objects, len(names), iou_threshold)
    num_objects = judged.num_objects.tolist()
    compared = 0
    for label, curve in enumerate((*curves.classes, curves.pooled)):
        mine = judged.labels == label if label < len(names) else judged.labels >= 0
        is_true, scores = judged.is_true[mine].numpy(), judged.scores[mine].double().numpy()
        count = num_objects[label] if label < len(names) else sum(num_objects)
        assert curve.num_objects == count
        assert (curve.scores == np.unique(scores)[::-1]).all()
        if not is_true.any():
            assert curve.best is None
            continue
        thresholds, precision, recall = expected_points(is_true, scores, count)
        np.testing.assert_array_equal(curve.scores, thresholds)
        np.testing.assert_allclose(curve.precision, precision, atol=1e-12)
        np.testing.assert_allclose(curve.recall, recall, atol=1e-12)
        harmonic = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
        np.testing.assert_allclose(curve.f1, harmonic, atol=1e-12)
        best = curve.at_best()
        assert best["f1"] == curve.f1.max()
        assert best["score_threshold"] == curve.scores[curve.f1 == curve.f1.max()].max()
        compared += 1
    assert compared >= 2


def test_scores_are_tied():
    _, detections, _ = flat_case(1, 30)
    assert len(detections.scores.unique()) < len(detections.scores) / 5


@pytest.mark.parametrize("seed", range(6))
def test_mean_f1_equals_a_loop_over_scores_and_classes(seed):
    names, detections, objects = flat_case(seed)
    curves = measure_score_curves(detections, objects, names)
    for score, mean in zip(curves.pooled.scores, curves.mean_f1, strict=True):
        values = []
        for curve in curves.classes:
            kept = curve.f1[curve.scores >= score]
            if curve.num_objects:
                values.append(kept[-1] if len(kept) else 0.0)
        assert mean == pytest.approx(np.mean(values), abs=1e-12)
    threshold, mean = curves.best_mean_f1
    assert mean == curves.mean_f1.max()
    assert threshold == curves.pooled.scores[curves.mean_f1.argmax()]


def test_ties_in_f1_go_to_the_higher_score():
    names, detections, objects = flat_case(0)
    curve = measure_score_curves(detections, objects, names).pooled
    tied = type(curve)(*(np.array([0.9, 0.5, 0.1]),) * 3, np.array([0.2, 0.4, 0.4]), 5)
    assert tied.best_score == 0.5


def test_without_objects_or_detections_there_is_no_threshold():
    names, detections, objects = flat_case(2)
    none = objects._replace(difficult=objects.difficult | True)
    curves = measure_score_curves(detections, none, names)
    assert all(math.isnan(curve.best_score) for curve in (*curves.classes, curves.pooled))
    assert all(math.isnan(value) for value in curves.best_mean_f1)
    empty = type(detections)(*(column[:0] for column in detections))
    curves = measure_score_curves(empty, objects, names)
    assert len(curves.pooled.scores) == 0
    assert curves.as_dict()["all_classes"]["score_threshold"] is None
    assert curves.table().row_count == len(names) + 2


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_and_the_curve_of_101_recalls(seed):
    """AP is the evaluator's; each precision is the best of all points at or beyond a recall."""
    names, detections, objects = flat_case(seed, 30)
    # distinct scores, since the points of a curve join detections of equal score
    count = len(detections.scores)
    order = detections.labels.argsort(stable=True)
    assert (order == torch.arange(count)).all()
    detections = detections._replace(scores=torch.linspace(1, 0, count))
    curves = measure_score_curves(detections, objects, names)
    verdict = judge(detections, objects, len(names), (0.5,))
    expected = average_precisions(detections, objects, len(names), verdict).area[0].tolist()
    assert curves.average_precision == pytest.approx(expected, abs=1e-12, nan_ok=True)
    plain = curves.precision_recall()
    assert len(plain["recall"]) == 101
    for name, average, curve in zip(names, expected, curves.classes, strict=True):
        entry = plain["classes"][name]
        if math.isnan(average):
            assert entry == {"ap_area": None, "precision": [None] * 101}
            continue
        for recall, precision in zip(plain["recall"], entry["precision"], strict=True):
            reached = curve.precision[curve.recall >= recall]
            assert precision == pytest.approx(max(reached, default=0), abs=1e-6)
        area = np.diff(curve.recall, prepend=0) @ curve.interpolated(curve.recall)
        assert area == pytest.approx(average, abs=1e-12)
    json.dumps(plain, allow_nan=False)
