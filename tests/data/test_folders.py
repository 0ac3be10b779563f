import io
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detect.data import (
    Augmentation,
    DataFaults,
    EvaluationBatches,
    TrainingBatches,
)
from detect.data.formats import image_folders
from detect.data.formats.image_folders import (
    FILE_SUFFIXES,
    ImageFolder,
    read_image_folder,
    whole_image_truth,
)
from detect.data.loading.batches import SampleSource
from detect.errors import DetectError
from detect.structures import InputSpec


def encoded(value=0, size=(8, 12), suffix=".png"):
    """The bytes of an image of one gray."""
    return cv2.imencode(suffix, np.full((*size, 3), value, np.uint8))[1].tobytes()


def write(root, name, data=None):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded() if data is None else data)
    return path


@pytest.fixture
def root(tmp_path):
    """Two cats, one of them in a subfolder, and three dogs."""
    folder = tmp_path / "set"
    write(folder, "train/dog/2.png", encoded(20))
    write(folder, "train/dog/10.png", encoded(10))
    write(folder, "train/dog/3.png", encoded(30, size=(20, 5)))
    write(folder, "train/cat/camera/1.png", encoded(40))
    write(folder, "train/cat/z.png", encoded(50))
    return folder


def faults_of(root, class_names=None):
    """The faults of the split `train` as they come with the data set or with the error."""
    try:
        return read_image_folder(root, "train", class_names).faults
    except DataFaults as error:
        return error.faults


def only_fault(root, rule, severity="error", class_names=None):
    (fault,) = faults_of(root, class_names)
    assert (fault.rule, fault.severity) == (rule, severity)
    assert fault.remedy
    return fault


def skipping(root, class_names=None):
    return read_image_folder(root, "train", class_names, "skip")


# ---- what is legal ----------------------------------------------------------------------------


def test_classes_are_the_folders_sorted_and_images_follow_in_order(root):
    dataset = read_image_folder(root, "train")
    assert dataset.class_names == ("cat", "dog")
    ids = ("cat/camera/1.png", "cat/z.png", "dog/10.png", "dog/2.png", "dog/3.png")
    assert dataset.image_ids == ids
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == [0, 0, 1, 1, 1]
    assert dataset.sizes.tolist() == [[8, 12]] * 4 + [[20, 5]]
    assert dataset.class_counts() == {"cat": 2, "dog": 3}
    assert (dataset.faults, dataset.num_skipped_images) == ((), 0)
    assert len(dataset) == 5


def test_a_sample_is_one_object_that_fills_the_image(root):
    dataset = read_image_folder(root, "train")
    assert isinstance(dataset, SampleSource)
    sample = dataset[4]
    assert sample.truth.boxes.tolist() == [[0, 0, 5, 20]]
    assert sample.truth.labels.tolist() == [1]
    assert sample.truth.difficult.tolist() == [False]
    assert sample.image.shape == (20, 5, 3)
    assert sample.meta.image_id == "dog/3.png"
    assert sample.meta.path == root / "train" / "dog" / "3.png"
    assert sample.meta.original_size == sample.meta.input_size == (20, 5)
    assert [dataset[number].image[0, 0, 0] for number in range(5)] == [40, 50, 10, 20, 30]


def test_indexing(root):
    dataset = read_image_folder(root, "train")
    assert dataset[-1].meta.image_id == "dog/3.png"
    with pytest.raises(IndexError):
        dataset[5]


def test_given_class_names_decide_on_the_labels(root):
    dataset = read_image_folder(root, "train", ["dog", "cat"])
    assert dataset.class_names == ("dog", "cat")
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset[0].truth.labels.tolist() == [0]
    assert dataset.image_ids[0] == "dog/10.png"


@pytest.mark.parametrize("suffix", [*FILE_SUFFIXES, ".JPEG", ".Png"])
def test_every_suffix_of_images(tmp_path, suffix):
    write(tmp_path, f"train/cat/n01_1{suffix}", encoded(9, suffix=suffix))
    dataset = read_image_folder(tmp_path, "train")
    assert dataset.image_ids == (f"cat/n01_1{suffix}",)
    assert dataset.faults == ()
    assert np.abs(dataset[0].image.astype(int) - 9).max() <= 3


