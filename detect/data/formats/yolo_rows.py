"""One row of YOLO's text format: `class cx cy w h`, as shares of the image's sides."""

import math
import re
from collections.abc import Sequence

import numpy as np

from detect.data.annotated import AnnotatedObject

# Six decimals, as most tools write them, make boxes at the border pass it by less than this share.
_MAX_ROUNDING = 1e-5
# A box that passes the border by no more than this is cut off there, in pixels.
_MAX_OVERHANG = 1.0
# Digits of a pixel that rows keep; beyond are the roundings of shares.
_PIXEL_DIGITS = 6
_DELETE_OR_CORRECT = "write `class cx cy w h`, or delete the row"


class BrokenRow(Exception):  # noqa: N818 — it carries a fault from where it is found to its record
    """What is wrong with a row.

    Attributes:
        title: names the row.
        rule: of the fault.
        value: what was found.
        remedy: what to do.
    """

    def __init__(self, title: str, rule: str, value: str, remedy: str) -> None:
        super().__init__(value)
        self.title, self.rule, self.value, self.remedy = title, rule, value, remedy


def read_row(
    row: str, title: str, class_names: Sequence[str], size: tuple[int, int] | None
) -> tuple[AnnotatedObject, list[tuple[str, str, str]]]:
    """An object, and warnings: rule, value and remedy of each.

    Args:
        row: not blank.
        title: `line 3`.
        class_names: of the labels 0 … C−1.
        size: (height, width) of the image; None when it is not known.

    Raises:
        BrokenRow: the row is faulty.
    """
    columns = row.split()
    label = _read_label(columns[0], title, class_names)
    title = f"{title} ({class_names[label]})"
    if len(columns) != 5:
        raise BrokenRow(title, *_wrong_columns(columns))
    numbers = [_read_share(text, title) for text in columns[1:]]
    x, y, width, height = numbers
    if max(numbers) > 2:
        value = f"{' '.join(columns[1:])}: not shares of the image's sides; pixels?"
        remedy = "divide x and width by the image's width, y and height by its height"
        raise BrokenRow(title, "not-normalized", value, remedy)
    if width <= 0 or height <= 0:
        value = f"width {columns[3]} and height {columns[4]}: a box of no size"
        raise BrokenRow(title, "zero-size-box", value, "redraw the box or delete the row")
    rows, columns_in_image = size or (1, 1)
    scale = (columns_in_image, rows)
    box = (
        round((x - width / 2) * scale[0], _PIXEL_DIGITS),
        round((y - height / 2) * scale[1], _PIXEL_DIGITS),
        round((x + width / 2) * scale[0], _PIXEL_DIGITS),
        round((y + height / 2) * scale[1], _PIXEL_DIGITS),
    )
    if size is None:  # the image is left out anyway
        return AnnotatedObject(title, class_names[label], box), []
    inside, warnings = _cut_off(box, scale, title)
    return AnnotatedObject(title, class_names[label], inside), warnings


def _read_label(text: str, title: str, class_names: Sequence[str]) -> int:
    # some tools write 3.0
    match = re.fullmatch(r"(-?[0-9]{1,9})(?:\.0*)?", text)
    if match is None:
        found = f"expected the number of a class, found {text[:40]!r}"
        raise BrokenRow(title, "bad-class", found, _DELETE_OR_CORRECT)
    label = int(match[1])
    if not 0 <= label < len(class_names):
        value = f"class {label}, and there are the classes 0 … {len(class_names) - 1}"
        remedy = "correct the number, or add the class to names"
        raise BrokenRow(title, "unknown-class", value, remedy)
    return label


def _wrong_columns(columns: Sequence[str]) -> tuple[str, str, str]:
    number = len(columns)
    if number == 6:
        value = "6 columns; the sixth looks like a score of a detection"
        return "wrong-columns", value, "labels have none: delete the column"
    if number >= 7 and number % 2 == 1:
        value = f"{number} columns: a polygon, as segmentation sets have them"
        return "polygon-row", value, "write the box around it as `class cx cy w h`"
    value = f"{number} columns, expected 5"
    return "wrong-columns", value, _DELETE_OR_CORRECT


def _read_share(text: str, title: str) -> float:
    try:
        # Python's float also takes 1_000, which nobody means
        number = math.nan if "_" in text else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        value = f"expected a number, found {text[:40]!r}"
        raise BrokenRow(title, "not-a-number", value, "write shares of the image, 0 … 1")
    return number


def _cut_off(
    box: tuple[float, float, float, float],
    scale: tuple[int, int],
    title: str,
) -> tuple[tuple[float, float, float, float], list[tuple[str, str, str]]]:
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
        raise BrokenRow(title, "box-outside-image", value, remedy)
    inside = (
        max(box[0], 0.0),
        max(box[1], 0.0),
        min(box[2], float(scale[0])),
        min(box[3], float(scale[1])),
    )
    if np.float32(inside[0]) >= np.float32(inside[2]) or np.float32(inside[1]) >= np.float32(
        inside[3]
    ):
        raise BrokenRow(title, "zero-size-box", value, "redraw the box or delete the row")
    if max(overhangs) <= _MAX_ROUNDING:
        return inside, []
    return inside, [("box-past-border", f"{value}, is cut off", "see whether it fits")]
