"""Many images on one sheet, and the one way to write an image."""

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from detect.errors import DetectError
from detect.files import replacing
from detect.visualization.drawing import Color, font_for, load_font, shortened

PAPER: Color = (255, 255, 255)
INK: Color = (32, 32, 32)

# Encoder settings by suffix; JPEG's is high, since thin lines and letters suffer first.
IMAGE_SUFFIXES = {
    ".png": [cv2.IMWRITE_PNG_COMPRESSION, 6],
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95],
}


def contact_sheet(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    captions: Sequence[str] | None = None,
    columns: int | None = None,
    cell_size: int = 256,
    title: str | None = None,
    *,
    margin: int = 8,
) -> UInt8[np.ndarray, "H W 3"]:
    """Arrange images in a grid, row by row, with a caption below each.

    Every image is scaled, its aspect kept, until its longer side is `cell_size`; a row is as high
    as its highest image. A caption that is too wide is shortened.

    Args:
        images: RGB, of any sizes, at least one.
        captions: one for each image.
        columns: images in a row; by default about as many as make the sheet 4 to 3.
        cell_size: the longer side of an image on the sheet, in pixels.
        title: a line at the top.
        margin: pixels between the images and around them.

    Raises:
        ValueError: no images, another number of captions, or a size below 1.
    """
    if not images:
        raise ValueError("contact_sheet: expected at least one image, found none")
    if captions is not None and len(captions) != len(images):
        raise ValueError(
            f"contact_sheet: expected a caption for each of {len(images)} images, "
            f"found {len(captions)}"
        )
    if columns is None:
        columns = math.ceil(math.sqrt(len(images) * 4 / 3))
    if min(columns, cell_size) < 1:
        raise ValueError(
            f"contact_sheet: expected positive columns and cell_size, found {columns}, {cell_size}"
        )
    columns = min(columns, len(images))
    fitted = [_fitted(image, cell_size) for image in images]
    rows = [fitted[start : start + columns] for start in range(0, len(fitted), columns)]
    caption_size = max(11, round(cell_size / 16))
    caption_height = 0 if captions is None else _line_height(caption_size)
    title_size = max(14, round(cell_size / 10))
    top = margin if title is None else 2 * margin + _line_height(title_size)
    width = margin + columns * (cell_size + margin)
    row_heights = [max(image.shape[0] for image in row) + caption_height + margin for row in rows]
    sheet = Image.new("RGB", (width, top + sum(row_heights)), PAPER)
    if title is not None:
        _write(sheet, title, (margin, margin), title_size, width - 2 * margin, centered=False)
    for index, image in enumerate(fitted):
        row, column = divmod(index, columns)
        x = margin + column * (cell_size + margin)
        y = top + sum(row_heights[:row])
        sheet.paste(Image.fromarray(image), (x + (cell_size - image.shape[1]) // 2, y))
        if captions is not None:
            below = y + row_heights[row] - caption_height - margin
            _write(sheet, captions[index], (x, below), caption_size, cell_size, centered=True)
    return np.array(sheet)


def save_image(path: Path, image: UInt8[np.ndarray, "H W 3"]) -> None:
    """Write an RGB image as PNG or JPEG, as the suffix says, whole or not at all.

    Raises:
        DetectError: the suffix is another, or the file cannot be written.
    """
    settings = IMAGE_SUFFIXES.get(path.suffix.lower())
    if settings is None:
        raise DetectError(
            f"{path}: expected an image file with the suffix {', '.join(IMAGE_SUFFIXES)}, "
            f"found {path.suffix or 'none'!r}; name it otherwise"
        )
    _, encoded = cv2.imencode(path.suffix.lower(), image[:, :, ::-1], settings)  # it takes BGR
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def _fitted(image: np.ndarray, size: int) -> np.ndarray:
    """The image scaled to a longer side of `size` pixels."""
    height, width = image.shape[:2]
    factor = size / max(height, width)
    if factor == 1:
        return np.ascontiguousarray(image)
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    new_size = (max(1, round(width * factor)), max(1, round(height * factor)))
    fitted: np.ndarray = cv2.resize(image, new_size, interpolation=interpolation)
    return fitted


def _line_height(font_size: int) -> int:
    return sum(load_font(font_size).getmetrics())


def _write(
    sheet: Image.Image,
    text: str,
    corner: tuple[int, int],
    font_size: int,
    width: int,
    *,
    centered: bool,
) -> None:
    """Write one line of text into the `width` pixels right of `corner` = (x, y)."""
    font = font_for(text + "…", font_size) or load_font(font_size)
    text = shortened(text, font, width)
    shift = (width - font.getlength(text)) / 2 if centered else 0
    ImageDraw.Draw(sheet).text((corner[0] + shift, corner[1]), text, fill=INK, font=font)
