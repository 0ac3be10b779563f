import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from detect.data import DetectionDataset, PersonCrops, Skeleton
from detect.data.faults import DataFaults
from detect.data.formats.keypoints import read_coco_keypoints
from detect.data.loading.batches import SampleSource
from detect.errors import DetectError
from detect.structures import GroundTruth
from tests.data.voc_folder import photo

JOINTS = ["nose", "left_eye", "right_eye", "left_hand", "right_hand"]


def person(number=1, image=1, box=(10, 5, 30, 32), keypoints=None, **changes):
    """An annotation; a change to ... leaves the key out."""
    if keypoints is None:
        keypoints = [20, 10, 2, 22, 8, 1, 0, 0, 0, 15, 30, 2, 35, 20, 2]
    entry = {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "bbox": list(box),
        "keypoints": keypoints,
        "num_keypoints": 0 if keypoints is ... else sum(v > 0 for v in keypoints[2::3]),
        "iscrowd": 0,
        "area": 100,
    } | changes
    return {key: value for key, value in entry.items() if value is not ...}


def category(**changes):
    entry = {
        "id": 1,
        "name": "person",
        "keypoints": JOINTS,
        "skeleton": [[1, 2], [1, 3], [4, 5]],
    } | changes
    return {key: value for key, value in entry.items() if value is not ...}


class CocoFolder:
    """A data set that is written as it is described; images are 60 wide and 40 high."""

    def __init__(self, root: Path) -> None:
        self.file = root / "annotations" / "person_keypoints_train.json"
        self.images = root / "images"
        self.file.parent.mkdir()
        self.images.mkdir()
        self.content = {"images": [], "annotations": [], "categories": [category()]}
        self.add_image(1)

    def add_image(self, number, file_name=None, **changes):
        file_name = file_name or f"{number:012d}.png"
        entry = {"id": number, "file_name": file_name, "height": 40, "width": 60} | changes
        self.content["images"].append(
            {key: value for key, value in entry.items() if value is not ...}
        )
        (self.images / file_name).parent.mkdir(exist_ok=True)
        (self.images / file_name).write_bytes(photo(seed=number))

    def add(self, *annotations):
        self.content["annotations"] += annotations

    def read(self, *arguments, **options):
        self.file.write_text(json.dumps(self.content))
        return read_coco_keypoints(self.file, self.images, *arguments, **options)

    def faults(self, **options):
        """The faults that stop the reading, as rule: value."""
        with pytest.raises(DataFaults) as caught:
            self.read(**options)
        assert str(self.file) in str(caught.value)
        return caught.value.faults


@pytest.fixture
def folder(tmp_path):
    return CocoFolder(tmp_path)


# --- what is read --------------------------------------------------------------------------------


def test_images_objects_and_joints(folder):
    folder.add_image(2, "sub/b.jpeg")
    folder.add_image(3)
    crowd = person(7, 2, box=(0, 0, 60, 40), keypoints=[0] * 15, iscrowd=1)
    folder.add(person(5, 2), person(6, 1, box=(0, 0, 5.5, 40)), crowd, person(8, 2, iscrowd=1))
    dataset = folder.read()
    assert dataset.image_ids == ("000000000001", "sub/b", "000000000003")
    assert [meta.original_size for meta in dataset.metas] == [(40, 60)] * 3
    assert dataset.metas[1].path == folder.images / "sub/b.jpeg"
    assert len(dataset) == 3
    assert dataset.class_names == ("person",)
    assert [len(truth) for truth in dataset.truths] == [1, 3, 0]
    assert dataset.truths[0].boxes.tolist() == [[0, 0, 5.5, 40]]
    truth = dataset.truths[1]
    assert truth.boxes[0].tolist() == [10, 5, 40, 37]
    assert truth.difficult.tolist() == [False, True, True]
    # the indices of pixels become their centers; what is not labeled stays at 0
    joints = [[20.5, 10.5, 2], [22.5, 8.5, 1], [0, 0, 0], [15.5, 30.5, 2], [35.5, 20.5, 2]]
    assert truth.joints[0].tolist() == joints
    assert truth.joints[1].tolist() == [[0, 0, 0]] * 5
    assert dataset.truths[2].joints.shape == (0, 5, 3)
    assert dataset.faults == ()
    assert dataset.class_counts() == {"person": 4}
    assert (dataset.num_skipped_images, dataset.num_skipped_objects) == (0, 0)


