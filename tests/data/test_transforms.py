import numpy as np
import pytest
import torch
from torch.testing import assert_close

from detect.data import fit_to_input
from detect.data.loading.transforms import drop_empty
from detect.structures import Batch, GroundTruth, ImageMeta, InputSpec, Sample, StructureError


def sample(height: int, width: int, boxes: list[list[float]] | None = None) -> Sample:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    rows = torch.tensor(boxes or [], dtype=torch.float32).reshape(-1, 4)
    truth = GroundTruth(rows, torch.arange(len(rows)), torch.zeros(len(rows), dtype=torch.bool))
    return Sample(image, truth, ImageMeta("a", None, (height, width), (height, width)))


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (48, 96), (333, 17)])
@pytest.mark.parametrize("original", [(64, 64), (1, 1), (100, 37), (30, 2000), (37, 100)])
def test_boxes_come_back(original: tuple[int, int], size: tuple[int, int], keep: bool):
    height, width = original
    boxes = [[0.0, 0.0, width, height], [width * 0.25, height * 0.5, width * 0.75, height]]
    given = sample(height, width, boxes)
    fitted = fit_to_input(given, InputSpec(size, keep_aspect_ratio=keep))
    assert fitted.image.shape == (*size, 3)
    assert_close(fitted.meta.to_original(fitted.truth.boxes), given.truth.boxes, atol=1e-3, rtol=0)
    assert fitted.meta.original_size == original


def test_letterbox_keeps_the_aspect_and_centers():
    fitted = fit_to_input(sample(50, 100, [[0, 0, 100, 50]]), InputSpec((64, 64), True))
    assert_close(fitted.truth.boxes, torch.tensor([[0.0, 16, 64, 48]]))
    assert (fitted.image[:16] == 114).all()
    assert (fitted.image[48:] == 114).all()
    assert not (fitted.image[16:48] == 114).all()


def test_stretching_fills_the_input():
    fitted = fit_to_input(sample(50, 100, [[10, 10, 20, 20]]), InputSpec((64, 64)))
    assert_close(fitted.truth.boxes, torch.tensor([[6.4, 12.8, 12.8, 25.6]]))


def test_image_of_the_right_size_is_untouched():
    given = sample(64, 48)
    assert np.array_equal(fit_to_input(given, InputSpec((64, 48))).image, given.image)


def test_joints_come_along_and_what_is_not_labeled_stays_at_zero():
    given = sample(50, 100, [[0, 0, 100, 50]])
    joints = torch.tensor([[[10.0, 20, 2], [100, 50, 1], [0, 0, 0], [7, 7, 0]]])
    truth = GroundTruth(given.truth.boxes, given.truth.labels, given.truth.difficult, joints)
    given = Sample(given.image, truth, given.meta)
    letterboxed = fit_to_input(given, InputSpec((64, 64), keep_aspect_ratio=True)).truth.joints
    expected = [[[6.4, 12.8 + 16, 2], [64, 48, 1], [0, 0, 0], [0, 0, 0]]]
    assert_close(letterboxed, torch.tensor(expected))
    stretched = fit_to_input(given, InputSpec((64, 64))).truth.joints
    assert_close(stretched[0, :2], torch.tensor([[6.4, 25.6, 2], [64, 64, 1]]))


def test_joints_go_with_their_objects():
    joints = torch.arange(4.0).reshape(2, 2, 1).expand(2, 2, 3).clip(max=2).contiguous()
    boxes = torch.tensor([[3.0, 3, 3, 9], [0, 0, 4, 4]])
    kept = drop_empty(boxes, torch.tensor([5, 6]), torch.tensor([True, False]), joints)
    assert kept.labels.tolist() == [6]
    assert torch.equal(kept.joints, joints[1:])
    assert drop_empty(boxes, torch.tensor([5, 6]), torch.tensor([True, False])).joints is None
    assert fit_to_input(sample(9, 9, [[0, 0, 5, 5]]), InputSpec((8, 8))).truth.joints is None


