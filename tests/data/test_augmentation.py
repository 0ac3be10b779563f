import numpy as np
import pytest
import torch
from torch.testing import assert_close

from detect.data import Augmentation
from detect.data.loading.augmentation import MIN_VISIBILITY
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
def test_boxes_follow_the_image(changes: dict[str, float]):
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


def test_objects_that_leave_the_image_are_left_out():
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


def test_image_without_objects():
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


# --- joints --------------------------------------------------------------------------------------

COLORS = ((250, 0, 0), (0, 0, 250), (250, 0, 250))  # of the left, the right and the middle joint


def colored_joints(
    points=((40.5, 20.5), (80.5, 30.5), (60.5, 60.5)), visibility=(2, 1, 2), size=(90, 120)
) -> Sample:
    """A black image with a disk of 7 pixels about each joint: left, right and middle."""
    image = np.zeros((*size, 3), np.uint8)
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    for (x, y), color in zip(points, COLORS, strict=True):
        image[np.hypot(columns - x, rows - y) <= 3.6] = color
    joints = torch.tensor([[[x, y, v] for (x, y), v in zip(points, visibility, strict=True)]])
    truth = GroundTruth(
        torch.tensor([[0.0, 0, size[1], size[0]]]),
        torch.tensor([0]),
        torch.tensor([False]),
        joints.float(),
    )
    return Sample(image, truth, ImageMeta("a", None, size, size))


def center_of(image: np.ndarray, color: tuple[int, int, int]) -> tuple[float, float]:
    """The center of gravity (x, y) of what has a color, whatever it was blended with."""
    green = image[..., 1].astype(float)  # gray is what was filled in
    red, blue = image[..., 0] - green, image[..., 2] - green
    both = np.minimum(red, blue)
    weight = {250: red - both, 0: blue - both}[color[0]] if sum(color) == 250 else both
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()


@pytest.mark.parametrize(
    ("changes", "mirrors"),
    [
        ({"horizontal_flip": 1.0}, True),
        ({"vertical_flip": 1.0}, True),
        ({"horizontal_flip": 1.0, "vertical_flip": 1.0}, False),
        ({"scale": 0.3}, False),
        ({"shift": 0.15, "horizontal_flip": 1.0}, True),
        ({"extra": [{"name": "Transpose", "p": 1.0}]}, True),
        ({"extra": [{"name": "Rotate", "limit": [170, 170], "fill": 0, "p": 1.0}]}, False),
        ({"horizontal_flip": 1.0, "extra": [{"name": "HorizontalFlip", "p": 1.0}]}, False),
        ({"horizontal_flip": 1.0, "shift": 0.15, "extra": [{"name": "ElasticTransform"}]}, True),
    ],
    ids=str,
)
def test_joints_follow_the_image(changes, mirrors: bool):
    """The drawn disks are found again in the pixels, where their joints say, left and right too."""
    augmentation = Augmentation(**{**NONE, **changes}, joint_swaps=[(0, 1)])
    # pixels; bending changes the disk, and its points are rounded
    tolerance = 2.0 if "Elastic" in str(changes) else 0.25
    for seed in range(12):
        changed = augmentation(colored_joints(), seed)
        joints = changed.truth.joints[0]
        assert joints[:, 2].tolist() == ([1, 2, 2] if mirrors else [2, 1, 2])
        colors = (COLORS[1], COLORS[0], COLORS[2]) if mirrors else COLORS
        for joint, color in zip(joints, colors, strict=True):
            found = center_of(changed.image, color)
            assert_close(tuple(joint[:2].tolist()), found, atol=tolerance, rtol=0)


def test_mirrored_joints_are_exact():
    flip = Augmentation(**{**NONE, "horizontal_flip": 1.0}, joint_swaps=[(0, 1)])
    joints = flip(colored_joints(((0.0, 20.25), (120.0, 30.5), (60.5, 60.5))), 0).truth.joints
    expected = [[[0.0, 30.5, 1], [120.0, 20.25, 2], [59.5, 60.5, 2]]]
    assert_close(joints, torch.tensor(expected), atol=1e-4, rtol=0)  # half a pixel to and fro


def test_without_swaps_a_mirrored_joint_keeps_its_name():
    joints = Augmentation(**{**NONE, "horizontal_flip": 1.0})(colored_joints(), 0).truth.joints
    assert_close(joints[0, :2], torch.tensor([[79.5, 20.5, 2], [39.5, 30.5, 1]]))