def test_one_name_with_two_suffixes_is_two_images(root):
    write(root, "train/cat/z.jpg", encoded(suffix=".jpg"))
    dataset = read_image_folder(root, "train")
    assert dataset.image_ids[1:3] == ("cat/z.jpg", "cat/z.png")


def test_size_counts_as_displayed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((60, 40, 3), np.uint8)).save(buffer, "JPEG", exif=exif)
    write(tmp_path, "train/cat/1.jpg", buffer.getvalue())
    dataset = read_image_folder(tmp_path, "train")
    assert dataset.sizes.tolist() == [[40, 60]]
    assert dataset[0].truth.boxes.tolist() == [[0, 0, 60, 40]]


def test_hidden_names_are_passed_over(root):
    write(root, "train/.ipynb_checkpoints/1.png")
    write(root, "train/.DS_Store", b"x")
    write(root, "train/cat/._z.png", b"resource fork")
    write(root, "train/cat/.cache/1.png")
    dataset = read_image_folder(root, "train")
    assert dataset.class_names == ("cat", "dog")
    assert (len(dataset), dataset.faults) == (5, ())


def test_links_are_followed_but_not_in_circles(root, tmp_path):
    write(tmp_path, "elsewhere/1.png")
    (root / "train" / "ant").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "dog" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "cat" / "round").symlink_to(root / "train" / "cat")
    dataset = read_image_folder(root, "train")
    assert dataset.class_counts() == {"ant": 1, "cat": 2, "dog": 4}
    assert dataset.image_ids[0] == "ant/1.png"
    assert dataset.image_ids[-1] == "dog/more/1.png"


def test_names_of_any_bytes(root):
    name = b"l\xf6we \xe2\x82\xac.png".decode("utf-8", "surrogateescape")
    write(root, f"train/cat/{name}", encoded(77))
    dataset = read_image_folder(root, "train")
    assert f"cat/{name}" in dataset.image_ids
    assert dataset[dataset.image_ids.index(f"cat/{name}")].image[0, 0, 0] == 77


# ---- the set as a whole -----------------------------------------------------------------------


def test_no_root(tmp_path):
    with pytest.raises(DetectError, match=r"gone: expected a folder with <split>.*found nothing"):
        read_image_folder(tmp_path / "gone", "train")
    file = write(tmp_path, "file")
    with pytest.raises(DetectError, match="found a file"):
        read_image_folder(file, "train")


def test_no_split(root):
    write(root, "val/cat/1.png")
    with pytest.raises(DetectError, match=r"'trian'; did you mean 'train'\?"):
        read_image_folder(root, "trian")
    with pytest.raises(DetectError, match=r"'xyz'; there are: train, val"):
        read_image_folder(root, "xyz")


def test_root_without_any_folder(tmp_path):
    with pytest.raises(DetectError, match=r"of the split .train.; there are none"):
        read_image_folder(tmp_path, "train")


def test_no_class_folders(tmp_path):
    (tmp_path / "train").mkdir()
    expected = r"expected a folder for each class, <split>/<class>/<image>.jpg, found "
    with pytest.raises(DetectError, match=expected + "nothing"):
        read_image_folder(tmp_path, "train")
    for number in range(12):
        write(tmp_path, f"train/{number:02}.png")
    with pytest.raises(DetectError, match=expected + r"only files: 00\.png.*\(12 in all\)"):
        read_image_folder(tmp_path, "train", on_error="skip")


@pytest.mark.parametrize(
    ("names", "expected"),
    [([], "expected names"), (["cat", "dog", "cat"], "found 'cat' 2 times")],
)
def test_class_names_that_make_no_sense(root, names, expected):
    with pytest.raises(DetectError, match=expected):
        read_image_folder(root, "train", names)


