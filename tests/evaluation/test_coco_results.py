import json
import math

import numpy as np
import pytest
import torch

from detect.data import read_coco_truths
from detect.errors import DetectError
from detect.evaluation import (
    COCOEvaluator,
    DetectionSet,
    evaluate_detection_set,
    read_coco_results,
    read_detections_json,
    write_coco_results,
)
from detect.structures import Detections, GroundTruth
from tests.evaluation.coco_cases import assert_equal, by_pycocotools, random_case

IMAGES, CATEGORIES = (3, 42, "x"), (1, 18)


def entry(image_id=42, category_id=18, box=(1, 2, 3, 4), score=0.5, **fields):
    own = {"image_id": image_id, "category_id": category_id, "bbox": list(box), "score": score}
    return own | fields


def write(folder, content):
    path = folder / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(folder, *entries):
    return read_coco_results(write(folder, list(entries)), IMAGES, CATEGORIES)


def test_numbers_and_order_are_those_of_the_file(tmp_path):
    results = read(
        tmp_path,
        entry(42, 18, (0.1, 0.2, 0.3, 0.4), 0.1),
        entry("x", 1, score=2),
        entry(42, 1, (258.15, 41.29, 348.26, 243.78), 0.1, segmentation=[], area=3),
        entry(42, 18, score=0.9),
    )
    assert len(results) == 4
    nothing, two, last = results.by_image()
    assert len(nothing["scores"]) == 0
    assert two["boxes_xywh"].tolist() == [
        [0.1, 0.2, 0.3, 0.4], [258.15, 41.29, 348.26, 243.78], [1, 2, 3, 4]
    ]  # fmt: skip
    assert two["boxes_xywh"].dtype == two["scores"].dtype == torch.float64
    assert two["scores"].tolist() == [0.1, 0.1, 0.9]
    assert two["labels"].tolist() == [1, 0, 1]
    assert last["scores"].tolist() == [2]
    assert len(read(tmp_path)) == 0


def test_as_a_detection_set(tmp_path):
    results = read(tmp_path, entry(score=0.25), entry(3, 1, (0, 0, 5, 6)), entry(score=0.75))
    found = results.detection_set(("cat", "dog"), ("a", "b", "c"))
    first, second, third = found.detections
    assert first.boxes.tolist() == [[0, 0, 5, 6]]
    assert second.scores.tolist() == [0.75, 0.25]
    assert second.boxes.tolist() == [[1, 2, 4, 6]] * 2
    assert len(third) == 0


def test_scores_that_are_equal_as_float32_keep_their_order(tmp_path):
    hit = GroundTruth(
        torch.tensor([[1.0, 2, 4, 6]]), torch.ones(1, dtype=torch.int64), torch.zeros(1).bool()
    )
    low, high = 0.5, 0.5 + 1e-12
    assert np.float32(low) == np.float32(high)
    for scores, expected in (((low, high), 0.5), ((high, low), 1.0)):
        # the hit is in the first image, the miss in the second
        results = read(tmp_path, entry(3, score=scores[0]), entry(42, score=scores[1]))
        found = results.detection_set(("cat", "dog"), ("a", "b", "c"))
        truths = (hit, GroundTruth.empty(), GroundTruth.empty())
        report = evaluate_detection_set(found, ("cat", "dog"), ("a", "b", "c"), truths)
        assert report.map_area == expected


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        (7, "expected an object with image_id, category_id, bbox, score, found 7"),
        ({"image_id": 42}, "expected the keys .*: category_id, bbox, score is missing; add it"),
        (entry(43), r"image_id: expected the id of one of the 3.*found 43.*there are: 3, 42, 'x'"),
        (entry("42"), "image_id: expected the number 42, as the ground truth has it, found '42'"),
        (entry(42.0), "image_id: expected a whole number, found 42.0"),
        (entry(True), "image_id: expected a whole number, found True"),
        (entry([42]), "image_id: expected a whole number"),
        (entry(category_id=0), "category_id: expected the id of one of the 2.*unknown category"),
        (entry(category_id=None), "category_id: expected a whole number, found None"),
        (entry(box=(1, 2, 3)), "bbox: expected x, y, width and height, 4 finite numbers"),
        (entry() | {"bbox": "1 2 3 4"}, "bbox: expected x, y, width and height"),
        (entry() | {"bbox": {"x": 1}}, "bbox: expected x, y, width and height"),
        (entry(box=(1, 2, "3", 4)), "bbox: expected x, y, width and height"),
        (entry(box=(1, 2, True, 4)), "bbox: expected x, y, width and height"),
        (entry(box=(1, math.nan, 3, 4)), "bbox: expected x, y, width and height, 4 finite"),
        (entry(box=(1, 2, 3, math.inf)), "bbox: expected x, y, width and height, 4 finite"),
        (entry(box=(1, 2, 3, -4)), "bbox: expected a width and height of 0 or more"),
        (entry(box=(3e38, 2, 3e38, 4)), "bbox: expected coordinates below 3e38"),
        (entry(box=(10**400, 2, 3, 4)), "bbox: expected x, y, width and height"),
        (entry(score=math.nan), "score: expected a finite number, found nan"),
        (entry(score=None), "score: expected a finite number, found None"),
        (entry(score=1e39), r"score: expected a finite number, found 1e\+39"),
        (entry(score=False), "score: expected a finite number, found False"),
        (entry(score="0.5"), "score: expected a finite number, found '0.5'"),
    ],
)
def test_a_faulty_entry_is_named(tmp_path, faulty, message):
    with pytest.raises(DetectError, match=rf"results\.json: entry 2: {message}"):
        read(tmp_path, entry(), faulty, entry())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps([entry(), entry()])[:-9], "expected JSON.*the file ends too early: write it"),
        ("[{", "the file ends too early"),
        ("[1,]", "expected JSON: (?!.*too early)"),
        ({"images": [], "annotations": []}, "found an object with the keys images, annotations"),
        ("3", "expected a list of detections in COCO's results format, found 3"),
        ("null", "expected a list of detections in COCO's results format, found None"),
    ],
)
def test_a_file_of_another_kind(tmp_path, content, message):
    with pytest.raises(DetectError, match=rf"results\.json: .*{message}"):
        read_coco_results(write(tmp_path, content), IMAGES, CATEGORIES)


