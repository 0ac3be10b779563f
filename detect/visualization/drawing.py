"""Boxes with their labels, and joints, on an image, and the images within the boxes.

Text is drawn with Pillow, since OpenCV's own fonts know ASCII only. The font is DejaVu Sans, which
matplotlib brings along on every system (the one inside Pillow lacks even umlauts). For a class name
that it cannot write, such as one in Chinese, an installed font is looked for; where there is none,
the number of the class is drawn instead.
"""

import colorsys
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from jaxtyping import UInt8
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from detect.experiment.sources import image_of
from detect.structures import Detections, GroundTruth

Color = tuple[int, int, int]  # RGB, 0…255
Rectangle = tuple[int, int, int, int]  # (x1, y1, x2, y2), half-open pixels
Points = list[tuple[float, float, float]]  # (x, y, visibility) in pixels

WHITE: Color = (255, 255, 255)
BLACK: Color = (0, 0, 0)

# Sizes as shares of the shorter side, chosen by eye on images of 128 to 2000 pixels.
LINE_WIDTH_SHARE = 1 / 250
FONT_SIZE_SHARE = 1 / 32
MIN_FONT_SIZE = 11
PLATE_PADDING = 2


def class_color(label: int) -> Color:
    """The color of a class: always the same, bright, and far from those of its neighbors.

    Hues advance by the golden ratio, which spreads any number of them evenly. Brightness and
    saturation alternate, otherwise in each twenty, so that hues that come close after all differ
    in these: colors of 40 classes are at least 40 apart in RGB, those of 20 at least 60.
    """
    hue = (0.02 + label * 0.6180339887498949) % 1.0
    saturation, value = ((0.85, 1.0), (0.6, 0.95), (1.0, 0.75))[(label + label // 20) % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_detections(
    image: UInt8[np.ndarray, "H W 3"],
    detections: Detections,
    class_names: Sequence[str],
    score_threshold: float = 0.0,
    *,
    upscale_to: int | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw boxes with class and score on a copy of `image`.

    A higher score lies above a lower one and has the better place for its label. Boxes are clipped
    to the image; one that lies wholly outside is not drawn. Joints are dots; detections with the
    very joints of one above them, such as further guesses at one person, show none.

    Args:
        image: RGB.
        detections: in the frame of `image`.
        class_names: one for each class.
        score_threshold: detections of a lower score are left out.
        upscale_to: enlarge a smaller image until its shorter side has this many pixels, so that
            the labels of a tiny image can be read.

    Raises:
        ValueError: the image is no RGB image, or a label has no name.
    """
    shown = detections.with_score_at_least(score_threshold)
    joints: list[Points] = [[] for _ in range(len(shown))]
    if shown.joints is not None:
        all_joints = [[(x, y, 2.0) for x, y in points] for points in shown.joints.tolist()]
        joints = [
            points if points not in all_joints[:row] else []
            for row, points in enumerate(all_joints)
        ]
    marks = [
        _Mark(tuple(box), label, f" {score:.2f}", dashed=False, joints=points)
        for box, score, label, points in zip(
            shown.boxes.tolist(), shown.scores.tolist(), shown.labels.tolist(), joints, strict=True
        )
    ]
    return _draw_marks(image, marks, class_names, upscale_to)


def plot_detections(detections: Detections, image: Any, score_threshold: float) -> Image.Image:
    """Draw detections on the image that a user gives: `Detections.plot`."""
    names = detections.class_names
    if names is None:
        count = int(detections.labels.max()) + 1 if len(detections) else 0
        names = tuple(f"class {label}" for label in range(count))
    drawn = draw_detections(image_of(image), detections, names, score_threshold, upscale_to=384)
    return Image.fromarray(drawn)


def draw_truth(
    image: UInt8[np.ndarray, "H W 3"],
    truth: GroundTruth,
    class_names: Sequence[str],
    *,
    upscale_to: int | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw boxes with classes on a copy of `image`; those of difficult objects are dashed.

    Visible joints are dots, hidden ones are rings.

    The arguments and errors are those of `draw_detections`.
    """
    joints: list[Points] = [[] for _ in range(len(truth))]
    if truth.joints is not None:
        joints = [[(x, y, v) for x, y, v in points if v > 0] for points in truth.joints.tolist()]
    marks = [
        _Mark(tuple(box), label, " (difficult)" if difficult else "", difficult, points)
        for box, label, difficult, points in zip(
            truth.boxes.tolist(),
            truth.labels.tolist(),
            truth.difficult.tolist(),
            joints,
            strict=True,
        )
    ]
    return _draw_marks(image, marks, class_names, upscale_to)


def crop_detections(
    image: UInt8[np.ndarray, "H W 3"], detections: Detections
) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """Copy the part of `image` within each box, rounded outward to whole pixels.

    Returns:
        One image of at least 1×1 pixel for each detection, in their order.

    Raises:
        ValueError: a box lies wholly outside the image; `Detections.restored` leaves such out.
    """
    crops = []
    for row, (x1, y1, x2, y2) in enumerate(detections.boxes.tolist()):
        left, top = max(math.floor(x1), 0), max(math.floor(y1), 0)
        crop = image[top : max(math.ceil(y2), 0), left : max(math.ceil(x2), 0)]
        if crop.size == 0:
            raise ValueError(
                f"expected boxes within the image of {image.shape[1]} by {image.shape[0]} "
                f"pixels, found {[x1, y1, x2, y2]} in row {row}"
            )
        crops.append(crop.copy())
    return crops


# --- text ----------------------------------------------------------------------------------------

Font = ImageFont.FreeTypeFont


def load_font(size: int, path: Path | None = None) -> Font:
    """The font at `path`, DejaVu Sans by default, with letters of `size` pixels."""
    return _load_font(size, path or _default_font_path())


def font_for(text: str, size: int) -> Font | None:
    """A font that has all letters of `text`: DejaVu Sans, else any installed one, else None."""
    path = _font_path_for("".join(sorted(set(text))))
    return None if path is None else _load_font(size, path)


def shortened(text: str, font: Font, width: int | float) -> str:
    """The longest beginning of `text` with an ellipsis that is at most `width` pixels wide."""
    if font.getlength(text) <= width:
        return text
    kept = text
    while kept and font.getlength(kept.rstrip() + "…") > width:
        kept = kept[:-1]
    return kept.rstrip() + "…" if kept else ""


@functools.lru_cache(maxsize=64)
def _load_font(size: int, path: Path) -> Font:
    return ImageFont.truetype(str(path), size)


def _default_font_path() -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@functools.lru_cache(maxsize=1024)
def _font_path_for(letters: str) -> Path | None:
    if _has_letters(_default_font_path(), letters):
        return _default_font_path()
    # the list of installed fonts takes seconds to make the first time: only made when needed
    from matplotlib.font_manager import fontManager

    # matplotlib's font of last resort claims every letter, but shows all of a script alike
    installed = {Path(entry.fname) for entry in fontManager.ttflist}
    candidates = sorted(path for path in installed if "LastResort" not in path.name)
    return next((path for path in candidates if _has_letters(path, letters)), None)


def _has_letters(path: Path, letters: str) -> bool:
    try:
        face = FT2Font(str(path))
        if any(not face.get_char_index(ord(letter)) for letter in letters):
            return False
        _load_font(12, path)  # a font of bitmaps, as for emoji, cannot be scaled
    except (OSError, RuntimeError):
        return False
    return True


# --- boxes and plates ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Mark:
    """A box to draw: xyxy pixels, the class, what follows its name, the kind of line, joints."""

    box: tuple[float, ...]
    label: int
    suffix: str
    dashed: bool
    joints: Points


@dataclass(frozen=True, slots=True)
class _Plate:
    """The text of a mark and the rectangle behind it."""

    text: str
    font: Font
    size: tuple[int, int]  # (width, height), pixels
    text_offset: tuple[int, int]  # from the plate's corner to Pillow's text origin


def _draw_marks(
    image: np.ndarray, marks: Sequence[_Mark], class_names: Sequence[str], upscale_to: int | None
) -> np.ndarray:
    _check_image(image)
    for mark in marks:
        if mark.label >= len(class_names):
            raise ValueError(
                f"expected a class name for each label, "
                f"found label {mark.label} with {len(class_names)} names"
            )
    canvas, scale_x, scale_y = _enlarged(image, upscale_to)
    height, width = canvas.shape[:2]
    drawn = Image.fromarray(canvas)
    draw = ImageDraw.Draw(drawn)
    line_width = math.ceil(min(height, width) * LINE_WIDTH_SHARE)
    font_size = max(MIN_FONT_SIZE, round(min(height, width) * FONT_SIZE_SHARE))
    placed: list[tuple[_Mark, Rectangle, _Plate, Rectangle]] = []
    for mark in marks:
        x1, y1, x2, y2 = mark.box
        box = _clipped((x1 * scale_x, y1 * scale_y, x2 * scale_x, y2 * scale_y), (height, width))
        if box is not None:
            plate = _plate(mark, class_names[mark.label], font_size, width)
            taken = [rectangle for *_, rectangle in placed]
            placed.append((mark, box, plate, _plate_place(box, plate.size, (height, width), taken)))
    # the first mark matters most: it took its place first, and is drawn last
    for mark, box, _, _ in reversed(placed):
        _draw_box(draw, box, class_color(mark.label), line_width, mark.dashed)
    for mark in reversed(marks):
        points = [(x * scale_x, y * scale_y, visibility) for x, y, visibility in mark.joints]
        _draw_joints(draw, points, class_color(mark.label), line_width)
    for mark, _, plate, rectangle in reversed(placed):
        _draw_plate(draw, plate, rectangle, class_color(mark.label))
    return np.array(drawn)


def _check_image(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"expected an uint8 [H, W, 3] image, found {image.dtype} {image.shape}")


def _enlarged(image: np.ndarray, upscale_to: int | None) -> tuple[np.ndarray, float, float]:
    """The image with a shorter side of at least `upscale_to`, and its (x, y) scale factors."""
    height, width = image.shape[:2]
    factor = 1.0 if upscale_to is None else upscale_to / min(height, width)
    if factor <= 1:
        return np.ascontiguousarray(image), 1.0, 1.0
    size = (round(width * factor), round(height * factor))
    enlarged: np.ndarray = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    return enlarged, size[0] / width, size[1] / height


def _clipped(box: tuple[float, float, float, float], size: tuple[int, int]) -> Rectangle | None:
    """The box in whole pixels within an image of `size`, at least one pixel wide and high."""
    height, width = size
    x1, y1, x2, y2 = box
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return None
    left, top = min(max(round(x1), 0), width - 1), min(max(round(y1), 0), height - 1)
    right, bottom = min(max(round(x2), left + 1), width), min(max(round(y2), top + 1), height)
    return left, top, right, bottom


def _plate(mark: _Mark, name: str, font_size: int, image_width: int) -> _Plate:
    """Lay out the label of a mark; a long name is shortened to the width of the image."""
    font = font_for(name + mark.suffix + "…", font_size)
    if font is None:
        name, font = f"class {mark.label}", load_font(font_size)
    room = image_width - 2 * PLATE_PADDING
    text = shortened(name, font, room - font.getlength(mark.suffix)) + mark.suffix
    # the height is that of the font, not of the letters, so that all plates are of one height
    ascent, descent = font.getmetrics()
    left, _, right, _ = font.getbbox(text)
    size = (
        min(math.ceil(right - left) + 2 * PLATE_PADDING, image_width),
        ascent + descent + PLATE_PADDING,
    )
    return _Plate(text, font, size, (PLATE_PADDING - math.floor(left), PLATE_PADDING // 2))


def _plate_place(
    box: Rectangle, size: tuple[int, int], image: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle:
    """Where the plate hides the least of the plates that have their place.

    In order of preference: above the box, below it, within it at the top, within it at the bottom,
    each at its left and at its right; always within the image.
    """
    left, top, right, bottom = box
    width, height = size
    best: tuple[int, Rectangle] | None = None
    for y in (top - height, bottom, top, bottom - height):
        for x in (left, right - width):
            x1 = min(max(x, 0), max(image[1] - width, 0))
            y1 = min(max(y, 0), max(image[0] - height, 0))
            # a plate that had to be moved lies over its own box, or over more of it
            moved = abs(y1 - y) * width
            rectangle = (x1, y1, x1 + width, y1 + height)
            hidden = moved + sum(_intersection(rectangle, other) for other in taken)
            if best is None or hidden < best[0]:
                best = (hidden, rectangle)
    assert best is not None
    return best[1]


def _intersection(a: Rectangle, b: Rectangle) -> int:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def _draw_box(
    draw: ImageDraw.ImageDraw, box: Rectangle, color: Color, width: int, dashed: bool
) -> None:
    """Draw the frame just within `box`; a wide one with an edge that sets it off the image."""
    left, top, right, bottom = box
    if dashed:
        strokes = _dashes(box, width)
    else:
        strokes = [
            (left, top, right, top + width),
            (left, bottom - width, right, bottom),
            (left, top, left + width, bottom),
            (right - width, top, right, bottom),
        ]
    if width > 1:
        for x1, y1, x2, y2 in strokes:
            draw.rectangle((x1 - 1, y1 - 1, x2, y2), fill=_text_color(color))
    for x1, y1, x2, y2 in strokes:
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=color)


def _draw_joints(draw: ImageDraw.ImageDraw, joints: Points, color: Color, line_width: int) -> None:
    """Draw a dot for each visible joint and a ring for each hidden one, with an edge."""
    radius = 1.5 * line_width + 1
    for x, y, visibility in joints:
        outer = (x - radius, y - radius, x + radius, y + radius)
        fill = color if visibility > 1 else None
        draw.ellipse(outer, fill=fill, outline=_text_color(color) if fill else color)


def _dashes(box: Rectangle, width: int) -> list[Rectangle]:
    """The frame just within `box` in dashes and gaps of four times the line's width."""
    left, top, right, bottom = box
    dash = 4 * width
    dashes = []
    for start in range(left, right, 2 * dash):
        stop = min(start + dash, right)
        dashes += [(start, y, stop, y + width) for y in (top, bottom - width)]
    for start in range(top, bottom, 2 * dash):
        stop = min(start + dash, bottom)
        dashes += [(x, start, x + width, stop) for x in (left, right - width)]
    return dashes


def _draw_plate(
    draw: ImageDraw.ImageDraw, plate: _Plate, rectangle: Rectangle, color: Color
) -> None:
    x1, y1, x2, y2 = rectangle
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=color)
    origin = (x1 + plate.text_offset[0], y1 + plate.text_offset[1])
    draw.text(origin, plate.text, fill=_text_color(color), font=plate.font)


def _text_color(background: Color) -> Color:
    """Black or white, whichever contrasts more with `background` by WCAG 2.1's luminance."""
    linear = [
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        for channel in (value / 255 for value in background)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return BLACK if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else WHITE