def test_nothing_left(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DataFaults):
        read_image_folder(tmp_path, "train")
    with pytest.raises(DetectError, match=r"found 0 and none.*\[empty-class\]"):
        skipping(tmp_path)
    # given names make warnings of it, and warnings alone are no data set
    with pytest.raises(DetectError, match=r"found 0 and none.*\[empty-class\]"):
        read_image_folder(tmp_path, "train", ["cat"])


# ---- faults -----------------------------------------------------------------------------------


def test_unknown_class(root):
    write(root, "train/dgo/1.png")
    write(root, "train/dgo/2.png")
    fault = only_fault(root, "unknown-class", class_names=["cat", "dog"])
    assert fault.file == str(root / "train" / "dgo")
    assert fault.value == "unknown class 'dgo', a folder of 2 images"
    assert "did you mean 'dog'?" in fault.remedy
    dataset = skipping(root, ["cat", "dog"])
    assert dataset.class_counts() == {"cat": 2, "dog": 3}
    assert dataset.num_skipped_images == 2
    assert dataset.faults == (fault,)


def test_class_without_a_folder(root):
    fault = only_fault(root, "missing-class", "warning", ["cat", "cow", "dog"])
    assert fault.file == str(root / "train" / "cow")
    dataset = read_image_folder(root, "train", ["cat", "cow", "dog"])
    assert dataset.class_counts() == {"cat": 2, "cow": 0, "dog": 3}
    assert dataset.labels.tolist() == [0, 0, 2, 2, 2]


def test_empty_class_folder(root):
    (root / "train" / "bird" / "sub").mkdir(parents=True)
    fault = only_fault(root, "empty-class")
    assert fault.file == str(root / "train" / "bird")
    assert "no image (.jpg" in fault.value
    dataset = skipping(root)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 0, 1, 1, 1]
    # of a class that training knows, it is only said
    only_fault(root, "empty-class", "warning", ["bird", "cat", "dog"])
    dataset = read_image_folder(root, "train", ["bird", "cat", "dog"])
    assert dataset.labels.tolist() == [1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"", "the file is empty"),
        (b"<html>404</html>", "an HTML page"),
        (b"\x89PNG\r\n\x1a\nrest", "its header is broken"),
    ],
)
def test_file_that_is_no_image(root, data, value):
    path = write(root, "train/dog/2.png", data)
    fault = only_fault(root, "unreadable-image")
    assert fault.file == str(path)
    assert value in fault.value
    with pytest.raises(DataFaults, match=r"data\.on_error=skip"):
        read_image_folder(root, "train")
    dataset = skipping(root)
    assert dataset.image_ids[2:] == ("dog/10.png", "dog/3.png")
    assert dataset.sizes.tolist() == [[8, 12]] * 3 + [[20, 5]]
    assert dataset.num_skipped_images == 1


def test_broken_link_is_no_image(root):
    (root / "train" / "cat" / "gone.png").symlink_to(root / "nowhere.png")
    assert "no such file" in only_fault(root, "unreadable-image").value


def test_class_of_which_no_image_can_be_read(root):
    write(root, "train/ant/1.png", b"nonsense")
    write(root, "train/ant/2.png", b"")
    rules = [fault.rule for fault in faults_of(root)]
    assert rules == ["unreadable-image", "unreadable-image", "empty-class"]
    assert "none of the class's 2 images" in faults_of(root)[2].value
    dataset = skipping(root)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 0, 1, 1, 1]
    assert dataset.num_skipped_images == 2


def test_damage_behind_the_header_is_found_when_asked_for(root):
    path = root / "train" / "dog" / "2.png"
    path.write_bytes(path.read_bytes()[:-16])
    assert len(read_image_folder(root, "train")) == 5
    with pytest.raises(DataFaults, match="cut off"):
        read_image_folder(root, "train", verify_images=True)


def test_image_beside_the_class_folders(root):
    path = write(root, "train/lost.JPG")
    fault = only_fault(root, "image-without-class")
    assert fault.file == str(path)
    assert skipping(root).num_skipped_images == 1