def test_without_ids_a_results_file_is_told_from_our_own(tmp_path):
    with pytest.raises(DetectError, match=r"as COCO's results format has it.*--data"):
        read_detections_json(write(tmp_path, [entry()]))


def test_what_is_written_is_read_again(tmp_path):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(200, 2, generator=generator) * 600
    sizes = torch.rand(200, 2, generator=generator) * 100
    found = Detections.sorted(
        torch.cat((corners, corners + sizes), dim=1),
        torch.randn(200, generator=generator),
        torch.arange(200) % 2,
    )
    detections = DetectionSet(("cat", "dog"), ("a", "b"), (found, Detections.empty()))
    path = tmp_path / "deep" / "found.json"
    write_coco_results(path, detections, (42, 3), (18, 1))
    results = read_coco_results(path, (3, 42), (1, 18))
    assert results.images.tolist() == [1] * 200
    again = results.detection_set(("dog", "cat"), ("b", "a")).detections[1]
    assert torch.equal(again.boxes, found.boxes)
    assert torch.equal(again.scores, found.scores)
    assert again.labels.tolist() == (1 - found.labels).tolist()
    assert len(path.read_text().splitlines()) == 202  # a detection a line
    write_coco_results(path, DetectionSet(("cat",), ("a",), (Detections.empty(),)), (1,), (1,))
    assert json.loads(path.read_text()) == []


def judged(truths_path, results_path):
    truths = read_coco_truths(truths_path)
    results = read_coco_results(results_path, truths.image_ids, truths.category_ids)
    evaluator = COCOEvaluator(truths.class_names)
    evaluator.update(results.by_image(), truths.truths)
    return evaluator.compute()


@pytest.mark.parametrize("seed", range(12))
def test_files_have_the_numbers_of_pycocotools(tmp_path, seed):
    pytest.importorskip("pycocotools")
    case = random_case(seed)
    (tmp_path / "truths.json").write_text(
        json.dumps(
            {
                "images": [{"id": number} for number in case.images],
                "categories": [{"id": number, "name": str(number)} for number in case.categories],
                "annotations": case.truths,
            }
        )
    )
    report = judged(tmp_path / "truths.json", write(tmp_path, case.found))
    assert_equal(report, by_pycocotools(case))


def test_files_have_the_published_numbers(shared):
    folder = shared / "eval-cases" / "coco_fakebbox100"
    report = judged(
        folder / "gt_instances_val2014_100.json",
        folder / "dt_instances_val2014_fakebbox100_results.json",
    )
    expected = json.loads((folder / "expected.json").read_text())["bbox"]
    assert report.numbers == pytest.approx(expected, abs=1e-12)