def test_the_skeleton(folder):
    dataset = folder.read()
    assert dataset.joint_names == tuple(JOINTS)
    assert dataset.limbs == ((0, 1), (0, 2), (3, 4))
    assert dataset.joint_swaps == ((1, 2), (3, 4))


def test_swaps_are_found_by_name():
    names = ("right_knee", "head", "LeftEye", "left_knee", "paw_left", "RightEye", "left_ear")
    assert Skeleton(names, ()).joint_swaps == ((2, 5), (3, 0))


def test_samples_hold_the_image(folder):
    folder.add(person())
    dataset = folder.read()
    assert isinstance(dataset, SampleSource)
    sample = dataset[0]
    assert sample.image.shape == (40, 60, 3)
    assert torch.equal(sample.truth.joints, dataset.truths[0].joints)
    assert sample.meta is dataset.metas[0]
    sample.truth.joints.zero_()
    assert dataset.truths[0].joints.any()
    folder.images.joinpath("000000000001.png").write_bytes(photo((8, 9)))
    with pytest.raises(DetectError, match=r"expected \(height, width\) \(40, 60\) .* \(8, 9\)"):
        dataset[0]


def test_without_difficult(folder):
    nobody = person(2, keypoints=[0] * 15)
    folder.add(person(1), nobody, person(3, iscrowd=1))
    folder.content["annotations"][1].pop("iscrowd")
    kept = folder.read().without_difficult()
    assert isinstance(kept, DetectionDataset)
    assert [len(truth) for truth in kept.truths] == [1]
    assert kept.truths[0].joints.shape == (1, 5, 3)
    assert kept.joint_swaps == ((1, 2), (3, 4))


def test_a_data_set_goes_to_worker_processes(folder):
    folder.add(person())
    dataset = pickle.loads(pickle.dumps(folder.read()))
    assert dataset[0].truth.joints.shape == (1, 5, 3)
    crops = PersonCrops(folder.read())
    before = crops[0].image
    again = pickle.loads(pickle.dumps(crops))
    assert again._decoded is None
    assert np.array_equal(again[0].image, before)


def test_several_classes_with_the_same_joints(folder):
    folder.content["categories"].append(category(id="x", name="child"))
    folder.add(person(1), person(2, category_id="x"))
    assert folder.read().class_names == ("person", "child")
    assert folder.read().truths[0].labels.tolist() == [0, 1]
    assert folder.read(["child", "person"]).truths[0].labels.tolist() == [1, 0]


def test_pycocotools_reads_the_same(folder):
    coco = pytest.importorskip("pycocotools.coco")
    folder.add_image(2)
    folder.add(person(1), person(2, 2, box=(1.25, 2.5, 8, 9)), person(3, 2, iscrowd=1))
    dataset = folder.read()
    oracle = coco.COCO(str(folder.file))
    for number, truth in zip((1, 2), dataset.truths, strict=True):
        found = oracle.loadAnns(oracle.getAnnIds(imgIds=number))
        x, y, width, height = torch.tensor([entry["bbox"] for entry in found]).unbind(1)
        assert_close(truth.boxes, torch.stack((x, y, x + width, y + height), dim=1).float())
        joints = torch.tensor([entry["keypoints"] for entry in found]).reshape(-1, 5, 3)
        labeled = joints[..., 2] > 0
        assert_close(truth.joints[..., :2][labeled], joints[..., :2][labeled] + 0.5)
        assert truth.joints[..., 2].tolist() == joints[..., 2].tolist()