# Shorter side 600, longer side at most 1000, as of Fast R-CNN.
SHORTER_SIDE = [
    ((375, 500), (600, 800)),
    ((500, 375), (800, 600)),
    ((333, 500), (600, 901)),  # 900.9
    ((1200, 1600), (600, 800)),  # smaller than it was
    ((400, 400), (600, 600)),
    ((600, 600), (600, 600)),
    ((600, 1000), (600, 1000)),  # both at their limits
    ((300, 501), (599, 1000)),  # one pixel beyond the limit: 598.8
    ((300, 600), (500, 1000)),
    ((700, 300), (1000, 429)),  # 428.6
    ((30, 2000), (15, 1000)),
    ((2000, 30), (1000, 15)),
    ((1, 3000), (1, 1000)),  # a third of a pixel
]


@pytest.mark.parametrize("limits", [(1000, 1000), (600, 1000), (1000, 600)])
@pytest.mark.parametrize(("original", "expected"), SHORTER_SIDE)
def test_the_shorter_side_sets_the_size(original, expected, limits):
    height, width = original
    boxes = [[0.0, 0.0, width, height], [width * 0.25, height * 0.5, width * 0.75, height]]
    given = sample(height, width, boxes)
    given.image[:] = 255
    fitted = fit_to_input(given, InputSpec(limits, shorter_side=600))
    assert fitted.image.shape == (*expected, 3)
    assert (fitted.image == 255).all()  # nothing is padded
    assert fitted.meta.input_size == expected
    assert fitted.meta.offset == (0, 0)
    assert fitted.meta.original_size == original
    tall, wide = expected
    moved = torch.tensor([[0.0, 0, wide, tall], [wide * 0.25, tall * 0.5, wide * 0.75, tall]])
    assert_close(fitted.truth.boxes, moved, atol=1e-3, rtol=0)
    assert_close(fitted.meta.to_original(fitted.truth.boxes), given.truth.boxes, atol=1e-3, rtol=0)


def test_proposals_and_joints_go_to_the_shorter_side_too():
    given = sample(50, 100, [[0, 0, 100, 50]])
    joints = torch.tensor([[[10.0, 20, 2], [0, 0, 0]]])
    truth = GroundTruth(given.truth.boxes, given.truth.labels, given.truth.difficult, joints)
    proposals = torch.tensor([[10.0, 10, 30, 20]])
    given = Sample(given.image, truth, given.meta, proposals)
    fitted = fit_to_input(given, InputSpec((300, 300), shorter_side=125))
    assert_close(fitted.proposals, torch.tensor([[25.0, 25, 75, 50]]))
    assert_close(fitted.truth.joints, torch.tensor([[[25.0, 50, 2], [0, 0, 0]]]))


@pytest.mark.parametrize("shorter_side", [0, -5, 1001])
def test_a_shorter_side_is_between_one_pixel_and_the_longer_side(shorter_side):
    message = (
        rf"InputSpec\.shorter_side: expected at least 1 and at most the 1000 pixels of the longer "
        rf"one, found {shorter_side}$"
    )
    with pytest.raises(StructureError, match=message):
        InputSpec((600, 1000), shorter_side=shorter_side)
    assert InputSpec((600, 1000), shorter_side=1000).shorter_side == 1000
    assert InputSpec((600, 1000), shorter_side=1).shorter_side == 1


def test_images_of_different_sizes_are_padded_below_and_to_the_right():
    spec = InputSpec((120, 120), shorter_side=60)
    fitted = [fit_to_input(sample(*size), spec) for size in ((30, 45), (50, 20), (25, 25))]
    assert [one.meta.input_size for one in fitted] == [(60, 90), (120, 48), (60, 60)]
    batch = Batch.from_samples(fitted)
    assert batch.images.shape == (3, 3, 120, 90)
    assert [meta.input_size for meta in batch.metas] == [(60, 90), (120, 48), (60, 60)]
    for image, one in zip(batch.images, fitted, strict=True):
        expected = np.zeros((120, 90, 3), dtype=np.uint8)
        height, width = one.meta.input_size
        expected[:height, :width] = one.image
        assert torch.equal(image.permute(1, 2, 0), torch.from_numpy(expected))
