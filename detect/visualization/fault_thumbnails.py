"""Small images that show a fault: the box drawn where it is, twins side by side."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from detect.data import ImageError, read_image
from detect.data.checking import Box, Finding
from detect.visualization.drawing import Color

THUMBNAIL_SIDE = 240  # pixels of the longer side
# A box whose longer side is a smaller share of the image's is shown from nearby.
_NEARBY_SHARE = 0.1
_NEARBY_WINDOW_SHARE = 0.3
_MIN_WINDOW = 32  # pixels of the image
# How far around the image a box that leaves it is still shown, as a share of its sides.
_MARGIN_SHARE = 0.25
_MIN_DRAWN_SIDE = 5  # pixels of the thumbnail, so that a box of no size is seen
_MEANT: Color = (230, 30, 30)
_OTHER: Color = (30, 90, 230)
_AROUND: Color = (200, 200, 200)


def draw_finding(finding: Finding) -> UInt8[np.ndarray, "h w 3"] | None:
    """Draw what a finding is about, RGB; None where there is no image or it cannot be read.

    Of the boxes, the first is red, those that it is compared to are blue. Of two images, the
    first is on the left.
    """
    views = []
    for number, path in enumerate(finding.images[:2]):
        try:
            image = read_image(path)
        except ImageError:
            continue
        views.append(draw_view(image, finding.boxes if number == 0 else ()))
    if not views:
        return None
    height = max(view.shape[0] for view in views)
    padded = [
        cv2.copyMakeBorder(
            view, 0, height - view.shape[0], 0, 2, cv2.BORDER_CONSTANT, value=_AROUND
        )
        for view in views
    ]
    return np.hstack(padded) if len(padded) > 1 else views[0]


def draw_view(
    image: UInt8[np.ndarray, "H W 3"], boxes: Sequence[Box]
) -> UInt8[np.ndarray, "h w 3"]:
    """The part of an image that shows the boxes, scaled down, with the boxes drawn on it."""
    ordered = [_ordered(box) for box in boxes]
    left, top, right, bottom = _window(image.shape[:2], ordered)
    scale = min(1.0, THUMBNAIL_SIDE / max(right - left, bottom - top))
    if max(right - left, bottom - top) < THUMBNAIL_SIDE:
        scale = THUMBNAIL_SIDE / max(right - left, bottom - top)
    width = max(1, round((right - left) * scale))
    height = max(1, round((bottom - top) * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    view: np.ndarray = cv2.resize(
        _cut(image, left, top, right, bottom), (width, height), interpolation=interpolation
    )
    for number, (x1, y1, x2, y2) in reversed(list(enumerate(ordered))):
        corners = [(x1 - left) * scale, (y1 - top) * scale, (x2 - left) * scale, (y2 - top) * scale]
        _draw_frame(view, corners, _MEANT if number == 0 else _OTHER)
    return view


def _ordered(box: Box) -> Box:
    """The box with its corners in order, even if the file has them inverted."""
    x1, y1, x2, y2 = box
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _window(size: tuple[int, int], boxes: Sequence[Box]) -> tuple[int, int, int, int]:
    """The rectangle to show, in whole pixels: all, all and around, or what is near a small box."""
    height, width = size
    if not boxes:
        return 0, 0, width, height
    x1, y1, x2, y2 = boxes[0]
    longer = max(width, height)
    is_inside = x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height
    if is_inside and max(x2 - x1, y2 - y1) < _NEARBY_SHARE * longer:
        half = max(_NEARBY_WINDOW_SHARE * longer, _MIN_WINDOW) / 2
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        return (
            max(int(x - half), 0),
            max(int(y - half), 0),
            min(int(x + half) + 1, width),
            min(int(y + half) + 1, height),
        )
    across, down = int(_MARGIN_SHARE * width), int(_MARGIN_SHARE * height)
    return (
        int(max(min(x1 - 2, 0), -across)),
        int(max(min(y1 - 2, 0), -down)),
        int(min(max(x2 + 2, width), width + across)) if x2 > width else width,
        int(min(max(y2 + 2, height), height + down)) if y2 > height else height,
    )


def _cut(image: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """A part of the image, with gray where the rectangle leaves it."""
    height, width = image.shape[:2]
    inside = image[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    margins = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    cut: np.ndarray = cv2.copyMakeBorder(inside, *margins, cv2.BORDER_CONSTANT, value=_AROUND)
    return cut


def _draw_frame(view: np.ndarray, corners: Sequence[float], color: Color) -> None:
    height, width = view.shape[:2]
    x1, y1, x2, y2 = corners
    grow_x = max(0.0, _MIN_DRAWN_SIDE - (x2 - x1)) / 2
    grow_y = max(0.0, _MIN_DRAWN_SIDE - (y2 - y1)) / 2
    # far outside, where a number was mistyped, OpenCV's coordinates would overflow
    low = np.clip([x1 - grow_x, y1 - grow_y], -9, [width + 9, height + 9])
    high = np.clip([x2 + grow_x, y2 + grow_y], -9, [width + 9, height + 9])
    start, stop = (tuple(round(float(v)) for v in point) for point in (low, high - 1))
    cv2.rectangle(view, start, stop, color, 2)