# --- faults of images and annotations ----------------------------------------------------------


def far(x, y, v=2):
    return [x, y, v] + [1, 1, 1] * 4


@pytest.mark.parametrize(
    ("annotation", "rule", "message"),
    [
        ("text", "wrong-type", "annotation 1: expected an object, found text"),
        (person(image=9), "unknown-image", "annotation 1 (id 1): there is no image with the id 9"),
        (person(image_id=...), "missing-field", "there is no 'image_id'"),
        (person(image_id=True), "wrong-type", "image_id is True"),
        (person(category_id=5), "unknown-category", "id 5 [unknown-category]; correct it; there"),
        (person(category_id=...), "missing-field", "there is no 'category_id'"),
        (person(bbox=...), "missing-field", "there is no 'bbox'"),
        (person(box=(1, 2, 3)), "wrong-length", "bbox is 3 numbers, not the 4 of x, y, width and"),
        (person(bbox=5), "wrong-length", "bbox is 5, not the 4"),
        (person(box=(1, 2, 3, "4")), "not-a-number", "bbox holds '4'"),
        (person(box=(1, 2, 3, float("nan"))), "not-a-number", "bbox holds nan"),
        (person(box=(1, 2, 0, 4)), "zero-size-box", "bbox 1, 2, 0, 4: a box of no area"),
        (person(box=(1, 2, 3, -4)), "zero-size-box", "bbox 1, 2, 3, -4: a box of no area"),
        (person(box=(59.5, 2, 3, 4)), "box-outside-image", "in an image 60 wide and 40 high"),
        (person(box=(-2, 2, 3, 4)), "box-outside-image", "keep x + width in 0 … 60 and y"),
        (person(box=(5, 40, 3, 0.5)), "zero-size-box", "nothing of the box is in the image"),
        (person(keypoints=[1, 2, 2] * 4), "wrong-length", "keypoints is 12 numbers, not the 15 of"),
        (person(keypoints=...), "missing-field", "there is no 'keypoints'"),
        (person(keypoints=[None] + [1] * 14, num_keypoints=...), "not-a-number", "holds None"),
        (person(keypoints=far(1, 1, 3)), "bad-visibility", "the visibility of nose is 3 ["),
        (person(keypoints=far(1, 1, 0.5)), "bad-visibility", "the visibility of nose is 0.5 ["),
        (person(iscrowd="no"), "bad-iscrowd", "iscrowd is 'no'"),
    ],
    ids=str,
)
def test_a_faulty_annotation_is_named_or_left_out(folder, annotation, rule, message):
    folder.add(annotation)
    (fault,) = folder.faults()
    assert fault.rule == rule
    assert fault.severity == "error"
    assert fault.file == str(folder.file)
    assert message in str(fault)
    folder.add(person(2))
    dataset = folder.read(on_error="skip")
    assert [len(truth) for truth in dataset.truths] == [1]
    assert dataset.faults == (fault,)
    is_stray = rule == "unknown-image" or "image_id" in message or annotation == "text"
    assert dataset.num_skipped_objects == (0 if is_stray else 1)


@pytest.mark.parametrize(
    ("annotation", "rule", "message", "labeled"),
    [
        (
            person(keypoints=far(60, 39)),
            "joint-outside-image",
            "nose at 60, 39 in an image 60 wide and 40 high; taken as not labeled",
            4,
        ),
        (person(keypoints=far(-1, 5)), "joint-outside-image", "nose at -1, 5 in", 4),
        (person(keypoints=far(5, 40)), "joint-outside-image", "nose at 5, 40", 4),
        (person(num_keypoints=3), "num-keypoints", "num_keypoints is 3, but 4 joints are", 4),
        (person(box=(30, 2, 30.5, 4)), "box-past-border", "bbox 30, 2, 30.5, 4 in an image", 4),
    ],
)
def test_a_warning_is_said_and_stops_nothing(folder, annotation, rule, message, labeled):
    folder.add(annotation)
    dataset = folder.read()
    (fault,) = dataset.faults
    assert (fault.rule, fault.severity) == (rule, "warning")
    assert message in str(fault)
    joints = dataset.truths[0].joints[0]
    assert int((joints[:, 2] > 0).sum()) == labeled
    assert (joints[joints[:, 2] == 0] == 0).all()
    assert (dataset.truths[0].boxes[:, 2] <= 60).all()


