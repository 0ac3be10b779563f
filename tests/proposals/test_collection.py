import re
import zipfile

import numpy as np
import pytest
from scipy.io import savemat

from detect.errors import DetectError
from detect.proposals import Proposals, read_proposals, write_proposals

BOXES = {
    "a": np.array([[0, 0, 10, 20], [5.5, 1, 8, 3]], np.float32),
    "none": np.zeros((0, 4), np.float32),
    "b": np.array([[1, 2, 3, 4]], np.float32),
}
SIZES = {"a": (20, 10), "none": (5, 5), "b": (4, 3)}
SETTINGS = {"method": "test", "seed": 3, "nested": {"k": [1, 2]}}


@pytest.fixture
def proposals():
    return Proposals.of_images(BOXES, SETTINGS)


def test_boxes_are_found_by_image(proposals):
    assert len(proposals) == 3
    assert proposals.image_ids == ("a", "none", "b")
    for name, boxes in BOXES.items():
        assert np.array_equal(proposals[name], boxes)
        assert name in proposals
    assert "c" not in proposals
    with pytest.raises(DetectError, match="image 'c', only for 3 others"):
        proposals["c"]


def test_the_best_are_the_first(proposals):
    best = proposals.first(1)
    assert [len(best[name]) for name in BOXES] == [1, 0, 1]
    assert best["a"].tolist() == [[0, 0, 10, 20]]
    assert best.settings == {**SETTINGS, "max_boxes": 1}
    assert best.first(7).settings["max_boxes"] == 1
    with pytest.raises(DetectError, match="max_boxes: expected 1 or more, found 0"):
        proposals.first(0)


def test_the_fingerprint_is_of_everything(proposals):
    variants = [
        proposals,
        Proposals.of_images(BOXES, {**SETTINGS, "seed": 4}),
        Proposals.of_images({**BOXES, "b": BOXES["b"] + 1}, SETTINGS),
        Proposals.of_images({name: BOXES[name] for name in ("b", "none", "a")}, SETTINGS),
        Proposals.of_images({"x" + name: boxes for name, boxes in BOXES.items()}, SETTINGS),
        # the same rows, otherwise shared out
        Proposals.of_images(
            {"a": BOXES["a"][:1], "none": BOXES["a"][1:], "b": BOXES["b"]}, SETTINGS
        ),
    ]
    assert len({each.fingerprint for each in variants}) == len(variants)
    assert Proposals.of_images(dict(BOXES), dict(SETTINGS)).fingerprint == proposals.fingerprint


@pytest.mark.parametrize("boxes", [BOXES, {}, {"empty": np.zeros((0, 4), np.float32)}])
def test_a_file_gives_back_what_was_written(tmp_path, boxes):
    written = Proposals.of_images(boxes, SETTINGS)
    path = tmp_path / "new" / "p.npz"
    write_proposals(path, written)
    read = read_proposals(path)
    assert read.image_ids == written.image_ids
    assert np.array_equal(read.boxes, written.boxes)
    assert np.array_equal(read.counts, written.counts)
    assert read.settings == SETTINGS
    assert read.fingerprint == written.fingerprint
    assert [file.name for file in path.parent.iterdir()] == ["p.npz"]


def test_only_the_images_asked_for_are_read(tmp_path, proposals):
    write_proposals(tmp_path / "p.npz", proposals)
    assert read_proposals(tmp_path / "p.npz", SIZES).image_ids == ("a", "none", "b")
    read = read_proposals(tmp_path / "p.npz", {"b": (4, 3)})
    assert read.image_ids == ("b",)
    assert read.boxes.tolist() == [[1, 2, 3, 4]]
    with pytest.raises(DetectError, match=r"found none of c, d, e and others \(4 in all\)"):
        read_proposals(tmp_path / "p.npz", dict.fromkeys("acdef", (20, 10)))


