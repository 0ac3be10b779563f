import json

import numpy as np
import pytest

from detect.data.formats.yolo import label_checksum, read_annotated_yolo
from detect.errors import DetectError
from tests.data.voc_folder import photo

YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\n"
ROW = "1 0.5 0.5 0.5 0.5"  # of 60 × 40 pixels: 15, 10, 45, 30


class YOLOFolder:
    def __init__(self, root, yaml=YAML):
        self.root = root
        root.mkdir(parents=True)
        (root / "data.yaml").write_text(yaml)

    def add(self, name, rows=ROW, split="train", image=None):
        """An image and its label file; rows of None leave the file out."""
        for kind, suffix in (("images", ".png"), ("labels", ".txt")):
            path = self.root / kind / split / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "images":
                path.write_bytes(photo() if image is None else image)
            elif rows is not None:
                path.write_text(rows)


@pytest.fixture
def folder(tmp_path):
    return YOLOFolder(tmp_path / "set")


def boxes(photo):
    return [item.box for item in photo.objects]


# ---- what is legal ----------------------------------------------------------------------------


def test_rows_and_splits(folder):
    folder.add("a", f"{ROW}\n\n0 0.25 0.5 0.5 1\n")
    folder.add("b", "", "val")
    folder.add("sub/c", None, "val")
    annotated = read_annotated_yolo(folder.root)
    assert annotated.faults == ()
    assert (annotated.data_format, annotated.class_names) == ("yolo", ("cat", "dog"))
    a, b, c = annotated.images
    assert (a.image_id, a.size, a.splits) == ("a", (40, 60), ("train",))
    assert a.annotation_path == folder.root / "labels/train/a.txt"
    assert boxes(a) == [(15, 10, 45, 30), (0, 0, 30, 40)]
    assert [item.title for item in a.objects] == ["line 1 (dog)", "line 3 (cat)"]
    assert (b.image_id, b.objects, c.image_id, c.objects) == ("b", (), "sub/c", ())
    assert [p.image_id for p in read_annotated_yolo(folder.root, ["val"]).images] == [
        "b",
        "sub/c",
    ]


@pytest.mark.parametrize(
    "yaml",
    [
        "train: ./images/train\nval: images/val\nnames: {0: cat, 1: dog}\nnc: 2\n",
        "path: .\ntrain: [images/train, images/val]\nnames:\n- cat\n- dog\n",
        "train: ../images/train\nnames: [cat, dog]\nroboflow: {project: x}\n",
        "train: list.txt\nnames: [cat, dog]\n",
    ],
)
def test_forms_of_the_yaml_file(tmp_path, yaml):
    folder = YOLOFolder(tmp_path / "set", yaml)
    folder.add("a")
    folder.add("b", split="val")
    (folder.root / "list.txt").write_text("./images/train/a.png\n")
    annotated = read_annotated_yolo(folder.root)
    assert annotated.faults == ()
    assert annotated.class_names == ("cat", "dog")
    assert annotated.images[0].image_id == "a"
    assert boxes(annotated.images[0]) == [(15, 10, 45, 30)]


def test_the_yaml_file_by_itself_and_by_another_name(folder):
    folder.add("a")
    (folder.root / "val").mkdir()
    folder.add("b", split="val")
    yaml = folder.root / "pets.yaml"
    (folder.root / "data.yaml").rename(yaml)
    (folder.root / "other.yaml").write_text("model: 3\n")
    assert len(read_annotated_yolo(folder.root).images) == 2
    assert len(read_annotated_yolo(yaml).images) == 2
    (folder.root / "third.yaml").write_text("names: [a]\n")
    with pytest.raises(DetectError, match=r"expected one YAML.*pets.yaml, third.yaml"):
        read_annotated_yolo(folder.root)


def test_a_path_that_is_elsewhere_is_a_warning(tmp_path):
    folder = YOLOFolder(tmp_path / "set", f"path: ../datasets/x\n{YAML}")
    folder.add("a")
    folder.add("b", split="val")
    annotated = read_annotated_yolo(folder.root)
    assert [(f.rule, f.severity) for f in annotated.faults] == [("missing-path", "warning")]
    assert len(annotated.images) == 2


def test_darknets_files(tmp_path):
    (tmp_path / "obj_train_data").mkdir()
    (tmp_path / "obj.names").write_text("cat\ndog\n")
    (tmp_path / "obj.data").write_text("classes = 2\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/a.png\n")
    (tmp_path / "obj_train_data/a.png").write_bytes(photo())
    (tmp_path / "obj_train_data/a.txt").write_text(ROW)
    annotated = read_annotated_yolo(tmp_path)
    (found,) = annotated.images
    assert (annotated.faults, annotated.class_names) == ((), ("cat", "dog"))
    assert (found.image_id, found.splits, len(found.objects)) == ("a", ("train",), 1)


def test_a_set_without_splits(tmp_path):
    folder = YOLOFolder(tmp_path / "set", "names: [cat, dog]\n")
    folder.add("a", split=".")
    assert [(p.image_id, p.splits) for p in read_annotated_yolo(folder.root).images] == [("a", ())]


