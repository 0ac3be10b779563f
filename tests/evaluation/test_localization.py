import inspect
import io
import json
import math

import pytest
import torch
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode

from detect.errors import DetectError
from detect.evaluation.tasks.localization import (
    LocalizationErrors,
    LocalizationEvaluator,
    LocalizationReport,
)
from detect.structures import Detections, GroundTruth
from tests.evaluation.voc_cases import random_case
from tests.reference import localization as reference

NAMES = ("cat", "dog", "cow")
CAT, DOG, COW = range(3)
BOX = (0, 0, 10, 10)
HALF = (0, 0, 10, 5)  # IoU 1/2 with BOX
LESS = (0, 0, 10, 4)  # IoU 2/5
AWAY = (50, 50, 60, 60)


def guesses(*rows):
    """Detections `(class, box)` by falling score."""
    return Detections(
        torch.tensor([box for _, box in rows], dtype=torch.float32).reshape(-1, 4),
        torch.arange(len(rows), 0, -1).float(),
        torch.tensor([label for label, _ in rows], dtype=torch.int64),
    )


def objects(*rows, difficult=()):
    """Objects `(class, box)`."""
    return GroundTruth(
        torch.tensor([box for _, box in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([label for label, _ in rows], dtype=torch.int64),
        torch.tensor([row in difficult for row in range(len(rows))], dtype=torch.bool),
    )


def report_of(*images, class_names=NAMES, iou_threshold=0.5):
    evaluator = LocalizationEvaluator(class_names, iou_threshold)
    evaluator.update([found for found, _ in images], [truth for _, truth in images])
    return evaluator.compute()


def numbers(report):
    return (
        report.top1_localization_error,
        report.top5_localization_error,
        report.top1_classification_error,
        report.top5_classification_error,
        report.mean_iou,
    )


# ---- by hand ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([(CAT, BOX)], (0, 0, 0, 0, 1)),
        ([(CAT, HALF)], (0, 0, 0, 0, 1 / 2)),  # exactly the threshold
        ([(CAT, LESS)], (1, 1, 0, 0, 2 / 5)),
        ([(DOG, BOX)], (1, 1, 1, 1, 1)),  # the IoU does not ask for the class
        ([(DOG, BOX), (CAT, HALF)], (1, 0, 1, 0, 1)),
        ([(DOG, AWAY), (CAT, AWAY)], (1, 1, 1, 0, 0)),
        # the class of one guess and the box of another make no right guess
        ([(CAT, AWAY), (DOG, BOX)], (1, 1, 0, 0, 0)),
        ([(CAT, AWAY), (CAT, BOX)], (1, 0, 0, 0, 0)),
        ([(DOG, AWAY)] * 4 + [(CAT, BOX)], (1, 0, 1, 0, 0)),
        ([(DOG, AWAY)] * 5 + [(CAT, BOX)], (1, 1, 1, 1, 0)),  # the sixth does not count
        ([], (1, 1, 1, 1, 0)),
    ],
)
def test_one_image_by_hand(found, expected):
    report = report_of((guesses(*found), objects((CAT, BOX))))
    assert numbers(report) == expected
    assert report.num_images == 1


def test_several_images_and_their_classes():
    report = report_of(
        (guesses((CAT, HALF)), objects((CAT, BOX))),
        (guesses((DOG, BOX), (CAT, BOX)), objects((CAT, BOX))),
        (guesses((CAT, LESS)), objects((CAT, BOX))),
        (guesses((CAT, BOX)), objects((DOG, BOX))),
        (guesses((CAT, BOX)), objects()),
    )
    assert numbers(report) == (3 / 4, 2 / 4, 2 / 4, 1 / 4, (1 / 2 + 1 + 2 / 5 + 1) / 4)
    assert (report.num_images, report.num_without_object) == (4, 1)
    assert numbers(report.classes["cat"]) == (2 / 3, 1 / 3, 1 / 3, 0, (1 / 2 + 1 + 2 / 5) / 3)
    assert numbers(report.classes["dog"]) == (1, 1, 1, 1, 1)
    assert all(math.isnan(value) for value in numbers(report.classes["cow"]))
    counts = [errors.num_images for errors in report.classes.values()]
    assert counts == [3, 1, 0]


