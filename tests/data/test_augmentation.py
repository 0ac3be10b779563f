import numpy as np
import pytest
import torch
from torch.testing import assert_close

from detect.data import Augmentation
from detect.data.augmentation import MIN_VISIBILITY
from detect.errors import DetectError
from detect.structures import GroundTruth, ImageMeta, Sample

NONE = {
    "horizontal_flip": 0.0,
    "vertical_flip": 0.0,
    "scale": 0.0,
    "shift": 0.0,
    "saturation": 1.0,
    "exposure": 1.0,
}


def red_box_on_green(box: tuple[int, int, int, int], size: tuple[int, int] = (90, 120)) -> Sample:
    image = np.zeros((*size, 3), dtype=np.uint8)
    image[:, :, 1] = 200
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = (250, 0, 0)
    truth = GroundTruth(
        torch.tensor([box], dtype=torch.float32),
        torch.tensor([4]),
        torch.tensor([True]),
    )
    return Sample(image, truth, ImageMeta("a", None, size, size))


def extent_of_red(image: np.ndarray) -> list[int]:
    # more red than not: the edge of a warped box is blended over a pixel
    rows, columns = np.nonzero((image[:, :, 0].astype(int) - image[:, :, 1]) > 0)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize(
    "changes",
    [
        {"horizontal_flip": 1.0},
        {"vertical_flip": 1.0},
        {"scale": 0.3},
        {"shift": 0.15},
        {"scale": 0.2, "shift": 0.2, "horizontal_flip": 0.5, "vertical_flip": 0.5},
    ],
    ids=str,
)
def test_boxes_follow_the_picture(changes: dict[str, float]):
    """The drawn rectangle is found again in the pixels, where its box says."""
    augmentation = Augmentation(**{**NONE, **changes})
    worst = 0.0
    seen = 0
    for seed in range(40):
        changed = augmentation(red_box_on_green((40, 30, 70, 55)), seed)
        if len(changed.truth) == 0:
            continue
        seen += 1
        drawn = np.array(extent_of_red(changed.image), dtype=float)
        worst = max(worst, np.abs(changed.truth.boxes[0].numpy() - drawn).max())
    assert seen > 30
    assert worst <= 1.0  # pixels; the drawn extent is whole pixels


def test_flip_is_exact():
    flip = Augmentation(**{**NONE, "horizontal_flip": 1.0})
    changed = flip(red_box_on_green((10, 20, 30, 50)), 0)
    assert_close(changed.truth.boxes, torch.tensor([[90.0, 20.0, 110.0, 50.0]]))
    assert changed.truth.labels.tolist() == [4]
    assert changed.truth.difficult.tolist() == [True]


def test_same_seed_same_change_other_seed_other_change():
    augmentation = Augmentation()
    given = red_box_on_green((40, 30, 70, 55))
    first, again, other = (augmentation(given, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.image, again.image)
    assert torch.equal(first.truth.boxes, again.truth.boxes)
    assert not np.array_equal(first.image, other.image)


def test_objects_that_leave_the_picture_are_left_out():
    augmentation = Augmentation(**{**NONE, "shift": 0.9})
    counts = set()
    for seed in range(60):
        changed = augmentation(red_box_on_green((100, 70, 118, 88)), seed)
        counts.add(len(changed.truth))
        for x1, y1, x2, y2 in changed.truth.boxes.tolist():
            assert 0 <= x1 < x2 <= 120
            assert 0 <= y1 < y2 <= 90
            assert (x2 - x1) * (y2 - y1) >= MIN_VISIBILITY * 18 * 18 - 0.1
    assert counts == {0, 1}


def test_picture_without_objects():
    given = red_box_on_green((1, 1, 5, 5))
    empty = Sample(given.image, GroundTruth.empty(), given.meta)
    assert len(Augmentation()(empty, 0).truth) == 0


def test_colors_change_and_boxes_do_not():
    given = red_box_on_green((40, 30, 70, 55))
    changed = Augmentation(**{**NONE, "hue": 0.2, "saturation": 2.0, "exposure": 1.5})(given, 3)
    assert not np.array_equal(changed.image, given.image)
    assert torch.equal(changed.truth.boxes, given.truth.boxes)


def test_all_off_changes_nothing():
    given = red_box_on_green((40, 30, 70, 55))
    changed = Augmentation(**NONE)(given, 0)
    assert np.array_equal(changed.image, given.image)
    assert torch.equal(changed.truth.boxes, given.truth.boxes)


def test_extra_transform_runs():
    given = red_box_on_green((40, 30, 70, 55))
    extra = [{"name": "GaussianBlur", "blur_limit": [5, 5], "p": 1.0}]
    assert not np.array_equal(Augmentation(**NONE, extra=extra)(given, 0).image, given.image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizontal_flip": 1.5}, r"horizontal_flip: expected 0 to 1, found 1.5"),
        ({"saturation": 0.5}, r"saturation: expected 1 to 100, found 0.5"),
        ({"extra": [{"name": "GausianBlur"}]}, "GaussianBlur"),
        ({"extra": [{"p": 1.0}]}, "name: GaussianBlur"),
        ({"extra": [{"name": "GaussianBlur", "strength": 3}]}, "refuses its arguments"),
    ],
)
def test_wrong_settings_are_refused(options, message: str):
    with pytest.raises(DetectError, match=message):
        Augmentation(**options)
