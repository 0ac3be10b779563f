import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from detect.errors import DetectError
from detect.evaluation import VOCEvaluator, pairs, voc
from detect.structures import Detections, GroundTruth
from tests.evaluation.voc_cases import random_case, slow_average_precisions, slow_class

OBJECT = [0.0, 0, 10, 10]
HALF = [0.0, 0, 10, 5]  # IoU with OBJECT: 1/2
LESS_THAN_HALF = [0.0, 0, 10, 4.9]
FAR = [50.0, 50, 60, 60]


def found(*rows):
    """Detections from `(box, score)` or `(box, score, label)`."""
    return Detections.sorted(
        torch.tensor([row[0] for row in rows]).reshape(-1, 4),
        torch.tensor([float(row[1]) for row in rows]),
        torch.tensor([row[2] if len(row) > 2 else 0 for row in rows], dtype=torch.int64),
    )


def truth(*boxes, labels=None, difficult=None):
    return GroundTruth(
        torch.tensor(boxes).reshape(-1, 4),
        torch.tensor(labels or [0] * len(boxes), dtype=torch.int64),
        torch.tensor(difficult or [False] * len(boxes), dtype=torch.bool),
    )


def evaluate(detections, truths, class_names=("thing",), iou_threshold=0.5, tie_ranks=None):
    evaluator = VOCEvaluator(class_names, iou_threshold)
    evaluator.update(detections, truths, tie_ranks)
    return evaluator.compute()


def outcome(detections, truths, **settings):
    """True and false positives of the first class."""
    report = evaluate(detections, truths, **settings)
    entry = next(iter(report.classes.values()))
    return entry.num_true_positives, entry.num_false_positives


def assert_same(report, other):
    assert report.protocol == other.protocol
    assert report.classes.keys() == other.classes.keys()
    for entry, twin in zip(report.classes.values(), other.classes.values(), strict=True):
        assert json.dumps(entry.as_dict()) == json.dumps(twin.as_dict())
        for name in ("precision", "recall", "scores"):
            np.testing.assert_array_equal(getattr(entry, name), getattr(twin, name))


@pytest.mark.parametrize("iou_threshold", [0.1, 0.25, 0.5, 0.6, 0.75, 1.0])
@pytest.mark.parametrize("seed", range(12))
def test_random_case_equals_the_devkit_loops(seed, iou_threshold):
    case = random_case(seed)
    report = evaluate(case.detections, case.truths, case.class_names, iou_threshold)
    averages = []
    for label, name in enumerate(case.class_names):
        true, false, num_objects = slow_class(case, label, iou_threshold)
        entry = report.classes[name]
        assert entry.num_objects == num_objects
        assert entry.num_detections == len(true)
        assert entry.num_true_positives == sum(true)
        assert entry.num_false_positives == sum(false)
        expected = slow_average_precisions(true, false, num_objects)
        assert (entry.ap_11point, entry.ap_area) == pytest.approx(expected, abs=1e-12, nan_ok=True)
        # the order of the verdicts, not just their number
        judged = [one for one, other in zip(true, false, strict=True) if one or other]
        np.testing.assert_allclose(
            entry.precision, np.cumsum(judged) / np.arange(1, len(judged) + 1)
        )
        if num_objects:
            averages.append(expected)
    expected_means = np.mean(averages, axis=0)
    assert (report.map_11point, report.map_area) == pytest.approx(tuple(expected_means), abs=1e-12)


def test_random_cases_hold_what_they_are_for():
    """Ties in score, objects of equal place, difficult hits, empty images and classes."""
    cases = [random_case(seed) for seed in range(12)]
    ignored = 0
    for case in cases:
        for label in range(4):
            true, false, _ = slow_class(case, label, 0.5)
            ignored += len(true) - sum(true) - sum(false)
    assert ignored > 100
    reports = [evaluate(case.detections, case.truths, case.class_names) for case in cases]
    entries = [entry for report in reports for entry in report.classes.values()]
    assert any(entry.num_objects == 0 and entry.num_difficult > 0 for entry in entries)
    assert any(entry.num_objects == 0 and entry.num_detections > 0 for entry in entries)
    assert any(entry.num_true_positives > 0 and entry.num_false_positives > 0 for entry in entries)
    assert any(len(truth) == 0 for case in cases for truth in case.truths)


