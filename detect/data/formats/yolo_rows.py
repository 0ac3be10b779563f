"""One row of YOLO's text format: `class cx cy w h`, as shares of the image's sides."""

import math
import re
from collections.abc import Sequence

import numpy as np

from detect.data.faults import BrokenEntry, Complaint

# Six decimals, as most tools write them, make boxes at the border pass it by less than this share.
_MAX_ROUNDING = 1e-5
# A box that passes the border by no more than this is cut off there, in pixels.
_MAX_OVERHANG = 1.0
# Digits of a pixel that rows keep; beyond are the roundings of shares.
_PIXEL_DIGITS = 6
Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels

_DELETE_OR_CORRECT = "write `class cx cy w h`, or delete the row"


def read_class(text: str, class_names: Sequence[str]) -> str:
    """The name of the class that the first column numbers.

    Raises:
        BrokenEntry: it is no number, or that of no class.
    """
    # some tools write 3.0
    match = re.fullmatch(r"(-?[0-9]{1,9})(?:\.0*)?", text)
    if match is None:
        found = f"expected the number of a class, found {text[:40]!r}"
        raise BrokenEntry("bad-class", found, _DELETE_OR_CORRECT)
    label = int(match[1])
    if not 0 <= label < len(class_names):
        value = f"class {label}, and there are the classes 0 … {len(class_names) - 1}"
        remedy = "correct the number, or add the class to names"
        raise BrokenEntry("unknown-class", value, remedy)
    return class_names[label]


def read_box(columns: Sequence[str], size: tuple[int, int] | None) -> tuple[Box, list[Complaint]]:
    """The box, and warnings: rule, value and remedy of each.

    Args:
        columns: of the row.
        size: (height, width) of the image; None when it is not known.

    Raises:
        BrokenEntry: the row is faulty.
    """
    if len(columns) != 5:
        raise _wrong_columns(len(columns))
    numbers = [_read_share(text) for text in columns[1:]]
    x, y, width, height = numbers
    if max(numbers) > 2:
        value = f"{' '.join(columns[1:])}: not shares of the image's sides; pixels?"
        remedy = "divide x and width by the image's width, y and height by its height"
        raise BrokenEntry("not-normalized", value, remedy)
    if width <= 0 or height <= 0:
        value = f"width {columns[3]} and height {columns[4]}: a box of no size"
        raise BrokenEntry("zero-size-box", value, "redraw the box or delete the row")
    rows, columns_in_image = size or (1, 1)
    scale = (columns_in_image, rows)
    box = (
        round((x - width / 2) * scale[0], _PIXEL_DIGITS),
        round((y - height / 2) * scale[1], _PIXEL_DIGITS),
        round((x + width / 2) * scale[0], _PIXEL_DIGITS),
        round((y + height / 2) * scale[1], _PIXEL_DIGITS),
    )
    # of an unknown size, the image is left out anyway
    return (box, []) if size is None else _cut_off(box, scale)


def _wrong_columns(number: int) -> BrokenEntry:
    rule, value, remedy = "wrong-columns", f"{number} columns, expected 5", _DELETE_OR_CORRECT
    if number == 6:
        value = "6 columns; the sixth looks like a score of a detection"
        remedy = "labels have none: delete the column"
    elif number >= 7 and number % 2 == 1:
        rule, value = "polygon-row", f"{number} columns: a polygon, as segmentation sets have them"
        remedy = "write the box around it as `class cx cy w h`"
    return BrokenEntry(rule, value, remedy)


def _read_share(text: str) -> float:
    try:
        # Python's float also takes 1_000, which nobody means
        number = math.nan if "_" in text else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        value = f"expected a number, found {text[:40]!r}"
        raise BrokenEntry("not-a-number", value, "write shares of the image, 0 … 1")
    return number


def _cut_off(box: Box, scale: tuple[int, int]) -> tuple[Box, list[Complaint]]:
    """The box within the image, and a warning if more than a rounding was cut."""
    overhangs = (
        -box[0] / scale[0],
        -box[1] / scale[1],
        box[2] / scale[0] - 1,
        box[3] / scale[1] - 1,
    )
    pixels = max(-box[0], -box[1], box[2] - scale[0], box[3] - scale[1])
    found = ", ".join(f"{value:g}" for value in box)
    value = f"the box {found} in pixels, of an image {scale[0]} wide and {scale[1]} high"
    if pixels > _MAX_OVERHANG:
        remedy = "keep cx ± w/2 and cy ± h/2 in 0 … 1"
        raise BrokenEntry("box-outside-image", value, remedy)
    inside = (
        max(box[0], 0.0),
        max(box[1], 0.0),
        min(box[2], float(scale[0])),
        min(box[3], float(scale[1])),
    )
    if np.float32(inside[0]) >= np.float32(inside[2]) or np.float32(inside[1]) >= np.float32(
        inside[3]
    ):
        raise BrokenEntry("zero-size-box", value, "redraw the box or delete the row")
    if max(overhangs) <= _MAX_ROUNDING:
        return inside, []
    return inside, [("box-past-border", f"{value}, is cut off", "see whether it fits")]
