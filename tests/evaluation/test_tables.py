"""Every report as a table in a terminal of 80 columns: nothing is cut off, nothing is a repr."""

import re
from io import StringIO

import pytest
import torch
from rich.console import Console

from detect.evaluation import (
    ClassificationEvaluator,
    COCOEvaluator,
    LocalizationEvaluator,
    PoseEvaluator,
    VOCEvaluator,
    bootstrap_map,
    coco_size_groups,
    compare_runs,
    hoiem_groups,
    hoiem_size_groups,
    measure_calibration,
    measure_confusion,
    measure_detection_recall,
    measure_score_curves,
    tide_errors,
)
from detect.structures import Detections, GroundTruth

WIDTH = 80
JOINTS = ("left_hip", "right_shoulder", "a joint of thirty characters")
THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


def class_names(num_classes):
    """Of 30 characters each."""
    return tuple(f"number {label:02} and its description" for label in range(num_classes))


def printed(report, width=WIDTH):
    """What a terminal shows of a report."""
    console = Console(file=StringIO(), width=width)
    for table in report.tables() if hasattr(report, "tables") else [report.table()]:
        console.print(table)
    return console.file.getvalue()


def images_of(num_classes, num_images):
    """Two objects an image, found and not, with joints; as many images as asked for."""
    generator = torch.Generator().manual_seed(num_classes)
    for number in range(num_images):
        labels = torch.tensor([number, number // 2]) % num_classes
        boxes = torch.rand(2, 2, generator=generator) * 200
        boxes = torch.cat((boxes, boxes + 20 + 100 * torch.rand(2, 2, generator=generator)), dim=1)
        joints = torch.cat((boxes[:, None, :2].expand(2, 3, 2) + 5, torch.ones(2, 3, 1)), dim=2)
        joints = joints + torch.arange(3)[None, :, None] * torch.tensor([9.0, 9.0, 0.0])
        difficult = torch.tensor([False, number % 5 == 0])
        shift = torch.tensor([[0.0], [40.0]])
        scores = torch.rand(2, generator=generator).sort(descending=True).values
        found = Detections(boxes + shift, scores, labels.roll(number % 3), joints=joints[..., :2])
        yield found, GroundTruth(boxes, labels, difficult, joints=joints)


def reports_of(num_classes, num_images):
    """Every report there is, by name."""
    names = class_names(num_classes)
    found, truths = zip(*images_of(num_classes, num_images), strict=True)
    voc = VOCEvaluator(names, THRESHOLDS)
    evaluators = {
        "voc": voc,
        "coco": COCOEvaluator(names),
        "localization": LocalizationEvaluator(names),
        "pose": PoseEvaluator(JOINTS, [(0, 1), (1, 2)]),
    }
    for evaluator in evaluators.values():
        evaluator.update(found, truths)
    classification = ClassificationEvaluator(names)
    logits = torch.randn(num_images, num_classes, generator=torch.Generator().manual_seed(0))
    classification.update(logits, torch.arange(num_images) % num_classes)
    evaluators["classification"] = classification
    flat, objects = voc.flat()
    half = type(flat)(*(column[::2] for column in flat))
    given = (flat, objects, names)
    sized = {"num_classes": num_classes, "num_images": num_images, "num_resamplings": 20}
    return {name: evaluator.compute() for name, evaluator in evaluators.items()} | {
        "tide": tide_errors(*given),
        "tide release": tide_errors(*given, protocol="release"),
        "hoiem": hoiem_groups(*given, [names] if num_classes < 9 else [names[:20], names[30:]]),
        "score curves": measure_score_curves(*given),
        "confusion": measure_confusion(*given, score_threshold=0.1234567),
        "sizes": coco_size_groups(*given),
        "relative sizes": hoiem_size_groups(*given),
        "recall": measure_detection_recall(flat, objects, num_images),
        "calibration": measure_calibration(*given),
        "bootstrap": bootstrap_map(flat, objects, **sized),
        "comparison": compare_runs((flat, half), objects, **sized),
    }


CASES = [(2, 1), (10, 30), (80, 100)]  # classes, images
NOUNS = "image|object|detection|crowd|person|joint|limb|bin|resampling"


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]} classes")
def reports(request):
    return reports_of(*request.param)


def test_nothing_is_cut_off(reports):
    for name, report in reports.items():
        text = printed(report)
        assert "…" not in text, name  # with which rich cuts off what does not fit
        assert max(map(len, text.splitlines())) <= WIDTH
        numbers, all_numbers = (
            sorted(re.findall(r"[+-]?\d[\d.,]*", printed(report, width))) for width in (WIDTH, 400)
        )
        assert numbers == all_numbers, name


def test_no_value_is_shown_as_python_has_it(reports):
    for name, report in reports.items():
        found = re.search(r"\bnan\b|\binf\b|None|np\.|tensor|array|\(\)|\{", printed(report))
        assert found is None, (name, found)


def test_singular_and_plural_are_right(reports):
    for name, report in reports.items():
        words = " ".join(printed(report).split())
        one, many = rf"({NOUNS}|classe)s\b", rf"({NOUNS}|class)\b"
        for pattern in (
            rf"1 (labeled |difficult )?{one}",
            rf"(?!1 )\d+ (labeled |difficult )?{many}",
        ):
            assert re.search(rf"(?<![\d.,]){pattern}", words) is None, (name, words)


def test_reports_are_short_in_a_notebook(reports):
    for name in ("voc", "coco", "localization", "pose", "classification"):
        text = repr(reports[name])
        assert text.startswith(type(reports[name]).__name__ + ": ")
        assert len(text) < 160
        assert not re.search(r"\bnan\b|array|\(\[", text)


def test_the_representation_says_the_metric_and_on_how_much():
    report = reports_of(2, 1)["voc"]
    assert repr(report) == (
        "VOCReport: mAP (area) 1.0000, (11-point) 1.0000 at IoU 0.5, 1 image, 2 classes"
    )
    assert repr(report.classes[class_names(2)[0]]).startswith("ClassReport: AP (area) 1.0000")
