import math

import pytest
import torch

from detect.errors import DetectError
from detect.evaluation.analyses.hoiem import VOC_SIMILAR_CLASSES, hoiem_groups
from detect.evaluation.flat import FlatDetections, FlatObjects
from tests.evaluation.flat_cases import flat_case, records
from tests.reference import hoiem as reference

OBJECT = [0.0, 0, 10, 10]
NAMES = ("cat", "dog", "car")


def one_image(found, objects):
    """`found`: rows `(box, label)` by class and falling score; `objects`: `(box, label)`."""
    count = len(found)
    return (
        FlatDetections(
            torch.zeros(count, dtype=torch.int64),
            torch.tensor([row[0] for row in found]).reshape(-1, 4),
            torch.linspace(1, 0.5, count),
            torch.tensor([row[1] for row in found], dtype=torch.int64),
        ),
        FlatObjects(
            torch.zeros(len(objects), dtype=torch.int64),
            torch.tensor([row[0] for row in objects]).reshape(-1, 4),
            torch.tensor([row[1] for row in objects], dtype=torch.int64),
            torch.tensor([len(row) > 2 for row in objects], dtype=torch.bool),
        ),
    )


@pytest.mark.parametrize("seed", range(8))
def test_random_case_equals_the_loop(seed):
    names, detections, objects = flat_case(seed, 30, num_classes=5)
    sets = [names[:2], names[1:4]]
    report = hoiem_groups(detections, objects, names, sets)
    expected = reference.groups(
        records(detections),
        records(objects),
        len(names),
        lambda a, b: (a < 2 and b < 2) or (1 <= a < 4 and 1 <= b < 4),
    )
    assert [report.counts[name] for name in names] == expected
    totals = {group: sum(row[group] for row in expected) for group in expected[0]}
    assert sum(count > 0 for count in totals.values()) >= 4, totals


@pytest.mark.parametrize(
    ("box", "label", "group"),
    [
        ([0.0, 0, 10, 5], 0, "correct"),
        ([0.0, 0, 10, 4.9], 0, "localization"),
        ([0.0, 0, 10, 1], 0, "localization"),
        ([0.0, 0, 10, 0.9], 0, "background"),
        ([0.0, 0, 10, 10], 1, "similar"),
        ([0.0, 0, 10, 1], 2, "other"),
        ([90.0, 0, 99, 1], 2, "background"),
    ],
)
def test_groups_by_overlap_and_class(box, label, group):
    far = [200.0, 0, 210, 10]
    objects = [(OBJECT, 0), (far, 1), (far, 2)]
    report = hoiem_groups(*one_image([(box, label)], objects), NAMES)
    assert report.counts[NAMES[label]][group] == 1
    assert report.shares(NAMES[label])[group] == 1


def test_a_duplicate_is_a_localization_error():
    objects = [(OBJECT, 0), ([50.0, 0, 60, 10], 0)]
    report = hoiem_groups(*one_image([(OBJECT, 0), (OBJECT, 0)], objects), NAMES)
    assert report.shares("cat") == {
        "correct": 0.5, "localization": 0.5, "similar": 0, "other": 0, "background": 0,
    }  # fmt: skip


def test_only_as_many_as_there_are_objects_and_none_that_is_ignored():
    objects = [(OBJECT, 0), ([50.0, 0, 60, 10], 0, "difficult")]
    found = [([50.0, 0, 60, 10], 0), (OBJECT, 0), ([90.0, 0, 99, 9], 0)]
    report = hoiem_groups(*one_image(found, objects), NAMES)
    assert report.counts["cat"]["correct"] == 1
    assert sum(report.counts["cat"].values()) == report.num_objects["cat"] == 1


def test_means_pass_over_classes_without_detections():
    report = hoiem_groups(*one_image([(OBJECT, 0)], [(OBJECT, 0), (OBJECT, 1)]), NAMES)
    assert math.isnan(report.shares("dog")["correct"])
    assert report.mean_shares["correct"] == 1
    assert report.as_dict()["classes"]["dog"] == {"num_objects": 1, **report.counts["dog"]}
    assert report.table().row_count == 3
    nothing = hoiem_groups(*one_image([], []), NAMES)
    assert nothing.as_dict()["mean_shares"]["correct"] is None


def test_similar_classes():
    empty = one_image([], [])
    assert hoiem_groups(*empty, NAMES).similar_classes == (("cat", "dog"),)
    assert hoiem_groups(*empty, NAMES, []).similar_classes == ()
    assert sum(map(len, VOC_SIMILAR_CLASSES)) == 7 + 7 + 3 + 2
    with pytest.raises(DetectError, match=r"similar classes: unknown class 'cab'.*'car'"):
        hoiem_groups(*empty, NAMES, [("cab", "cat")])