def test_other_files_are_told_and_left(root):
    path = write(root, "train/readme.txt")
    assert only_fault(root, "stray-file", "warning").file == str(path)
    path.unlink()
    for name in ("b.txt", "a.txt", "camera/c.txt"):
        write(root, f"train/cat/{name}")
    fault = only_fault(root, "stray-file", "warning")
    assert fault.file == str(root / "train" / "cat" / "a.txt")
    assert "3 such files" in fault.value
    dataset = read_image_folder(root, "train")
    assert (len(dataset), dataset.num_skipped_images) == (5, 0)


def test_folder_that_cannot_be_read(root, monkeypatch):
    scandir = image_folders.os.scandir

    def refusing(path):
        if Path(path).name == "camera":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(image_folders.os, "scandir", refusing)
    fault = only_fault(root, "unreadable-folder")
    assert fault.file == str(root / "train" / "cat" / "camera")
    assert "Permission denied" in fault.value


def test_all_faults_are_raised_together_in_the_order_of_the_files(root):
    write(root, "train/lost.png")
    write(root, "train/cow/1.png")
    write(root, "train/dog/3.png", b"")
    write(root, "train/cat/1.png", b"")
    rules = [(fault.rule, Path(fault.file).name) for fault in faults_of(root, ["cat", "ox", "dog"])]
    assert rules == [
        ("image-without-class", "lost.png"),
        ("unknown-class", "cow"),
        ("missing-class", "ox"),
        ("unreadable-image", "1.png"),
        ("unreadable-image", "3.png"),
    ]
    assert skipping(root, ["cat", "ox", "dog"]).num_skipped_images == 4


def test_more_images_than_a_thread_takes_at_once(tmp_path):
    for number in range(150):
        write(tmp_path, f"train/{number % 2}/{number:03}.png", encoded(size=(1 + number, 3)))
    calls = []
    dataset = read_image_folder(tmp_path, "train", progress=lambda *counts: calls.append(counts))
    assert dataset.sizes[:, 0].tolist() == [*range(1, 151, 2), *range(2, 151, 2)]
    assert calls == [(done, 150) for done in range(1, 151)]


# ---- the data set -----------------------------------------------------------------------------


def test_image_that_changes_after_reading(root):
    dataset = read_image_folder(root, "train")
    write(root, "train/cat/z.png", encoded(size=(9, 9)))
    with pytest.raises(DetectError, match="replaced meanwhile"):
        dataset[1]
    (root / "train" / "dog" / "2.png").unlink()
    with pytest.raises(DetectError, match="no such file"):
        dataset[3]


def test_the_set_travels_to_a_worker_in_few_pieces(root):
    dataset = read_image_folder(root, "train")
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.image_ids == dataset.image_ids
    assert copy[3].image[0, 0, 0] == 20
    # no string and no record for each image
    assert not any(isinstance(value, list) for value in vars(dataset._image_ids).values())


def test_records_must_be_as_many():
    with pytest.raises(ValueError, match="1 ids, 2 labels and 2 sizes"):
        ImageFolder(["cat"], Path(), ["a"], np.zeros(2, np.int64), np.ones((2, 2), np.int32))


def test_truth_of_a_whole_image():
    truth = whole_image_truth((3, 7), 4)
    assert truth.boxes.tolist() == [[0, 0, 7, 3]]
    assert (truth.labels.tolist(), truth.difficult.tolist()) == ([4], [False])


def test_the_loaders_serve_as_they_are(root):
    dataset = read_image_folder(root, "train")
    spec = InputSpec((16, 16))
    (batch,) = EvaluationBatches(dataset, spec, batch_size=8)
    assert torch.cat([truth.labels for truth in batch.truths]).tolist() == [0, 0, 1, 1, 1]
    for truth in batch.truths:
        assert truth.boxes.tolist() == [[0, 0, 16, 16]]
    batches = TrainingBatches(dataset, Augmentation(), spec, batch_size=5, seed=0)
    (batch,) = batches.epoch(0)
    expected = {"cat": 0, "dog": 1}
    for truth, meta in zip(batch.truths, batch.metas, strict=True):
        assert truth.labels.tolist() == [expected[meta.image_id[:3]]]