@pytest.mark.parametrize("place", [(59.5, 39.5), (-0.5, -0.5)])
def test_a_joint_on_the_border_is_in(folder, place):
    folder.add(person(keypoints=far(*place)))
    dataset = folder.read()
    assert dataset.faults == ()
    assert dataset.truths[0].joints[0, 0].tolist() == [place[0] + 0.5, place[1] + 0.5, 2]


def test_a_person_whose_joints_are_all_outside_is_difficult(folder):
    folder.add(person(keypoints=[70, 5, 2] * 5))
    assert folder.read().truths[0].difficult.tolist() == [True]


@pytest.mark.parametrize(
    ("image", "rule", "message"),
    [
        ({"file_name": ...}, "missing-field", "image 2 (id 2): there is no 'file_name'"),
        ({"file_name": ""}, "wrong-type", "file_name is ''"),
        ({"file_name": "."}, "bad-file-name", "file_name is '.'"),
        ({"file_name": "a\0b"}, "bad-file-name", "name an image"),
        ({"file_name": "none.png"}, "missing-image", "none.png: "),
        ({"file_name": "torn.png"}, "unreadable-image", "torn.png: "),
        ({"file_name": "000000000001.jpg"}, "duplicate-image", "has that file name too"),
        ({"id": 1}, "duplicate-image", "image 2 (id 1): image 1 (id 1) has that id too"),
        ({"id": ...}, "missing-field", "there is no 'id'"),
        ({"id": 1.5}, "wrong-type", "id is 1.5"),
        ({"height": "40"}, "bad-size", "height and width are '40' and 60"),
        ({"width": 0}, "bad-size", "height and width are 40 and 0"),
        ({"width": ...}, "missing-field", "there is no 'width'"),
        (
            {"width": 61},
            "size-mismatch",
            "is 60 wide and 40 high, its entry says 61 wide and 40 high",
        ),
    ],
    ids=str,
)
def test_a_faulty_image_is_named_or_left_out(folder, image, rule, message):
    folder.add_image(2)
    folder.images.joinpath("torn.png").write_bytes(photo()[:100])
    entry = folder.content["images"][1] | image
    folder.content["images"][1] = {key: v for key, v in entry.items() if v is not ...}
    folder.add(person(1, 1), *([person(2, 2)] if image.get("id", 2) == 2 else []))
    (fault,) = folder.faults()
    assert fault.rule == rule
    assert message in str(fault)
    dataset = folder.read(on_error="skip")
    assert dataset.image_ids == ("000000000001",)
    assert (dataset.num_skipped_images, dataset.num_skipped_objects) == (1, 0)
    assert len(dataset.truths[0]) == 1


def test_only_headers_are_read_on_request(folder):
    whole = photo()
    folder.images.joinpath("000000000001.png").write_bytes(whole[: len(whole) // 2])
    assert [fault.rule for fault in folder.faults()] == ["unreadable-image"]
    calls = []
    folder.read(verify_images=False, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 1)]


def test_all_faults_come_together(folder):
    folder.add_image(2, width=10)
    folder.add(person(1, box=(0, 0, 0, 0)), person(2, image=8), person(3, num_keypoints=1))
    rules = [fault.rule for fault in folder.faults()]
    expected = ["zero-size-box", "num-keypoints", "size-mismatch", "unknown-image"]
    assert rules == expected


def test_nothing_left(folder):
    folder.content["images"][0]["width"] = 7
    with pytest.raises(DetectError, match=r"none of the 1 images is left .*size-mismatch"):
        folder.read(on_error="skip")


# --- faults of the file as a whole ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ("[]", "an object with the lists images, annotations and categories, found a list"),
        ('{"images": []}', "found no list 'annotations' but only images"),
        ('{"images": {}, "annotations": []}', "found no list 'images' but an object"),
        ('{"images": [], "annotations": [], "categories": []}', "expected images in 'images'"),
    ],
)
def test_a_file_of_another_kind(folder, text, message):
    folder.file.write_text(text)
    with pytest.raises(DetectError, match=message) as caught:
        read_coco_keypoints(folder.file, folder.images)
    assert str(folder.file) in str(caught.value)


