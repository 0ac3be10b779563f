import math

import numpy as np
import pytest
import torch

from detect.errors import DetectError
from detect.evaluation.analyses.recall import measure_detection_recall
from detect.evaluation.flat import FlatDetections, FlatObjects
from detect.proposals import Proposals, measure_coverage
from tests.evaluation.flat_cases import flat
from tests.evaluation.voc_cases import random_case

NUM_IMAGES = 12


@pytest.mark.parametrize("seed", range(6))
def test_recall_equals_that_of_proposals(seed):
    case = random_case(seed, NUM_IMAGES)
    recall = measure_detection_recall(*flat(case), NUM_IMAGES)
    # the flat detections are by class, and so are those of equal score here
    boxes = []
    for found in case.detections:
        order = sorted(range(len(found)), key=lambda row: (-found.scores[row], found.labels[row]))
        boxes.append(found.boxes[order].numpy())
    proposals = Proposals.of_images(
        {str(image): rows for image, rows in enumerate(boxes)}, {"method": "detections"}
    )
    truths = {str(image): truth for image, truth in enumerate(case.truths)}
    coverage = measure_coverage(proposals, truths, case.class_names, recall.limits)
    assert recall.limits[-1] == max(map(len, case.detections))
    for threshold in (0.5, 0.55, 0.75, 1.0):
        np.testing.assert_array_equal(recall.recall(threshold), coverage.recall(threshold))
    np.testing.assert_allclose(recall.mean_counts, coverage.mean_counts)
    average = [coverage.recall(threshold) for threshold in np.arange(50, 100, 5) / 100]
    np.testing.assert_allclose(recall.average_recall, np.mean(average, axis=0), atol=1e-12)
    np.testing.assert_array_equal(recall.average_recall, coverage.average_recall())
    assert 0 < recall.average_recall[0] < recall.average_recall[-1]


def test_a_worked_image():
    """Two objects; the second detection by score covers one with IoU 0.6, the third the other."""
    nothing = torch.zeros(3, dtype=torch.int64)
    detections = FlatDetections(
        nothing,
        torch.tensor([[0.0, 0, 10, 6], [50, 0, 60, 10], [90, 0, 99, 9]]),
        torch.tensor([0.8, 0.7, 0.9]),
        torch.tensor([0, 0, 1]),
    )
    objects = FlatObjects(
        nothing,
        torch.tensor([[0.0, 0, 10, 10], [50, 0, 60, 10], [90, 0, 99, 9]]),
        nothing,
        torch.tensor([False, False, True]),
    )
    recall = measure_detection_recall(detections, objects, 2, limits=(1, 2, 3))
    assert recall.recall(0.5).tolist() == [0, 0.5, 1]
    assert recall.recall(0.65).tolist() == [0, 0, 0.5]
    assert recall.average_recall.tolist() == pytest.approx([0, 0.15, 0.65])
    assert recall.mean_counts.tolist() == [0.5, 1, 1.5]
    plain = recall.as_dict()
    assert plain["num_objects"] == 2
    assert plain["curve"][1]["max_detections"] == 2
    assert recall.table().row_count == 3


def test_without_objects_or_detections():
    empty = random_case(0)
    detections, objects = flat(empty)
    none = FlatObjects(*(column[:0] for column in objects))
    recall = measure_detection_recall(detections, none, NUM_IMAGES)
    assert all(math.isnan(value) for value in recall.average_recall)
    assert recall.as_dict()["curve"][0]["recall_0.5"] is None
    nothing = FlatDetections(*(column[:0] for column in detections))
    recall = measure_detection_recall(nothing, objects, NUM_IMAGES)
    assert (recall.limits, recall.average_recall.tolist()) == ((1,), [0])
    assert measure_detection_recall(nothing, none, 0).mean_counts.tolist() == [0]


@pytest.mark.parametrize("limits", [(), (0, 1), (5, 5), (5, 2)])
def test_limits_that_make_no_sense(limits):
    with pytest.raises(DetectError, match="limits: expected rising numbers from 1 on"):
        measure_detection_recall(*flat(random_case(0)), NUM_IMAGES, limits)
