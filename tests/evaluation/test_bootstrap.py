import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from detect.evaluation import VOCEvaluator, bootstrap_map, compare_runs
from detect.evaluation.analyses.bootstrap import (
    count_by_image,
    draw_images,
    merged_counts,
    resampled_precision,
)
from detect.structures import Detections
from tests.evaluation.voc_cases import random_case


def evaluated(case, images):
    """The report on these images, each as often as it is listed."""
    evaluator = VOCEvaluator(case.class_names)
    evaluator.update(
        [case.detections[image] for image in images],
        [case.truths[image] for image in images],
    )
    return evaluator.compute()


def flat(case):
    evaluator = VOCEvaluator(case.class_names)
    evaluator.update(case.detections, case.truths)
    return evaluator.flat()


def without_ties(case):
    """The same case with a score of its own for each detection, in the order it had."""
    rows = [score for found in case.detections for score in found.scores.tolist()]
    ranks = np.empty(len(rows))
    ranks[np.argsort(-np.array(rows), kind="stable")] = np.arange(len(rows))
    scores = torch.tensor(1 - ranks / len(rows), dtype=torch.float32)
    parts = scores.split([len(found) for found in case.detections])
    return replace(
        case,
        detections=[
            Detections.sorted(found.boxes, part, found.labels)
            for found, part in zip(case.detections, parts, strict=True)
        ],
    )


@pytest.mark.parametrize("seed", range(6))
def test_a_resampling_is_the_evaluation_of_its_images(seed):
    case = without_ties(random_case(seed))
    num_images = len(case.truths)
    counts = count_by_image(*flat(case), len(case.class_names), num_images, 0.5)
    drawn = draw_images(num_images, 20, seed)
    assert (drawn.sum(axis=0) == num_images).all()
    assert drawn.max() > 1
    found = resampled_precision(counts, drawn)
    for column in range(20):
        report = evaluated(case, np.repeat(np.arange(num_images), drawn[:, column]).tolist())
        assert found.map_area[column] == pytest.approx(report.map_area, abs=1e-12, nan_ok=True)
        assert found.map_11point[column] == pytest.approx(
            report.map_11point, abs=1e-12, nan_ok=True
        )


def test_parts_of_any_size_give_the_same(monkeypatch):
    case = random_case(1)
    counts = count_by_image(*flat(case), 4, len(case.truths), 0.5)
    drawn = draw_images(len(case.truths), 30, 0)
    expected = resampled_precision(counts, drawn)
    monkeypatch.setattr("detect.evaluation.analyses.bootstrap.MAX_CELLS", 3 * len(counts.lists))
    for part, whole in zip(resampled_precision(counts, drawn), expected, strict=True):
        np.testing.assert_array_equal(part, whole)


def test_the_interval_holds_the_value_and_shrinks_with_more_images():
    case = random_case(2)
    detections, objects = flat(case)
    report = bootstrap_map(detections, objects, 4, len(case.truths), num_resamplings=400)
    exact = evaluated(case, range(len(case.truths)))
    assert report.map_area.value == pytest.approx(exact.map_area, abs=1e-12)
    assert report.map_11point.value == pytest.approx(exact.map_11point, abs=1e-12)
    assert report.map_area.low < report.map_area.value < report.map_area.high
    narrow = bootstrap_map(
        detections, objects, 4, len(case.truths), num_resamplings=400, confidence=0.5
    )
    assert report.map_area.low < narrow.map_area.low < narrow.map_area.high < report.map_area.high
    again = bootstrap_map(detections, objects, 4, len(case.truths), num_resamplings=400)
    assert again.as_dict() == report.as_dict()
    other = bootstrap_map(detections, objects, 4, len(case.truths), num_resamplings=400, seed=1)
    assert other.as_dict() != report.as_dict()


def test_the_standard_error_of_a_share_is_the_known_one():
    # images with one object each and a detection that is there or not, all scores alike: AP is
    # the share of objects found, whose standard error is √(p (1 − p) / n)
    num_images, num_found = 400, 100
    box = torch.tensor([[0.0, 0, 10, 10]])
    label = torch.zeros(1, dtype=torch.int64)
    nothing = {"boxes": box[:0], "scores": torch.zeros(0), "labels": label[:0]}
    hit = {"boxes": box, "scores": torch.ones(1), "labels": label}
    evaluator = VOCEvaluator(["thing"])
    evaluator.update(
        [hit] * num_found + [nothing] * (num_images - num_found),
        [{"boxes": box, "labels": label}] * num_images,
    )
    report = bootstrap_map(*evaluator.flat(), 1, num_images, num_resamplings=4000)
    expected = math.sqrt(0.25 * 0.75 / num_images)
    assert report.map_area.value == 0.25
    assert report.map_area.standard_error == pytest.approx(expected, rel=0.05)
    assert report.map_area.low == pytest.approx(0.25 - 1.96 * expected, abs=0.004)
    assert report.map_area.high == pytest.approx(0.25 + 1.96 * expected, abs=0.004)