@pytest.mark.parametrize(
    ("box", "iou_threshold", "expected"),
    [
        (HALF, 0.5, (1, 0)),  # exactly the threshold is enough
        (LESS_THAN_HALF, 0.5, (0, 1)),
        ([0.0, 0, 10, 6], 0.6, (1, 0)),
        ([0.0, 0, 10, 3], 0.3, (1, 0)),
        ([0.0, 0, 10, 7], 0.7, (1, 0)),
        (OBJECT, 1.0, (1, 0)),
        (FAR, 0.01, (0, 1)),
        ([10.0, 0, 20, 10], 1e-9, (0, 1)),  # touching is no overlap
    ],
)
def test_threshold_is_inclusive(box, iou_threshold, expected):
    assert outcome([found((box, 1))], [truth(OBJECT)], iou_threshold=iou_threshold) == expected


def test_the_first_claim_by_score_is_the_true_positive():
    report = evaluate([found((HALF, 0.4), (OBJECT, 0.3), (OBJECT, 0.2))], [truth(OBJECT)])
    entry = report.classes["thing"]
    assert entry.precision.tolist() == [1, 1 / 2, 1 / 3]
    assert entry.scores.tolist() == pytest.approx([0.4, 0.3, 0.2])
    assert entry.ap_area == 1


def test_a_detection_goes_to_its_best_object_and_no_other():
    # the second detection overlaps both objects enough, but its best is taken already
    first, second = [0.0, 0, 10, 10], [0.0, 2, 10, 12]
    detections = [found((first, 0.9), ([0.0, 0.5, 10, 10.5], 0.8))]
    assert outcome(detections, [truth(first, second)]) == (1, 1)


def test_a_tie_in_iou_goes_to_the_first_object():
    # both objects have the same place; the first is difficult, or the second
    detections = [found((OBJECT, 0.9), (OBJECT, 0.8))]
    assert outcome(detections, [truth(OBJECT, OBJECT, difficult=[True, False])]) == (0, 0)
    assert outcome(detections, [truth(OBJECT, OBJECT, difficult=[False, True])]) == (1, 1)


def test_all_detections_matched_to_a_difficult_object_are_ignored():
    detections = [found((OBJECT, 0.9), (OBJECT, 0.8), (HALF, 0.7), (FAR, 0.6))]
    report = evaluate(detections, [truth(OBJECT, FAR, difficult=[True, False])])
    entry = report.classes["thing"]
    assert (entry.num_true_positives, entry.num_false_positives) == (1, 0)
    assert (entry.num_objects, entry.num_difficult, entry.num_detections) == (1, 1, 4)
    assert entry.precision.tolist() == entry.recall.tolist() == [1]
    assert entry.ap_11point == pytest.approx(1)


def test_an_ignored_detection_is_no_true_positive():
    nothing = torch.zeros(3, dtype=torch.int64)
    verdict = voc.judge(
        voc.FlatDetections(nothing, torch.tensor([OBJECT, OBJECT, FAR]), torch.ones(3), nothing),
        voc.FlatObjects(
            nothing[:2],
            torch.tensor([OBJECT, FAR]),
            nothing[:2],
            torch.tensor([True, False]),
        ),
        num_classes=1,
        iou_thresholds=(0.5,),
    )
    assert verdict.rows.tolist() == [0, 1, 2]
    assert verdict.ignored.tolist() == [[True, True, False]]
    assert verdict.true_positive.tolist() == [[False, False, True]]


def test_objects_of_another_class_or_image_do_not_count():
    truths = [truth(OBJECT, labels=[1]), truth(OBJECT)]
    detections = [found((OBJECT, 0.9)), found()]
    assert outcome(detections, truths, class_names=("a", "b")) == (0, 1)


