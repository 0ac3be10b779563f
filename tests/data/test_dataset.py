import pytest
import torch

from detect.data import DataFaults, DetectionDataset, read_dataset
from detect.errors import DetectError
from tests.data.voc_folder import VOCFolder, photo


@pytest.fixture
def paths(tmp_path):
    made = [tmp_path / name for name in ("a.png", "b.png")]
    for path in made:
        path.write_bytes(photo())
    return made


def test_a_set_of_boxes_in_memory(paths):
    images = [(paths[0], [[1, 2, 20, 30], [0, 0, 60, 40]], ["dog", "cat"]), (str(paths[1]), [], [])]
    dataset = DetectionDataset.from_boxes(images, name="mine")
    assert repr(dataset) == "DetectionDataset('mine', 2 images, 2 objects, 2 classes)"
    assert dataset.class_names == ("cat", "dog")
    assert dataset.image_ids == ("a", "b")
    sample = dataset[0]
    assert sample.truth.boxes.tolist() == [[1, 2, 20, 30], [0, 0, 60, 40]]
    assert sample.truth.labels.tolist() == [1, 0]
    assert sample.image.shape == (40, 60, 3)
    assert len(dataset[1].truth) == 0


def test_labels_are_numbers_of_given_names(paths):
    boxes = torch.tensor([[1.0, 2, 20, 30]])
    dataset = DetectionDataset.from_boxes([(paths[0], boxes, [1])], ["cat", "dog"])
    assert dataset.class_counts() == {"cat": 0, "dog": 1}


@pytest.mark.parametrize(
    ("box", "name", "rule"),
    [
        ([5, 5, 5, 9], "dog", "zero-size-box"),
        ([5, 5, 61, 9], "dog", "box-outside-image"),
        ([-1, 5, 9, 9], "dog", "box-outside-image"),
        ([float("nan"), 5, 9, 9], "dog", "not-a-number"),
        ([5, 5, 9, 9], "dgo", "unknown-class"),
        ([5, 5, 9, 9], 2, "unknown-class"),
    ],
)
def test_faulty_boxes_stop_or_are_left_out(paths, box, name, rule):
    images = [(paths[0], [[1, 2, 20, 30], box], ["dog", name])]
    with pytest.raises(DataFaults) as caught:
        DetectionDataset.from_boxes(images, ["cat", "dog"])
    (fault,) = caught.value.faults
    assert (fault.rule, fault.file) == (rule, str(paths[0]))
    dataset = DetectionDataset.from_boxes(images, ["cat", "dog"], on_error="skip")
    assert (len(dataset.truths[0]), dataset.num_skipped_objects) == (1, 1)


def test_boxes_that_do_not_fit_their_classes(paths):
    with pytest.raises(DetectError, match="expected boxes"):
        DetectionDataset.from_boxes([(paths[0], [[1, 2, 3, 4]], ["dog", "cat"])])


def test_an_unreadable_image_is_a_fault(paths, tmp_path):
    images = [(tmp_path / "none.png", [], []), (paths[0], [[1, 2, 20, 30]], ["dog"])]
    with pytest.raises(DataFaults, match="unreadable-image"):
        DetectionDataset.from_boxes(images)
    assert DetectionDataset.from_boxes(images, on_error="skip").image_ids == ("a",)


def test_all_images_of_a_set_are_read_without_a_split(tmp_path):
    folder = VOCFolder(tmp_path / "set")
    for name in ("a", "b", "c"):
        folder.add(name)
    folder.split("train", "a")
    folder.split("trainval", "a", "b")
    assert read_dataset(folder.root).image_ids == ("a", "b", "c")
    dataset = read_dataset(str(folder.root), "train")
    assert repr(dataset) == "DetectionDataset('set/train', 1 image, 1 object, 1 class)"


def test_an_unknown_kind(tmp_path):
    with pytest.raises(DetectError, match="unknown kind of data set 'coko'; did you mean 'coco'"):
        read_dataset(tmp_path, "train", "coko")