@pytest.mark.parametrize("seed", range(3))
def test_an_exchange_is_the_evaluation_of_the_mixture(seed):
    first, second = without_ties(random_case(seed)), without_ties(random_case(seed))
    shuffled = np.random.default_rng(seed).permutation(len(first.truths)).tolist()
    second = replace(
        second,
        detections=[
            Detections.sorted(found.boxes, found.scores * 0.99, found.labels)
            for found in (second.detections[image] for image in shuffled)
        ],
    )
    num_images = len(first.truths)
    counts = merged_counts((flat(first)[0], flat(second)[0]), flat(first)[1], 4, num_images, 0.5)
    own = np.random.default_rng(seed).integers(0, 2, (num_images, 8), dtype=np.int32)
    found = resampled_precision(counts, np.concatenate((own, 1 - own)), np.ones_like(own))
    for column in range(8):
        mixture = replace(
            first,
            detections=[
                (first if own[image, column] else second).detections[image]
                for image in range(num_images)
            ],
        )
        report = evaluated(mixture, range(num_images))
        assert found.map_area[column] == pytest.approx(report.map_area, abs=1e-12)
        assert found.map_11point[column] == pytest.approx(report.map_11point, abs=1e-12)


def two_runs(share, num_images=120, seed=0):
    """Run A finds all objects of the images, run B each with a chance; both have false alarms."""
    draw = np.random.default_rng(seed)
    box = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    labels = torch.zeros(2, dtype=torch.int64)
    evaluators = VOCEvaluator(["thing"]), VOCEvaluator(["thing"])
    for _ in range(num_images):
        truth = {"boxes": box[:1], "labels": labels[:1]}
        for evaluator, chance in zip(evaluators, (0.8, share), strict=True):
            row = 0 if draw.random() < chance else 1
            found = {
                "boxes": box[row : row + 1],
                "scores": torch.tensor([draw.random()], dtype=torch.float32),
                "labels": labels[:1],
            }
            evaluator.update([found], [truth])
    (first, objects), (second, _) = (evaluator.flat() for evaluator in evaluators)
    return (first, second), objects, 1, num_images


def test_a_real_difference_is_significant_and_none_is_not():
    better = compare_runs(*two_runs(0.4), num_resamplings=500)
    assert better.map_area.p_value == pytest.approx(1 / 501)
    assert better.map_area.difference.low > 0
    assert better.map_area.difference.value == pytest.approx(
        better.map_area.first.value - better.map_area.second.value
    )
    runs, objects, num_classes, num_images = two_runs(0.8)
    same = compare_runs((runs[0], runs[0]), objects, num_classes, num_images, num_resamplings=50)
    assert same.map_area.p_value == 1
    assert (same.map_area.difference.low, same.map_area.difference.high) == (0, 0)


def test_p_values_of_equal_runs_are_spread_evenly():
    values = [
        compare_runs(*two_runs(0.8, 40, seed), num_resamplings=99).map_area.p_value
        for seed in range(30)
    ]
    assert 0.3 < np.mean(values) < 0.7
    assert np.mean([value <= 0.1 for value in values]) < 0.25
    assert min(values) < 0.25


def test_the_reports_are_plain_data_and_tables():
    comparison = compare_runs(*two_runs(0.4), num_resamplings=20)
    content = json.loads(json.dumps(comparison.as_dict(), allow_nan=False))
    assert content["map_area"]["p_value"] == comparison.map_area.p_value
    assert comparison.table(("yolo", "rcnn")).row_count == 2
    runs, objects, num_classes, num_images = two_runs(0.4)
    assert bootstrap_map(runs[0], objects, num_classes, num_images, num_resamplings=20).table()


def test_without_objects_nothing_is_defined():
    detections, _ = flat(random_case(3))
    nothing, objects = flat(random_case(3))
    none = type(objects)(*(column[:0] for column in objects))
    report = bootstrap_map(detections, none, 4, 12, num_resamplings=10)
    assert math.isnan(report.map_area.value)
    json.dumps(report.as_dict(), allow_nan=False)
    empty = type(nothing)(*(column[:0] for column in nothing))
    assert bootstrap_map(empty, objects, 4, 12, num_resamplings=10).map_area.value == 0


@pytest.mark.parametrize(
    "settings", [{"num_images": 0}, {"confidence": 1.0}, {"num_resamplings": 0}]
)
def test_what_cannot_be_drawn_is_refused(settings):
    detections, objects = flat(random_case(3))
    with pytest.raises(ValueError, match="bootstrap_map: expected"):
        bootstrap_map(detections, objects, 4, **({"num_images": 12} | settings))
    if "num_images" in settings:
        with pytest.raises(ValueError, match="compare_runs: expected images"):
            compare_runs((detections, detections), objects, 4, 0)