def test_any_object_of_the_class_will_do():
    truth = objects((CAT, (0, 0, 100, 100)), (DOG, AWAY), (CAT, BOX))
    assert numbers(report_of((guesses((CAT, HALF)), truth))) == (0, 0, 0, 0, 1 / 2)
    # an object of another class is no help, neither to the guess nor to the mean IoU
    report = report_of((guesses((CAT, AWAY)), truth))
    assert report.top1_localization_error == 1
    assert report.mean_iou == 100 / 100**2


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(DOG, BOX), (CAT, (0, 0, 10, 11))], "cat"),
        ([(DOG, BOX), (CAT, (5, 5, 15, 15))], "dog"),  # equally large: the first
        ([(CAT, BOX), (DOG, (5, 5, 15, 15))], "cat"),
        # many small ones don't outweigh the largest
        ([(DOG, HALF), (DOG, HALF), (DOG, HALF), (COW, LESS), (CAT, BOX)], "cat"),
    ],
)
def test_the_class_is_that_of_the_largest_object(rows, expected):
    report = report_of((guesses(), objects(*rows)))
    assert [name for name, errors in report.classes.items() if errors.num_images] == [expected]


def test_difficult_objects_are_objects():
    report = report_of((guesses((CAT, BOX)), objects((CAT, BOX), (DOG, HALF), difficult=[0])))
    assert numbers(report) == (0, 0, 0, 0, 1)
    assert report.num_without_object == 0


def test_the_threshold_decides():
    image = (guesses((CAT, LESS)), objects((CAT, BOX)))
    assert report_of(image, iou_threshold=0.4).top1_localization_error == 0
    assert report_of(image, iou_threshold=0.41).top1_localization_error == 1


@pytest.mark.parametrize("images", [[], [(guesses((CAT, BOX)), objects())]])
def test_without_objects(images):
    report = report_of(*images)
    assert all(math.isnan(value) for value in numbers(report))
    assert (report.num_images, report.num_without_object) == (0, len(images))
    content = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert content["top5_localization_error"] is content["mean_iou"] is None
    assert "0 images" in " ".join(printed(report).split())


# ---- against the oracle -----------------------------------------------------------------------