def test_scores_are_never_rounded():
    close = float(np.nextafter(np.float32(0.5), np.float32(1)))
    detections = [found((FAR, 0.5)), found((OBJECT, close))]
    report = evaluate(detections, [truth(OBJECT), truth(OBJECT)])
    assert report.classes["thing"].precision.tolist() == [1, 1 / 2]


def test_ties_in_score_keep_the_order_of_images():
    hit, miss = found((OBJECT, 0.5)), found((FAR, 0.5))
    truths = [truth(OBJECT), truth(OBJECT)]
    assert evaluate([hit, miss], truths).map_area == 0.5
    assert evaluate([miss, hit], truths).map_area == 0.25


def test_tie_ranks_overrule_the_order_of_images_but_not_the_score():
    truths = [truth(OBJECT), truth(OBJECT), truth()]
    detections = [found((FAR, 0.5)), found((OBJECT, 0.5)), found((FAR, 0.4))]
    ranks = [torch.tensor([2]), torch.tensor([1]), torch.tensor([0])]
    entry = evaluate(detections, truths, tie_ranks=ranks).classes["thing"]
    assert entry.precision.tolist() == [1, 1 / 2, 1 / 3]
    with pytest.raises(ValueError, match="expected 1 tie ranks, found 2"):
        evaluate(detections, truths, tie_ranks=[torch.zeros(2, dtype=torch.int64)] * 3)


def test_a_class_without_objects_stays_out_of_the_mean():
    report = evaluate(
        [found((OBJECT, 0.9, 0), (FAR, 0.8, 1), (OBJECT, 0.7, 2))],
        [truth(OBJECT, OBJECT, labels=[0, 2], difficult=[False, True])],
        class_names=("found", "absent", "difficult only"),
    )
    assert report.map_11point == pytest.approx(1)
    assert report.map_area == pytest.approx(1)
    for name in ("absent", "difficult only"):
        entry = report.classes[name]
        assert math.isnan(entry.ap_11point)
        assert math.isnan(entry.ap_area)
        assert entry.num_objects == 0
    assert report.classes["absent"].num_false_positives == 1
    assert np.isnan(report.classes["absent"].recall).all()


def test_a_class_that_is_never_found_counts_as_zero():
    report = evaluate(
        [found((OBJECT, 0.9))], [truth(OBJECT, FAR, labels=[0, 1])], class_names=("a", "b")
    )
    assert report.classes["b"].ap_area == report.classes["b"].ap_11point == 0
    assert report.map_area == 0.5


@pytest.mark.parametrize("images", [[], [(found(), truth())], [(found((FAR, 1)), truth())]])
def test_without_objects_every_number_is_nan(images):
    report = evaluate([pair[0] for pair in images], [pair[1] for pair in images])
    assert math.isnan(report.map_area)
    assert math.isnan(report.map_11point)
    assert report.protocol.num_images == len(images)


def test_without_classes_or_detections():
    assert evaluate([found()], [truth()], class_names=()).classes == {}
    assert evaluate([found()], [truth(OBJECT)]).map_area == 0


def test_images_may_come_in_several_updates_and_be_forgotten():
    case = random_case(3)
    whole = evaluate(case.detections, case.truths, case.class_names)
    evaluator = VOCEvaluator(case.class_names)
    for start in range(0, 12, 5):
        part = slice(start, start + 5)
        evaluator.update(case.detections[part], case.truths[part])
    assert_same(evaluator.compute(), whole)
    assert_same(evaluator.compute(), whole)  # computing changes nothing
    evaluator.reset()
    assert evaluator.compute().protocol.num_images == 0
    evaluator.update(case.detections, case.truths)
    assert_same(evaluator.compute(), whole)


def test_merging_is_updating_in_order():
    case = random_case(4)
    first, second = VOCEvaluator(case.class_names), VOCEvaluator(case.class_names)
    first.update(case.detections[:7], case.truths[:7])
    second.update(case.detections[7:], case.truths[7:])
    first.merge(second)
    assert_same(first.compute(), evaluate(case.detections, case.truths, case.class_names))
    assert second.compute().protocol.num_images == 5
    second.merge(second)
    assert second.compute().protocol.num_images == 10


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (VOCEvaluator(["b"]), "expected an evaluator with the class_names"),
        (
            VOCEvaluator(["a"], 0.6),
            r"expected an evaluator with the iou_thresholds \(0.5,\), found",
        ),
    ],
)
def test_only_like_evaluators_merge(other, message):
    with pytest.raises(ValueError, match=message):
        VOCEvaluator(["a"]).merge(other)