def test_a_joint_that_leaves_the_image_is_not_labeled_any_more():
    augmentation = Augmentation(**{**NONE, "shift": 0.3})
    num_left = 0
    for seed in range(30):
        changed = augmentation(colored_joints(((5.5, 20.5), (114.5, 80.5), (60.5, 45.5))), seed)
        image = changed.image.astype(int) * (changed.image != 114)  # without what was filled in
        for joint, color in zip(changed.truth.joints[0], COLORS, strict=True):
            x, y, visibility = joint.tolist()
            if visibility:
                assert 0 <= x <= 120
                assert 0 <= y <= 90
            else:
                assert (x, y) == (0, 0)
                num_left += 1
                channels = [channel for channel in (0, 2) if color[channel]]
                others = [channel for channel in (0, 1, 2) if not color[channel]]
                pure = (image[..., channels] > 200).all(axis=2) & (image[..., others] < 50).all(2)
                assert pure.sum() < 25, "more than half of the disk is still there"
    assert num_left > 20


def test_a_joint_on_the_border_is_in_and_one_beyond_is_out():
    points = ((0.0, 90.0), (120.0, 0.0), (120.01, 45.0))
    for changes in ({}, {"horizontal_flip": 1.0}):
        joints = Augmentation(**{**NONE, **changes})(colored_joints(points), 0).truth.joints
        assert joints[0, :, 2].tolist() == [2, 1, 0]


def test_joints_that_are_not_labeled_stay_at_zero():
    changed = Augmentation(joint_swaps=[(0, 1)])(colored_joints(visibility=(0, 0, 0)), 5)
    assert changed.truth.joints.tolist() == [[[0, 0, 0]] * 3]


def test_joints_go_with_their_objects_and_images_without_objects_have_none():
    given = colored_joints()
    boxes = torch.tensor([[0.0, 0, 1, 1], [20, 10, 100, 80]])  # the first leaves at once
    joints = torch.cat((given.truth.joints + torch.tensor([1.0, 0, 0]), given.truth.joints))
    truth = GroundTruth(boxes, torch.tensor([3, 4]), torch.tensor([False, False]), joints)
    augmentation = Augmentation(**{**NONE, "shift": 0.2})
    counts = set()
    for seed in range(20):
        changed = augmentation(Sample(given.image, truth, given.meta), seed).truth
        counts.add(len(changed))
        assert changed.labels[-1] == 4
        alone = augmentation(given, seed).truth
        assert torch.equal(changed.joints[-1], alone.joints[0])
        assert changed.joints.shape == (len(changed), 3, 3)
    assert counts == {1, 2}
    empty = GroundTruth(boxes[:0], truth.labels[:0], truth.difficult[:0], joints[:0])
    assert augmentation(Sample(given.image, empty, given.meta), 0).truth.joints.shape == (0, 3, 3)


def test_joints_change_nothing_else():
    given = colored_joints()
    bare = GroundTruth(given.truth.boxes, given.truth.labels, given.truth.difficult)
    augmentation = Augmentation(extra=[{"name": "ElasticTransform", "p": 0.5}])
    for seed in range(10):
        with_joints = augmentation(given, seed)
        without = augmentation(Sample(given.image, bare, given.meta), seed)
        assert np.array_equal(with_joints.image, without.image)
        assert torch.equal(with_joints.truth.boxes, without.truth.boxes)
        assert without.truth.joints is None


def test_an_image_of_one_pixel_keeps_its_joint():
    image = np.zeros((1, 1, 3), np.uint8)
    joints = torch.tensor([[[0.25, 0.5, 2]]])
    truth = GroundTruth(
        torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([0]), torch.tensor([False]), joints
    )
    flip = Augmentation(**{**NONE, "horizontal_flip": 1.0})
    changed = flip(Sample(image, truth, ImageMeta("a", None, (1, 1), (1, 1))), 0)
    assert_close(changed.truth.joints, torch.tensor([[[0.75, 0.5, 2]]]))


def test_a_joint_in_two_pairs_is_refused():
    with pytest.raises(ValueError, match="a joint is listed twice"):
        Augmentation(joint_swaps=[(0, 1), (1, 2)])