@pytest.mark.parametrize("iou_threshold", [0.5, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_oracle(seed, iou_threshold):
    case = random_case(seed, num_images=60)
    evaluator = LocalizationEvaluator(case.class_names, iou_threshold)
    for rows in (slice(0, 1), slice(1, 40), slice(40, 60)):
        evaluator.update(case.detections[rows], case.truths[rows])
    report = evaluator.compute()
    images = [
        tuple(
            list(zip(record.labels.tolist(), record.boxes.tolist(), strict=True)) for record in pair
        )
        for pair in zip(case.detections, case.truths, strict=True)
    ]
    total, classes = reference.evaluate(images, len(case.class_names), iou_threshold)
    assert_same(report.total.as_dict(), total)
    for name, expected in zip(case.class_names, classes, strict=True):
        assert_same(report.classes[name].as_dict(), expected)
    assert report.num_images + report.num_without_object == 60
    # the case is worth something: neither all right nor all wrong, and all numbers differ
    assert 0 < total["top5_classification_error"] < total["top1_classification_error"] < 1
    assert total["top5_localization_error"] < total["top1_localization_error"] < 1


def assert_same(found, expected):
    assert found == {
        name: value if value is None else pytest.approx(value, rel=1e-12)
        for name, value in expected.items()
    }


# ---- updates ----------------------------------------------------------------------------------


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


def test_an_update_computes_nothing():
    evaluator = LocalizationEvaluator(NAMES)
    found, truth = guesses((CAT, BOX)), objects((CAT, BOX))
    with Operations() as operations:
        evaluator.update([found], [truth])
    assert operations.names == {"aten.slice.Tensor", "aten.detach.default"}
    with Operations() as operations:
        assert evaluator.compute().num_images == 1
    assert "aten.scatter_reduce.two" in operations.names  # so that the set above means something
    assert evaluator.compute().num_images == 1  # computing leaves the images


def test_compute_takes_no_step_for_each_image():
    def num_operations(num_images):
        evaluator = LocalizationEvaluator(NAMES)
        evaluator.update(
            [guesses((CAT, BOX), (DOG, AWAY))] * num_images, [objects((CAT, BOX))] * num_images
        )
        counter = Counter()
        with counter:
            assert evaluator.compute().num_images == num_images
        return counter.number

    assert num_operations(500) == num_operations(5)


class Counter(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += 1
        return func(*args, **(kwargs or {}))


def test_gradients_stay_out():
    boxes = torch.tensor([[0.0, 0, 10, 10]], requires_grad=True)
    found = Detections(boxes, torch.ones(1), torch.tensor([CAT]))
    report = report_of((found, objects((CAT, BOX))))
    assert report.mean_iou == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_records_on_the_gpu():
    device = torch.device("cuda")
    found, truth = guesses((DOG, BOX), (CAT, HALF)), objects((CAT, BOX))
    expected = report_of((found, truth)).as_dict()
    assert report_of((found.to(device), truth.to(device))).as_dict() == expected


def test_faults_of_the_caller():
    evaluator = LocalizationEvaluator(NAMES)
    with pytest.raises(ValueError, match="as many images, found 1 and 2"):
        evaluator.update([guesses()], [objects(), objects()])
    for owner, image in (
        ("detections", (guesses((CAT, BOX), (3, BOX)), objects((CAT, BOX)))),
        ("truths", (guesses((CAT, BOX)), objects((CAT, BOX), (3, BOX)))),
    ):
        with pytest.raises(ValueError, match=f"{owner}: expected labels below 3.*3 in image 1"):
            report_of((guesses((DOG, BOX)), objects((CAT, BOX))), image)
    for names in ([], ["cat", "cat"]):
        with pytest.raises(ValueError, match="class_names"):
            LocalizationEvaluator(names)


@pytest.mark.parametrize("iou_threshold", [0, -0.1, 1.1, math.nan])
def test_thresholds_out_of_range(iou_threshold):
    with pytest.raises(DetectError, match="iou_threshold: expected more than 0 and at most 1"):
        LocalizationEvaluator(NAMES, iou_threshold)


def test_the_signature_is_the_one_of_the_other_evaluators():
    parameters = inspect.signature(LocalizationEvaluator).parameters
    assert list(parameters) == ["class_names", "iou_threshold"]
    assert parameters["iou_threshold"].default == 0.5


# ---- the report -------------------------------------------------------------------------------


def printed(report, width=80):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(report.table())
    return console.export_text()


def test_the_keys_of_the_json_are_stable():
    report = report_of((guesses((CAT, HALF)), objects((CAT, BOX))), (guesses(), objects()))
    content = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    six = [
        "top1_localization_error",
        "top5_localization_error",
        "top1_classification_error",
        "top5_classification_error",
        "mean_iou",
        "num_images",
    ]
    assert list(content) == ["protocol", *six, "num_without_object", "classes"]
    assert set(content["protocol"]["metrics"]) == set(six[:5])
    assert content["protocol"]["iou_threshold"] == 0.5
    assert content["num_without_object"] == 1
    assert list(content["classes"]) == list(NAMES)
    assert content["classes"]["cat"] == dict(zip(six, [0, 0, 0, 0, 0.5, 1], strict=True))
    assert content["classes"]["dog"] == dict(zip(six, [None] * 5 + [0], strict=True))


def test_the_table_says_all_numbers():
    cat = LocalizationErrors(8, 4, 6, 7, 8, 5.0)
    dog = LocalizationErrors(2, 0, 1, 1, 1, 1.5)
    cow = LocalizationErrors(0, 0, 0, 0, 0, 0.0)
    total = LocalizationErrors(10, 4, 7, 8, 9, 6.5)
    classes = dict(zip(NAMES, (cat, dog, cow), strict=True))
    report = LocalizationReport(0.5, total, classes, 3)
    lines = [line.split() for line in printed(report).splitlines() if line.strip()]
    rows = {line[0]: line[1:] for line in lines}
    assert rows["cat"] == ["0.5000", "0.2500", "0.1250", "0.0000", "0.6250", "8"]
    assert rows["dog"] == ["1.0000", "0.5000", "0.5000", "0.5000", "0.7500", "2"]
    assert rows["cow"] == ["—"] * 5 + ["0"]
    assert rows["all"] == ["images", "0.6000", "0.3000", "0.2000", "0.1000", "0.6500", "10"]
    words = " ".join(printed(report).split())
    assert "Localization error top-1 0.6000, top-5 0.3000" in words
    assert "classification error top-1 0.2000, top-5 0.1000 (of only 3 classes)" in words
    assert "mean IoU of the first box 0.6500" in words
    assert "IoU ≥ 0.5" in words
    assert "first five detections by score" in words
    assert "that of its largest object" in words
    assert "difficult objects count like others" in words
    assert "10 images; left out: 3 images without an object" in words


def test_the_table_does_not_excuse_a_real_top5():
    names = [f"class {number}" for number in range(6)]
    report = report_of((guesses(), objects((CAT, BOX))), class_names=names)
    assert "there are only" not in printed(report)


def test_the_table_fits_a_narrow_terminal_and_takes_names_literally():
    names = ("[bold]dog[/bold]", "a name that is rather long for a class", "[/]")
    text = printed(report_of((guesses((0, LESS)), objects((0, BOX))), class_names=names))
    assert max(map(len, text.splitlines())) <= 80
    assert "[bold]dog" in text