def test_a_missing_file_or_folder(folder):
    with pytest.raises(DetectError, match="cannot be read: No such file"):
        read_coco_keypoints(folder.file, folder.images)
    folder.images = folder.images / "nowhere"
    with pytest.raises(DetectError, match=r"expected the folder of the images .* found nothing"):
        folder.read()


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([], "expected a category with 'keypoints'"),
        ([category(keypoints=...)], "take person_keypoints_"),
        ([category(name=3)], "category 1: name is 3"),
        ([category(), category(name="x")], "category 2: the name 'x' or the id 1 is taken"),
        ([category(), category(id=2)], "category 2: the name 'person' or the id 2 is taken"),
        ([category(keypoints=["a", "a"])], r"category 1: keypoints is \['a', 'a'\]"),
        ([category(keypoints=[])], r"keypoints is \[\]"),
        ([category(keypoints="nose")], "keypoints is 'nose'"),
        ([category(skeleton=[[0, 1]])], r"skeleton holds \[0, 1\].* COCO counts them from 1.* 5"),
        ([category(skeleton=[[1, 6]])], r"skeleton holds \[1, 6\]"),
        ([category(skeleton=[[1, 2, 3]])], r"skeleton holds \[1, 2, 3\]"),
        ([category(skeleton=[["a", 2]])], r"skeleton holds \['a', 2\]"),
        ([category(skeleton=5)], "skeleton is 5"),
        (
            [category(), category(id=2, name="dog", keypoints=["nose"], skeleton=[])],
            r"'person' with 5 \(nose, .*right_hand\) and 'dog' with 1 \(nose\); split the file",
        ),
    ],
)
def test_categories_that_make_no_sense(folder, categories, message):
    folder.content["categories"] = categories
    with pytest.raises(DetectError, match=message) as caught:
        folder.read()
    assert str(folder.file) in str(caught.value)


def test_a_skeleton_may_be_absent(folder):
    folder.content["categories"] = [category(skeleton=...)]
    assert folder.read().limbs == ()


def test_class_names_that_do_not_fit(folder):
    folder.content["categories"].append(category(id=2, name="dog", keypoints=["nose"], skeleton=[]))
    folder.add(person(1), person(2, category_id=2, keypoints=[1, 1, 2]))
    (fault,) = folder.faults(class_names=["person"])
    assert (fault.object, fault.rule) == ("category dog", "unknown-class")
    dataset = folder.read(["person"], "skip")
    assert dataset.joint_names == tuple(JOINTS)
    assert (len(dataset.truths[0]), dataset.num_skipped_objects) == (1, 1)
    with pytest.raises(DetectError, match="found only person, dog"):
        folder.read(["cat"])
    with pytest.raises(DetectError, match="'cat' 2 times"):
        folder.read(["cat", "cat"])
    with pytest.raises(DetectError, match="expected names"):
        folder.read([])


def test_a_misspelled_class_is_recognized(folder):
    folder.content["categories"].append(category(id=2, name="dogs"))
    faults = folder.faults(class_names=["person", "dog"])
    assert [fault.rule for fault in faults] == ["unknown-class", "missing-class"]
    assert "did you mean 'dog'?" in str(faults[0])


