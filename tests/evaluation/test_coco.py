import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detect.evaluation import COCOEvaluator, pairs
from detect.structures import Detections, GroundTruth
from tests.evaluation.coco_cases import COCOCase, assert_equal, by_pycocotools, by_us, random_case

pytest.importorskip("pycocotools")


@pytest.mark.parametrize("seed", range(60))
def test_random_case_equals_pycocotools(seed):
    case = random_case(seed)
    assert_equal(by_us(case), by_pycocotools(case))


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    most_detections=st.sampled_from([0, 1, 12, 12, 40, 450]),
    num_images=st.integers(1, 6),
)
def test_a_thousand_cases_equal_pycocotools(seed, most_detections, num_images):
    case = random_case(seed, most_detections=most_detections, num_images=num_images)
    assert_equal(by_us(case), by_pycocotools(case))


def test_random_cases_hold_what_they_are_for():
    cases = [random_case(seed) for seed in range(60)]
    truths = [entry for case in cases for entry in case.truths]
    assert any(entry["iscrowd"] for entry in truths)
    assert any(entry["bbox"][2] * entry["bbox"][3] == 0 for entry in truths)
    judged = [by_pycocotools(case) for case in cases]
    matched = np.array([one.stats for one in judged])
    assert (matched > 0).any(axis=0).all()  # each of the twelve numbers is put to the test
    crowded = random_case(0, most_detections=450)
    per_group = {}
    for entry in crowded.found:
        key = entry["image_id"], entry["category_id"]
        per_group[key] = per_group.get(key, 0) + 1
    assert max(per_group.values()) > 100


@pytest.mark.parametrize("seed", range(3))
def test_more_than_a_hundred_detections_of_a_class(seed):
    case = random_case(seed, most_detections=450, num_images=3)
    assert_equal(by_us(case), by_pycocotools(case))


def test_published_case(shared):
    folder = shared / "eval-cases" / "coco_fakebbox100"
    if not folder.is_dir():
        pytest.skip(f"real data is absent: no folder {folder}")
    truth = json.loads((folder / "gt_instances_val2014_100.json").read_text())
    found = json.loads((folder / "dt_instances_val2014_fakebbox100_results.json").read_text())
    expected = json.loads((folder / "expected.json").read_text())
    case = COCOCase(
        [image["id"] for image in truth["images"]],
        [category["id"] for category in truth["categories"]],
        truth["annotations"],
        found,
    )
    report = by_us(case)
    assert list(report.numbers) == list(expected["bbox"])
    for name, number in report.numbers.items():
        assert number == pytest.approx(expected["bbox"][name], abs=1e-10), name
    assert_equal(report, by_pycocotools(case))


BOXES = torch.tensor([[0.0, 0, 40, 40], [100.5, 0, 120, 10]])


def records():
    """An image as our records: the first object difficult, the second found, one false alarm."""
    truth = GroundTruth(BOXES, torch.tensor([0, 1]), torch.tensor([True, False]))
    boxes = torch.cat((BOXES, BOXES[:1] + 500))
    found = Detections.sorted(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 1]))
    return found, truth


def compute(found, truth, **settings):
    evaluator = COCOEvaluator(["a", "b"], **settings)
    evaluator.update([found], [truth])
    return evaluator.compute()


def assert_same(report, other):
    assert report.protocol == other.protocol
    np.testing.assert_array_equal(report.precision, other.precision)
    np.testing.assert_array_equal(report.recall, other.recall)
    assert json.dumps(report.as_dict()) == json.dumps(other.as_dict())


def test_records_and_both_forms_of_dictionaries_are_the_same():
    found, truth = records()
    expected = compute(found, truth)
    # of the class b alone: a has no object but a difficult one
    assert expected.numbers["AP"] == pytest.approx(1, abs=1e-12)
    assert math.isnan(expected.classes["a"]["AP"])
    as_crowd = {"boxes": BOXES, "labels": truth.labels, "iscrowd": torch.tensor([1, 0])}
    shuffled = torch.tensor([2, 0, 1])
    in_any_order = {
        "boxes": found.boxes[shuffled],
        "scores": found.scores[shuffled],
        "labels": found.labels[shuffled],
    }
    assert_same(compute(in_any_order, as_crowd), expected)
    sized = {name: values for name, values in as_crowd.items() if name != "boxes"}
    sized["boxes_xywh"] = torch.cat((BOXES[:, :2], BOXES[:, 2:] - BOXES[:, :2]), dim=1)
    assert_same(compute(found, sized), expected)


def test_the_area_decides_on_the_size_and_is_that_of_the_box_by_default():
    found, truth = records()
    plain = {"boxes": BOXES, "labels": truth.labels}
    assert compute(found, plain).num_objects.tolist() == [[1, 1], [0, 1], [1, 0], [0, 0]]
    areas = plain | {"area": torch.tensor([1024.0, 9216.5])}  # 32² is small and medium
    assert compute(found, areas).num_objects.tolist() == [[1, 1], [1, 0], [1, 0], [0, 1]]


def test_images_may_come_in_parts_and_evaluators_merge():
    found, truth = records()
    images = [(found, truth), (Detections.empty(), truth), (found, GroundTruth.empty())]
    whole, first, second = (COCOEvaluator(["a", "b"]) for _ in range(3))
    whole.update(*zip(*images, strict=True))
    first.update([found], [truth])
    second.update(*zip(*images[1:], strict=True))
    first.merge(second)
    first.gather()  # alone, nothing happens
    assert_same(first.compute(), whole.compute())
    assert whole.compute().protocol.num_images == 3
    with pytest.raises(ValueError, match="merge: expected an evaluator with the max_detections"):
        first.merge(COCOEvaluator(["a", "b"], max_detections=(1, 10, 300)))
    whole.reset()
    assert whole.compute().protocol.num_images == 0
    assert all(math.isnan(number) for number in whole.compute().numbers.values())