@pytest.mark.parametrize("max_pairs", [1, 3, 50])
def test_pairs_in_small_chunks_give_the_same(monkeypatch, max_pairs):
    case = random_case(5)
    whole = evaluate(case.detections, case.truths, case.class_names)
    sizes = []
    expanded = pairs._expanded

    def spied(starts, counts):
        sizes.append(int(counts.sum()))
        return expanded(starts, counts)

    monkeypatch.setattr(pairs, "MAX_PAIRS", max_pairs)
    monkeypatch.setattr(pairs, "_expanded", spied)
    assert_same(evaluate(case.detections, case.truths, case.class_names), whole)
    assert len(sizes) > 1
    assert max(sizes) < max_pairs + 9  # at most one detection more, with 8 objects at most


def average_precisions_at_once(case, device="cpu"):
    """What a GPU does: all pairs and all detections at once, since their numbers are known."""
    evaluator = VOCEvaluator(case.class_names)
    evaluator.update(case.detections, case.truths)
    detections, objects = (
        type(part)(*(column.to(device) for column in part)) for part in evaluator.flat()
    )
    num_pairs = sum(len(a) * len(b) for a, b in zip(case.detections, case.truths, strict=True))
    thresholds = (0.3, 0.5, 0.75)

    def compute():
        verdict = voc.judge(detections, objects, 4, thresholds, num_pairs)
        return voc.average_precisions(detections, objects, 4, verdict)

    return compute, thresholds


def assert_average_precisions(found, case, thresholds):
    evaluator = VOCEvaluator(case.class_names, thresholds)
    evaluator.update(case.detections, case.truths)
    for row, entry in enumerate(evaluator.compute().thresholds):
        np.testing.assert_allclose(found.area[row].cpu(), entry.ap_area, atol=1e-12)
        np.testing.assert_allclose(found.at_11_points[row].cpu(), entry.ap_11point, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_all_pairs_at_once_give_the_same(seed):
    case = random_case(seed)
    compute, thresholds = average_precisions_at_once(case)
    assert_average_precisions(compute(), case, thresholds)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_never_waits():
    case = random_case(6)
    compute, thresholds = average_precisions_at_once(case, "cuda")
    compute()
    try:
        torch.cuda.set_sync_debug_mode("error")
        found = compute()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_average_precisions(found, case, thresholds)


@pytest.mark.parametrize("seed", range(3))
def test_several_thresholds_are_each_alone(seed):
    case = random_case(seed)
    evaluator = VOCEvaluator(case.class_names, (0.5, 0.25, 0.9))
    evaluator.update(case.detections, case.truths)
    report = evaluator.compute()
    assert_same(report, evaluate(case.detections, case.truths, case.class_names, 0.5))
    for entry in report.thresholds:
        alone = evaluate(case.detections, case.truths, case.class_names, entry.iou_threshold)
        assert entry.map_area == pytest.approx(alone.map_area, abs=1e-12)
        assert entry.map_11point == pytest.approx(alone.map_11point, abs=1e-12)
    content = report.as_dict()["thresholds"]
    assert [entry["iou_threshold"] for entry in content] == [0.5, 0.25, 0.9]
    assert content[2]["map_area"] == report.thresholds[2].map_area
    assert [table.row_count for table in report.tables()] == [4, 3]


def test_dictionaries_are_judged_as_records():
    case = random_case(2)
    found = [
        {"boxes": one.boxes, "scores": one.scores, "labels": one.labels.int()}
        for one in case.detections
    ]
    truths = [
        {"boxes": one.boxes, "labels": one.labels, "difficult": one.difficult}
        for one in case.truths
    ]
    expected = evaluate(case.detections, case.truths, case.class_names)
    assert_same(evaluate(found, truths, case.class_names), expected)


def test_records_with_gradients_are_detached():
    boxes = torch.tensor([OBJECT], requires_grad=True)
    evaluator = VOCEvaluator(["thing"])
    evaluator.update(
        [Detections(boxes * 1, boxes[:, 2] * 1, torch.zeros(1, dtype=torch.int64))], [truth(OBJECT)]
    )
    detections, _ = evaluator.flat()
    assert not detections.boxes.requires_grad
    assert not detections.scores.requires_grad
    assert evaluator.compute().map_area == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_records_on_a_gpu_are_moved():
    case = random_case(6)
    device = torch.device("cuda")
    report = evaluate(
        [record.to(device) for record in case.detections],
        [record.to(device) for record in case.truths],
        case.class_names,
    )
    assert_same(report, evaluate(case.detections, case.truths, case.class_names))


@pytest.mark.parametrize("iou_threshold", [0.0, -0.5, 1.5, float("nan")])
def test_a_threshold_out_of_range_is_a_readable_error(iou_threshold):
    with pytest.raises(DetectError, match="iou_threshold: expected more than 0 and at most 1"):
        VOCEvaluator(["thing"], iou_threshold)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="class_names: expected each once"):
        VOCEvaluator(["a", "a"])
    evaluator = VOCEvaluator(["a"])
    with pytest.raises(ValueError, match="found 1 and 2"):
        evaluator.update([found()], [truth(), truth()])
    with pytest.raises(ValueError, match="detections: expected labels below 1"):
        evaluator.update([found((OBJECT, 1, 1))], [truth()])
    with pytest.raises(ValueError, match=r"truths: expected labels below 1.*found 3"):
        evaluator.update([found()], [truth(OBJECT, labels=[3])])
    assert evaluator.compute().protocol.num_images == 0  # a refused update leaves nothing behind


