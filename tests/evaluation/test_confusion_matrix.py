import pytest
import torch

from detect.errors import DetectError
from detect.evaluation import VOCEvaluator
from detect.evaluation.analyses.confusion_matrix import measure_confusion
from detect.structures import Detections, GroundTruth
from tests.evaluation.flat_cases import flat_case, records
from tests.reference import confusion as reference

OBJECT = [0.0, 0, 10, 10]
FAR = [50.0, 0, 60, 10]


def count(found, objects, **thresholds):
    """Of one image; `found`: `(box, score, label)`, `objects`: `(box, label[, difficult])`."""
    evaluator = VOCEvaluator(("a", "b"))
    detections = Detections.sorted(
        torch.tensor([row[0] for row in found]).reshape(-1, 4),
        torch.tensor([float(row[1]) for row in found]),
        torch.tensor([row[2] for row in found], dtype=torch.int64),
    )
    truth = GroundTruth(
        torch.tensor([row[0] for row in objects]).reshape(-1, 4),
        torch.tensor([row[1] for row in objects], dtype=torch.int64),
        torch.tensor([len(row) > 2 for row in objects], dtype=torch.bool),
    )
    evaluator.update([detections], [truth])
    return measure_confusion(*evaluator.flat(), ("a", "b"), **thresholds)


@pytest.mark.parametrize("score_threshold", [-1.0, 0.0, 2 / 7])
@pytest.mark.parametrize("iou_threshold", [0.3, 0.5])
@pytest.mark.parametrize("seed", range(6))
def test_random_case_equals_the_loop(seed, iou_threshold, score_threshold):
    names, detections, objects = flat_case(seed)
    found = measure_confusion(detections, objects, names, score_threshold, iou_threshold)
    counts, num_ignored = reference.confusion(
        records(detections), records(objects), len(names), score_threshold, iou_threshold
    )
    assert found.counts == counts
    assert found.num_ignored == num_ignored
    assert sum(map(sum, counts)) > 20


def test_right_wrong_missed_and_nothing():
    found = [(OBJECT, 0.9, 0), (FAR, 0.8, 0), ([80.0, 0, 90, 10], 0.7, 1)]
    objects = [(OBJECT, 0), (FAR, 1), ([100.0, 0, 110, 10], 1)]
    assert count(found, objects).counts == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]


def test_a_right_detection_goes_before_a_wrong_one_that_lies_better():
    found = [([0.0, 0, 10, 8], 0.3, 0), (OBJECT, 0.9, 1)]
    assert count(found, [(OBJECT, 0)]).counts == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_a_detection_whose_object_is_taken_gets_the_next():
    found = [(OBJECT, 0.5, 0), ([0.0, 1, 10, 11], 0.9, 0)]
    objects = [(OBJECT, 0), ([0.0, 3, 10, 13], 0)]
    assert count(found, objects).counts == [[2, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_both_thresholds_are_inclusive():
    found = [([0.0, 0, 10, 5], 0.25, 0), (FAR, 0.2499, 0)]
    assert count(found, [(OBJECT, 0)]).counts == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_difficult_objects_are_neither_demanded_nor_punished():
    found = [(OBJECT, 0.9, 0), (OBJECT, 0.8, 1), (FAR, 0.7, 1)]
    matrix = count(found, [(OBJECT, 0, "difficult")])
    assert matrix.counts == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert matrix.num_ignored == 2


def test_without_anything():
    assert count([], []).counts == [[0] * 3] * 3
    assert count([], [(OBJECT, 1)]).counts[1] == [0, 0, 1]
    assert count([(OBJECT, 1, 1)], []).counts[2] == [0, 1, 0]


def test_thresholds_out_of_range_are_a_readable_error():
    with pytest.raises(DetectError, match="iou_threshold: expected more than 0"):
        count([], [], iou_threshold=0)
    with pytest.raises(DetectError, match="score_threshold: expected a number, found nan"):
        count([], [], score_threshold=float("nan"))


def test_table_of_few_and_of_many_classes():
    matrix = count([(OBJECT, 0.9, 1)], [(OBJECT, 0)])
    table = matrix.table()
    assert [str(column.header) for column in table.columns][1:] == ["a", "b", "background"]
    names, detections, objects = flat_case(1, num_classes=12)
    wide = measure_confusion(detections, objects, names, -1.0)
    found, missed, confused, most = ([*map(str, c.cells)] for c in wide.table().columns[1:])
    for label, row in enumerate(wide.counts[:-1]):
        assert (found[label], missed[label]) == (str(row[label]), str(row[-1]))
        others = [0 if other == label else count for other, count in enumerate(row[:-1])]
        assert confused[label] == str(sum(others))
        first = others.index(max(others))
        assert most[label] == (f"class {first} ({others[first]})" if max(others) else "")
    assert any(most)
    assert found[-1] == ""
    assert wide.as_dict()["names"][-1] == "background"
