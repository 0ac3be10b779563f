"""Regions of images, warped to a network's square input (Girshick et al. 2014, appendix A)."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import roi_align

from detect.ops.boxes import from_center_size, to_center_size

Warp = Literal["warp", "square", "square_without_context"]


def warp_regions(
    images: Float[Tensor, "B 3 H W"],
    boxes: Float[Tensor, "N 4"],
    image_index: Int[Tensor, "N"],
    size: int,
    *,
    context: int = 16,
    warp: Warp = "warp",
    fill: Float[Tensor, "3 1 1"] | None = None,
) -> Float[Tensor, "N 3 S S"]:
    """Cut regions out of images and bring each to `size` × `size` pixels.

    Shrinking averages the pixels that fall on one of the result, enlarging is bilinear.

    Args:
        images: pixels of any range.
        boxes: xyxy pixels of their image, of positive size.
        image_index: number of the image of each.
        size: side S of the result in pixels.
        context: pixels on each side of the result that show the surroundings of the region (p in
            the paper, which found 16 best of 227).
        warp: `warp` scales width and height each to fit; `square` takes the tightest square around
            the region; `square_without_context` shows `fill` in the square outside the region and
            its context.
        fill: shown beyond the border of an image; None for zeros.
    """
    if 2 * context >= size:
        raise ValueError(f"expected a context of less than half of {size} pixels, found {context}")
    regions = to_center_size(boxes)  # [N, 4]
    if warp != "warp":
        regions[:, 2:] = regions[:, 2:].amax(dim=1, keepdim=True)
    regions[:, 2:] *= size / (size - 2 * context)
    sources = from_center_size(regions)
    shift = images.new_zeros(3, 1, 1) if fill is None else fill.to(images)
    # roi_align reads zeros beyond the border: the filling, so shifted
    rows = torch.cat((image_index[:, None].to(sources), sources), dim=1)
    crops = roi_align(images - shift, rows, (size, size), sampling_ratio=-1, aligned=True)
    if warp == "square_without_context":
        crops = crops * _is_shown(boxes, sources, size, context)[:, None]
    return crops + shift


def _is_shown(
    boxes: Float[Tensor, "N 4"], sources: Float[Tensor, "N 4"], size: int, context: int
) -> Bool[Tensor, "N S S"]:
    """Which of the result's pixels have their center in the box, widened by the context."""
    steps = (torch.arange(size, device=boxes.device) + 0.5) / size  # [S]
    scale = (sources[:, 2:] - sources[:, :2]) / size  # [N, 2] pixels of the image per pixel
    places = sources[:, None, :2] + steps[None, :, None] * (scale * size)[:, None]  # [N, S, 2]
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    margin = context * scale[:, None]
    inside = (places >= low - margin) & (places <= high + margin)  # [N, S, 2]
    return inside[:, :, None, 1] & inside[:, None, :, 0]
