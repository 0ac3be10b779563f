"""Worked examples as fractions, and both metrics against the slow oracle."""

from fractions import Fraction

import numpy as np
import pytest

from detect.evaluation import (
    average_precision_11point,
    average_precision_area,
    precision_recall,
)
from tests.reference import voc as reference


def curve(flags, num_objects):
    precision, recall = precision_recall(np.array(flags, dtype=bool), num_objects)
    return recall, precision


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
    recall, precision = curve(flags, num_objects)
    assert average_precision_11point(recall, precision) == pytest.approx(float(at_11_points), 1e-12)
    assert average_precision_area(recall, precision) == pytest.approx(float(as_area), 1e-12)


def test_precision_and_recall_of_a_worked_example():
    recall, precision = curve([1, 0, 1, 0], 5)
    assert precision.tolist() == [1, 1 / 2, 2 / 3, 1 / 2]
    assert recall.tolist() == [1 / 5, 1 / 5, 2 / 5, 2 / 5]
    assert precision.dtype == recall.dtype == np.float64


def test_recall_without_objects_is_nan_and_so_is_the_average_precision():
    recall, precision = curve([0, 0], 0)
    assert np.isnan(recall).all()
    assert precision.tolist() == [0, 0]
    assert np.isnan(average_precision_11point(recall, precision))
    assert np.isnan(average_precision_area(recall, precision))


@pytest.mark.parametrize("seed", range(30))
def test_random_curves_equal_the_oracle(seed):
    generator = np.random.default_rng(seed)
    count = (0, 1, 2, 257, 1000)[seed % 5]
    flags = generator.random(count) < generator.random()
    num_objects = max(1, int(flags.sum())) + int(generator.integers(0, 20))
    recall, precision = curve(flags, num_objects)
    false_positives = [int(not flag) for flag in flags]
    slow_precision, slow_recall = reference.precision_recall(
        [int(flag) for flag in flags], false_positives, num_objects
    )
    assert precision.tolist() == slow_precision
    assert recall.tolist() == slow_recall
    assert average_precision_11point(recall, precision) == pytest.approx(
        reference.average_precision_11point(slow_precision, slow_recall), abs=1e-12
    )
    assert average_precision_area(recall, precision) == pytest.approx(
        reference.average_precision_area(slow_precision, slow_recall), abs=1e-12
    )