def test_a_foreign_archive_needs_ids_counts_and_boxes_alone(tmp_path):
    path = tmp_path / "foreign.npz"
    np.savez(
        path,
        image_ids=["x", "y"],
        counts=np.array([3, 0], np.int32),
        boxes=[[0, 0, 4, 4], [1, 1, 2, 2], [0, 0, 4, 4]],
    )
    read = read_proposals(path)
    assert read["x"].tolist() == [[0, 0, 4, 4], [1, 1, 2, 2]]  # the first keeps its rank
    assert read["x"].dtype == np.float32
    assert len(read["y"]) == 0
    assert read.settings["num_repeated"] == 1
    assert read.settings["name"] == "foreign.npz"


def cells(*values):
    array = np.empty((1, len(values)), object)
    for number, value in enumerate(values):
        array[0, number] = value
    return array


def test_the_original_release_is_read(tmp_path):
    path = tmp_path / "voc_2007_test.mat"
    # y1, x1, y2, x2, counted from 1, the last pixel included
    boxes = cells(
        np.array([[1, 1, 375, 500], [10, 20, 30, 60]], np.uint16),
        np.zeros((0, 4)),
        np.array([[2.0, 3.0, 2.0, 3.0]]),
    )
    savemat(path, {"boxes": boxes, "images": cells("000001", "000002", "000003").T, "other": 1})
    read = read_proposals(path, {"000001": (375, 500), "000002": (9, 9), "000003": (9, 9)})
    assert read["000001"].tolist() == [[0, 0, 500, 375], [19, 9, 60, 30]]
    assert read["000002"].shape == (0, 4)
    assert read["000003"].tolist() == [[2, 1, 3, 2]]  # a single pixel


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"boxes": cells(np.ones((2, 4)))}, "expected the cell arrays .* found boxes"),
        ({"a": 1}, "found neither"),
        ({"boxes": np.ones((2, 4)), "images": cells("a")}, "expected the cell arrays"),
        ({"boxes": cells(np.ones((1, 4))), "images": cells("a", "b")}, "found 1 and 2"),
        ({"boxes": cells(np.ones((1, 5))), "images": cells("a")}, r"image a: .*\[1, 5\]"),
        ({"boxes": cells("text"), "images": cells("a")}, "image a: expected boxes"),
        (
            {"boxes": cells(np.ones((1, 4)), np.ones((1, 4))), "images": cells("a", "a")},
            "each image once, found 'a' again",
        ),
        (
            {"boxes": cells(np.array([[5, 5, 4, 4]])), "images": cells("a")},
            r"image a, box 0: expected finite .*found \[4.0, 4.0, 4.0, 4.0\]",
        ),
        (
            {"boxes": cells(np.array([[0, 1, 4, 4]])), "images": cells("a")},
            r"image a, box 0: .*found \[0.0, -1.0, 4.0, 4.0\]",
        ),
    ],
)
def test_a_faulty_mat_is_named(tmp_path, content, message):
    path = tmp_path / "p.mat"
    savemat(path, content)
    with pytest.raises(DetectError, match=message) as caught:
        read_proposals(path)
    assert str(caught.value).startswith(str(path))


def test_a_mat_that_is_none_is_named(tmp_path):
    path = tmp_path / "p.mat"
    for content in (b"", b"some text", b"MATLAB 5.0 MAT-file" + bytes(109) + b"\0\1IM" + b"x" * 99):
        path.write_bytes(content)
        with pytest.raises(DetectError, match=re.escape(str(path))):
            read_proposals(path)
    # version 7.3 is HDF5
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(512))
    with pytest.raises(DetectError, match=r"version 7\.3, which is not read; save it with -v7"):
        read_proposals(path)
    with pytest.raises(DetectError, match=r"missing\.mat: cannot be read: No such file"):
        read_proposals(tmp_path / "missing.mat")


GOOD = {"image_ids": np.array(["x", "y"]), "counts": np.array([2, 0]), "boxes": np.ones((2, 4))}
GOOD["boxes"] = np.array([[0, 0, 4, 4], [1, 1, 2, 2]], np.float32)


