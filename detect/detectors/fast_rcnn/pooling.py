"""Regions of feature maps, each brought to one size (Girshick 2015, section 2.1)."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import roi_align, roi_pool

from detect.ops import box_area

Pooling = Literal["max", "align"]

# Points of the map in each direction that RoI align averages for a value (He et al. 2017, 3).
SAMPLING_RATIO = 2

# The size in pixels that a network trained on ImageNet saw objects at.
CANONICAL_SIZE = 224
# The level of the pyramid that regions of that size are taken from (Lin et al. 2017, equation 1).
CANONICAL_LEVEL = 4


class FeatureMap(NamedTuple):
    """A map of B images.

    Attributes:
        values: `[B, F, h, w]`.
        scale: its positions per pixel of the input.
    """

    values: Float[Tensor, "B F h w"]
    scale: float


def pool_regions(
    maps: Sequence[FeatureMap],
    choice: Int[Tensor, "N"] | None,
    boxes: Float[Tensor, "N 4"],
    image_index: Int[Tensor, "N"],
    size: int,
    pooling: Pooling,
) -> Float[Tensor, "N F k k"]:
    """The k×k features of each region, by torchvision's kernels.

    Args:
        maps: of the batch.
        choice: the number of the map that each region is taken from; None where there is one.
        boxes: xyxy pixels of the input.
        image_index: the image of the batch that each is of.
        size: k.
        pooling: `max` rounds a region and its k×k parts to whole positions and takes the greatest
            values; `align` averages values that are interpolated at exact points (He et al. 2017).
    """
    if choice is None:
        return _pool(maps[0], boxes, image_index, size, pooling)
    channels = maps[0].values.shape[1]
    pooled = maps[0].values.new_zeros(len(boxes), channels, size, size)
    for number, source in enumerate(maps):
        rows = (choice == number).nonzero().flatten()
        pooled[rows] = _pool(source, boxes[rows], image_index[rows], size, pooling)
    return pooled


def _pool(
    source: FeatureMap, boxes: Tensor, image_index: Tensor, size: int, pooling: Pooling
) -> Tensor:
    outputs: Tensor
    if pooling == "align":
        rows = torch.cat((image_index[:, None].to(boxes), boxes), dim=1)
        outputs = roi_align(
            source.values, rows, size, source.scale, sampling_ratio=SAMPLING_RATIO, aligned=True
        )
        return outputs
    # the kernel is the release's: the last pixel of a region is part of it
    inclusive = boxes - boxes.new_tensor([0.0, 0.0, 1.0, 1.0])
    rows = torch.cat((image_index[:, None].to(boxes), inclusive), dim=1)
    # unlike that of RoI align, its kernel on CPUs does not know of autocast
    outputs = roi_pool(source.values.float(), rows, size, source.scale)
    return outputs


def pyramid_level(boxes: Float[Tensor, "N 4"], lowest: int, highest: int) -> Int[Tensor, "N"]:
    """Number of the map, from the finest on, that each region is taken from (equation 1).

    Args:
        boxes: xyxy pixels of the input.
        lowest: power of two of the finest map's stride.
        highest: of the coarsest one's.
    """
    sizes = box_area(boxes).sqrt()
    levels = (CANONICAL_LEVEL + (sizes / CANONICAL_SIZE).log2() + 1e-6).floor()
    return levels.clamp(lowest, highest).long() - lowest


def nearest_scale(boxes: Float[Tensor, "N 4"], scales: Sequence[float]) -> Int[Tensor, "N"]:
    """Number of the scale at which each region's area is closest to the canonical one.

    He et al. 2014, "Spatial pyramid pooling", section 4.1, which the paper follows (section 5.2).

    Args:
        boxes: xyxy pixels of the input.
        scales: factors of the input.
    """
    areas = box_area(boxes)[:, None] * boxes.new_tensor(scales).square()  # [N, S]
    return (areas - CANONICAL_SIZE**2).abs().argmin(dim=1)
