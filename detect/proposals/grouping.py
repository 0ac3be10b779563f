"""Hierarchical grouping: the two most similar neighbors become one region, until one is left.

Uijlings et al. 2013, "Selective search for object recognition", algorithm 1 and section 3.2.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32

from detect.proposals.compiled import compiled_kernels
from detect.proposals.regions import NUM_AXES, Regions


class Similarity(NamedTuple):
    """Which of the paper's measures are summed up (equation 6); each is in 0…1.

    Attributes:
        color: intersection of the color histograms (equation 1).
        texture: intersection of the texture histograms (equation 3).
        size: 1 less for pairs that fill the image (equation 4): small ones merge early.
        fill: 1 less for pairs that leave gaps in their common box (equation 5).
    """

    color: bool = False
    texture: bool = False
    size: bool = False
    fill: bool = False


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The R regions of a segmentation and the R − 1 that grew out of them, in that order.

    Attributes:
        merges: `[R − 1, 2]` the two regions that became region R + row.
        boxes: `[2R − 1, 4]` xyxy pixels, half-open.
        sizes: `[2R − 1]` pixels.
        colors: `[2R − 1, bins]` counts.
        textures: `[2R − 1, bins]` counts.
    """

    merges: Int[np.ndarray, "M 2"]
    boxes: Int[np.ndarray, "N 4"]
    sizes: Int[np.ndarray, "N"]
    colors: Int32[np.ndarray, "N color_bins"]
    textures: Int32[np.ndarray, "N texture_bins"]


def group_regions(regions: Regions, similarity: Similarity) -> Hierarchy:
    """Merge the most similar neighbors again and again; ties go to the pair that stands first.

    The pair of a merged region and its neighbor takes the place of the first pair that either part
    had with that neighbor.
    """
    num_merges = len(regions) - 1
    hierarchy = Hierarchy(
        merges=np.zeros((num_merges, 2), np.int64),
        boxes=_with_room(regions.boxes, num_merges),
        sizes=_with_room(regions.sizes, num_merges),
        colors=_with_room(regions.colors, num_merges),
        textures=_with_room(regions.textures, num_merges),
    )
    kernels = compiled_kernels()
    (kernels.group if kernels is not None else group_plainly)(
        hierarchy.sizes,
        hierarchy.boxes,
        hierarchy.colors,
        hierarchy.textures,
        regions.neighbors[:, 0].copy(),
        regions.neighbors[:, 1].copy(),
        hierarchy.merges,
        int(regions.sizes.sum()),
        regions.num_channels,
        regions.num_channels * 2 * NUM_AXES,
        np.array(similarity),
    )
    return hierarchy


def group_plainly(
    sizes: Int[np.ndarray, "N"],
    boxes: Int[np.ndarray, "N 4"],
    colors: Int32[np.ndarray, "N color_bins"],
    textures: Int32[np.ndarray, "N texture_bins"],
    lower: Int[np.ndarray, "E"],
    upper: Int[np.ndarray, "E"],
    merges: Int[np.ndarray, "M 2"],
    area: int,
    num_colors: int,
    num_textures: int,
    flags: Bool[np.ndarray, "4"],
) -> None:
    """The grouping with numpy alone, in place: the same numbers as `kernels.group`.

    Args:
        sizes: its first R rows are the segments, the others are filled; so with the next three.
        boxes: of the regions.
        colors: histograms of the regions.
        textures: histograms of the regions.
        lower: one of each pair of neighbors; overwritten.
        upper: the other one; overwritten.
        merges: filled with the two parts of each new region.
        area: pixels of the image.
        num_colors: color histograms of a region, each of which counts every pixel once.
        num_textures: texture histograms of a region.
        flags: color, texture, size, fill.
    """
    num_regions = len(merges) + 1
    similarities = np.zeros(len(lower))
    pending = np.arange(len(lower))
    for step in range(len(merges)):
        one, other = lower[pending], upper[pending]
        similarities[pending] = _similarities(
            sizes, boxes, colors, textures, one, other, area, num_colors, num_textures, flags
        )
        best = int(similarities.argmax())
        parts, new = merges[step], num_regions + step
        parts[:] = lower[best], upper[best]
        sizes[new] = sizes[parts].sum()
        boxes[new, :2], boxes[new, 2:] = boxes[parts, :2].min(axis=0), boxes[parts, 2:].max(axis=0)
        colors[new], textures[new] = colors[parts].sum(axis=0), textures[parts].sum(axis=0)
        pending = _redirect(lower, upper, similarities, parts, new)


def _similarities(
    sizes: Int[np.ndarray, "N"],
    boxes: Int[np.ndarray, "N 4"],
    colors: Int32[np.ndarray, "N color_bins"],
    textures: Int32[np.ndarray, "N texture_bins"],
    one: Int[np.ndarray, "P"],
    other: Int[np.ndarray, "P"],
    area: int,
    num_colors: int,
    num_textures: int,
    flags: Bool[np.ndarray, "4"],
) -> Float64[np.ndarray, "P"]:
    """The similarity of each pair of regions."""
    size, other_size = sizes[one], sizes[other]
    total = np.zeros(len(one))
    for wanted, counts, num_histograms in (
        (flags[0], colors, num_colors),
        (flags[1], textures, num_textures),
    ):
        if wanted:
            # n / size and m / other_size, brought to the same denominator: integers
            shared = np.minimum(
                counts[one] * other_size[:, None], counts[other] * size[:, None]
            ).sum(axis=1)
            total += shared / (size * other_size * num_histograms)
    if flags[2]:
        total += 1 - (size + other_size) / area
    if flags[3]:
        start = np.minimum(boxes[one, :2], boxes[other, :2])
        end = np.maximum(boxes[one, 2:], boxes[other, 2:])
        total += 1 - ((end - start).prod(axis=1) - size - other_size) / area
    return total


def _redirect(
    lower: Int[np.ndarray, "E"],
    upper: Int[np.ndarray, "E"],
    similarities: Float64[np.ndarray, "E"],
    parts: Int[np.ndarray, "2"],
    new: int,
) -> Int[np.ndarray, "P"]:
    """Let the pairs of either part be pairs of the new region; returns those that are left.

    A pair that is no more has a similarity of −1 and stands for the region −1.
    """
    is_lower = (lower == parts[0]) | (lower == parts[1])
    is_upper = (upper == parts[0]) | (upper == parts[1])
    touched = np.flatnonzero(is_lower | is_upper)
    neighbors = np.where(is_lower[touched], upper[touched], lower[touched])
    outside = ~(is_lower & is_upper)[touched]
    _, first = np.unique(neighbors[outside], return_index=True)
    kept = touched[outside][first]
    kept_neighbors = neighbors[outside][first]
    lower[touched] = upper[touched] = -1
    similarities[touched] = -1
    lower[kept], upper[kept] = kept_neighbors, new
    return np.asarray(kept)


def _with_room(rows: np.ndarray, num_more: int) -> np.ndarray:
    return np.concatenate((rows, np.zeros((num_more, *rows.shape[1:]), rows.dtype)))
