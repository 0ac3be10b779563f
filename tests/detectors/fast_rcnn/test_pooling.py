"""Pooling of regions: Caffe's rule and bilinear sampling as loops, and the choice of a map."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from detect.detectors.fast_rcnn.pooling import (
    FeatureMap,
    nearest_scale,
    pool_regions,
    pyramid_level,
)
from tests.ops.random_boxes import integer_boxes, real_boxes

single = np.float32


def random_map(height, width, scale, count=2, channels=3, seed=0):
    """Values of both signs: an empty part, which is 0, is no maximum by chance."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, channels, height, width, generator=generator) - 1
    return FeatureMap(values, scale)


def images_of(boxes, count=2):
    return torch.arange(len(boxes)) % count


def rounded(value):
    """C's round: halves go away from zero."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def pooled_as_caffe(values, box, scale, size):
    """Caffe's roi_pooling_layer.cpp for one region `[F, h, w]`, corners as in the release's boxes.

    Corners are whole pixels that both belong to the region; products are in single precision.
    """
    channels, height, width = values.shape
    left, top = (rounded(single(corner) * single(scale)) for corner in box[:2])
    right, bottom = (rounded(single(single(corner) - 1) * single(scale)) for corner in box[2:])
    bin_height = single(max(bottom - top + 1, 1)) / single(size)
    bin_width = single(max(right - left + 1, 1)) / single(size)
    result = np.zeros((channels, size, size), dtype=single)
    for row in range(size):
        for column in range(size):
            y1 = min(max(math.floor(single(row) * bin_height) + top, 0), height)
            y2 = min(max(math.ceil(single(row + 1) * bin_height) + top, 0), height)
            x1 = min(max(math.floor(single(column) * bin_width) + left, 0), width)
            x2 = min(max(math.ceil(single(column + 1) * bin_width) + left, 0), width)
            for channel in range(channels):
                found = [values[channel, y, x] for y in range(y1, y2) for x in range(x1, x2)]
                result[channel, row, column] = max(found, default=0.0)
    return result


def interpolated(plane, y, x):
    """A plane between its positions, constant beyond the outer ones, 0 a position away from it."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    above, before = int(y), int(x)
    below, behind = min(above + 1, height - 1), min(before + 1, width - 1)
    upper = plane[above, before] * (1 - (x - before)) + plane[above, behind] * (x - before)
    lower = plane[below, before] * (1 - (x - before)) + plane[below, behind] * (x - before)
    return upper * (1 - (y - above)) + lower * (y - above)


def aligned(values, box, scale, size):
    """RoI align of one region: 2×2 points in each part; a value is at its position's center."""
    left, top, right, bottom = (side * scale - 0.5 for side in box)
    step_y, step_x = (bottom - top) / size, (right - left) / size
    result = np.zeros((len(values), size, size))
    for row in range(size):
        for column in range(size):
            points = [
                (top + (row + part_y) * step_y, left + (column + part_x) * step_x)
                for part_y in (0.25, 0.75)
                for part_x in (0.25, 0.75)
            ]
            for channel, plane in enumerate(values):
                found = [interpolated(plane, y, x) for y, x in points]
                result[channel, row, column] = sum(found) / 4
    return result


# Powers of two, as strides are: a product with them is exact.
@pytest.mark.parametrize("scale", [1.0, 1 / 4, 1 / 16])
@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("kind", [integer_boxes, real_boxes])
def test_max_pooling_is_that_of_caffe(kind, size, scale):
    boxes = kind(40, 1) / scale / 4
    boxes[:2] = boxes[:2].floor() + torch.tensor([0.0, 0.0, 0.5, 0.5])  # less than a pixel
    boxes[2] = torch.tensor([0.0, 0.0, 0.25, 0.25])
    source = random_map(13, 9, scale)
    images = images_of(boxes)
    found = pool_regions([source], None, boxes, images, size, "max")
    expected = [
        pooled_as_caffe(source.values[image].numpy(), box, scale, size)
        for box, image in zip(boxes.tolist(), images.tolist(), strict=True)
    ]
    assert_close(found, torch.from_numpy(np.stack(expected)), rtol=0, atol=0)
    assert (found == 0).any() or size == 1  # some lie partly outside the map


