import io
import json

from rich.console import Console

from detect.evaluation import VOCEvaluator
from tests.evaluation.voc_cases import random_case


def report_of(seed=3, class_names=None):
    case = random_case(seed)
    evaluator = VOCEvaluator(class_names or case.class_names)
    evaluator.update(case.detections, case.truths)
    return evaluator.compute()


def printed(report, width=80):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(report.table())
    return console.export_text()


def test_the_keys_of_the_json_are_stable():
    content = report_of().as_dict()
    assert list(content) == ["protocol", "map_11point", "map_area", "classes"]
    assert set(content["protocol"]) == {
        "name",
        "metrics",
        "iou_threshold",
        "matching",
        "difficult",
        "num_images",
        "num_objects",
        "num_difficult",
        "num_detections",
    }
    assert set(content["protocol"]["metrics"]) == {"map_11point", "map_area"}
    assert list(content["classes"]) == ["class 0", "class 1", "class 2", "class 3"]
    for entry in content["classes"].values():
        assert list(entry) == [
            "ap_11point",
            "ap_area",
            "num_objects",
            "num_difficult",
            "num_detections",
        ]


def test_the_json_is_json_with_null_for_nan():
    report = report_of()
    content = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert content["classes"]["class 3"]["ap_area"] is None
    assert content["classes"]["class 3"]["ap_11point"] is None
    assert content["map_area"] == report.map_area
    assert content["map_11point"] == report.map_11point
    assert content["protocol"]["iou_threshold"] == 0.5
    empty = VOCEvaluator(["thing"]).compute().as_dict()
    assert empty["map_area"] is None
    assert empty["map_11point"] is None


def test_the_counts_of_the_classes_add_up():
    report = report_of()
    for name in ("num_objects", "num_difficult", "num_detections"):
        total = sum(getattr(entry, name) for entry in report.classes.values())
        assert total == getattr(report.protocol, name) > 0
    for entry in report.classes.values():
        judged = entry.num_true_positives + entry.num_false_positives
        assert judged == len(entry.precision) == len(entry.recall) == len(entry.scores)
        assert judged <= entry.num_detections


def test_the_table_says_all_numbers_and_the_protocol():
    report = report_of(2)
    text = printed(report)
    for name, entry in report.classes.items():
        (line,) = (line for line in text.splitlines() if line.strip().startswith(name))
        cells = line.split()[2:]
        expected = [
            "—" if entry.num_objects == 0 else f"{entry.ap_11point:.4f}",
            "—" if entry.num_objects == 0 else f"{entry.ap_area:.4f}",
            str(entry.num_objects),
            str(entry.num_difficult),
            str(entry.num_detections),
            str(entry.num_true_positives),
        ]
        assert cells == expected
    assert f"{report.map_11point:.4f}" in text
    assert f"{report.map_area:.4f}" in text
    words = " ".join(text.split())
    for phrase in (
        "PASCAL VOC protocol, IoU ≥ 0.5",
        "difficult objects are ignored",
        f"12 images, {report.protocol.num_objects} objects",
        "a class without objects has no AP and is left out of the mean",
    ):
        assert phrase in words


def test_the_table_fits_a_narrow_terminal_and_takes_names_literally():
    names = ["[bold]dog[/bold]", "a name that is rather long for a class", "[/]", "d"]
    text = printed(report_of(3, names), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "[bold]dog" in text  # the rest of the name may stand on the next line
    assert "[/]" in text
