"""Box arithmetic: area, clipping and the deltas that detectors regress.

Boxes are `(x1, y1, x2, y2)` in pixels, continuous and half-open: the width is `x2 − x1`.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# The largest log-scale that decode_deltas exponentiates, that of Detectron and torchvision: it
# keeps an untrained regressor from overflowing.
MAX_LOG_SCALE = math.log(1000.0 / 16)


def box_area(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
    """Area of each box in square pixels; 0 for a box that is inverted or empty.

    Half precision is measured in float32: the area of a 300×300 box overflows float16.
    """
    boxes = at_least_float32(boxes)
    sizes = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)  # [..., 2]
    return sizes[..., 0] * sizes[..., 1]


def has_area(boxes: Float[Tensor, "*batch 4"]) -> Bool[Tensor, "*batch"]:
    """Whether x1 < x2 and y1 < y2."""
    return (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)


def clip_boxes(
    boxes: Float[Tensor, "*batch 4"], size: tuple[int, int]
) -> Float[Tensor, "*batch 4"]:
    """Clip boxes to an image of `size` = (height, width) pixels."""
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    return torch.stack(
        (x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)), dim=-1
    )


def to_center_size(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """`(x1, y1, x2, y2)` → `(center x, center y, width, height)`, all in pixels."""
    sizes = boxes[..., 2:] - boxes[..., :2]
    return torch.cat((boxes[..., :2] + sizes / 2, sizes), dim=-1)


def from_center_size(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """`(center x, center y, width, height)` → `(x1, y1, x2, y2)`, all in pixels."""
    halves = boxes[..., 2:] / 2
    return torch.cat((boxes[..., :2] - halves, boxes[..., :2] + halves), dim=-1)


def encode_deltas(
    boxes: Float[Tensor, "*batch 4"], references: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch 4"]:
    """Deltas `(t_x, t_y, t_w, t_h)` from `references` (proposals, anchors) to `boxes`.

    `t_x = (x − x_r) / w_r`, `t_w = log(w / w_r)` with centers and sizes: Girshick et al. 2014,
    "Rich feature hierarchies", appendix C. Both boxes must have positive size, else deltas are not
    finite. Deviation: widths are `x2 − x1`, not `x2 − x1 + 1` as in the released code.
    """
    target, reference = to_center_size(boxes), to_center_size(references)
    shifts = (target[..., :2] - reference[..., :2]) / reference[..., 2:]
    return torch.cat((shifts, (target[..., 2:] / reference[..., 2:]).log()), dim=-1)


def decode_deltas(
    deltas: Float[Tensor, "*batch 4"], references: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch 4"]:
    """Apply `deltas` to `references`: the inverse of `encode_deltas`.

    Log-scales are clamped to `MAX_LOG_SCALE`, so the result is finite for finite input.
    """
    reference = to_center_size(references)
    centers = reference[..., :2] + deltas[..., :2] * reference[..., 2:]
    sizes = reference[..., 2:] * deltas[..., 2:].clamp(max=MAX_LOG_SCALE).exp()
    return from_center_size(torch.cat((centers, sizes), dim=-1))


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision as float32, anything else as it is."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
