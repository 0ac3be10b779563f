"""Hierarchical grouping: the two most similar neighbors become one region, until one is left.

Uijlings et al. 2013, "Selective search for object recognition", algorithm 1 and section 3.2.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Int32

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
    if kernels is None:
        _group_plainly(hierarchy, regions, similarity)
        return hierarchy
    kernels.group(
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


def _group_plainly(hierarchy: Hierarchy, regions: Regions, similarity: Similarity) -> None:
    """Fill the hierarchy with numpy alone: the same numbers as `kernels.group`."""
    merges, boxes, sizes = hierarchy.merges, hierarchy.boxes, hierarchy.sizes
    colors, textures = hierarchy.colors, hierarchy.textures
    lower, upper = regions.neighbors[:, 0].copy(), regions.neighbors[:, 1].copy()
    area = int(regions.sizes.sum())
    similarities = np.zeros(len(lower))
    pending = np.arange(len(lower))
    for step in range(len(merges)):
        similarities[pending] = _similarities(
            hierarchy, lower[pending], upper[pending], area, regions.num_channels, similarity
        )
        best = int(similarities.argmax())
        parts, new = merges[step], len(regions) + step
        parts[:] = lower[best], upper[best]
        sizes[new] = sizes[parts].sum()
        boxes[new, :2], boxes[new, 2:] = boxes[parts, :2].min(axis=0), boxes[parts, 2:].max(axis=0)
        colors[new], textures[new] = colors[parts].sum(axis=0), textures[parts].sum(axis=0)
        pending = _redirect(lower, upper, similarities, parts, new)


def _similarities(
    regions: Regions | Hierarchy,
    one: Int[np.ndarray, "P"],
    other: Int[np.ndarray, "P"],
    area: int,
    num_channels: int,
    similarity: Similarity,
) -> Float64[np.ndarray, "P"]:
    """The similarity of each pair of regions."""
    size, other_size = regions.sizes[one], regions.sizes[other]
    total = np.zeros(len(one))
    for is_used, counts, num_histograms in (
        (similarity.color, regions.colors, num_channels),
        (similarity.texture, regions.textures, num_channels * 2 * NUM_AXES),
    ):
        if is_used:
            # n / size and m / other_size, brought to the same denominator: integers
            shared = np.minimum(counts[one] * other_size[:, None], counts[other] * size[:, None])
            total += shared.sum(axis=1) / (size * other_size * num_histograms)
    if similarity.size:
        total += 1 - (size + other_size) / area
    if similarity.fill:
        start = np.minimum(regions.boxes[one, :2], regions.boxes[other, :2])
        end = np.maximum(regions.boxes[one, 2:], regions.boxes[other, 2:])
        total += 1 - ((end - start).prod(axis=1) - size - other_size) / area
    return total


def _redirect(
    lower: Int[np.ndarray, "E"],
    upper: Int[np.ndarray, "E"],
    similarities: Float64[np.ndarray, "E"],
    parts: Int[np.ndarray, "2"],
    new: int,
) -> Int[np.ndarray, "P"]:
    """Let the pairs of either part be pairs of the new region; return those that remain.

    A pair that is gone has similarity −1 and stands for the region −1.
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
