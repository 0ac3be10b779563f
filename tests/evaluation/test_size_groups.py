import math

import pytest
import torch

from detect.errors import DetectError
from detect.evaluation.analyses import size_groups
from detect.evaluation.analyses.size_groups import coco_size_groups, hoiem_size_groups
from detect.evaluation.flat import FlatDetections, FlatObjects
from tests.evaluation.flat_cases import flat_case, records
from tests.reference import sizes as reference
from tests.reference.boxes import area

SMALL, MEDIUM = [0.0, 0, 10, 10], [100.0, 0, 140, 40]


def one_image(found, objects):
    """`found`: boxes by falling score; `objects`: rows `(box[, difficult])`; one class."""
    nothing = torch.zeros(len(found), dtype=torch.int64)
    none = torch.zeros(len(objects), dtype=torch.int64)
    difficult = torch.tensor([len(row) > 1 for row in objects], dtype=torch.bool)
    boxes = torch.tensor([row[0] for row in objects]).reshape(-1, 4)
    scores = torch.linspace(1, 0.5, len(found))
    return (
        FlatDetections(nothing, torch.tensor(found).reshape(-1, 4), scores, nothing),
        FlatObjects(none, boxes, none, difficult),
        ("thing",),
    )


@pytest.mark.parametrize("iou_threshold", [0.3, 0.5])
@pytest.mark.parametrize("seed", range(6))
def test_fixed_groups_equal_the_loop(monkeypatch, seed, iou_threshold):
    # the random boxes have sides of 4 to 20 pixels
    monkeypatch.setattr(size_groups, "COCO_GROUPS", {"small": 0.0, "medium": 64.0, "large": 192.0})
    names, detections, objects = flat_case(seed, 30)
    report = coco_size_groups(detections, objects, names, iou_threshold)
    found, things = records(detections), records(objects)
    ranges = [(0, 64), (64, 192), (192, math.inf)]
    for row, (low, high) in enumerate(ranges):
        for label in range(len(names)):
            average, number = reference.group_average_precision(
                found,
                things,
                label,
                (low, high),
                iou_threshold,
            )
            assert report.average_precision[row, label] == pytest.approx(average, nan_ok=True)
            assert report.num_objects[row, label] == number
    assert (report.num_objects[:, 1] > 0).all()


@pytest.mark.parametrize("seed", range(6))
def test_relative_groups_equal_the_loop(seed):
    names, detections, objects = flat_case(seed, 30)
    report = hoiem_size_groups(detections, objects, names)
    found, things = records(detections), records(objects)
    for label in range(len(names)):
        mine = sorted(
            area(thing["box"])
            for thing in things
            if thing["label"] == label and not thing["difficult"]
        )
        starts = [0.0]
        for tenths in (1, 3, 7, 9):
            place = math.ceil(tenths * len(mine) / 10)
            starts.append(mine[place] if place < len(mine) else math.inf)
        assert report.starts[:, label].tolist() == starts
        for row, (low, high) in enumerate(zip(starts, [*starts[1:], math.inf], strict=True)):
            average, number = reference.group_average_precision(
                found,
                things,
                label,
                (low, high),
                0.5,
            )
            assert report.average_precision[row, label] == pytest.approx(average, nan_ok=True)
            assert report.num_objects[row, label] == number


def test_shares_of_ten_objects():
    objects = [([0.0, 0, side, 1],) for side in range(1, 11)]
    report = hoiem_size_groups(*one_image([], objects))
    assert report.num_objects[:, 0].tolist() == [1, 2, 4, 2, 1]
    assert report.starts[:, 0].tolist() == [0, 2, 4, 8, 10]


def test_what_is_found_at_objects_of_other_sizes_does_not_count():
    report = coco_size_groups(*one_image([SMALL, MEDIUM, MEDIUM], [(SMALL,), (MEDIUM,)]))
    assert report.mean["small"] == report.mean["medium"] == 1
    assert math.isnan(report.mean["large"])
    assert report.num_objects[:, 0].tolist() == [1, 1, 0]


def test_false_positives_count_in_the_group_of_their_own_size():
    nowhere = [300.0, 0, 340, 40]  # medium
    report = coco_size_groups(*one_image([nowhere, SMALL, MEDIUM], [(SMALL,), (MEDIUM,)]))
    assert report.mean["small"] == 1
    assert report.mean["medium"] == 0.5


def test_limits_and_difficult_objects():
    at_limit = [0.0, 0, 32, 32]
    report = coco_size_groups(*one_image([], [(at_limit,), (SMALL, "difficult")]))
    assert report.num_objects[:, 0].tolist() == [0, 1, 0]
    assert report.mean["medium"] == 0


def test_without_anything():
    for measure in (coco_size_groups, hoiem_size_groups):
        report = measure(*one_image([], []))
        assert all(math.isnan(value) for value in report.mean.values())
        assert report.as_dict()["classes"]["thing"][report.groups[1]]["ap_area"] is None
        assert report.table().row_count == 1
    assert report.as_dict()["classes"]["thing"]["XL"]["from_area"] is None


def test_threshold_out_of_range_is_a_readable_error():
    with pytest.raises(DetectError, match="iou_threshold: expected more than 0"):
        coco_size_groups(*one_image([], []), iou_threshold=1.5)
