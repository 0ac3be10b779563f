"""Worked examples as fractions: both metrics of VOC from what became of each detection."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from detect.evaluation import VOCEvaluator
from detect.structures import Detections, GroundTruth


def judged(flags, num_objects):
    """The report of a class whose detections, by falling score, find an object or nothing."""
    places = torch.arange(num_objects + len(flags))[:, None]
    boxes = torch.tensor([[0.0, 0, 5, 5]]) + 10 * places  # none overlaps another
    targets = iter(boxes[:num_objects])
    strangers = boxes[num_objects:]
    found = [next(targets) if flag else box for flag, box in zip(flags, strangers, strict=True)]
    count = len(flags)
    detections = Detections(
        torch.stack(found) if found else torch.zeros(0, 4),
        torch.linspace(0.9, 0.1, count),
        torch.zeros(count, dtype=torch.int64),
    )
    truth = GroundTruth(
        boxes[:num_objects],
        torch.zeros(num_objects, dtype=torch.int64),
        torch.zeros(num_objects, dtype=torch.bool),
    )
    evaluator = VOCEvaluator(["thing"])
    evaluator.update([detections], [truth])
    return evaluator.compute().classes["thing"]


def mean_of_11(*values):
    """The mean of 11 interpolated precisions, given as `(how often, precision)`."""
    assert sum(count for count, _ in values) == 11
    return sum(count * Fraction(value) for count, value in values) / 11


EXAMPLES = [
    # flags by falling score, objects, AP at 11 points, AP as an area
    ([1], 1, Fraction(1), Fraction(1)),
    ([0], 1, Fraction(0), Fraction(0)),
    ([], 3, Fraction(0), Fraction(0)),
    ([0, 1], 1, Fraction(1, 2), Fraction(1, 2)),
    # recall stops at 1/2: precision 1 at the recalls 0 … 0.5
    ([1], 2, Fraction(6, 11), Fraction(1, 2)),
    # precision 1, 1/2, 2/3 at the recalls 1/2, 1/2, 1
    (
        [1, 0, 1],
        2,
        mean_of_11((6, 1), (5, "2/3")),
        Fraction(1, 2) + Fraction(1, 2) * Fraction(2, 3),
    ),
    # the dip to 1/3 is raised to the 1/2 that follows
    (
        [1, 0, 0, 1, 1, 1],
        4,
        mean_of_11((3, 1), (8, "2/3")),
        Fraction(1, 4) + Fraction(3, 4) * Fraction(2, 3),
    ),
    # recall 3/5 is less than 6 * 0.1: only the recalls 0 … 0.5 are reached
    ([1, 1, 1], 5, Fraction(6, 11), Fraction(3, 5)),
    # and 7/10 is less than 7 * 0.1, while 4/5 is 8 * 0.1
    ([1] * 7, 10, Fraction(7, 11), Fraction(7, 10)),
    ([1, 1, 1, 1], 5, Fraction(9, 11), Fraction(4, 5)),
    # precision falls at every second step: 1, 1/2, 2/3, 1/2, 3/5
    (
        [1, 0, 1, 0, 1],
        3,
        mean_of_11((4, 1), (3, "2/3"), (4, "3/5")),
        Fraction(1, 3) * (1 + Fraction(2, 3) + Fraction(3, 5)),
    ),
]


@pytest.mark.parametrize(("flags", "num_objects", "at_11_points", "as_area"), EXAMPLES)
def test_worked_example(flags, num_objects, at_11_points, as_area):
    entry = judged(flags, num_objects)
    assert entry.num_true_positives == sum(flags)
    assert entry.ap_11point == pytest.approx(float(at_11_points), 1e-12)
    assert entry.ap_area == pytest.approx(float(as_area), 1e-12)


def test_precision_and_recall_of_a_worked_example():
    entry = judged([1, 0, 1, 0], 5)
    assert entry.precision.tolist() == [1, 1 / 2, 2 / 3, 1 / 2]
    assert entry.recall.tolist() == [1 / 5, 1 / 5, 2 / 5, 2 / 5]
    assert entry.precision.dtype == entry.recall.dtype == np.float64


def test_recall_without_objects_is_nan_and_so_is_the_average_precision():
    entry = judged([0, 0], 0)
    assert np.isnan(entry.recall).all()
    assert entry.precision.tolist() == [0, 0]
    assert np.isnan(entry.ap_11point)
    assert np.isnan(entry.ap_area)
