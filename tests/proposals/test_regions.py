import colorsys

import numpy as np
import pytest

from detect.proposals import regions
from detect.proposals.regions import (
    NUM_COLOR_BINS,
    NUM_TEXTURE_BINS,
    color_bins,
    count_bins,
    measure_regions,
    segment,
    texture_bins,
    to_color_space,
)
from tests.proposals.image_sources import blobs
from tests.reference.proposals import box_around, touch

SPACES = {"rgb": 3, "intensity": 1, "lab": 3, "rgi": 3, "hsv": 3, "nrgb": 3, "hue": 1}


@pytest.mark.parametrize(("space", "num_channels"), SPACES.items())
def test_every_channel_lies_between_0_and_1(space, num_channels):
    levels = np.array(np.meshgrid(*[[0, 1, 64, 128, 254, 255]] * 3), np.uint8).reshape(3, 1, -1)
    channels = to_color_space(np.moveaxis(levels, 0, 2).copy(), space)
    assert channels.dtype == np.float32
    assert channels.shape[2] == num_channels
    assert channels.min() >= -1e-6
    assert channels.max() <= 1 + 1e-6


def test_colors_are_those_of_the_textbook():
    image = np.array([[[200, 100, 40], [0, 0, 0]]], np.uint8)
    hsv = colorsys.rgb_to_hsv(200 / 255, 100 / 255, 40 / 255)
    np.testing.assert_allclose(to_color_space(image, "hsv")[0, 0], hsv, atol=1e-5)
    np.testing.assert_allclose(to_color_space(image, "hue")[0, 0], hsv[:1], atol=1e-5)
    shares = np.array([200, 100, 40]) / 340
    np.testing.assert_allclose(to_color_space(image, "nrgb")[0, 0], shares, atol=1e-6)
    np.testing.assert_allclose(to_color_space(image, "nrgb")[0, 1], 1 / 3, atol=1e-6)
    gray = (0.299 * 200 + 0.587 * 100 + 0.114 * 40) / 255  # ITU-R BT.601
    np.testing.assert_allclose(to_color_space(image, "rgi")[0, 0], [*shares[:2], gray], atol=1e-4)
    # neutral gray: no a, no b
    lab = to_color_space(np.full((1, 1, 3), 255, np.uint8), "lab")[0, 0]
    np.testing.assert_allclose(lab, [1, 128 / 255, 128 / 255], atol=1e-3)


def test_colors_fall_into_25_bins():
    channels = np.array([[[0.0], [0.0399], [0.0401], [0.999], [1.0]]], np.float32)
    assert color_bins(channels).ravel().tolist() == [0, 0, 1, 24, 24]


def test_a_ramp_has_the_texture_of_its_direction():
    ramp = np.linspace(0, 1, 11, dtype=np.float32)  # 0.1 a pixel: 0.1 / 0.43 * 9 = 2.1
    across = np.tile(ramp[None, :, None], (11, 1, 1))
    x, diagonal, y, other_diagonal = texture_bins(across)[5, 5]
    # along a diagonal 0.1 * sqrt(0.5), which is 1.48
    assert (x, diagonal, y, other_diagonal) == (2, 1, 0, -1)
    assert texture_bins(across[:, ::-1])[5, 5].tolist() == [-2, -1, 0, 1]
    assert texture_bins(across.transpose(1, 0, 2))[5, 5].tolist() == [0, 1, 2, 1]


def test_a_step_from_0_to_1_nearly_fills_the_bins():
    step = np.zeros((9, 10, 1), np.float32)
    step[:, 5:] = 1
    assert texture_bins(step)[4, 4, 0] in (NUM_TEXTURE_BINS - 2, NUM_TEXTURE_BINS - 1)


@pytest.mark.parametrize("compiled", [True, False])
def test_regions_are_measured_from_their_pixels(monkeypatch, compiled):
    if not compiled:
        monkeypatch.setattr(regions, "compiled_kernels", lambda: None)
    else:
        pytest.importorskip("numba")
    channels = to_color_space(blobs((24, 31)), "lab")
    ((labels, num_regions),) = segment(channels, [10])
    assert num_regions > 5
    colors, textures = color_bins(channels), texture_bins(channels)
    found = measure_regions(labels, num_regions, colors, textures)
    masks = [list(zip(*np.nonzero(labels == n), strict=True)) for n in range(num_regions)]
    for region, pixels in enumerate(masks):
        assert found.sizes[region] == len(pixels)
        assert tuple(found.boxes[region]) == box_around(pixels)
        for number in range(3):
            counts = np.bincount(colors[labels == region, number], minlength=NUM_COLOR_BINS)
            start = number * NUM_COLOR_BINS
            assert np.array_equal(found.colors[region, start : start + NUM_COLOR_BINS], counts)
        histograms = found.textures[region].reshape(-1, 2, NUM_TEXTURE_BINS)
        assert len(histograms) == 12
        for number, (forward, backward) in enumerate(histograms):
            signed = textures[labels == region, number].astype(int)
            for counts, values in ((forward, signed), (backward, -signed)):
                expected = np.bincount(np.maximum(values, 0), minlength=NUM_TEXTURE_BINS)
                assert np.array_equal(counts, expected)
    pairs = {(a, b) for a in range(num_regions) for b in range(a) if touch(masks[a], masks[b])}
    assert {(b, a) for a, b in found.neighbors.tolist()} == pairs
    assert found.neighbors.tolist() == sorted(found.neighbors.tolist())


def flat_areas():
    """Many edges of equal cost, whose order decides."""
    image = blobs((40, 70))
    image[5:20, 10:50] = (90, 20, 200)
    image[25:, :30] = 0
    return image // 32 * 32


@pytest.mark.parametrize("image", [blobs((60, 90)), flat_areas(), np.zeros((20, 30, 3), np.uint8)])
@pytest.mark.parametrize("space", ["lab", "hue", "intensity"])
def test_compiled_segments_are_those_of_scikit_image(monkeypatch, image, space):
    pytest.importorskip("numba")
    channels = to_color_space(image, space)
    scales = [1, 10, 50, 100.5]
    compiled = segment(channels, scales)
    monkeypatch.setattr(regions, "compiled_kernels", lambda: None)
    for (labels, num_labels), (expected, num_expected) in zip(
        compiled, segment(channels, scales), strict=True
    ):
        assert num_labels == num_expected
        assert np.array_equal(labels, expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (2, 50)])
def test_compiled_segments_of_tiny_images(monkeypatch, size):
    pytest.importorskip("numba")
    channels = np.random.default_rng(0).random((*size, 3), np.float32)
    (compiled, num_labels), *_ = segment(channels, [2])
    monkeypatch.setattr(regions, "compiled_kernels", lambda: None)
    ((expected, _),) = segment(channels, [2])
    assert np.array_equal(compiled, expected)
    assert num_labels == expected.max() + 1


def test_counting_without_numba_is_the_same(monkeypatch):
    pytest.importorskip("numba")
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 7, (20, 30))
    bins = generator.integers(0, 19, (20, 30, 5), dtype=np.uint8)
    compiled = count_bins(labels, bins, 7, 19)
    monkeypatch.setattr(regions, "compiled_kernels", lambda: None)
    plain = count_bins(labels, bins, 7, 19)
    assert plain.dtype == compiled.dtype == np.int32
    assert np.array_equal(plain, compiled)
    assert plain.sum() == bins.size
