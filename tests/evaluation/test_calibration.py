import math

import pytest
import torch

from detect.errors import DetectError
from detect.evaluation.analyses.calibration import measure_calibration
from detect.evaluation.flat import FlatDetections
from detect.evaluation.judged import judge_detections
from tests.evaluation.flat_cases import flat_case


def probable_case(seed):
    """A random case whose scores, ties included, are in 0…1, some on the edges of bins."""
    names, detections, objects = flat_case(seed, 40)
    scores = ((detections.scores * 7 + 5) / 10).clamp(0, 1)
    return names, detections._replace(scores=scores), objects


def slow_reliability(rows, num_bins):
    """`rows`: `(score, whether it is right)`; the bins as the paper has them, and the ECE."""
    bins = [[] for _ in range(num_bins)]
    for score, is_true in rows:
        bins[max(math.ceil(score * num_bins) - 1, 0)].append((score, is_true))
    total = 0.0
    for members in filter(None, bins):
        precision = sum(is_true for _, is_true in members) / len(members)
        mean = sum(score for score, _ in members) / len(members)
        total += len(members) * abs(precision - mean)
    return bins, total / len(rows) if rows else math.nan


@pytest.mark.parametrize("num_bins", [1, 8, 15])
@pytest.mark.parametrize("seed", range(4))
def test_random_case_equals_the_loop(seed, num_bins):
    names, detections, objects = probable_case(seed)
    report = measure_calibration(detections, objects, names, num_bins=num_bins)
    judged = judge_detections(detections, objects, len(names), 0.5)
    rows = list(
        zip(judged.scores.tolist(), judged.is_true.tolist(), judged.labels.tolist(), strict=True)
    )
    for label in (None, *range(len(names))):
        mine = [(score, is_true) for score, is_true, its in rows if label in (None, its)]
        entry = report.pooled if label is None else report.classes[label]
        bins, error = slow_reliability(mine, num_bins)
        assert entry.counts.tolist() == [len(members) for members in bins]
        assert entry.expected_error == pytest.approx(error, abs=1e-12, nan_ok=True)
        for place, members in enumerate(bins):
            if not members:
                assert math.isnan(entry.precision[place])
                continue
            precision = sum(is_true for _, is_true in members) / len(members)
            assert entry.precision[place] == pytest.approx(precision)
            assert entry.mean_scores[place] == pytest.approx(
                sum(score for score, _ in members) / len(members)
            )
    assert report.pooled.expected_error > 0


def test_a_worked_example():
    names, detections, objects = probable_case(0)
    report = measure_calibration(detections, objects, names, num_bins=2)
    entry = type(report.pooled)(
        torch.tensor([10, 30]).numpy(),
        torch.tensor([0.4, 0.9]).double().numpy(),
        torch.tensor([0.5, 0.7]).double().numpy(),
    )
    assert entry.expected_error == pytest.approx((10 * 0.1 + 30 * 0.2) / 40)
    assert entry.greatest_error == pytest.approx(0.2)
    assert entry.overconfidence == pytest.approx((30 * 0.2 - 10 * 0.1) / 40)


def test_scores_on_an_edge_belong_to_the_lower_bin():
    names, detections, objects = probable_case(1)
    edges = FlatDetections(*(column[:4] for column in detections))
    edges = edges._replace(scores=torch.tensor([1.0, 0.5, 0.25, 0.0]), labels=torch.zeros(4).long())
    none = type(objects)(*(column[:0] for column in objects))
    report = measure_calibration(edges, none, names, num_bins=4)
    assert report.pooled.counts.tolist() == [2, 1, 0, 1]


@pytest.mark.parametrize("score", [-0.5, 1.5])
def test_scores_that_are_no_probabilities_are_a_readable_error(score):
    names, detections, objects = probable_case(1)
    scores = detections.scores.clone()
    scores[3] = score
    with pytest.raises(DetectError, match=f"expected scores in 0…1.*found {score}.*SVMs"):
        measure_calibration(detections._replace(scores=scores), objects, names)


def test_without_detections():
    names, detections, objects = probable_case(1)
    none = FlatDetections(*(column[:0] for column in detections))
    report = measure_calibration(none, objects, names)
    assert math.isnan(report.pooled.expected_error)
    assert report.as_dict()["all_classes"]["expected_calibration_error"] is None
    assert report.table().row_count == len(names) + 1
    with pytest.raises(DetectError, match="num_bins: expected 1 or more, found 0"):
        measure_calibration(none, objects, names, num_bins=0)