def test_corners_of_max_pooling_are_rounded_and_the_last_pixel_belongs_to_a_region():
    values = torch.arange(25.0).reshape(1, 1, 5, 5)
    # pixels 8 … 39 are positions round(0.5) … round(2.44) = 1 … 2, and 40 is round(2.5) = 3
    boxes = torch.tensor([[8.0, 8, 40, 40], [8, 8, 41, 41], [7, 7, 40, 40]])
    source = FeatureMap(values, 1 / 16)
    found = pool_regions([source], None, boxes, torch.zeros(3).long(), 1, "max").flatten()
    assert found.tolist() == [12.0, 18.0, 12.0]
    corners = pool_regions([source], None, boxes, torch.zeros(3).long(), 2, "max")
    assert corners[0, 0].tolist() == [[6.0, 7.0], [11.0, 12.0]]
    # the parts of three positions overlap in the middle one: floor and ceil
    assert corners[1, 0].tolist() == [[12.0, 13.0], [17.0, 18.0]]
    assert corners[2, 0].tolist() == [[6.0, 7.0], [11.0, 12.0]]


@pytest.mark.parametrize("scale", [1.0, 1 / 4, 1 / 16])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_align_samples_the_map_at_exact_points(size, scale):
    boxes = (real_boxes(40, 2) / 8 - 1) / scale  # some reach beyond the map of 13×9
    source = random_map(13, 9, scale)
    images = images_of(boxes)
    found = pool_regions([source], None, boxes, images, size, "align")
    expected = [
        aligned(source.values[image].double().numpy(), box, scale, size)
        for box, image in zip(boxes.tolist(), images.tolist(), strict=True)
    ]
    # points within a rounding error of a position away from the map would be a jump: there are none
    assert_close(found.double(), torch.from_numpy(np.stack(expected)), rtol=1e-5, atol=1e-5)


def test_align_of_a_linear_map_is_its_value_at_the_center_of_each_part():
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    values = torch.stack((2 * rows - 3 * columns + 5, columns))[None]
    boxes = torch.tensor([[16.0, 24, 128, 80], [10.5, 7.25, 40, 150], [100, 100, 101, 103]])
    size, scale = 7, 1 / 8
    found = pool_regions(
        [FeatureMap(values, scale)], None, boxes, torch.zeros(3).long(), 7, "align"
    )
    for region, (left, top, right, bottom) in zip(found, boxes.tolist(), strict=True):
        centers = (torch.arange(float(size)) + 0.5) / size
        y = ((top + (bottom - top) * centers) * scale - 0.5)[:, None]
        x = (left + (right - left) * centers) * scale - 0.5
        expected = torch.stack((2 * y - 3 * x + 5, x.expand(size, size)))
        assert_close(region, expected, rtol=1e-5, atol=1e-4)  # of values up to 60


