import pickle

import pytest
import torch

from detect.data import DetectionDataset
from detect.data.faults import DataFaults
from detect.data.formats.imagenet_localization import read_imagenet_localization
from detect.errors import DetectError
from detect.wording import counted
from tests.data.voc_folder import annotation_xml, object_xml, photo

TENCH, SHARK = "n01440764", "n01484850"


class ILSVRC:
    """A made-up set in ImageNet's layout."""

    def __init__(self, root):
        self.root = root

    def write(self, path, content):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def annotate(self, split, image_id, *objects, **options):
        xml = annotation_xml(*objects, **options)
        return self.write(f"Annotations/CLS-LOC/{split}/{image_id}.xml", xml)

    def draw(self, split, image_id, suffix=".JPEG", data=None):
        data = photo(suffix=".jpg") if data is None else data
        return self.write(f"Data/CLS-LOC/{split}/{image_id}{suffix}", data)

    def add(self, split, image_id, *objects):
        """An image and its annotation."""
        self.draw(split, image_id)
        return self.annotate(split, image_id, *objects)

    def list(self, name, *rows):
        return self.write(f"ImageSets/CLS-LOC/{name}.txt", "".join(f"{row}\n" for row in rows))


@pytest.fixture
def folder(tmp_path):
    """Two tenches and a shark to train with, a shark to validate with."""
    folder = ILSVRC(tmp_path / "ILSVRC")
    folder.add("train", f"{TENCH}/{TENCH}_10026", object_xml(TENCH, (2, 3, 20, 30)))
    folder.add("train", f"{TENCH}/{TENCH}_7", object_xml(TENCH), object_xml(TENCH, (5, 5, 9, 9)))
    folder.add("train", f"{SHARK}/{SHARK}_1", object_xml(SHARK))
    folder.add("val", "ILSVRC2012_val_00000001", object_xml(SHARK))
    return folder


def left_out(number):
    return (f"left out, without a box: {counted(number, 'image')}",)


def warnings_of(dataset):
    assert {fault.severity for fault in dataset.faults} <= {"warning"}
    return [fault.rule for fault in dataset.faults]


# ---- what is legal ----------------------------------------------------------------------------


def test_training_images_lie_in_synset_folders(folder):
    dataset = read_imagenet_localization(folder.root, "train")
    assert isinstance(dataset, DetectionDataset)
    assert dataset.class_names == (TENCH, SHARK)
    ids = (f"{TENCH}/{TENCH}_10026", f"{TENCH}/{TENCH}_7", f"{SHARK}/{SHARK}_1")
    assert dataset.image_ids == ids
    assert [truth.labels.tolist() for truth in dataset.truths] == [[0], [0, 0], [1]]
    sample = dataset[0]
    assert sample.truth.boxes.tolist() == [[1, 2, 20, 30]]
    assert sample.image.shape == (40, 60, 3)
    assert sample.meta.path == folder.root / f"Data/CLS-LOC/train/{ids[0]}.JPEG"
    assert dataset.faults == ()
    assert dataset.notes == ()


def test_validation_images_lie_in_one_folder_and_have_the_labels_of_training(folder):
    dataset = read_imagenet_localization(folder.root, "val")
    assert dataset.image_ids == ("ILSVRC2012_val_00000001",)
    # no tench is in it, but the shark keeps its label
    assert dataset.class_names == (TENCH, SHARK)
    assert dataset.truths[0].labels.tolist() == [1]
    assert dataset.faults == ()


def test_class_names_of_the_caller(folder):
    dataset = read_imagenet_localization(folder.root, "val", [SHARK, "n0", TENCH])
    assert dataset.class_names == (SHARK, "n0", TENCH)
    assert dataset.truths[0].labels.tolist() == [0]
    with pytest.raises(DetectError, match="expected names, found"):
        read_imagenet_localization(folder.root, "val", [])


