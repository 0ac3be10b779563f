"""Where the windows of an image lie, and which of them show an object."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from detect.detectors.images import pad_to
from detect.ops import box_iou
from detect.structures import GroundTruth

BACKGROUND = -1
IGNORED = -2


@dataclass(frozen=True)
class WindowGrid:
    """The windows that one pass over a scaled image sees, and their place in the image.

    Window (i, j) has its corner at pixel (offset + stride · (i, j)) of the scaled image.

    Attributes:
        shape: (rows, columns) of windows.
        window: side of a window in pixels of the scaled image.
        stride: pixels from one window to the next.
        offset: (vertical, horizontal) pixels before the first window.
        scale: (vertical, horizontal) pixels of the scaled image per pixel of the image.
    """

    shape: tuple[int, int]
    window: int
    stride: int
    offset: tuple[float, float]
    scale: tuple[float, float]

    def corners(self, device: torch.device) -> Float[Tensor, "h w 2"]:
        """(x, y) of each window's corner in the scaled image."""
        rows = torch.arange(self.shape[0], device=device) * self.stride + self.offset[0]
        columns = torch.arange(self.shape[1], device=device) * self.stride + self.offset[1]
        y, x = torch.meshgrid(rows.float(), columns.float(), indexing="ij")
        return torch.stack((x, y), dim=-1)

    def boxes(self, device: torch.device) -> Float[Tensor, "h w 4"]:
        """Each window as a box of the image."""
        corners = self.corners(device)
        scaled = torch.cat((corners, corners + self.window), dim=-1)
        return scaled / self._factors(scaled)

    def to_image(self, units: Float[Tensor, "*B h w N 4"]) -> Float[Tensor, "*B h w N 4"]:
        """Boxes (center, size) in units of their window as xyxy pixels of the image."""
        corners = self.corners(units.device)[:, :, None]
        centers = units[..., :2] * self.window + corners
        half = units[..., 2:] * self.window / 2
        scaled = torch.cat((centers - half, centers + half), dim=-1)
        return scaled / self._factors(scaled)

    def to_units(
        self, boxes: Float[Tensor, "N 4"], windows: Int[Tensor, "N"]
    ) -> Float[Tensor, "N 4"]:
        """Boxes of the image as (center, size) in units of a window each, by flat number."""
        scaled = boxes * self._factors(boxes)
        corners = self.corners(boxes.device).flatten(0, 1)[windows]
        centers = (scaled[:, :2] + scaled[:, 2:]) / 2 - corners
        return torch.cat((centers, scaled[:, 2:] - scaled[:, :2]), dim=1) / self.window

    def _factors(self, like: Tensor) -> Tensor:
        vertical, horizontal = self.scale
        return like.new_tensor([horizontal, vertical, horizontal, vertical])


def label_windows(
    grid: WindowGrid, truth: GroundTruth, positive_iou: float, negative_iou: float
) -> Int[Tensor, "N"]:
    """What each window shows, in flat order: the number of an object, `BACKGROUND` or `IGNORED`.

    A window shows the object of best IoU with it if that is at least `positive_iou`, background if
    all are below `negative_iou`, and is ignored between the two. Difficult objects make windows
    ignored at most.
    """
    windows = grid.boxes(truth.boxes.device).flatten(0, 1)  # [N, 4]
    if len(truth) == 0:
        return torch.full((len(windows),), BACKGROUND, device=windows.device)
    overlaps, objects = box_iou(windows, truth.boxes).max(dim=1)
    objects = torch.where(overlaps >= positive_iou, objects, IGNORED)
    objects = torch.where(overlaps < negative_iou, BACKGROUND, objects)
    hard = (objects >= 0) & truth.difficult[objects.clamp(min=0)]
    return torch.where(hard, IGNORED, objects)


def scale_images(
    images: Float[Tensor, "B 3 H W"], scale: float, fill: Float[Tensor, "3 1 1"], window: int
) -> tuple[Float[Tensor, "B 3 h w"], tuple[float, float]]:
    """Scale images and pad them below and to the right until a window fits.

    Returns:
        The images and the factors (vertical, horizontal) after rounding to whole pixels.
    """
    height, width = images.shape[2:]
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    if size != (height, width):
        # antialiased where it shrinks, as an image that is resized before the network is
        images = functional.interpolate(
            images, size, mode="bilinear", align_corners=False, antialias=scale < 1
        )
    factors = (size[0] / height, size[1] / width)
    return pad_to(images, (max(size[0], window), max(size[1], window)), fill), factors