def test_a_joint_split(tmp_path):
    folder = YOLOFolder(tmp_path / "set", f"{YAML}trainval: trainval.txt\n")
    folder.add("a")
    folder.add("b", split="val")
    (folder.root / "trainval.txt").write_text("images/train/a.png\nimages/val/b.png\n")
    annotated = read_annotated_yolo(folder.root)
    assert [(p.image_id, p.splits) for p in annotated.images] == [
        ("a", ("train", "trainval")),
        ("b", ("trainval", "val")),
    ]
    joint = read_annotated_yolo(folder.root, ["trainval"])
    assert [p.image_id for p in joint.images] == ["a", "b"]
    with pytest.raises(DetectError, match="no split 'tain'; did you mean 'train'"):
        read_annotated_yolo(folder.root, ["tain"])


def test_wanted_classes(folder):
    folder.add("a", f"{ROW}\n0 0.5 0.5 0.1 0.1\n")
    folder.add("b", "", "val")
    annotated = read_annotated_yolo(folder.root, classes=["dog", "cow"])
    assert annotated.class_names == ("dog", "cow")
    assert [(f.rule, f.object) for f in annotated.faults] == [("unknown-class", "class cat")]
    assert annotated.num_skipped_objects == 1


@pytest.mark.parametrize(
    ("row", "expected", "rules"),
    [
        ("0 0.25 0.5 0.500003 1.0", (0, 0, 30.00009, 40), []),
        ("0 0.25 0.5 0.51 1.0", (0, 0, 30.3, 40), ["box-past-border"]),
        ("0.0 0.5 0.5 0.001 0.001", (29.97, 19.98, 30.03, 20.02), []),
    ],
)
def test_boxes_at_the_border(folder, row, expected, rules):
    folder.add("a", row)
    folder.add("b", "", "val")
    annotated = read_annotated_yolo(folder.root)
    assert boxes(annotated.images[0])[0] == pytest.approx(expected, abs=1e-5)
    assert [(f.rule, f.object) for f in annotated.faults] == [(r, "line 1 (cat)") for r in rules]


# ---- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "rule", "words"),
    [
        ("1 0.5 0.5 0.5", "wrong-columns", "4 columns"),
        ("1 0.5 0.5 0.5 0.5 0.9", "wrong-columns", "score"),
        ("1 0.1 0.1 0.2 0.2 0.3 0.3", "polygon-row", "polygon"),
        ("dog 0.5 0.5 0.5 0.5", "bad-class", "'dog'"),
        ("2 0.5 0.5 0.5 0.5", "unknown-class", "0 … 1"),
        ("-1 0.5 0.5 0.5 0.5", "unknown-class", "class -1"),
        ("1 30 20 10 10", "not-normalized", "pixels?"),
        ("1 nan 0.5 0.5 0.5", "not-a-number", "'nan'"),
        ("1 0.5 0,5 0.5 0.5", "not-a-number", "'0,5'"),
        ("1 0.5 0.5 inf 0.5", "not-a-number", "'inf'"),
        ("1 0.5 0.5 0 0.5", "zero-size-box", "no size"),
        ("1 0.5 0.5 0.5 -0.5", "zero-size-box", "no size"),
        ("1 0.9 0.5 0.5 0.5", "box-outside-image", "in pixels"),
        ("1 1.004 0.5 0.003 0.5", "zero-size-box", "in pixels"),
    ],
)
def test_faulty_rows(folder, row, rule, words):
    folder.add("a", f"{ROW}\n{row}\n")
    folder.add("b", "", "val")
    annotated = read_annotated_yolo(folder.root)
    (fault,) = annotated.faults
    assert (fault.rule, fault.severity) == (rule, "error")
    assert fault.file == str(folder.root / "labels/train/a.txt")
    assert fault.object in ("line 2", "line 2 (dog)")
    assert words in fault.value
    assert fault.remedy
    assert len(annotated.images[0].objects) == annotated.num_skipped_objects == 1


def test_a_row_twice_is_a_warning(folder):
    folder.add("a", f"{ROW}\n{ROW}\n")
    folder.add("b", "", "val")
    (fault,) = read_annotated_yolo(folder.root).faults
    assert (fault.rule, fault.object) == ("duplicate-object", "line 2 (dog)")
    assert fault.severity == "warning"


def test_labels_without_an_image(folder):
    folder.add("a")
    folder.add("b", split="val")
    (folder.root / "labels/train/lonely.txt").write_text(ROW)
    (folder.root / "labels/train/classes.txt").write_text("cat\ndog\n")
    (fault,) = read_annotated_yolo(folder.root).faults
    assert (fault.rule, fault.severity) == ("missing-image", "error")
    assert fault.file == str(folder.root / "labels/train/lonely.txt")


def test_images_without_labels(folder):
    for name in "abcd":
        folder.add(name, None if name != "a" else ROW)
    folder.add("e", None, "val")
    annotated = read_annotated_yolo(folder.root)
    found = [(fault.rule, fault.severity) for fault in annotated.faults]
    assert found == [("few-labels", "warning"), ("no-labels", "error")]
    assert [p.image_id for p in annotated.images] == ["a", "b", "c", "d"]
    assert annotated.num_skipped_images == 1