def test_class_names_without_a_training_split(tmp_path):
    folder = ILSVRC(tmp_path / "only" / "ILSVRC")
    for number, name in enumerate((SHARK, TENCH, SHARK)):
        folder.add("val", f"ILSVRC2012_val_{number:08}", object_xml(name))
    # those that occur
    assert read_imagenet_localization(folder.root, "val").class_names == (TENCH, SHARK)
    # those of the mapping, in its order
    folder.write("LOC_synset_mapping.txt", f"{SHARK} great white shark\nn0 x\n{TENCH} tench\n")
    dataset = read_imagenet_localization(folder.root, "val")
    assert dataset.class_names == (SHARK, "n0", TENCH)
    assert [truth.labels.tolist() for truth in dataset.truths] == [[0], [2], [0]]


def test_the_mapping_may_lie_beside_the_folder(folder):
    (folder.root / "Annotations/CLS-LOC/train").rename(folder.root / "elsewhere")
    folder.write("../LOC_synset_mapping.txt", f"n0 nothing\n{TENCH} tench, Tinca tinca\n")
    with pytest.raises(DataFaults, match=f"unknown class '{SHARK}'"):
        read_imagenet_localization(folder.root, "val")


def test_the_list_decides(folder):
    folder.list("train_loc", f"{SHARK}/{SHARK}_1 1", f"{TENCH}/{TENCH}_7 2")
    dataset = read_imagenet_localization(folder.root, "train")
    assert dataset.image_ids == (f"{SHARK}/{SHARK}_1", f"{TENCH}/{TENCH}_7")
    assert dataset.notes == ()
    # the list of one split is not that of the other
    assert len(read_imagenet_localization(folder.root, "val")) == 1
    folder.add("val", "ILSVRC2012_val_00000002", object_xml(TENCH))
    folder.list("val", "ILSVRC2012_val_00000002 1")
    assert read_imagenet_localization(folder.root, "val").image_ids == ("ILSVRC2012_val_00000002",)


def test_a_list_without_numbers(folder):
    folder.list("val", "ILSVRC2012_val_00000001", "")
    assert len(read_imagenet_localization(folder.root, "val")) == 1


def test_other_files_are_no_images(folder):
    folder.write(f"Annotations/CLS-LOC/train/{TENCH}/._{TENCH}_7.xml", b"\0\5")
    folder.write(f"Annotations/CLS-LOC/train/.cache/{TENCH}_9.xml", "<annotation/>")
    folder.write(f"Annotations/CLS-LOC/train/{TENCH}/readme.txt", "x")
    folder.write(f"Data/CLS-LOC/train/{TENCH}/Thumbs.db", "x")
    dataset = read_imagenet_localization(folder.root, "train")
    assert len(dataset) == 3
    assert dataset.class_names == (TENCH, SHARK)
    assert dataset.notes == ()


