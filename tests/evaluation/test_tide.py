import math

import pytest
import torch

from detect.errors import DetectError
from detect.evaluation import VOCEvaluator
from detect.evaluation.analyses.tide import ERROR_TYPES, SPECIAL_ERRORS, tide_errors
from detect.structures import Detections, GroundTruth
from tests.evaluation.flat_cases import flat_case, records
from tests.reference import tide as reference

OBJECT = [0.0, 0, 10, 10]
FAR = [50.0, 0, 60, 10]
NAMES = ("a", "b")


def analyze(found, objects, protocol="voc", **thresholds):
    """`found`: rows `(box, score, label)` of one image; `objects`: rows `(box, label)`."""
    evaluator = VOCEvaluator(NAMES)
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
    return tide_errors(*evaluator.flat(), NAMES, protocol=protocol, **thresholds)


def kinds(report):
    return {name: sum(counts) for name, counts in report.counts.items() if sum(counts)}


@pytest.mark.parametrize("protocol", ["voc", "release"])
@pytest.mark.parametrize(
    ("seed", "num_images", "num_classes"), [(1, 200, 5), (2, 12, 4), (3, 12, 4), (4, 40, 3)]
)
def test_random_case_equals_the_loops(seed, num_images, num_classes, protocol):
    names, detections, objects = flat_case(seed, num_images, num_classes)
    report = tide_errors(detections, objects, names, protocol=protocol)
    average, delta, numbers = reference.tide(
        records(detections), records(objects), release=protocol == "release"
    )
    assert report.average_precision == pytest.approx(average, abs=1e-12)
    assert report.delta == pytest.approx(delta, abs=1e-12)
    for kind in ERROR_TYPES:
        expected = [numbers[kind].get(label, 0) for label in range(num_classes)]
        assert report.counts[kind] == expected, kind
    if num_images == 200:
        assert all(sum(counts) > 10 for counts in report.counts.values())
        assert all(report.delta[name] > 0 for name in (*ERROR_TYPES, *SPECIAL_ERRORS))


def test_by_default_the_average_precision_is_that_of_the_report():
    names, detections, objects = flat_case(5, 30)
    evaluator = VOCEvaluator(names)
    for image in range(30):
        mine, its = detections.images == image, objects.images == image
        evaluator.update(
            [{name: getattr(detections, name)[mine] for name in ("boxes", "scores", "labels")}],
            [{name: getattr(objects, name)[its] for name in ("boxes", "labels", "difficult")}],
        )
    report = tide_errors(detections, objects, names)
    assert report.average_precision == pytest.approx(evaluator.compute().map_area, abs=1e-12)


@pytest.mark.parametrize(
    ("box", "label", "kind"),
    [
        ([0.0, 0, 10, 4], 0, "localization"),
        ([0.0, 0, 10, 1], 0, "localization"),  # IoU t_b
        ([0.0, 0, 10, 0.9], 0, "background"),
        ([0.0, 0, 10, 5], 1, "classification"),  # IoU t_f
        ([0.0, 0, 10, 4], 1, "both"),
        ([0.0, 0, 10, 1], 1, "background"),
        (FAR, 0, "background"),
    ],
)
def test_types_by_overlap_and_class(box, label, kind):
    report = analyze([(box, 0.5, label)], [(OBJECT, 0)])
    explained = kind in ("localization", "classification")
    assert kinds(report) == {kind: 1} | ({} if explained else {"missed": 1})
    assert report.counts[kind][label] == 1


def test_duplicates_and_their_cost():
    report = analyze([(OBJECT, 0.9, 0), (OBJECT, 0.8, 0), ([20.0, 0, 30, 10], 0.7, 0)],
                     [(OBJECT, 0), ([20.0, 0, 30, 10], 0)])  # fmt: skip
    assert kinds(report) == {"duplicate": 1}
    assert report.average_precision == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    assert report.delta["duplicate"] == pytest.approx(1 / 6)
    assert report.delta["false positives"] == pytest.approx(1 / 6)
    assert report.delta["false negatives"] == pytest.approx(0)


