import math

import numpy as np
import pytest
import torch

from detect.errors import DetectError
from detect.proposals import Proposals, measure_coverage, recall
from detect.proposals.recall import curve_limits
from detect.structures import GroundTruth
from tests.reference import proposals as oracle


def truth_of(objects):
    """From (class, box, difficult)."""
    return GroundTruth(
        torch.tensor([box for _, box, _ in objects], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([label for label, _, _ in objects], dtype=torch.int64),
        torch.tensor([difficult for _, _, difficult in objects], dtype=torch.bool),
    )


def random_boxes(generator, count):
    starts = generator.integers(0, 40, (count, 2))
    return np.concatenate((starts, starts + generator.integers(1, 30, (count, 2))), axis=1)


def random_images(seed, num_images=6):
    generator = np.random.default_rng(seed)
    images = []
    for number in range(num_images):
        boxes = random_boxes(generator, [0, 1, 40, 130][number % 4]).astype(np.float32)
        objects = [
            (int(generator.integers(0, 3)), box, bool(generator.random() < 0.3))
            for box in random_boxes(generator, int(generator.integers(0, 5))).tolist()
        ]
        images.append((boxes, objects))
    return images


def measure(images, names=("a", "b", "c", "unused"), limits=None):
    proposals = Proposals.of_images({str(n): boxes for n, (boxes, _) in enumerate(images)}, {})
    truths = {str(n): truth_of(objects) for n, (_, objects) in enumerate(images)}
    return measure_coverage(proposals, truths, names, limits)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_pairs", [recall.MAX_PAIRS, 7])
def test_coverage_is_that_of_the_slow_way(monkeypatch, seed, max_pairs):
    monkeypatch.setattr(recall, "MAX_PAIRS", max_pairs)
    images = random_images(seed)
    limits = (1, 3, 10, 50, 130, 500)
    as_lists = [(boxes.tolist(), objects) for boxes, objects in images]
    found = measure(images, limits=limits)
    for row, limit in enumerate(limits):
        for threshold in (0.3, 0.5, 0.7):
            share, mabo = oracle.coverage(as_lists, limit, threshold)
            assert found.recall(threshold)[row] == pytest.approx(share, abs=1e-12)
        assert found.mean_average_best_overlap()[row] == pytest.approx(mabo, abs=1e-12)
    assert found.num_images == 6
    assert found.num_difficult == sum(o[2] for _, objects in images for o in objects)


def test_figures_of_two_classes():
    boxes = np.array([[0, 0, 10, 5], [0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    objects = [
        (0, [0, 0, 10, 10], False),  # 0.5 by the first box, 1 by the second
        (1, [50, 50, 60, 64], False),  # 10/14 by the third
        (1, [90, 90, 99, 99], False),  # nothing
        (1, [0, 0, 9, 9], True),  # difficult: not counted
    ]
    found = measure([(boxes, objects)], ("cat", "dog"), (1, 2, 3))
    assert found.recall(0.5).tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert found.recall(0.7).tolist() == pytest.approx([0, 1 / 3, 2 / 3])
    assert found.average_best_overlap()[-1].tolist() == pytest.approx([1, 5 / 14])
    assert found.mean_average_best_overlap().tolist() == pytest.approx([1 / 4, 1 / 2, 19 / 28])
    assert found.recall_of_classes(0.5)[-1].tolist() == [1, 0.5]
    assert found.mean_counts.tolist() == [1, 2, 3]
    report = found.as_dict()
    assert report["recall_0.5"] == pytest.approx(2 / 3)
    assert report["mabo"] == pytest.approx(19 / 28)
    assert report["average_recall"] == pytest.approx((1 + 5 / 10 + 0) / 3)
    assert report["protocol"]["num_objects"] == 3
    assert report["protocol"]["num_difficult"] == 1
    assert report["classes"]["dog"] == {
        "num_objects": 2,
        "abo": pytest.approx(5 / 14),
        "recall_0.5": 0.5,
        "recall_0.7": 0.5,
    }
    assert [point["max_boxes"] for point in report["curve"]] == [1, 2, 3]


def test_a_threshold_that_is_met_exactly_is_met():
    boxes = np.array([[0, 0, 7, 10]], np.float32)
    found = measure([(boxes, [(0, [0, 0, 10, 10], False)])])
    assert found.recall(0.7).tolist() == [1]


def test_without_objects_there_is_no_figure():
    boxes = np.array([[0, 0, 7, 10]], np.float32)
    for objects in ([], [(0, [0, 0, 10, 10], True)]):
        found = measure([(boxes, objects)])
        assert math.isnan(found.recall(0.5)[-1])
        assert math.isnan(found.mean_average_best_overlap()[-1])
        assert found.as_dict()["protocol"]["num_objects"] == 0


def test_images_without_proposals_lower_the_recall():
    none = np.zeros((0, 4), np.float32)
    one = np.array([[0, 0, 10, 10]], np.float32)
    objects = [(0, [0, 0, 10, 10], False)]
    found = measure([(none, objects), (one, objects)])
    assert found.recall(0.5).tolist() == [0.5]
    assert found.mean_counts.tolist() == [0.5]


def test_the_curve_ends_with_all_proposals():
    counts = np.array([3, 130], np.int64)
    proposals = Proposals(("a", "b"), counts, np.zeros((133, 4), np.float32), {})
    assert curve_limits(proposals) == (1, 2, 5, 10, 20, 50, 100, 130)
    assert curve_limits(Proposals.of_images({}, {})) == (1,)


def test_an_image_without_an_entry_is_an_error():
    with pytest.raises(DetectError, match="no proposals for the image 'b'"):
        measure_coverage(
            Proposals.of_images({"a": np.zeros((0, 4), np.float32)}, {}),
            {"b": GroundTruth.empty()},
            ["x"],
        )


@pytest.mark.parametrize("limits", [(), (0, 1), (2, 2)])
def test_limits_must_rise(limits):
    with pytest.raises(DetectError, match="limits: expected rising numbers"):
        measure([], limits=limits)
