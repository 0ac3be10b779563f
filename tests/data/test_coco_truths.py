import json

import pytest
import torch

from detect.data import DataFaults, read_coco_truths
from detect.errors import DetectError

CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 1, "name": "dog"}]


def annotation(number=1, image_id=1, category_id=1, box=(1, 2, 19, 28), **fields):
    own = {"id": number, "image_id": image_id, "category_id": category_id, "bbox": list(box)}
    return own | fields


def write(folder, *annotations, images=None, categories=CATEGORIES, name="instances_val.json"):
    images = [{"id": 9, "file_name": "b/two.jpg"}, {"id": 1}] if images is None else images
    content = {"images": images, "annotations": list(annotations), "categories": categories}
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def test_objects_are_as_the_file_has_them(tmp_path):
    path = write(
        tmp_path,
        annotation(5, 9, 7, (0.1, 0.2, 0.30000001, 900), area=12.5, iscrowd=1),
        annotation(3, 9, 1, (-4, 5, 6, 7), difficult=1),
        annotation(4, 1, 7, (1, 1, 0, 5)),
    )
    truths = read_coco_truths(path)
    assert truths.class_names == ("dog", "cat")
    assert truths.category_ids == (1, 7)
    assert truths.image_ids == (1, 9)  # ascending
    assert truths.image_names == ("1", "b/two")
    assert truths.split == "val"
    first, second = truths.truths
    assert set(first) == {"boxes_xywh", "labels", "iscrowd", "area"}
    assert second["boxes_xywh"].tolist() == [[0.1, 0.2, 0.30000001, 900], [-4, 5, 6, 7]]
    assert second["boxes_xywh"].dtype == second["area"].dtype == torch.float64
    assert second["area"].tolist() == [12.5, 42]  # that of the box where there is none
    assert second["labels"].tolist() == [1, 0]
    assert second["iscrowd"].tolist() == [True, False]
    assert truths.difficult[1].tolist() == [False, True]
    assert first["boxes_xywh"].tolist() == [[1, 1, 0, 5]]


def test_by_voc_rules_crowds_and_difficult_objects_do_not_count(tmp_path):
    path = write(tmp_path, annotation(1, iscrowd=1), annotation(2, difficult=1), annotation(3))
    first, second = read_coco_truths(path).ground_truths()
    assert first.difficult.tolist() == [True, True, False]
    assert first.boxes.tolist() == [[1, 2, 20, 30]] * 3
    assert len(second) == 0


def test_an_empty_box_has_no_place_in_voc_rules(tmp_path):
    path = write(tmp_path, annotation(1), annotation(2, box=(3, 3, 0, 2)))
    with pytest.raises(DetectError, match=r"image 1, its object 2: .*--metric coco"):
        read_coco_truths(path).ground_truths()


def test_some_of_the_images(tmp_path):
    truths = read_coco_truths(write(tmp_path, annotation(1), annotation(2, 9)))
    (only,) = truths.of_images(["b/two"]).truths
    assert len(only["labels"]) == 1
    assert truths.of_images(["b/two", "1"]).image_ids == (1, 9)
    with pytest.raises(DetectError, match="found none named 'three'"):
        truths.of_images(["three"])


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"image_id": 2}, "unknown-image"),
        ({"image_id": 1.0}, "wrong-type"),
        ({"image_id": True}, "wrong-type"),
        ({"category_id": 2}, "unknown-category"),
        ({"bbox": [1, 2, -3, 4]}, "negative-size"),
        ({"bbox": [1, 2, 3]}, "wrong-length"),
        ({"bbox": [1, 2, float("nan"), 4]}, "not-a-number"),
        ({"bbox": [1, 2, "3", 4]}, "not-a-number"),
        ({"area": -1}, "bad-area"),
        ({"area": "large"}, "bad-area"),
        ({"area": float("nan")}, "bad-area"),
        ({"iscrowd": 2}, "bad-iscrowd"),
        ({"id": 1}, "duplicate-annotation"),
    ],
)
def test_a_faulty_annotation_is_named_or_left_out(tmp_path, changes, rule):
    path = write(tmp_path, annotation(1), annotation(2) | changes, annotation(3))
    with pytest.raises(DataFaults, match=rf"instances_val.json, annotation 2: .*\[{rule}\]"):
        read_coco_truths(path)
    truths = read_coco_truths(path, on_error="skip")
    assert len(truths.truths[0]["labels"]) == 2
    assert (truths.num_skipped_objects, truths.num_skipped_images) == (1, 0)
    assert len(truths.faults) == 1


@pytest.mark.parametrize(
    ("images", "categories", "message"),
    [
        ([{"id": 1}, {"id": 1}], CATEGORIES, "image 2: the id 1 is taken"),
        (
            [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "a.png"}],
            CATEGORIES,
            "image 2: the file name 'a' is taken",
        ),
        ([{"id": 1}, {"id": 2, "file_name": ""}], CATEGORIES, "image 2: file_name is ''"),
        ([{"id": 1}, {"id": 2, "file_name": "/"}], CATEGORIES, "image 2: file_name names no"),
        ([{"id": 1}, 7], CATEGORIES, "image 2: expected an object, found 7"),
        ([{"id": 1}], [*CATEGORIES, {"id": 1, "name": "cow"}], "category 3: the id 1 is taken"),
        ([{"id": 1}], [*CATEGORIES, {"id": 2, "name": "cat"}], "category 3: the name 'cat' is"),
        ([{"id": 1}], [*CATEGORIES, {"id": 2}], "category 3: there is no 'name'"),
    ],
)
def test_faulty_images_and_categories_are_named(tmp_path, images, categories, message):
    path = write(tmp_path, annotation(), images=images, categories=categories)
    with pytest.raises(DataFaults, match=message):
        read_coco_truths(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected COCO's detection format.*found a list"),
        ('{"images": []}', "found no list 'annotations'"),
        ('{"images": [{"id": 1}, {"id"', "expected JSON.*the file ends too early: write it again"),
    ],
)
def test_a_file_of_another_kind(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DetectError, match=message):
        read_coco_truths(path)
