"""Intersection over union and its generalized, distance and complete variants.

Each measure comes pairwise, `a[..., N, 4]` with `b[..., M, 4]` → `[..., N, M]`, and elementwise,
`a[..., 4]` with `b[..., 4]` → `[...]`; leading dimensions broadcast. Half-precision boxes are
measured in float32. A pair whose union is empty has IoU 0, so no result is ever nan.

All variants are differentiable. Without gradients, pairs are measured in chunks, which bounds the
temporaries: at most eight values a pair of one chunk.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

IoUKind = Literal["iou", "giou", "diou", "ciou"]

# Pairs measured at a time. On a CPU the temporaries stay in its cache (1 MB in float32) and torch
# does not yet use several threads: on two idle cores as fast as larger chunks on both, on busy ones
# five times as fast. Elsewhere the temporaries take 512 MB.
CHUNK_PAIRS_CPU = 2**15 - 1
CHUNK_PAIRS = 2**24


def box_iou(
    a: Float[Tensor, "*#batch N 4"], b: Float[Tensor, "*#batch M 4"], kind: IoUKind = "iou"
) -> Float[Tensor, "*batch N M"]:
    """Pairwise IoU, or another `kind` of it; see `elementwise_box_iou`."""
    return elementwise_box_iou(a[..., :, None, :], b[..., None, :, :], kind)


def elementwise_box_iou(
    a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"], kind: IoUKind = "iou"
) -> Float[Tensor, "*batch"]:
    """IoU (or another `kind` of it) of each box of `a` with its counterpart in `b`.

    Args:
        a: boxes in pixels.
        b: boxes in pixels; leading dimensions broadcast with those of `a`.
        kind: `iou`; `giou` subtracts the share of the enclosing box that the union leaves empty;
            `diou` subtracts the squared distance of the centers over the squared diagonal of the
            enclosing box; `ciou` also subtracts a term for differing aspect ratios, whose weight is
            constant in the gradient, as in the paper's section 3.3.
    """
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    a, b = a.to(dtype), b.to(dtype)
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return _measure(a, b, kind)  # what the gradient needs is kept anyway
    most = CHUNK_PAIRS_CPU if a.device.type == "cpu" else CHUNK_PAIRS
    if a.numel() * b.numel() <= 16 * most:  # 4 × 4 numbers a pair at least
        return _measure(a, b, kind)
    shape = torch.broadcast_shapes(a.shape, b.shape)[:-1]
    if math.prod(shape) <= most:
        return _measure(a, b, kind)
    num_dims = max(a.dim(), b.dim())
    a, b = (boxes.reshape(*[1] * (num_dims - boxes.dim()), *boxes.shape) for boxes in (a, b))
    result = a.new_empty(shape)
    _measure_in_chunks(a, b, kind, result, most)
    return result


def _measure_in_chunks(a: Tensor, b: Tensor, kind: IoUKind, result: Tensor, most: int) -> None:
    """Fill `result` with the measure, at most `most` pairs at a time."""
    if result.numel() <= most:
        result.copy_(_measure(a, b, kind))
        return
    dim = next(dim for dim, size in enumerate(result.shape) if size > 1)
    step = max(1, result.shape[dim] * most // result.numel())
    for start in range(0, result.shape[dim], step):
        length = min(step, result.shape[dim] - start)
        a_part, b_part = (
            boxes if boxes.shape[dim] == 1 else boxes.narrow(dim, start, length) for boxes in (a, b)
        )
        _measure_in_chunks(a_part, b_part, kind, result.narrow(dim, start, length), most)


def _measure(a: Tensor, b: Tensor, kind: IoUKind) -> Tensor:
    # coordinate by coordinate and in place: on a CPU about twice as fast as in pairs
    a_x1, a_y1, a_x2, a_y2 = a.unbind(dim=-1)
    b_x1, b_y1, b_x2, b_y2 = b.unbind(dim=-1)
    width = torch.minimum(a_x2, b_x2).sub_(torch.maximum(a_x1, b_x1)).clamp_(min=0)
    height = torch.minimum(a_y2, b_y2).sub_(torch.maximum(a_y1, b_y1)).clamp_(min=0)
    intersection = width.mul_(height)
    areas_a = (a_x2 - a_x1).clamp_(min=0) * (a_y2 - a_y1).clamp_(min=0)
    areas_b = (b_x2 - b_x1).clamp_(min=0) * (b_y2 - b_y1).clamp_(min=0)
    union = (areas_a + areas_b).sub_(intersection)
    iou = intersection.div_(torch.where(union > 0, union, 1))
    if kind == "iou":
        return iou
    width = torch.maximum(a_x2, b_x2).sub_(torch.minimum(a_x1, b_x1))
    height = torch.maximum(a_y2, b_y2).sub_(torch.minimum(a_y1, b_y1))
    if kind == "giou":
        area = width.clamp(min=0) * height.clamp(min=0)
        return iou - (area - union) / torch.where(area > 0, area, 1)
    diagonal_squared = width.square() + height.square()
    offset_x, offset_y = a_x1 + a_x2 - b_x1 - b_x2, a_y1 + a_y2 - b_y1 - b_y2
    distance = ((offset_x / 2).square() + (offset_y / 2).square()) / torch.where(
        diagonal_squared > 0, diagonal_squared, 1
    )
    if kind == "diou":
        return iou - distance
    disparity = (_aspect_angle(a) - _aspect_angle(b)).square() * (4 / math.pi**2)
    with torch.no_grad():
        weight = disparity / (1 - iou + disparity).clamp(min=torch.finfo(a.dtype).eps)
    return iou - distance - weight * disparity


def _aspect_angle(boxes: Tensor) -> Tensor:
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(dim=-1)
    return torch.atan(width / torch.where(height > 0, height, torch.finfo(boxes.dtype).eps))
