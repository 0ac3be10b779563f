"""The images of a batch as a network takes them, and where in the batch each of them lies."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from detect.structures import Batch, ImageMeta


def filled_part(meta: ImageMeta) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of what an image fills of the input; the rest is padding."""
    (top, left), (scale_y, scale_x) = meta.offset, meta.scale
    height, width = meta.original_size
    return (round(top), round(left), round(top + height * scale_y), round(left + width * scale_x))


def frames_of(batch: Batch) -> Float[Tensor, "B 4"]:
    """What each image fills of the input, xyxy pixels, on the batch's device."""
    parts = [filled_part(meta) for meta in batch.metas]
    frames = [(left, top, right, bottom) for top, left, bottom, right in parts]
    return torch.tensor(frames, dtype=torch.float32).to(batch.images.device)


def unit_images(batch: Batch, color: Float[Tensor, "3 1 1"]) -> Float[Tensor, "B 3 H W"]:
    """The images in 0…1, with `color` in all that an image does not fill."""
    images = batch.unit_images()
    size = (images.shape[2], images.shape[3])
    if all(filled_part(meta) == (0, 0, *size) for meta in batch.metas):
        return images
    left, top, right, bottom = frames_of(batch)[:, :, None, None].unbind(dim=1)  # [B, 1, 1]
    rows = torch.arange(size[0], device=images.device)[:, None]
    columns = torch.arange(size[1], device=images.device)
    is_filled = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)  # [B, H, W]
    return torch.where(is_filled[:, None], images, color)


def pad_to(
    images: Float[Tensor, "B 3 H W"], size: tuple[int, int], fill: Float[Tensor, "3 1 1"]
) -> Float[Tensor, "B 3 h w"]:
    """Pad images below and to the right with a color."""
    if images.shape[2:] == size:
        return images
    padded = fill.expand(len(images), -1, *size).clone()
    padded[:, :, : images.shape[2], : images.shape[3]] = images
    return padded


def clip_to_frames(
    boxes: Float[Tensor, "*batch 4"], frames: Float[Tensor, "*#batch 4"]
) -> Float[Tensor, "*batch 4"]:
    """Clip each box to the frame of its image."""
    low, high = frames[..., :2], frames[..., 2:]
    low, high = torch.cat((low, low), dim=-1), torch.cat((high, high), dim=-1)
    return torch.minimum(torch.maximum(boxes, low), high)


def generator_on(device: torch.device) -> torch.Generator:
    """The generator of a device, whose state every checkpoint has."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator


def padded(boxes: Sequence[Float[Tensor, "_ 4"]]) -> tuple[Tensor, Tensor]:
    """Boxes of B images as one tensor `[B, N, 4]`, and which of its rows are there `[B, N]`."""
    counts = torch.tensor([len(rows) for rows in boxes], device=boxes[0].device)
    values = torch.nn.utils.rnn.pad_sequence(list(boxes), batch_first=True)
    return values, torch.arange(values.shape[1], device=values.device) < counts[:, None]