@pytest.mark.parametrize("max_pairs", [1, 7])
def test_pairs_in_small_chunks_give_the_same(monkeypatch, max_pairs):
    case = random_case(4)
    expected = by_us(case)
    monkeypatch.setattr(pairs, "MAX_PAIRS", max_pairs)
    assert_same(by_us(case), expected)


def test_limits_and_thresholds_are_the_callers():
    found, truth = records()
    report = compute(found, truth, iou_thresholds=(0.6, 0.75), max_detections=(2, 5, 300))
    assert list(report.numbers)[6:9] == ["AR2", "AR5", "AR300"]
    assert math.isnan(report.numbers["AP50"])
    assert report.numbers["AP75"] == pytest.approx(1, abs=1e-12)


def test_equal_boxes_reach_a_threshold_of_1():
    # an IoU of 1 may come out a little less: 0.1 · 0.7 is no sum of such products
    truth = {"boxes_xywh": torch.tensor([[0.3, 0.1, 0.1, 0.7]]).double(), "labels": NO_LABEL + 0}
    found = {"boxes_xywh": truth["boxes_xywh"] * (1 + 1e-12), "labels": NO_LABEL + 0}
    found["scores"] = torch.ones(1)
    report = compute(found, truth, iou_thresholds=(0.5, 1.0))
    assert report.numbers["AR100"] == 1


def test_a_tie_in_iou_goes_to_the_last_object_as_in_pycocotools():
    # both objects overlap the first detection alike, but the second detection overlaps one more
    truths = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0.0, 0, 10, 10], "area": 100},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [4.0, 0, 10, 10], "area": 100},
    ]
    truths = [entry | {"iscrowd": 0} for entry in truths]
    for second in ([0.0, 0, 10, 10], [4.0, 0, 10, 10]):
        found = [
            {"image_id": 1, "category_id": 1, "bbox": [2.0, 0, 10, 10], "score": 0.9},
            {"image_id": 1, "category_id": 1, "bbox": second, "score": 0.8},
        ]
        case = COCOCase([1], [1], truths, found)
        assert_equal(by_us(case), by_pycocotools(case))
    # the last one is taken already: at IoU 0.75 and more the second detection finds nothing
    assert by_us(case).numbers["AP75"] < 0.6


def test_tables_and_plain_data_hold_all_numbers():
    report = by_us(random_case(1))
    content = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    for name, number in report.numbers.items():
        assert content[name] == (None if math.isnan(number) else number)
    assert set(content["classes"]) == set(report.class_names)
    assert len(report.tables()) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iou_thresholds": ()}, "iou_thresholds: expected rising numbers"),
        ({"iou_thresholds": (0.5, 0.5)}, "iou_thresholds: expected rising numbers"),
        ({"iou_thresholds": (0.0, 0.5)}, "iou_thresholds: expected rising numbers"),
        ({"iou_thresholds": (0.5, 1.01)}, "iou_thresholds: expected rising numbers"),
        ({"max_detections": (10, 1, 100)}, "max_detections: expected rising positive"),
        ({"class_names": ["a", "a"]}, "class_names: expected each once"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        COCOEvaluator(**({"class_names": ["a"]} | settings))


NO_LABEL = torch.zeros(1, dtype=torch.int64)
NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"boxes": torch.zeros(1, 3)}, r"image 0: boxes: expected \[N, 4\], found \[1, 3\]"),
        ({"boxes": None}, "expected 'boxes'.*found the keys"),
        ({"scores": torch.ones(2)}, r"scores: expected 1, one for each box, found \[2\]"),
        ({"scores": None}, "expected the key 'scores'"),
        ({"scores": torch.tensor([math.nan])}, "image 0: expected finite scores, found nan"),
        ({"labels": torch.tensor([0.0])}, "labels: expected whole numbers, found torch.float32"),
        ({"labels": torch.tensor([2])}, "detections: expected labels below 2.*found 2"),
        ({"labels": torch.tensor([-1])}, "expected labels from 0 to 1, found -1"),
        ({"boxes": torch.tensor([[5.0, 0, 4, 1]])}, "expected x1 ≤ x2 and y1 ≤ y2, found"),
        ({"boxes": torch.tensor([[0.0, 0, math.inf, 1]])}, "expected finite boxes"),
        ({"score": torch.ones(1)}, "unknown key 'score'"),
    ],
)
def test_dictionaries_that_make_no_sense_are_refused(changed, message):
    found = {
        "boxes": torch.tensor([[0.0, 0, 1, 1]]),
        "scores": torch.ones(1),
        "labels": torch.zeros(1, dtype=torch.int64),
    }
    found = {name: value for name, value in (found | changed).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        compute(found, NOTHING)


def test_an_image_without_rows_may_have_lost_its_types():
    nothing = {"boxes": torch.tensor([]), "scores": torch.tensor([]), "labels": torch.tensor([])}
    assert math.isnan(compute(nothing, NOTHING).numbers["AP"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("seed", range(5))
def test_a_gpu_gives_the_same(seed):
    case = random_case(seed)
    report, expected = by_us(case, "cuda"), by_us(case)
    np.testing.assert_allclose(report.precision, expected.precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(report.recall, expected.recall, rtol=0, atol=1e-12)