def test_images_and_labels_that_cannot_be_read(folder):
    folder.add("a", image=b"text")
    folder.add("b", split="val")
    folder.add("c", split="val")
    (folder.root / "labels/val/c.txt").write_bytes(b"\xff\xfe\x00")
    annotated = read_annotated_yolo(folder.root)
    assert [fault.rule for fault in annotated.faults] == ["unreadable-image", "unreadable-labels"]
    assert [p.image_id for p in annotated.images] == ["b"]


def test_a_list_with_faults(tmp_path):
    folder = YOLOFolder(tmp_path / "set", "train: list.txt\nnames: [cat, dog]\n")
    folder.add("a")
    rows = "images/train/a.png\nimages/train/absent.png\nimages/train/a.png\n"
    (folder.root / "list.txt").write_text(rows)
    faults = read_annotated_yolo(folder.root).faults
    assert [fault.rule for fault in faults] == ["missing-image", "duplicate-image"]
    assert faults[0].object == "line 2"


def test_an_empty_split(folder):
    folder.add("a")
    (folder.root / "images/val").mkdir()
    assert [f.rule for f in read_annotated_yolo(folder.root).faults] == ["empty-split"]
    (folder.root / "images/train/a.png").unlink()
    with pytest.raises(DetectError, match="found none"):
        read_annotated_yolo(folder.root, ["train"])


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("train: [", r"data\.yaml:1: expected YAML"),
        ("names: [a\n- b", r"data\.yaml:2: expected YAML"),
        ("", "NoneType"),
        ("- 1\n", "list"),
        ("train: images/train\n", "names: expected a list"),
        (f"{YAML}nc: 3\n", "nc is 3"),
        ("train: images/train\nnames: {1: cat, 2: dog}\n", "numbers 0 … 1"),
        ("train: images/train\nnames: [cat, cat]\n", "'cat' 2 times"),
        ("train: images/train\nnames: [cat, null]\n", "a name for each"),
        ("train: images/absent\nnames: [cat]\n", "found nothing at"),
        ("train: data.yaml\nnames: [cat]\n", "found a file at"),
        ("train: 5\nnames: [cat]\n", "found 5"),
        ("names: [cat]\n", "nor a folder images"),
    ],
)
def test_a_broken_yaml_file(tmp_path, yaml, words):
    folder = YOLOFolder(tmp_path / "set", yaml)
    with pytest.raises(DetectError, match=words) as caught:
        read_annotated_yolo(folder.root)
    assert "data.yaml" in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(DetectError, match="expected YOLO's format"):
        read_annotated_yolo(tmp_path)


# ---- what rows cannot hold --------------------------------------------------------------------


def write_extras(folder, checksum=None, images=None):
    entry = {"extras": {"id": 7}, "checksum": checksum or label_checksum(ROW)}
    entry["objects"] = {"1": {"difficult": True, "crowd": True, "extras": {"pose": "Left"}}}
    content = {"written_by": "detect data convert", "version": 1, "class_names": [], "extras": {}}
    content["images"] = images or {"labels/train/a.txt": entry}
    (folder.root / "extras.json").write_text(json.dumps(content))


def test_flags_and_extras_are_taken_back(folder):
    folder.add("a")
    folder.add("b", "", "val")
    write_extras(folder)
    annotated = read_annotated_yolo(folder.root)
    (item,) = annotated.images[0].objects
    assert (item.difficult, item.crowd, item.extras) == (True, True, {"pose": "Left"})
    assert annotated.images[0].extras == {"id": 7}
    (item,) = read_annotated_yolo(folder.root, with_extras=False).images[0].objects
    assert (item.difficult, item.crowd, item.extras) == (True, True, {})


@pytest.mark.parametrize("is_changed", [True, False])
def test_flags_of_other_rows_are_not_taken(folder, is_changed):
    folder.add("a")
    folder.add("b", "", "val")
    broken = {"labels/train/a.txt": {"extras": 3, "objects": []}}
    write_extras(folder, 5, None if is_changed else broken)
    annotated = read_annotated_yolo(folder.root)
    assert [(f.rule, f.severity) for f in annotated.faults] == [("stale-extras", "warning")]
    assert annotated.images[0].objects[0].difficult is False


def test_mutated_rows_give_a_set(folder):
    generator = np.random.default_rng(0)
    folder.add("b", "", "val")
    folder.add("a")
    path = folder.root / "labels/train/a.txt"
    sound = f"{ROW}\n0 0.25 0.5 0.5 1\n".encode()
    num_objects = set()
    for _ in range(200):
        data = bytearray(sound)
        for position in generator.integers(0, len(data), generator.integers(1, 4)):
            data[position] = generator.choice([*b"0123456789. \n-x", 255])
        path.write_bytes(data)
        annotated = read_annotated_yolo(folder.root)
        num_objects.add(sum(len(p.objects) for p in annotated.images))
    assert num_objects >= {0, 1, 2}