def test_a_fixed_class_counts_in_the_class_of_the_object():
    report = analyze([(OBJECT, 0.9, 1), (OBJECT, 0.8, 1)], [(OBJECT, 0)])
    assert kinds(report) == {"classification": 2}
    assert report.average_precision == 0
    # the better one becomes the true positive, the other one goes
    assert report.delta["classification"] == 1


def test_the_best_error_of_both_types_owns_the_object():
    found = [([0.0, 0, 10, 4], 0.9, 0), (OBJECT, 0.8, 1)]
    report = analyze(found, [(OBJECT, 0)])
    assert kinds(report) == {"localization": 1, "classification": 1}
    assert report.delta["localization"] == 1
    assert report.delta["classification"] == 0


def test_an_error_at_an_object_that_was_found_is_removed():
    report = analyze([(OBJECT, 0.8, 0), (OBJECT, 0.9, 1)], [(OBJECT, 0), (FAR, 1)])
    assert kinds(report) == {"classification": 1, "missed": 1}
    assert report.delta["classification"] == 0  # no object of class b was found before or after
    assert report.delta["missed"] == 0  # the release has AP 0 where no object is demanded


def test_missed_objects_are_no_longer_demanded():
    report = analyze([(OBJECT, 0.9, 0)], [(OBJECT, 0), (FAR, 0)])
    assert kinds(report) == {"missed": 1}
    assert report.average_precision == 0.5
    assert report.delta["missed"] == report.delta["false negatives"] == 0.5


def test_difficult_objects_explain_nothing():
    report = analyze([(OBJECT, 0.9, 0), (OBJECT, 0.8, 1)], [(OBJECT, 0, "difficult")])
    assert kinds(report) == {"background": 1}
    assert math.isnan(report.average_precision)
    assert all(math.isnan(value) for value in report.delta.values())


def test_the_release_gives_a_detection_the_next_free_object():
    second = [0.0, 2, 10, 12]
    found = [(OBJECT, 0.9, 0), ([0.0, 0.5, 10, 10.5], 0.8, 0)]
    objects = [(OBJECT, 0), (second, 0)]
    assert kinds(analyze(found, objects)) == {"duplicate": 1, "missed": 1}
    report = analyze(found, objects, "release")
    assert kinds(report) == {}
    assert report.average_precision == 1


def test_the_release_ignores_by_the_share_of_the_detection():
    found, objects = [([2.0, 2, 5, 5], 0.9, 0)], [(OBJECT, 0, "difficult"), (FAR, 0)]
    assert kinds(analyze(found, objects)) == {"background": 1, "missed": 1}
    assert kinds(analyze(found, objects, "release")) == {"missed": 1}


@pytest.mark.parametrize("protocol", ["voc", "release"])
def test_without_detections_or_objects(protocol):
    assert kinds(analyze([], [], protocol)) == {}
    assert kinds(analyze([], [(OBJECT, 1)], protocol)) == {"missed": 1}
    assert kinds(analyze([(OBJECT, 1, 1)], [], protocol)) == {"background": 1}


@pytest.mark.parametrize(("background", "foreground"), [(0.5, 0.5), (0, 0.5), (0.1, 1.1)])
def test_thresholds_out_of_order_are_a_readable_error(background, foreground):
    with pytest.raises(DetectError, match="expected 0 < background < foreground ≤ 1, found"):
        analyze([], [], background_threshold=background, foreground_threshold=foreground)


def test_report_as_plain_data_and_tables():
    report = analyze([(OBJECT, 0.9, 0)], [(OBJECT, 0)])
    plain = report.as_dict()
    assert plain["average_precision"] == 1
    assert plain["classes"]["b"]["average_precision"] is None
    assert plain["delta_average_precision"].keys() == {*ERROR_TYPES, *SPECIAL_ERRORS}
    assert report.table().row_count == 8
    assert report.class_table().row_count == 2
