import json
import pickle

import numpy as np
import pytest

from detect.errors import DetectError
from detect.proposals import MODES, SelectiveSearch, Strategies, grouping, regions
from detect.proposals.base import generator_for
from detect.proposals.grouping import Similarity
from detect.proposals.selective_search import ALL, FILL, SIZE, WITHOUT_COLOR, search
from tests.proposals.image_sources import FOUR_SQUARES_BOXES, SQUARES, blobs, four_squares


def as_set(boxes):
    return {tuple(box) for box in np.asarray(boxes).astype(int).tolist()}


def test_modes_are_those_of_the_papers_table_5():
    sizes = {
        name: len(mode.color_spaces) * len(mode.similarities) * len(mode.scales)
        for name, mode in MODES.items()
    }
    assert sizes == {"single": 1, "fast": 8, "quality": 80}
    assert MODES["single"] == Strategies(("hsv",), (ALL,), (100,))
    assert MODES["fast"].similarities == (ALL, WITHOUT_COLOR)
    assert MODES["quality"].scales == (50, 100, 150, 300)
    assert MODES["quality"].similarities[2:] == (FILL, SIZE)


# by size and box alone the pairs of squares are alike, and the first one is taken
BY_BOX = Strategies(("rgb",), (Similarity(size=True, fill=True),), (300,))


def test_four_squares_and_their_pairs_are_found_exactly():
    boxes = SelectiveSearch(BY_BOX)(four_squares(), "squares")
    assert boxes.dtype == np.float32
    assert as_set(boxes) == FOUR_SQUARES_BOXES
    assert len(boxes) == 7


def test_positions_count_from_the_whole_image_down():
    boxes, positions = search(four_squares(), Strategies(("rgb",), (FILL, SIZE), (300,)))
    assert positions.tolist() == [4, 4, 4, 4, 3, 2, 1, 3, 2, 1]
    assert boxes[[6, 9]].tolist() == [[0, 0, 240, 60]] * 2
    assert as_set(boxes[:4]) == SQUARES


def test_boxes_stand_by_position_times_a_random_number():
    image, strategies = blobs((60, 90)), Strategies(("lab",), (ALL, FILL), (20,))
    boxes, positions = search(image, strategies)
    ranks = positions * generator_for(5, "some").random(len(positions))
    expected = list(dict.fromkeys(map(tuple, boxes[np.argsort(ranks, kind="stable")].tolist())))
    found = SelectiveSearch(strategies, seed=5, min_size=0)(image, "some")
    assert [tuple(box) for box in found.astype(int).tolist()] == expected
    assert len(expected) < len(boxes)  # there were duplicates, and the best rank of each was kept


def test_the_order_depends_on_the_seed_and_the_image_alone():
    image = blobs((60, 90))
    first = SelectiveSearch("single", min_size=0)(image, "a")
    assert len(first) > 10
    assert np.array_equal(SelectiveSearch("single", min_size=0)(image, "a"), first)
    for other in (
        SelectiveSearch("single", seed=1, min_size=0)(image, "a"),
        SelectiveSearch("single", min_size=0)(image, "b"),
    ):
        assert as_set(other) == as_set(first)
        assert not np.array_equal(other, first)


def test_early_boxes_are_large_ones():
    boxes = SelectiveSearch("fast", min_size=0)(blobs((120, 160)), "a")
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    tenth = len(boxes) // 10
    assert areas[:tenth].mean() > 3 * areas[-tenth:].mean()


@pytest.mark.parametrize("mode", ["single", "fast", "quality"])
def test_boxes_keep_the_contract(mode):
    image = blobs((70, 100))
    boxes = SelectiveSearch(mode, min_size=12)(image, "a")
    assert boxes.dtype == np.float32
    assert len(as_set(boxes)) == len(boxes) > 5
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= (100, 70)).all()
    assert ((boxes[:, 2:] - boxes[:, :2]) >= 12).all()
    assert (0, 0, 100, 70) in as_set(boxes)
    smaller = SelectiveSearch(mode, min_size=0)(image, "a")
    assert as_set(boxes) < as_set(smaller)
    sides = (smaller[:, 2:] - smaller[:, :2]).min(axis=1)
    assert np.array_equal(smaller[sides >= 12], boxes)  # the others keep their order


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (37, 1), (2, 2), (3, 200)])
@pytest.mark.parametrize("mode", ["fast", "quality"])
def test_tiny_images_have_their_own_box(mode, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    boxes = SelectiveSearch(mode)(image, "a")
    assert (0, 0, size[1], size[0]) in as_set(boxes)
    assert (boxes[:, 2:] > boxes[:, :2]).all()


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (10, 200, 30)])
def test_an_image_of_one_color_has_one_box(color):
    image = np.full((50, 80, 3), color, np.uint8)
    assert SelectiveSearch("quality")(image, "a").tolist() == [[0, 0, 80, 50]]


def test_a_gray_image_is_searched_in_every_space():
    gray = blobs((60, 90)).mean(axis=2).astype(np.uint8)[..., None].repeat(3, axis=2)
    boxes = SelectiveSearch("quality", min_size=5)(gray, "a")
    assert np.isfinite(boxes).all()
    assert len(boxes) > 10


def test_without_numba_the_boxes_are_the_same(monkeypatch):
    pytest.importorskip("numba")
    image = blobs((90, 120))
    compiled = SelectiveSearch("quality", min_size=0)(image, "a")
    for module in (grouping, regions):
        monkeypatch.setattr(module, "compiled_kernels", lambda: None)
    assert np.array_equal(SelectiveSearch("quality", min_size=0)(image, "a"), compiled)


def test_a_wide_image_is_searched_at_another_width():
    squares = four_squares(120)
    boxes = SelectiveSearch(BY_BOX, width=240)(squares, "squares")
    assert as_set(boxes) == {tuple(2 * np.array(box)) for box in FOUR_SQUARES_BOXES}
    # 7 of 10 pixels: nothing reaches out of the image by a rounding
    odd = SelectiveSearch(BY_BOX, width=7, min_size=0)(blobs((33, 10)), "odd")
    assert odd.max(axis=0).tolist()[2:] == [10, 33]


def test_settings_are_plain_data_and_tell_searches_apart():
    searches = [
        SelectiveSearch(),
        SelectiveSearch("quality"),
        SelectiveSearch(seed=1),
        SelectiveSearch(min_size=0),
        SelectiveSearch(width=500),
        SelectiveSearch(Strategies(("hsv",), (SIZE,), (100,))),
        SelectiveSearch(Strategies(("hsv",), (FILL,), (100,))),
    ]
    texts = [json.dumps(each.settings, sort_keys=True) for each in searches]
    assert len(set(texts)) == len(texts)
    # a mode is its strategies, by whatever name
    assert SelectiveSearch(MODES["fast"]).settings == SelectiveSearch("fast").settings
    assert all(pickle.loads(pickle.dumps(each)) == each for each in searches)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed of selective search: expected 0 or more, found -1"),
        ({"min_size": -1}, "min_size of selective search: expected 0 or more"),
        ({"width": 0}, "width of selective search: expected positive pixels, found 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(DetectError, match=message):
        SelectiveSearch(**arguments)
