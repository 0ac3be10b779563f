"""Inner loops of selective search, written for numba to compile.

They do what scikit-image's felzenszwalb does, and `regions.count_bins` and
`grouping` with numpy, to the same bits: counts are integers, and the few
floating-point operations stand in the same order. Types are numba's to infer, and a function that
numba compiles can't call one that it does not.
"""

# ruff: noqa: ANN001, ANN201
# mypy: disable-error-code="no-untyped-def"

import numpy as np


def count_bins(labels, bins, num_regions, num_bins):
    """`[P]` labels and `[P, M]` bins → `[R, M, num_bins]` counts."""
    counts = np.zeros((num_regions, bins.shape[1], num_bins), np.int32)
    for pixel in range(labels.shape[0]):
        region = labels[pixel]
        for number in range(bins.shape[1]):
            counts[region, number, bins[pixel, number]] += 1
    return counts


def join_segments(costs, ones, others, num_pixels, scale, min_size):
    """`[P]` labels of the segments and their number, from edges by rising cost.

    Felzenszwalb and Huttenlocher 2004, algorithm 1, then the joining of small segments. A segment
    is known by its first pixel, and numbered in the order of these, as scikit-image does.
    """
    parents = np.arange(num_pixels).astype(np.int32)
    sizes = np.ones(num_pixels, np.int64)
    inner_costs = np.zeros(num_pixels)
    for joins_small in (False, True):
        for edge in range(costs.shape[0]):
            one, other = ones[edge], others[edge]
            while parents[one] != one:
                parents[one] = parents[parents[one]]
                one = parents[one]
            while parents[other] != other:
                parents[other] = parents[parents[other]]
                other = parents[other]
            if one == other:
                continue
            if joins_small:
                joined = sizes[one] < min_size or sizes[other] < min_size
            else:
                joined = costs[edge] < min(
                    inner_costs[one] + scale / sizes[one], inner_costs[other] + scale / sizes[other]
                )
            if joined:
                first, second = min(one, other), max(one, other)
                parents[second] = first
                sizes[first] += sizes[second]
                inner_costs[first] = costs[edge]
    labels = np.empty(num_pixels, np.int64)
    num_segments = 0
    for pixel in range(num_pixels):  # a parent stands before its children
        if parents[pixel] == pixel:
            labels[pixel] = num_segments
            num_segments += 1
        else:
            labels[pixel] = labels[parents[pixel]]
    return labels, num_segments


def group(
    sizes, boxes, colors, textures, lower, upper, merges, area, num_colors, num_textures, flags
):
    """Fill `merges`, and the rows of the first four from R on: they begin with the R segments.

    Args:
        sizes: `[N]` pixels, N = 2R − 1.
        boxes: `[N, 4]`.
        colors: `[N, color_bins]` counts.
        textures: `[N, texture_bins]` counts.
        lower: `[E]`, one of each pair of neighbors; overwritten.
        upper: `[E]`, the other one; overwritten.
        merges: `[R − 1, 2]`, the two parts of each new region.
        area: pixels of the image.
        num_colors: color histograms of a region, each of which counts every pixel once.
        num_textures: texture histograms of a region.
        flags: color, texture, size, fill: what the similarity sums.
    """
    num_regions = merges.shape[0] + 1
    similarities = np.zeros(lower.shape[0])
    pending = np.arange(lower.shape[0])  # the pairs whose similarity is to be computed
    num_pending = lower.shape[0]
    met_in_step = np.full(sizes.shape[0], -1)
    for step in range(merges.shape[0]):
        for place in range(num_pending):
            pair = pending[place]
            one, other = lower[pair], upper[pair]
            size, other_size = sizes[one], sizes[other]
            similarity = 0.0
            if flags[0]:
                shared = np.int64(0)
                for number in range(colors.shape[1]):
                    shared += min(colors[one, number] * other_size, colors[other, number] * size)
                similarity += shared / (size * other_size * num_colors)
            if flags[1]:
                shared = np.int64(0)
                for number in range(textures.shape[1]):
                    shared += min(
                        textures[one, number] * other_size, textures[other, number] * size
                    )
                similarity += shared / (size * other_size * num_textures)
            if flags[2]:
                similarity += 1 - (size + other_size) / area
            if flags[3]:
                width = max(boxes[one, 2], boxes[other, 2]) - min(boxes[one, 0], boxes[other, 0])
                height = max(boxes[one, 3], boxes[other, 3]) - min(boxes[one, 1], boxes[other, 1])
                similarity += 1 - (width * height - size - other_size) / area
            similarities[pair] = similarity
        best = 0
        for pair in range(similarities.shape[0]):
            if similarities[pair] > similarities[best]:
                best = pair
        one, other, new = lower[best], upper[best], num_regions + step
        merges[step, 0], merges[step, 1] = one, other
        sizes[new] = sizes[one] + sizes[other]
        for side in range(2):
            boxes[new, side] = min(boxes[one, side], boxes[other, side])
            boxes[new, side + 2] = max(boxes[one, side + 2], boxes[other, side + 2])
        for number in range(colors.shape[1]):
            colors[new, number] = colors[one, number] + colors[other, number]
        for number in range(textures.shape[1]):
            textures[new, number] = textures[one, number] + textures[other, number]
        num_pending = 0
        for pair in range(similarities.shape[0]):
            if similarities[pair] < 0:
                continue
            is_lower = lower[pair] == one or lower[pair] == other
            is_upper = upper[pair] == one or upper[pair] == other
            if not is_lower and not is_upper:
                continue
            neighbor = upper[pair] if is_lower else lower[pair]
            if (is_lower and is_upper) or met_in_step[neighbor] == step:
                similarities[pair] = -1.0
                continue
            met_in_step[neighbor] = step
            lower[pair], upper[pair] = neighbor, new
            pending[num_pending] = pair
            num_pending += 1