def read_rows(folder):
    """The rows of every image of the published case: `class [score] x y width height`."""
    return [
        [line.split() for line in file.read_text().splitlines()]
        for file in sorted(folder.glob("*.txt"))
    ]


@pytest.mark.parametrize("iou_threshold", ["0.1", "0.3", "0.5", "0.75"])
def test_published_case(shared, iou_threshold):
    folder = shared / "eval-cases" / "voc_odm_sample2"
    if not folder.is_dir():
        pytest.skip(f"real data is absent: no folder {folder}")
    expected = json.loads((folder / "expected.json").read_text())["AP_by_iou"][iou_threshold]

    def half_open(values):  # x, y, width, height with xmax = x + width inclusive
        x, y, width, height = map(float, values)
        return [x, y, x + width + 1, y + height + 1]

    truths = [
        truth(*(half_open(row[1:]) for row in rows)) for rows in read_rows(folder / "groundtruths")
    ]
    detections = [
        found(*((half_open(row[2:]), float(row[1])) for row in rows))
        for rows in read_rows(folder / "detections")
    ]
    report = evaluate(detections, truths, ("person",), float(iou_threshold))
    assert report.classes["person"].ap_11point == pytest.approx(expected["11pt"], abs=1e-6)
    assert report.classes["person"].ap_area == pytest.approx(expected["all"], abs=1e-6)
    assert (report.protocol.num_images, report.protocol.num_objects) == (7, 15)
    assert report.protocol.num_detections == 24


def test_a_worked_image_as_fractions():
    # by score: hit, duplicate, miss, hit; three objects
    detections = [found((OBJECT, 0.9), (HALF, 0.8)), found((LESS_THAN_HALF, 0.7), (FAR, 0.6))]
    report = evaluate(detections, [truth(OBJECT), truth(OBJECT, FAR)])
    as_area = Fraction(1, 3) * 1 + Fraction(1, 3) * Fraction(2, 4)
    at_11_points = (4 * Fraction(1) + 3 * Fraction(1, 2)) / 11  # 0 … 0.3, then 0.4 … 0.6
    assert report.map_area == pytest.approx(float(as_area))
    assert report.map_11point == pytest.approx(float(at_11_points))