def with_box(*box):
    return {"boxes": np.array([[0, 0, 4, 4], box], np.float32)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"extra": np.ones(1)},
            "expected the arrays boxes, counts, image_ids, found boxes, counts",
        ),
        ({"counts": None}, "found boxes, image_ids"),
        ({"settings": np.array("{}")}, "expected the arrays"),
        ({"boxes": np.ones((2, 5))}, r"boxes \[N, 4\] of numbers, found .*float64 \[2, 5\]"),
        ({"boxes": np.array([["a"] * 4] * 2)}, "boxes"),
        ({"counts": np.array([2.0, 0.0])}, "counts .* of integers"),
        ({"counts": np.array([2])}, "counts"),
        ({"image_ids": np.array([1, 2])}, "image_ids"),
        ({"counts": np.array([2, 1])}, "add up to the 2 boxes, found 3"),
        ({"counts": np.array([3, -1])}, "add up to the 2 boxes"),
        ({"image_ids": np.array(["x", "x"])}, "each image once, found 'x' again"),
        (with_box(1, 1, np.nan, 2), "image x, box 1: expected finite"),
        (with_box(1, 1, np.inf, 2), "image x, box 1: expected finite"),
        (with_box(3, 1, 2, 2), r"box 1: .*found \[3.0, 1.0, 2.0, 2.0\]"),
        (with_box(1, 1, 2, 1), r"box 1: .*found \[1.0, 1.0, 2.0, 1.0\]"),
        (with_box(-0.5, 1, 2, 2), "box 1: .*found \\[-0.5"),
        (with_box(1, 1, 9, 2), "within an image 8 pixels wide and 6 high, found .*9.0"),
        (with_box(1, 1, 2, 6.5), r"within an image .*\(1 such boxes in all\)"),
    ],
)
def test_a_faulty_archive_is_named(tmp_path, changed, message):
    path = tmp_path / "p.npz"
    content = {**GOOD, **changed}
    np.savez(path, **{name: array for name, array in content.items() if array is not None})
    with pytest.raises(DetectError, match=message) as caught:
        read_proposals(path, {"x": (6, 8), "y": (6, 8)})
    assert str(caught.value).startswith(str(path))


def test_a_good_archive_is_read(tmp_path):
    np.savez(tmp_path / "p.npz", **GOOD)
    assert read_proposals(tmp_path / "p.npz", {"x": (6, 8), "y": (6, 8)})["x"].shape == (2, 4)


def test_a_changed_or_damaged_file_is_told_by_its_fingerprint(tmp_path, proposals):
    path = tmp_path / "p.npz"
    write_proposals(path, proposals)
    arrays = dict(np.load(path))
    arrays["boxes"][0, 0] += 1
    np.savez(path, **arrays)
    with pytest.raises(DetectError, match="fingerprint is not that of the content"):
        read_proposals(path)
    np.savez(path, **{**arrays, "settings": np.array("no JSON")})
    with pytest.raises(DetectError, match="its settings are no JSON object"):
        read_proposals(path)


def test_half_a_file_and_other_files_are_named(tmp_path, proposals):
    path = tmp_path / "p.npz"
    write_proposals(path, proposals)
    whole = path.read_bytes()
    objects = tmp_path / "objects.npz"
    np.savez(objects, **{**GOOD, "boxes": np.array([{}], object)})
    array = tmp_path / "array.npz"
    with array.open("wb") as file:
        np.save(file, np.ones(3))
    archive = tmp_path / "archive.npz"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("boxes.npy", b"no array")
    contents = [b"", b"text", whole[: len(whole) // 2], whole[:-30]]
    contents += [other.read_bytes() for other in (objects, array, archive)]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(DetectError, match=re.escape(str(path))):
            read_proposals(path)
    for place in (tmp_path / "missing.npz", tmp_path):
        with pytest.raises(DetectError, match="cannot be read"):
            read_proposals(place)


def test_files_are_named_npz(tmp_path, proposals):
    with pytest.raises(DetectError, match=r"expected a name that ends with \.npz"):
        write_proposals(tmp_path / "p.json", proposals)
