"""Intersection over union and its generalized, distance and complete variants.

Each measure comes pairwise, `a[..., N, 4]` with `b[..., M, 4]` → `[..., N, M]`, and elementwise,
`a[..., 4]` with `b[..., 4]` → `[...]`; leading dimensions broadcast. Half-precision boxes are
measured in float32. A pair whose union is empty has IoU 0, so no result is ever nan.

All variants are differentiable; the losses that use them are `1 − measure`.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from detect.ops.boxes import box_area

IoUKind = Literal["iou", "giou", "diou", "ciou"]


def box_iou(
    a: Float[Tensor, "*#batch N 4"], b: Float[Tensor, "*#batch M 4"]
) -> Float[Tensor, "*batch N M"]:
    """Pairwise IoU in 0…1."""
    return elementwise_box_iou(a[..., :, None, :], b[..., None, :, :])


def generalized_box_iou(
    a: Float[Tensor, "*#batch N 4"], b: Float[Tensor, "*#batch M 4"]
) -> Float[Tensor, "*batch N M"]:
    """Pairwise GIoU in −1…1 (Rezatofighi et al. 2019, algorithm 1)."""
    return elementwise_box_iou(a[..., :, None, :], b[..., None, :, :], "giou")


def distance_box_iou(
    a: Float[Tensor, "*#batch N 4"], b: Float[Tensor, "*#batch M 4"]
) -> Float[Tensor, "*batch N M"]:
    """Pairwise DIoU in −1…1 (Zheng et al. 2020, equation 7)."""
    return elementwise_box_iou(a[..., :, None, :], b[..., None, :, :], "diou")


def complete_box_iou(
    a: Float[Tensor, "*#batch N 4"], b: Float[Tensor, "*#batch M 4"]
) -> Float[Tensor, "*batch N M"]:
    """Pairwise CIoU (Zheng et al. 2020, equation 10)."""
    return elementwise_box_iou(a[..., :, None, :], b[..., None, :, :], "ciou")


def elementwise_box_iou(
    a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"], kind: IoUKind = "iou"
) -> Float[Tensor, "*batch"]:
    """IoU (or another `kind` of it) of each box of `a` with its counterpart in `b`.

    Args:
        a: boxes in pixels.
        b: boxes in pixels; leading dimensions broadcast with those of `a`.
        kind: `iou`; `giou` subtracts the share of the enclosing box that the union leaves empty;
            `diou` subtracts the squared distance of the centers over the squared diagonal of the
            enclosing box; `ciou` subtracts a term for differing aspect ratios as well, whose weight
            is held constant in the gradient, as the paper's section 3.3 has it.
    """
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    a, b = a.to(dtype), b.to(dtype)
    overlap = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    intersection = overlap.clamp(min=0).prod(dim=-1)
    union = box_area(a) + box_area(b) - intersection
    iou = intersection / torch.where(union > 0, union, 1)
    if kind == "iou":
        return iou
    enclosing = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    if kind == "giou":
        area = enclosing.clamp(min=0).prod(dim=-1)
        return iou - (area - union) / torch.where(area > 0, area, 1)
    diagonal_squared = enclosing.square().sum(dim=-1)
    offset = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    distance = offset.square().sum(dim=-1) / torch.where(diagonal_squared > 0, diagonal_squared, 1)
    if kind == "diou":
        return iou - distance
    disparity = (_aspect_angle(a) - _aspect_angle(b)).square() * (4 / math.pi**2)
    with torch.no_grad():
        weight = disparity / (1 - iou + disparity).clamp(min=torch.finfo(dtype).eps)
    return iou - distance - weight * disparity


def _aspect_angle(boxes: Tensor) -> Tensor:
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(dim=-1)
    return torch.atan(width / torch.where(height > 0, height, torch.finfo(boxes.dtype).eps))