def test_linked_folders_are_read_once(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (folder.root / f"Annotations/CLS-LOC/train/{SHARK}").rename(elsewhere)
    (folder.root / f"Annotations/CLS-LOC/train/{SHARK}").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(folder.root / "Annotations/CLS-LOC/train")
    dataset = read_imagenet_localization(folder.root, "train")
    assert dataset.image_ids[-1] == f"{SHARK}/{SHARK}_1"
    assert len(dataset) == 3


# ---- images without a box -------------------------------------------------------------------


def test_training_images_without_a_box_are_left_out_and_counted(folder):
    folder.draw("train", f"{TENCH}/{TENCH}_8")  # no annotation
    folder.draw("train", f"{SHARK}/{SHARK}_2")
    folder.add("train", f"{TENCH}/{TENCH}_9")  # no object
    dataset = read_imagenet_localization(folder.root, "train")
    assert len(dataset) == 3
    assert dataset.notes == left_out(3)
    assert dataset.num_skipped_images == 0  # it is no fault
    assert all(len(truth) for truth in dataset.truths)
    (warning,) = dataset.faults
    assert (warning.rule, warning.severity) == ("images-without-box", "warning")
    assert warning.value == "3 of 6 images have no box"
    assert warning.file == str(folder.root / "Data/CLS-LOC/train")


def test_listed_training_images_without_a_box(folder):
    folder.add("train", f"{TENCH}/{TENCH}_9")
    folder.draw("train", f"{TENCH}/{TENCH}_8")  # not listed, so nobody misses it
    folder.list("train_loc", f"{TENCH}/{TENCH}_9 1", f"{TENCH}/{TENCH}_7 2")
    dataset = read_imagenet_localization(folder.root, "train")
    assert dataset.image_ids == (f"{TENCH}/{TENCH}_7",)
    assert dataset.notes == left_out(1)


def test_validation_keeps_images_without_a_box(folder):
    folder.add("val", "ILSVRC2012_val_00000002")
    folder.draw("val", "ILSVRC2012_val_00000003")
    dataset = read_imagenet_localization(folder.root, "val")
    assert [len(truth) for truth in dataset.truths] == [1, 0]
    assert dataset.notes == left_out(1)


def test_what_is_known_of_the_set_stays_with_its_parts(folder):
    folder.draw("train", f"{TENCH}/{TENCH}_8")
    folder.write("LOC_synset_mapping.txt", f"{TENCH} tench\n{SHARK} shark\n")
    dataset = read_imagenet_localization(folder.root, "train")
    parts = (dataset.subset([2, 0]), dataset.without_difficult())
    for part in (*parts, pickle.loads(pickle.dumps(dataset))):
        assert part.notes == left_out(1)
        assert part.faults == dataset.faults
    assert parts[0].image_ids == (dataset.image_ids[2], dataset.image_ids[0])
    torch.testing.assert_close(parts[0].truths[1].boxes, dataset.truths[0].boxes)


# ---- faults -----------------------------------------------------------------------------------


def test_all_faults_together(folder):
    folder.add("train", f"{TENCH}/bad_box", object_xml(TENCH, (9, 9, 9, 20)), object_xml(TENCH))
    folder.add("train", f"{TENCH}/bad_name", object_xml("Scottish_deerhound"))
    folder.annotate("train", f"{TENCH}/without_image", object_xml(TENCH))
    folder.draw("train", f"{TENCH}/unreadable", data=b"GIF8")
    folder.annotate("train", f"{TENCH}/unreadable", object_xml(TENCH))
    with pytest.raises(DataFaults) as caught:
        read_imagenet_localization(folder.root, "train")
    rules = [fault.rule for fault in caught.value.faults]
    assert rules == ["zero-size-box", "unknown-class", "unreadable-image", "missing-image"]
    message = str(caught.value)
    path = folder.root / f"Annotations/CLS-LOC/train/{TENCH}/bad_box.xml"
    assert f"{path}, object 1 ({TENCH}): xmin = xmax = 9" in message
    assert "unknown class 'Scottish_deerhound'" in message
    assert "detect data check" not in message  # it reads VOC's layout only
    dataset = read_imagenet_localization(folder.root, "train", on_error="skip")
    # the image with a wrong name has no box left
    assert len(dataset) == 4
    assert dataset.image_ids[0] == f"{TENCH}/bad_box"
    assert len(dataset.truths[0]) == 1
    assert (dataset.num_skipped_images, dataset.notes) == (2, left_out(1))
    assert dataset.num_skipped_objects == 2


def test_a_listed_image_must_have_its_annotation(folder):
    folder.draw("train", f"{TENCH}/{TENCH}_8")
    path = folder.list("train_loc", f"{TENCH}/{TENCH}_8 1", f"{TENCH}/{TENCH}_7 2")
    with pytest.raises(DataFaults) as caught:
        read_imagenet_localization(folder.root, "train")
    (fault,) = caught.value.faults
    assert fault.rule == "missing-annotation"
    assert fault.file.endswith(f"Annotations/CLS-LOC/train/{TENCH}/{TENCH}_8.xml")
    folder.list("train_loc", f"{TENCH}/{TENCH}_7 1", f"{TENCH}/{TENCH}_7 2")
    with pytest.raises(DataFaults, match="is listed twice") as caught:
        read_imagenet_localization(folder.root, "train")
    assert caught.value.faults[0].file == str(path)


def test_an_object_of_another_class_than_its_folder(folder):
    path = folder.add("train", f"{SHARK}/{SHARK}_3", object_xml(SHARK), object_xml(TENCH))
    dataset = read_imagenet_localization(folder.root, "train")
    (warning,) = dataset.faults
    assert (warning.rule, warning.severity, warning.file) == (
        "class-mismatch",
        "warning",
        str(path),
    )
    assert warning.value == f"an object of class {TENCH} in the folder of {SHARK}"
    assert dataset.truths[3].labels.tolist() == [1, 0]


def test_a_training_image_outside_the_synset_folders_has_any_class(folder):
    folder.add("train", "stray", object_xml(SHARK))
    dataset = read_imagenet_localization(folder.root, "train")
    assert dataset.image_ids[-1] == "stray"
    assert dataset.faults == ()


def test_many_boxes_that_count_from_0_are_one_warning(folder):
    path = folder.add("train", f"{TENCH}/{TENCH}_1", object_xml(TENCH, (0, 0, 20, 30)))
    dataset = read_imagenet_localization(folder.root, "train")
    assert [fault.file for fault in dataset.faults] == [str(path)]
    folder.add("train", f"{TENCH}/{TENCH}_2", object_xml(TENCH, (0, 3, 20, 30)))
    folder.draw("train", f"{TENCH}/{TENCH}_8")
    dataset = read_imagenet_localization(folder.root, "train")
    assert warnings_of(dataset) == ["zero-based-box", "images-without-box"]
    assert dataset.faults[0].value.startswith("2 boxes begin at 0")
    assert str(path) in dataset.faults[0].value


def test_broken_images_are_found_on_demand(folder):
    path = folder.root / f"Data/CLS-LOC/train/{TENCH}/{TENCH}_7.JPEG"
    path.write_bytes(path.read_bytes()[:-200])
    assert len(read_imagenet_localization(folder.root, "train")) == 3
    with pytest.raises(DataFaults, match="cut off"):
        read_imagenet_localization(folder.root, "train", verify_images=True)


def test_progress_counts_the_images(folder):
    steps = []
    read_imagenet_localization(
        folder.root, "train", progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(1, 3), (2, 3), (3, 3)]


# ---- the set as a whole -----------------------------------------------------------------------


def test_a_split_that_cannot_be(folder):
    with pytest.raises(DetectError, match="split: expected train or val, found 'test'"):
        read_imagenet_localization(folder.root, "test")


def test_folders_that_are_missing(folder, tmp_path):
    with pytest.raises(DetectError, match=r"nowhere: expected a folder with .*found nothing"):
        read_imagenet_localization(tmp_path / "nowhere", "train")
    with pytest.raises(DetectError, match=r"no Data/CLS-LOC/train; did you mean .*ILSVRC\?"):
        read_imagenet_localization(tmp_path, "train")
    with pytest.raises(DetectError, match=r"did you mean .*ILSVRC\?"):
        read_imagenet_localization(folder.root / "Data", "train")
    (folder.root / "Data/CLS-LOC/val").rename(folder.root / "Data/CLS-LOC/validation")
    with pytest.raises(DetectError, match="found no Data/CLS-LOC/val; "):
        read_imagenet_localization(folder.root, "val")


def test_no_image_is_left(tmp_path):
    folder = ILSVRC(tmp_path / "set")
    (folder.root / "Annotations/CLS-LOC/train").mkdir(parents=True)
    folder.draw("train", f"{TENCH}/{TENCH}_7")
    with pytest.raises(DetectError, match=r"expected annotations, <id>\.xml, found none"):
        read_imagenet_localization(folder.root, "train")
    folder.annotate("train", f"{TENCH}/{TENCH}_7")
    with pytest.raises(DetectError, match="expected images with boxes, found none among 1"):
        read_imagenet_localization(folder.root, "train")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["ILSVRC2012_val_00000001 one"], r"rows `<id> <number>`, found 'ILSVRC2012_val_0.* one'"),
        (["a b 1"], "found 'a b 1'"),
        ([], "expected image ids, one a line, found none; delete the file"),
    ],
)
def test_lists_that_make_no_sense(folder, rows, message):
    path = folder.list("val", *rows)
    with pytest.raises(DetectError, match=message) as caught:
        read_imagenet_localization(folder.root, "val")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{TENCH}\n", "rows `<synset id> <words>`, found 'n01440764'"),
        (f"{TENCH} tench\n{TENCH} carp\n", "every synset once, found n01440764 twice"),
        (b"\0\0\0", "binary data"),
    ],
)
def test_mappings_that_make_no_sense(folder, text, message):
    path = folder.write("LOC_synset_mapping.txt", text)
    with pytest.raises(DetectError, match=message) as caught:
        read_imagenet_localization(folder.root, "val")
    assert str(path) in str(caught.value)
