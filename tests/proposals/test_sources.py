import numpy as np
import pytest

from detect.errors import DetectError
from detect.proposals import (
    PROPOSALS,
    DenseWindows,
    GivenBoxes,
    JitteredTruth,
    Proposals,
    RandomBoxes,
)

IMAGE = np.zeros((60, 100, 3), np.uint8)
TRUTHS = {
    "a": np.array([[10, 10, 50, 30], [0, 0, 100, 60]], np.float32),
    "b": np.zeros((0, 4), np.float32),
}
ALL_SOURCES = {
    "dense": DenseWindows(),
    "random": RandomBoxes(200),
    "jittered": JitteredTruth(TRUTHS),
    "given": GivenBoxes(Proposals.of_images(TRUTHS, {"method": "file"})),
}


@pytest.mark.parametrize("source", ALL_SOURCES.values(), ids=ALL_SOURCES)
def test_boxes_keep_the_contract(source):
    boxes = source(IMAGE, "a")
    assert boxes.dtype == np.float32
    assert boxes.shape[1] == 4
    assert len(boxes) > 1
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes[:, 2:] <= (100, 60)).all()
    assert np.array_equal(source(IMAGE, "a"), boxes)
    assert "method" in source.settings


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (4, 3)])
@pytest.mark.parametrize("name", ["dense", "random"])
def test_tiny_images_have_boxes(name, size):
    boxes = ALL_SOURCES[name](np.zeros((*size, 3), np.uint8), "a")
    assert len(np.unique(boxes, axis=0)) == len(boxes) >= 1
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes[:, 2:] <= size[::-1]).all()


def test_windows_of_one_scale_stand_edge_to_edge():
    windows = DenseWindows(scales=(0.5,), aspect_ratios=(1.0,), stride=0.5)
    boxes = windows(np.zeros((40, 40, 3), np.uint8), "a")
    assert boxes.tolist() == [[x, y, x + 20, y + 20] for y in (0, 10, 20) for x in (0, 10, 20)]


def test_windows_have_the_area_and_shape_asked_for():
    windows = DenseWindows(scales=(0.2, 0.4), aspect_ratios=(4.0,), stride=0.5)
    boxes = windows(np.zeros((500, 500, 3), np.uint8), "a")
    sizes = np.unique(boxes[:, 2:] - boxes[:, :2], axis=0).tolist()
    assert sizes == [[200, 50], [400, 100]]
    assert (boxes[0, 2:] - boxes[0, :2]).tolist() == [400, 100]  # the large ones first


def test_a_window_larger_than_the_image_is_cut_off():
    windows = DenseWindows(scales=(1.0,), aspect_ratios=(1.0,))
    assert windows(IMAGE, "a")[:, [1, 3]].tolist() == [[0, 60]] * len(windows(IMAGE, "a"))


def test_random_boxes_depend_on_seed_and_image():
    boxes = RandomBoxes(50)(IMAGE, "a")
    assert boxes.shape == (50, 4)
    assert not np.array_equal(RandomBoxes(50, seed=1)(IMAGE, "a"), boxes)
    assert not np.array_equal(RandomBoxes(50)(IMAGE, "b"), boxes)
    assert ((boxes[:, 2:] - boxes[:, :2]) >= 20).all()


def test_all_boxes_of_a_small_image_are_found_and_drawing_ends():
    # 6 intervals of 3 pixels each way
    boxes = RandomBoxes(1000, min_size=1)(np.zeros((3, 3, 3), np.uint8), "a")
    assert len(boxes) == 36


def test_jitter_moves_edges_by_no_more_than_asked():
    boxes = JitteredTruth({"a": TRUTHS["a"][:1]}, jitter=0.1, count=200)(IMAGE, "a")
    assert len(boxes) == 200
    shifts = np.abs(boxes - TRUTHS["a"][0])
    assert (shifts <= np.array([4, 2, 4, 2]) + 1e-4).all()
    assert (shifts.max(axis=0) > np.array([3.5, 1.7, 3.5, 1.7])).all()


def test_no_jitter_gives_the_truth():
    source = JitteredTruth(TRUTHS, jitter=0.0, count=3)
    assert np.array_equal(source(IMAGE, "a"), TRUTHS["a"])
    assert source(IMAGE, "b").shape == (0, 4)


def test_settings_know_the_truth():
    other = {**TRUTHS, "b": TRUTHS["a"]}
    assert JitteredTruth(TRUTHS).settings == JitteredTruth(dict(TRUTHS)).settings
    assert JitteredTruth(TRUTHS).settings != JitteredTruth(other).settings
    assert JitteredTruth(TRUTHS).settings != JitteredTruth(TRUTHS, seed=1).settings


def test_given_boxes_are_given():
    proposals = Proposals.of_images(TRUTHS, {"method": "file"})
    assert np.array_equal(GivenBoxes(proposals)(IMAGE, "a"), TRUTHS["a"])
    with pytest.raises(DetectError, match="no proposals for the image 'c'"):
        GivenBoxes(proposals)(IMAGE, "c")


def test_sources_are_registered_by_name():
    assert set(PROPOSALS) == {"selective-search", "dense-windows", "random-boxes"}
    for name in PROPOSALS:
        assert PROPOSALS[name]().settings["method"] == name


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DenseWindows(scales=()), "scales of dense windows: expected more than 0"),
        (lambda: DenseWindows(aspect_ratios=(-1.0,)), "aspect_ratios of dense windows"),
        (lambda: DenseWindows(stride=0.0), "stride of dense windows: expected more than 0"),
        (lambda: RandomBoxes(count=0), "count of random boxes: expected 1 or more, found 0"),
        (lambda: RandomBoxes(seed=-1), "seed of random boxes: expected 0 or more"),
        (lambda: RandomBoxes(min_size=-1), "min_size of random boxes: expected 0 or more"),
        (lambda: JitteredTruth({}, jitter=0.5), "jitter of the truth: .* found 0.5"),
        (lambda: JitteredTruth({}, count=0), "count of jittered truth: expected 1 or more"),
        (lambda: JitteredTruth({}, seed=-2), "seed of jittered truth: expected 0 or more"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(build, message):
    with pytest.raises(DetectError, match=message):
        build()
