"""Where images lie in a batch, against a loop over pixels."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from detect.data import fit_to_input
from detect.detectors.images import (
    clip_to_frames,
    filled_part,
    frames_of,
    generator_on,
    padded,
    unit_images,
)
from detect.structures import Batch, GroundTruth, ImageMeta, InputSpec, Sample
from tests.ops.random_boxes import real_boxes

COLOR = torch.tensor([0.5, 0.25, 0.125]).view(3, 1, 1)
ORIGINALS = [(40, 20), (20, 40), (32, 32), (1, 1), (33, 7), (3, 90)]
SPECS = {
    "letterbox": InputSpec((32, 48), keep_aspect_ratio=True),
    "stretch": InputSpec((32, 48)),
    "shorter side": InputSpec((48, 48), shorter_side=32),
}


def sample(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Sample(image, GroundTruth.empty(), ImageMeta("a", None, size, size))


def batch_of(spec, originals=ORIGINALS):
    return Batch.from_samples([fit_to_input(sample(size), spec) for size in originals])


def is_inside(meta, y, x):
    """Whether the center of a pixel of the input lies in the image."""
    own_y = (y + 0.5 - meta.offset[0]) / meta.scale[0]
    own_x = (x + 0.5 - meta.offset[1]) / meta.scale[1]
    return 0 < own_y < meta.original_size[0] and 0 < own_x < meta.original_size[1]


def inside_pixels(batch):
    """Of each image the pixels of the input (row, column) that it fills."""
    height, width = batch.images.shape[2:]
    return [
        [(y, x) for y in range(height) for x in range(width) if is_inside(meta, y, x)]
        for meta in batch.metas
    ]


@pytest.mark.parametrize("kind", SPECS)
def test_frames_are_what_the_images_fill(kind):
    batch = batch_of(SPECS[kind])
    expected = []
    for pixels in inside_pixels(batch):
        rows, columns = [y for y, _ in pixels], [x for _, x in pixels]
        expected.append((min(columns), min(rows), max(columns) + 1, max(rows) + 1))
    frames = frames_of(batch)
    assert frames.dtype == torch.float32
    assert frames.tolist() == [list(frame) for frame in expected]
    parts = [filled_part(meta) for meta in batch.metas]
    assert parts == [(top, left, bottom, right) for left, top, right, bottom in expected]


@pytest.mark.parametrize("kind", SPECS)
def test_what_an_image_does_not_fill_is_of_one_color(kind):
    batch = batch_of(SPECS[kind])
    expected = torch.empty(batch.images.shape)
    expected[:] = COLOR
    for number, pixels in enumerate(inside_pixels(batch)):
        for y, x in pixels:
            expected[number, :, y, x] = batch.images[number, :, y, x] / 255
    assert_close(unit_images(batch, COLOR), expected)
    is_padded = bool((expected == COLOR).all(dim=1).any())
    assert is_padded == (kind != "stretch")


def test_one_padded_image_among_full_ones_is_colored():
    batch = batch_of(SPECS["letterbox"], [(32, 48), (32, 32)])
    images = unit_images(batch, COLOR)
    assert_close(images[0], batch.unit_images()[0])
    assert_close(images[1, :, :, :8], COLOR.expand(3, 32, 8))
    assert_close(images[1, :, :, 40:], COLOR.expand(3, 32, 8))
    assert_close(images[1, :, :, 8:40], batch.unit_images()[1, :, :, 8:40])


def test_a_mirrored_image_fills_the_same_part():
    sizes = {"original_size": (10, 30), "input_size": (40, 64)}
    for flipped in (False, True):
        meta = ImageMeta("a", None, **sizes, scale=(1.5, 2.0), offset=(5.0, 3.0), flipped=flipped)
        assert filled_part(meta) == (5, 3, 20, 63)


def test_boxes_are_clipped_to_the_frame_of_their_image():
    frames = torch.tensor([[10.0, 0, 50, 60], [0, 20, 80, 40], [30, 30, 31, 31]])
    boxes = torch.stack([real_boxes(257, seed) - 20 for seed in range(3)])  # [3, 257, 4]
    clipped = clip_to_frames(boxes, frames[:, None])
    expected = [
        [
            [
                min(max(value, frame[side % 2]), frame[side % 2 + 2])
                for side, value in enumerate(box)
            ]
            for box in rows
        ]
        for rows, frame in zip(boxes.tolist(), frames.tolist(), strict=True)
    ]
    assert clipped.tolist() == expected
    assert_close(clip_to_frames(boxes[1], frames[1]), clipped[1])
    assert clip_to_frames(boxes[:, :0], frames[:, None]).shape == (3, 0, 4)


def test_a_frame_of_the_whole_input_changes_nothing_inside():
    boxes = real_boxes(257, 3)
    assert torch.equal(clip_to_frames(boxes, torch.tensor([0.0, 0, 121, 121])), boxes)


@pytest.mark.parametrize("counts", [(0,), (3,), (0, 0), (2, 0, 5), (1, 257)])
def test_boxes_of_several_images_become_one_tensor(counts):
    boxes = [real_boxes(count, number) for number, count in enumerate(counts)]
    values, valid = padded(boxes)
    assert values.shape == (len(counts), max(counts), 4)
    assert valid.shape == (len(counts), max(counts))
    for number, count in enumerate(counts):
        assert valid[number].tolist() == [place < count for place in range(max(counts))]
        assert torch.equal(values[number, :count], boxes[number])
        assert not values[number, count:].any()


def test_the_generator_of_the_processor_is_that_of_its_state():
    torch.manual_seed(5)
    first = torch.rand(3, generator=generator_on(torch.device("cpu")))
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), first)