@pytest.mark.parametrize("pooling", ["max", "align"])
@pytest.mark.parametrize("count", [0, 1, 2, 257])
def test_regions_of_several_maps_are_pooled_one_by_one(count, pooling):
    # nobody takes a region from the last map
    maps = [random_map(80 // 2**n, 96 // 2**n, 0.5**n, count=3, seed=n) for n in range(4)]
    boxes, images = real_boxes(count, 3), images_of(real_boxes(count, 3), count=3)
    choice = torch.randint(0, 3, (count,), generator=torch.Generator().manual_seed(4))
    found = pool_regions(maps, choice, boxes, images, 3, pooling)
    assert found.shape == (count, 3, 3, 3)
    for row in range(count):
        one = slice(row, row + 1)
        source = maps[int(choice[row])]
        alone = FeatureMap(source.values[int(images[row])][None], source.scale)
        expected = pool_regions([alone], None, boxes[one], images[:1] * 0, 3, pooling)
        assert_close(found[one], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pooling", ["max", "align"])
def test_gradients_reach_the_maps_that_regions_are_taken_from(pooling):
    maps = [random_map(10, 10, 0.5**n, seed=n) for n in range(3)]
    for source in maps:
        source.values.requires_grad_(True)
    boxes = torch.tensor([[1.0, 1, 7, 7], [0, 0, 9, 9]])
    pool_regions(
        maps, torch.tensor([0, 2]), boxes, torch.tensor([0, 1]), 2, pooling
    ).sum().backward()
    reached = [
        [bool(gradient.any()) for gradient in source.values.grad]
        if source.values.grad is not None
        else [False, False]
        for source in maps
    ]
    assert reached == [[True, False], [False, False], [False, True]]


def squares(*sides):
    return torch.tensor([[10.0, 20, 10 + side, 20 + side] for side in sides])


def test_regions_of_the_canonical_size_are_taken_from_the_fourth_level():
    boxes = squares(56, 111.9, 112, 223.9, 224, 447.9, 448, 895)
    # levels 2, 2, 3, 3, 4, 4, 5, 5 of 2 … 6
    assert pyramid_level(boxes, 2, 6).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert pyramid_level(boxes, 2, 5).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert pyramid_level(boxes, 3, 4).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert pyramid_level(boxes, 2, 2).tolist() == [0] * 8


def test_regions_beyond_the_pyramid_are_taken_from_its_ends():
    boxes = squares(0, 1e-3, 1, 30, 896, 5000)
    levels = pyramid_level(boxes, 2, 5)
    assert levels.tolist() == [0, 0, 0, 0, 3, 3]
    assert levels.dtype == torch.int64
    assert pyramid_level(boxes, 2, 6).tolist() == [0, 0, 0, 0, 4, 4]
    assert pyramid_level(boxes[:0], 2, 5).tolist() == []


def test_the_level_follows_the_area_alone():
    boxes = torch.tensor([[0.0, 0, 112, 448], [0, 0, 448, 112], [5, 5, 5 + 56, 5 + 224]])
    assert pyramid_level(boxes, 2, 5).tolist() == [2, 2, 1]
    boxes = real_boxes(1000, 5) * 8
    expected = [
        min(max(math.floor(4 + math.log2(math.sqrt((x2 - x1) * (y2 - y1)) / 224)), 2), 5) - 2
        for x1, y1, x2, y2 in boxes.tolist()
    ]
    assert pyramid_level(boxes, 2, 5).tolist() == expected
    assert set(expected) == {0, 1, 2}


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 2.0), (1.5, 0.25, 2.0, 0.75, 1.0)])
@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_the_nearest_scale_is_found_by_trying_all(count, scales):
    boxes = integer_boxes(count, 6, extent=1200)  # exact areas; with these scales there is no tie
    expected = [
        min(
            range(len(scales)),
            key=lambda number: abs((x2 - x1) * (y2 - y1) * scales[number] ** 2 - 224**2),
        )
        for x1, y1, x2, y2 in boxes.tolist()
    ]
    found = nearest_scale(boxes, scales)
    assert found.tolist() == expected
    assert found.dtype == torch.int64
    assert count < 1000 or set(expected) == set(range(len(scales)))


def test_the_nearest_scale_compares_areas_not_sides():
    # at scale 1 the side is 176, 48 too short; at scale 1.5 it is 264, 40 too long; but the areas
    # are 50176 − 30976 = 19200 and 69696 − 50176 = 19520 off
    assert nearest_scale(squares(176), (1.0, 1.5)).tolist() == [0]
    assert nearest_scale(squares(170, 180), (1.0, 1.5)).tolist() == [1, 0]
