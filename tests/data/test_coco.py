import json

import numpy as np
import pytest

from detect.data.formats.coco import coco_files, read_annotated_coco
from detect.errors import DetectError
from tests.data.voc_folder import photo

BOX = [1, 2, 19, 28]


def image(number=1, **fields):
    return {"id": number, "file_name": f"{number:04}.png", "height": 40, "width": 60} | fields


def annotation(number=1, image_id=1, category_id=1, box=BOX, **fields):
    own = {"id": number, "image_id": image_id, "category_id": category_id, "bbox": box}
    return own | {"iscrowd": 0} | fields


def content(*annotations, images=None, categories=None):
    return {
        "images": [image()] if images is None else images,
        "annotations": list(annotations),
        "categories": [{"id": 1, "name": "dog"}, {"id": 7, "name": "cat"}]
        if categories is None
        else categories,
    }


def write(root, plain, split="train", folder="images", names=("0001.png",)):
    """A split with its images; `plain` is the JSON, or its text."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    text = plain if isinstance(plain, str) else json.dumps(plain)
    (root / "annotations" / f"instances_{split}.json").write_text(text)
    for name in names:
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo())
    return root


def without(entry, key):
    return {name: value for name, value in entry.items() if name != key}


def only_fault(root, severity="error"):
    annotated = read_annotated_coco(root)
    (fault,) = annotated.faults
    assert fault.severity == severity
    assert fault.remedy
    return fault, annotated


# ---- what is legal ----------------------------------------------------------------------------


def test_all_that_a_file_says(tmp_path):
    crowd = annotation(11, 1, 7, [0, 0, 60, 40], iscrowd=1, segmentation={"counts": [1]}, area=9.5)
    hard = annotation(10, difficult=1, area=532, truncated=1)
    plain = content(hard, crowd, images=[image(license=3), image(2)]) | {"info": {"year": 2026}}
    annotated = read_annotated_coco(write(tmp_path, plain, names=("0001.png", "0002.png")))
    assert annotated.faults == ()
    assert (annotated.data_format, annotated.class_names) == ("coco", ("dog", "cat"))
    first, second = annotated.images
    assert (first.image_id, first.size, first.splits) == ("0001", (40, 60), ("train",))
    assert first.image_path == tmp_path / "images" / "0001.png"
    assert first.annotation_path == tmp_path / "annotations" / "instances_train.json"
    assert first.extras == {"id": 1, "license": 3}
    dog, cat = first.objects
    assert (dog.title, dog.name) == ("annotation 1 (id 10, dog)", "dog")
    assert (dog.box, dog.difficult, dog.crowd) == ((1, 2, 20, 30), True, False)
    assert dog.extras == {"id": 10, "truncated": 1}  # the area is that of the box
    assert (cat.difficult, cat.crowd) == (False, True)
    assert cat.extras == {"id": 11, "segmentation": {"counts": [1]}, "area": 9.5}
    assert second.objects == ()
    assert annotated.extras == {
        "categories": plain["categories"],
        "files": {"train": {"info": {"year": 2026}}},
    }


def test_labels_are_by_ascending_id(tmp_path):
    categories = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}]
    root = write(tmp_path, content(annotation(), categories=categories))
    assert read_annotated_coco(root).class_names == ("person", "toothbrush")


@pytest.mark.parametrize("folder", ["train2017", "train", "images/train", "images", "."])
def test_places_of_images(tmp_path, folder):
    root = write(tmp_path, content(annotation()), folder=folder)
    (found,) = read_annotated_coco(root).images
    assert found.image_path == root / folder / "0001.png"


def test_cocos_own_names_and_splits(tmp_path):
    write(tmp_path, content(annotation()), "train2017", "train2017")
    write(tmp_path, content(images=[image(2)]), "val2017", "val2017", ["0002.png"])
    (tmp_path / "annotations" / "captions_val2017.json").write_text("{}")
    annotated = read_annotated_coco(tmp_path)
    assert [p.splits for p in annotated.images] == [("train2017",), ("val2017",)]
    assert len(read_annotated_coco(tmp_path, ["val2017"]).images) == 1
    with pytest.raises(DetectError, match="no split 'train'; did you mean 'train2017'"):
        read_annotated_coco(tmp_path, ["train"])


def test_roboflows_layout(tmp_path):
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        categories = [{"id": 0, "name": "pets", "supercategory": "none"}]
        categories += [{"id": 1, "name": "dog", "supercategory": "pets"}]
        plain = content(annotation(), categories=categories)
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(plain))
        (tmp_path / split / "0001.png").write_bytes(photo())
    annotated = read_annotated_coco(tmp_path)
    # one name for two images
    assert [p.image_id for p in annotated.images] == ["train/0001", "valid/0001"]
    assert annotated.class_names == ("dog",)
    assert [(f.rule, f.severity) for f in annotated.faults] == [("group-category", "warning")]


def test_a_set_without_splits_and_other_file_names(tmp_path):
    root = write(tmp_path / "a", content(annotation()))
    (root / "annotations" / "instances_train.json").rename(root / "annotations" / "instances.json")
    assert [p.splits for p in read_annotated_coco(root).images] == [()]
    (root / "annotations" / "instances.json").rename(root / "annotations" / "mine.json")
    assert [p.splits for p in read_annotated_coco(root).images] == [("mine",)]


def test_a_joint_split_joins_its_images(tmp_path):
    images = [image(), image(2)]
    write(tmp_path, content(annotation(5), images=images), "trainval", names=["0001.png"])
    write(tmp_path, content(annotation(1)), "train", names=["0002.png"])
    annotated = read_annotated_coco(tmp_path)
    splits = {photo.image_id: photo.splits for photo in annotated.images}
    assert splits == {"0001": ("train", "trainval"), "0002": ("trainval",)}
    assert annotated.faults == ()


def test_splits_that_differ_in_the_objects_of_an_image(tmp_path):
    write(tmp_path, content(annotation()), "trainval")
    write(tmp_path, content(annotation(category_id=7)), "train")
    fault, annotated = only_fault(tmp_path)
    assert fault.rule == "different-in-splits"
    assert [p.splits for p in annotated.images] == [("train",)]


def test_wanted_classes(tmp_path):
    root = write(tmp_path, content(annotation(), annotation(2, 1, 7)))
    annotated = read_annotated_coco(root, classes=["cat", "cow"])
    assert annotated.class_names == ("cat", "cow")
    assert [item.name for item in annotated.images[0].objects] == ["cat"]
    assert [(f.rule, f.object) for f in annotated.faults] == [("unknown-class", "category dog")]
    assert annotated.num_skipped_objects == 1


def test_an_unused_class_is_no_fault(tmp_path):
    root = write(tmp_path, content(annotation()))
    assert read_annotated_coco(root, classes=["dog"]).faults == ()


def test_without_extras(tmp_path):
    root = write(tmp_path, content(annotation(segmentation=[[1, 2]])))
    annotated = read_annotated_coco(root, with_extras=False)
    assert (annotated.extras, annotated.images[0].extras) == ({}, {})
    assert annotated.images[0].objects[0].extras == {}


@pytest.mark.parametrize(
    ("box", "expected", "num_faults"),
    [
        ([-0.01, 0, 20, 20], (0, 0, 19.99, 20), 0),
        ([50, 20, 10.01, 20.01], (50, 20, 60, 40), 0),
        ([50, 20, 10.9, 20], (50, 20, 60, 40), 1),
        ([50.5, 20, 0.25, 0.5], (50.5, 20, 50.75, 20.5), 0),
    ],
)
def test_boxes_at_the_border(tmp_path, box, expected, num_faults):
    annotated = read_annotated_coco(write(tmp_path, content(annotation(box=box))))
    assert annotated.images[0].objects[0].box == pytest.approx(expected, abs=1e-12)
    assert [f.rule for f in annotated.faults] == ["box-past-border"] * num_faults


# ---- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        (7, "wrong-type"),
        (without(annotation(), "id"), "missing-field"),
        (without(annotation(), "image_id"), "missing-field"),
        (without(annotation(), "category_id"), "missing-field"),
        (without(annotation(), "bbox"), "missing-field"),
        (annotation(image_id=5), "unknown-image"),
        (annotation(image_id=[1]), "wrong-type"),
        (annotation(image_id=None), "wrong-type"),
        (annotation(category_id=5), "unknown-category"),
        (annotation(category_id=1.5), "wrong-type"),
        (annotation(box=[1, 2, 3]), "wrong-length"),
        (annotation(box="1 2 3 4"), "wrong-length"),
        (annotation(box=[1, 2, 3, "4"]), "not-a-number"),
        (annotation(box=[1, 2, 3, True]), "not-a-number"),
        (annotation(box=[1, 2, 3, float("nan")]), "not-a-number"),
        (annotation(box=[1, 2, 3, float("inf")]), "not-a-number"),
        (annotation(box=[1, 2, 3, 10**400]), "not-a-number"),
        (annotation(box=[1, 2, 0, 4]), "zero-size-box"),
        (annotation(box=[1, 2, 3, -4]), "zero-size-box"),
        (annotation(box=[60, 2, 0.5, 4]), "zero-size-box"),
        (annotation(box=[50, 2, 13, 4]), "box-outside-image"),
        (annotation(iscrowd=2), "bad-iscrowd"),
        (annotation(difficult="yes"), "bad-difficult"),
    ],
)
def test_faulty_annotations(tmp_path, entry, rule):
    fault, annotated = only_fault(write(tmp_path, content(entry)))
    assert (fault.rule, fault.file) == (rule, str(tmp_path / "annotations/instances_train.json"))
    assert fault.object is not None
    assert fault.object.startswith("annotation 1")
    assert [len(p.objects) for p in annotated.images] == [0]


def test_an_annotation_id_twice(tmp_path):
    fault, annotated = only_fault(write(tmp_path, content(annotation(), annotation())))
    assert (fault.rule, fault.object) == ("duplicate-annotation", "annotation 2 (id 1)")
    assert annotated.num_skipped_objects == 1


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ([], "wrong-type"),
        (without(image(2), "id"), "missing-field"),
        (without(image(2), "file_name"), "missing-field"),
        (without(image(2), "height"), "missing-field"),
        (image(2, file_name=""), "wrong-type"),
        (image(2, file_name="/"), "bad-file-name"),
        (image(2, file_name="a\0b"), "bad-file-name"),
        (image(2, file_name="x" * 5000), "missing-image"),
        (image(2, id=1), "duplicate-image"),
        (image(2, file_name="0001.jpg"), "duplicate-image"),
        (image(2, width="60"), "bad-size"),
        (image(2, width=0), "bad-size"),
        (image(2, width=61), "size-mismatch"),
        (image(2, file_name="absent.png"), "missing-image"),
        (image(2, file_name="broken.png"), "unreadable-image"),
    ],
)
def test_faulty_images(tmp_path, entry, rule):
    root = write(tmp_path, content(images=[image(), entry]), names=["0001.png", "0002.png"])
    (root / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    fault, annotated = only_fault(root)
    assert fault.rule == rule
    assert [p.image_id for p in annotated.images] == ["0001"]
    assert annotated.num_skipped_images == 1


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        (3, "wrong-type"),
        ({"id": 2}, "missing-field"),
        ({"name": "cow"}, "missing-field"),
        ({"id": 2, "name": 5}, "wrong-type"),
        ({"id": 2.5, "name": "cow"}, "wrong-type"),
        ({"id": 1, "name": "cow"}, "duplicate-category"),
        ({"id": 2, "name": "dog"}, "duplicate-category"),
    ],
)
def test_faulty_categories(tmp_path, entry, rule):
    categories = [{"id": 1, "name": "dog"}, entry]
    fault, annotated = only_fault(write(tmp_path, content(annotation(), categories=categories)))
    assert fault.rule == rule
    assert fault.object is not None
    assert fault.object.startswith("category 2")
    assert annotated.class_names == ("dog",)


def test_categories_with_other_ids_in_another_file(tmp_path):
    write(tmp_path, content(annotation()), "train")
    categories = [{"id": 3, "name": "dog"}]
    plain = content(annotation(1, 2, 3), images=[image(2)], categories=categories)
    write(tmp_path, plain, "val", names=["0002.png"])
    fault, annotated = only_fault(tmp_path, "warning")
    assert fault.rule == "different-ids"
    assert annotated.class_names == ("dog", "cat")
    assert [p.objects[0].name for p in annotated.images] == ["dog", "dog"]


@pytest.mark.parametrize("value", [float("inf"), [float("nan")], json.loads("[" * 50 + "]" * 50)])
def test_extras_that_cannot_be_written_again(tmp_path, value):
    root = write(tmp_path, content(annotation(note=value)))
    fault, annotated = only_fault(root, "warning")
    assert (fault.rule, fault.object) == ("bad-extras", "annotation 1 (id 1, dog)")
    assert annotated.images[0].objects[0].extras == {"id": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected JSON"),
        ("{", "expected JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "found a list"),
        ("3", "found 3"),
        ("{}", "no list 'images'"),
        ('{"images": 1}', "no list 'images' but 1"),
        ('{"images": [], "annotations": [], "categories": []}', "found none"),
    ],
)
def test_a_file_that_is_no_such_set(tmp_path, text, words):
    with pytest.raises(DetectError, match=words) as caught:
        read_annotated_coco(write(tmp_path, text))
    assert "instances_train.json" in str(caught.value)


def test_no_file(tmp_path):
    assert coco_files(tmp_path) == {}
    with pytest.raises(DetectError, match=r"expected COCO's.*found none"):
        read_annotated_coco(tmp_path)


def test_mutated_files_give_a_set_or_one_error(tmp_path):
    generator = np.random.default_rng(0)
    root = write(tmp_path, content(annotation(), annotation(2, 1, 7), images=[image(license=1)]))
    path = root / "annotations" / "instances_train.json"
    sound = path.read_bytes()
    num_sets = 0
    for _ in range(300):
        data = bytearray(sound)
        for position in generator.integers(0, len(data), generator.integers(1, 3)):
            data[position] = generator.choice(list(b'0123456789"[]{},:.-eatlnu'))
        path.write_bytes(data)
        try:
            num_sets += bool(read_annotated_coco(root).class_names)
        except DetectError as error:
            assert str(path) in str(error)  # noqa: PT017
    assert 20 < num_sets < 290