def test_categories_without_keypoints_are_no_classes(folder):
    folder.content["categories"].insert(0, category(id=0, name="root", keypoints=...))
    folder.add(person())
    dataset = folder.read()
    assert dataset.class_names == ("person",)
    (warning,) = dataset.faults
    assert (warning.rule, warning.severity) == ("category-without-keypoints", "warning")
    folder.content["annotations"] = [person(category_id=0)]
    assert [fault.rule for fault in folder.faults()] == [
        "category-without-keypoints",
        "class-without-keypoints",
    ]


def test_a_joint_of_one_side_alone_is_a_warning(folder):
    folder.content["categories"] = [category(keypoints=["a", "left_b", "right_c"], skeleton=[])]
    (warning,) = folder.read().faults
    assert (warning.rule, warning.severity) == ("one-sided-joint", "warning")
    assert "left_b, right_c" in warning.value


# --- crops ---------------------------------------------------------------------------------------


def test_crops_hold_one_person_each(folder):
    folder.add_image(2)
    folder.add_image(3)
    folder.add(
        person(1, 1, keypoints=[0] * 15),
        person(2, 1),
        person(3, 3, box=(50, 0, 10, 10), keypoints=[55, 5, 2, 51, 3, 1, 5, 5, 2] + [0] * 6),
    )
    dataset = folder.read()
    crops = PersonCrops(dataset, context=0.2)
    assert isinstance(crops, SampleSource)
    assert crops.image_ids == ("000000000001_1", "000000000003_0")
    assert len(crops) == 2
    # 10 … 40 and 5 … 37 widened by 6 and 6.4, rounded outward and clipped
    assert crops.boxes.tolist() == [[4, 0, 46, 40], [48, 0, 60, 12]]
    first, second = crops
    whole = dataset[0].image
    assert np.array_equal(first.image, whole[0:40, 4:46])
    assert first.truth.boxes.tolist() == [[6, 5, 36, 37]]
    assert first.truth.joints[0, 0].tolist() == [16.5, 10.5, 2]
    assert first.truth.joints[0, 2].tolist() == [0, 0, 0]
    assert second.truth.joints[0].tolist()[:3] == [[7.5, 5.5, 2], [3.5, 3.5, 1], [0, 0, 0]]
    assert crops.num_joints_outside == 1
    assert second.meta.original_size == second.image.shape[:2] == (12, 12)
    assert second.meta.path == dataset.metas[2].path
    assert torch.equal(crops.truths[1].joints, second.truth.joints)
    assert crops.joint_names == dataset.joint_names
    assert crops.joint_swaps == dataset.joint_swaps
    assert crops.limbs == dataset.limbs
    assert crops.class_counts() == {"person": 2}
    assert crops.without_difficult() is crops


def test_crops_of_one_image_do_not_decode_it_twice(folder, monkeypatch):
    folder.add_image(2)
    folder.add(person(1, 1), person(2, 1, box=(0, 0, 5, 5)), person(3, 2))
    asked = []
    read = DetectionDataset.__getitem__
    monkeypatch.setattr(
        DetectionDataset,
        "__getitem__",
        lambda self, index: asked.append(index) or read(self, index),
    )
    crops = PersonCrops(folder.read())
    for sample in (crops[0], crops[1], crops[2]):
        sample.image[:] = 0
    assert asked == [0, 1]
    assert crops[2].image.any(), "a change of one sample reached the next"
    with pytest.raises(IndexError):
        crops[3]


def test_crops_without_persons_or_with_a_wrong_context(folder):
    folder.add(person(iscrowd=1))
    with pytest.raises(DetectError, match="found none with a labeled joint in 1 images"):
        PersonCrops(folder.read())
    with pytest.raises(DetectError, match="context: expected a number of 0 or more, found -1"):
        PersonCrops(folder.read(), -1)


def test_a_data_set_takes_truths_with_joints_only(folder):
    dataset = folder.read()
    with pytest.raises(ValueError, match="a truth with joints"):
        DetectionDataset(("a",), dataset.metas, [GroundTruth.empty()], skeleton=dataset.skeleton)
