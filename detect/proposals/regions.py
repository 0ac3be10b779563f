"""The starting regions of selective search: colors, segments, and the features of each segment.

Uijlings et al. 2013, "Selective search for object recognition", sections 3.1 and 3.2. An image is
converted into a color space and segmented (Felzenszwalb and Huttenlocher 2004, scikit-image's). The
size, box and histograms of color and texture of each segment are measured once; merged regions
never look at pixels again.

Histograms are integer counts, so the paper's size-weighted average of two is an exact sum: compiled
and plain grouping cannot differ by rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int, Int8, Int32, UInt8
from scipy.ndimage import find_objects  # type: ignore[attr-defined]
from skimage.filters import gaussian
from skimage.segmentation import felzenszwalb

from detect.proposals.compiled import compiled_kernels

ColorSpace = Literal["rgb", "intensity", "lab", "rgi", "hsv", "nrgb", "hue"]

NUM_COLOR_BINS = 25  # a channel; section 3.2
NUM_TEXTURE_BINS = 10  # a channel and orientation; section 3.2
NUM_AXES = 4  # of two opposite orientations each: 8 orientations, section 3.2
SMOOTHING = 0.8  # sigma in pixels before the segmentation; section 5
TEXTURE_SIGMA = 1.0  # of the Gaussian derivative in pixels; section 3.2
# The derivative of the last bin, from the authors' release: a step from 0 to 1 gives
# 1 / sqrt(2 pi) = 0.40 across and a little more along a diagonal.
GREATEST_DERIVATIVE = 0.43


@dataclass(frozen=True, slots=True)
class Regions:
    """The segments of an image, as arrays.

    Attributes:
        sizes: `[R]` pixels.
        boxes: `[R, 4]` xyxy pixels, half-open.
        colors: `[R, bins]` counts, `NUM_COLOR_BINS` for each channel after one another.
        textures: `[R, bins]` counts, `NUM_TEXTURE_BINS` for each orientation of each channel.
        neighbors: `[E, 2]` pairs of touching regions, corners included, the lower index first,
            sorted.
        num_channels: of the color space.
    """

    sizes: Int[np.ndarray, "R"]
    boxes: Int[np.ndarray, "R 4"]
    colors: Int32[np.ndarray, "R color_bins"]
    textures: Int32[np.ndarray, "R texture_bins"]
    neighbors: Int[np.ndarray, "E 2"]
    num_channels: int

    def __len__(self) -> int:
        return len(self.sizes)


def to_color_space(
    image: UInt8[np.ndarray, "H W 3"], space: ColorSpace
) -> Float32[np.ndarray, "H W C"]:
    """Convert an image; every channel is scaled to 0…1.

    `nrgb` is normalized RGB, 1/3 each for black; `rgi` its r and g with the intensity; `hue` the H
    of `hsv`. The paper's invariant C is missing: none of its modes uses it.
    """
    unit = image.astype(np.float32) / 255
    if space == "rgb":
        return unit
    if space == "lab":  # L 0…100, a and b −127…127
        lab = np.asarray(cv2.cvtColor(unit, cv2.COLOR_RGB2LAB), np.float32)
        lab += np.array((0, 128, 128), np.float32)
        return lab / np.array((100, 255, 255), np.float32)
    if space in ("hsv", "hue"):  # H 0…360
        hsv = np.asarray(cv2.cvtColor(unit, cv2.COLOR_RGB2HSV), np.float32)
        hsv /= np.array((360, 1, 1), np.float32)
        return hsv if space == "hsv" else hsv[..., :1]
    intensity = np.asarray(cv2.cvtColor(unit, cv2.COLOR_RGB2GRAY))[..., None]  # [H, W, 1]
    if space == "intensity":
        return intensity
    total = unit.sum(axis=2, keepdims=True)
    black = total == 0
    normalized: np.ndarray = np.where(black, np.float32(1 / 3), unit / np.where(black, 1, total))
    if space == "nrgb":
        return normalized
    return np.concatenate((normalized[..., :2], intensity), axis=2)


def segment(
    channels: Float32[np.ndarray, "H W C"], scales: Sequence[float]
) -> list[tuple[Int[np.ndarray, "H W"], int]]:
    """Cut an image into segments at each scale: a label for each pixel, and the number of labels.

    A scale is the k of Felzenszwalb and Huttenlocher on pixels of 0…255; segments of fewer pixels
    than that are joined to a neighbor, as in the authors' release. Where loops are compiled, ours
    gives the same labels as scikit-image's, but smooths and sorts, most of the work, only once.
    """
    image = channels.astype(np.float64)
    kernels = compiled_kernels()
    if kernels is None:
        every = [
            felzenszwalb(image, scale=k, sigma=SMOOTHING, min_size=int(k), channel_axis=-1)
            for k in scales
        ]
        return [(labels, int(labels.max()) + 1) for labels in every]
    smooth = gaussian(image, SMOOTHING, mode="reflect", channel_axis=-1)  # type: ignore[no-untyped-call]
    edges = _sorted_edges(smooth)
    num_pixels = image.shape[0] * image.shape[1]
    joined = [kernels.join_segments(*edges, num_pixels, k / 255, int(k)) for k in scales]
    return [(labels.reshape(image.shape[:2]), num_labels) for labels, num_labels in joined]


def _sorted_edges(
    image: Float64[np.ndarray, "H W C"],
) -> tuple[Float64[np.ndarray, "E"], Int32[np.ndarray, "E"], Int32[np.ndarray, "E"]]:
    """The rising color distances between neighboring pixels, and the two pixels.

    The order of equal distances, which decides the segments of flat areas, is scikit-image's.
    """
    pixels = np.arange(image.shape[0] * image.shape[1], dtype=np.int32).reshape(image.shape[:2])
    every, start, end = slice(None), slice(None, -1), slice(1, None)
    pairs = (
        ((every, end), (every, start)),  # to the left
        ((end, every), (start, every)),  # above
        ((end, end), (start, start)),  # above to the left
        ((end, start), (start, end)),  # above to the right
    )
    costs = [
        np.sqrt(((image[one] - image[other]) ** 2).sum(axis=-1)).ravel() for one, other in pairs
    ]
    order = np.argsort(np.hstack(costs))
    ones = np.hstack([pixels[one].ravel() for one, _ in pairs])
    others = np.hstack([pixels[other].ravel() for _, other in pairs])
    return np.hstack(costs)[order], ones[order], others[order]


def color_bins(channels: Float32[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "H W C"]:
    """The bin of the color histogram that each pixel falls into, channel by channel."""
    return np.asarray(np.clip(channels * NUM_COLOR_BINS, 0, NUM_COLOR_BINS - 1), np.uint8)


def texture_bins(channels: Float32[np.ndarray, "H W C"]) -> Int8[np.ndarray, "H W C*4"]:
    """The bins of the texture histograms, two opposite orientations in one signed number.

    Bin b > 0 stands for bin b of the orientation and bin 0 of its opposite, b < 0 for the reverse.
    """
    smooth, derivative = _gaussian_kernels()
    along_x = _filtered(channels, derivative, smooth)  # [H, W, C]
    along_y = _filtered(channels, smooth, derivative)
    diagonal = np.float32(np.sqrt(0.5))
    axes = (along_x, (along_x + along_y) * diagonal, along_y, (along_y - along_x) * diagonal)
    top = NUM_TEXTURE_BINS - 1
    steps = np.concatenate(axes, axis=2) * np.float32(top / GREATEST_DERIVATIVE)
    return np.asarray(np.clip(np.rint(steps), -top, top), np.int8)


def measure_regions(
    labels: Int[np.ndarray, "H W"],
    num_regions: int,
    colors: UInt8[np.ndarray, "H W C"],
    textures: Int8[np.ndarray, "H W A"],
) -> Regions:
    """Measure all segments.

    Args:
        labels: 0 … `num_regions` − 1, each on at least one pixel.
        num_regions: R.
        colors: of `color_bins`.
        textures: of `texture_bins`.
    """
    color_counts = count_bins(labels, colors, num_regions, NUM_COLOR_BINS)
    top = NUM_TEXTURE_BINS - 1
    signed = (textures + top).view(np.uint8)  # 0 … 2 top
    texture_counts = _split_orientations(count_bins(labels, signed, num_regions, 2 * top + 1))
    return Regions(
        sizes=np.bincount(labels.ravel(), minlength=num_regions),
        boxes=_boxes(labels),
        colors=color_counts.reshape(num_regions, -1),
        textures=texture_counts.reshape(num_regions, -1),
        neighbors=_neighbors(labels, num_regions),
        num_channels=colors.shape[2],
    )


def count_bins(
    labels: Int[np.ndarray, "H W"],
    bins: UInt8[np.ndarray, "H W M"],
    num_regions: int,
    num_bins: int,
) -> Int32[np.ndarray, "R M bins"]:
    """For each region and each of M maps, how many pixels fall into each bin."""
    kernels = compiled_kernels()
    if kernels is not None:
        counted: np.ndarray = kernels.count_bins(
            labels.ravel(), bins.reshape(-1, bins.shape[2]), num_regions, num_bins
        )
        return counted
    counts = np.empty((num_regions, bins.shape[2], num_bins), np.int32)
    for number in range(bins.shape[2]):
        cells = (labels * num_bins + bins[..., number]).ravel()
        flat = np.bincount(cells, minlength=num_regions * num_bins)
        counts[:, number] = flat.reshape(num_regions, num_bins)
    return counts


def _split_orientations(counts: Int32[np.ndarray, "R A signed"]) -> Int32[np.ndarray, "R A 2 bins"]:
    """Histograms of signed bins → of the orientation and of its opposite."""
    top = NUM_TEXTURE_BINS - 1
    forward = counts[..., top:].copy()
    backward = counts[..., top::-1].copy()
    forward[..., 0] += counts[..., :top].sum(axis=2, dtype=np.int32)
    backward[..., 0] += counts[..., top + 1 :].sum(axis=2, dtype=np.int32)
    return np.stack((forward, backward), axis=2)


def _boxes(labels: Int[np.ndarray, "H W"]) -> Int[np.ndarray, "R 4"]:
    """The least box around the pixels of each label."""
    places = find_objects(labels + 1)  # it takes 0 for background
    return np.array([(x.start, y.start, x.stop, y.stop) for y, x in places], np.int64)


def _neighbors(labels: Int[np.ndarray, "H W"], num_regions: int) -> Int[np.ndarray, "E 2"]:
    """Pairs of labels on pixels that touch, corners included, as the segmentation has it."""
    keys = []
    for one, other in (
        (labels[:, :-1], labels[:, 1:]),
        (labels[:-1], labels[1:]),
        (labels[:-1, :-1], labels[1:, 1:]),
        (labels[1:, :-1], labels[:-1, 1:]),
    ):
        different = one != other
        lower = np.minimum(one[different], other[different])
        keys.append(lower * num_regions + np.maximum(one[different], other[different]))
    pairs = np.unique(np.concatenate(keys))
    return np.stack((pairs // num_regions, pairs % num_regions), axis=1)


def _gaussian_kernels() -> tuple[Float32[np.ndarray, "K"], Float32[np.ndarray, "K"]]:
    """A Gaussian and its derivative, to 4 sigma on either side, as scipy cuts them off."""
    radius = int(4 * TEXTURE_SIGMA + 0.5)
    places = np.arange(-radius, radius + 1, dtype=np.float64)
    gaussian = np.exp(-0.5 * (places / TEXTURE_SIGMA) ** 2)
    gaussian /= gaussian.sum()
    return gaussian.astype(np.float32), (places / TEXTURE_SIGMA**2 * gaussian).astype(np.float32)


def _filtered(
    channels: Float32[np.ndarray, "H W C"],
    kernel_x: Float32[np.ndarray, "K"],
    kernel_y: Float32[np.ndarray, "K"],
) -> Float32[np.ndarray, "H W C"]:
    """A separable correlation; the border is continued by its own pixels."""
    filtered = cv2.sepFilter2D(
        np.ascontiguousarray(channels), -1, kernel_x, kernel_y, borderType=cv2.BORDER_REPLICATE
    )
    return filtered.reshape(channels.shape)
