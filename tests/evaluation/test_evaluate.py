"""One call from records to a report, against pycocotools and the devkit's loops."""

import numpy as np
import pytest
import torch

from detect.errors import DetectError
from detect.evaluation import COCOEvaluator, VOCEvaluator, evaluate_detections
from detect.structures import Detections, GroundTruth
from tests.evaluation import coco_cases
from tests.evaluation.voc_cases import random_case, slow_average_precisions, slow_class

BOX = torch.tensor([[0.0, 0, 10, 10]])
FOUND = Detections(BOX, torch.tensor([0.9]), torch.tensor([0]))
TRUTH = GroundTruth(BOX, torch.tensor([0]), torch.tensor([False]))


def as_arrays(record):
    """The form of torchmetrics, with NumPy's arrays."""
    names = ("boxes", "scores", "labels", "difficult")
    return {name: getattr(record, name).numpy() for name in names if hasattr(record, name)}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", [lambda record: record, as_arrays])
def test_voc_equals_the_devkit_loops(seed, form):
    case = random_case(seed)
    report = evaluate_detections(
        list(map(form, case.detections)), list(map(form, case.truths)), case.class_names,
        iou_thresholds=[0.6, 0.3],
    )  # fmt: skip
    assert [entry.iou_threshold for entry in report.thresholds] == [0.6, 0.3]
    for label, name in enumerate(case.class_names):
        for row, threshold in enumerate((0.6, 0.3)):
            expected = slow_average_precisions(*slow_class(case, label, threshold))
            averages = report.thresholds[row]
            found = averages.ap_11point[label], averages.ap_area[label]
            assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)
        assert report.classes[name].ap_area == pytest.approx(
            report.thresholds[0].ap_area[label], nan_ok=True
        )


@pytest.mark.parametrize("seed", range(4))
def test_coco_equals_pycocotools(seed):
    pytest.importorskip("pycocotools")
    case = coco_cases.random_case(seed)
    labels = {number: label for label, number in enumerate(sorted(case.categories))}

    def of_image(entries, number, **columns):
        own = [entry for entry in entries if entry["image_id"] == number]
        return {
            "boxes_xywh": np.array([entry["bbox"] for entry in own], dtype=float).reshape(-1, 4),
            "labels": np.array([labels[entry["category_id"]] for entry in own], dtype=int),
        } | {name: np.array([entry[key] for entry in own]) for name, key in columns.items()}

    images = sorted(case.images)
    report = evaluate_detections(
        [of_image(case.found, number, scores="score") for number in images],
        [of_image(case.truths, number, iscrowd="iscrowd", area="area") for number in images],
        [str(number) for number in sorted(case.categories)],
        "coco",
    )
    coco_cases.assert_equal(report, coco_cases.by_pycocotools(case))


def test_both_metrics_are_those_of_the_evaluators():
    case = random_case(2)
    voc, coco = evaluate_detections(case.detections, case.truths, case.class_names, "both", 0.4)
    evaluators = VOCEvaluator(case.class_names, 0.4), COCOEvaluator(case.class_names)
    for evaluator, report in zip(evaluators, (voc, coco), strict=True):
        evaluator.update(case.detections, case.truths)
        assert evaluator.compute().as_dict() == report.as_dict()
    assert voc.map_area > 0.01
    assert coco.numbers["AP"] > 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "map"}, "metric: expected voc, coco or both, found 'map'"),
        ({"metric": "coco", "iou_thresholds": 0.5}, "iou_thresholds: expected none.*found 0.5"),
        ({"iou_thresholds": [0.5, 0]}, "expected more than 0 and at most 1, found 0"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, message):
    with pytest.raises(DetectError, match=message):
        evaluate_detections([FOUND], [TRUTH], ["thing"], **settings)


def test_records_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="found 1 and 2"):
        evaluate_detections([FOUND], [TRUTH, TRUTH], ["thing"])
    with pytest.raises(ValueError, match="truths of image 0: unknown key 'masks'"):
        evaluate_detections([FOUND], [as_arrays(TRUTH) | {"masks": []}], ["thing"])
