"""Reference boxes of the region proposal network (Ren et al. 2015, section 3.1.1)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from detect.ops import from_center_size

# The release (generate_anchors.py) rounds the sides of a 16-pixel square of each ratio to whole
# pixels and enlarges the result: at a ratio of 1/2, 23×12.
BASE_SIZE = 16


def base_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Float[Tensor, "A 4"]:
    """Anchors around (0, 0), ratio by ratio, as the release has them.

    Their sides are the release's: those of `BASE_SIZE` rounded to whole pixels, so that areas of a
    ratio other than 1 differ by up to 8 % from `size²`. Its boxes are inclusive, ours half-open:
    `(-84, -40, 99, 55)` there is `(-84, -40, 100, 56)` here, of the same 184×96 pixels.

    Args:
        sizes: square roots of the areas, in pixels.
        ratios: height by width.
    """
    boxes = []
    for ratio in ratios:
        width = round((BASE_SIZE**2 / ratio) ** 0.5)
        height = round(width * ratio)
        boxes += [(0.0, 0.0, width * s / BASE_SIZE, height * s / BASE_SIZE) for s in sizes]
    return from_center_size(torch.tensor(boxes))


def grid_anchors(
    anchors: Float[Tensor, "A 4"], size: tuple[int, int], stride: int
) -> Float[Tensor, "N 4"]:
    """The anchors at the center of each position of a map, N = h · w · A, row by row.

    Args:
        anchors: around (0, 0).
        size: (h, w) of the map.
        stride: pixels of the input per position.
    """
    rows, columns = ((torch.arange(count, device=anchors.device) + 0.5) * stride for count in size)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    centers = torch.stack((x, y, x, y), dim=-1)  # [h, w, 4]
    return (centers[:, :, None] + anchors).flatten(0, 2)
