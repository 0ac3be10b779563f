"""Reading images: the content decides the format, EXIF decides which side is up.

Pillow reads the header, so that an image's size is known (and refused) before any pixel is
decoded; OpenCV decodes. The orientation is applied here for both, since the two libraries and
their versions differ in where they look for it.
"""

import codecs
import io
import re
import stat
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from detect.errors import DetectError

# 16,384 × 16,384 pixels: above the largest aerial and microscope images that are annotated in
# one piece, and 768 MiB when decoded, which a usual machine still bears. A header of a few bytes
# can claim a thousand times that.
MAX_IMAGE_PIXELS = 2**28

# The names that images have in data sets, whatever the case.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

# What the first bytes must be. The classes are called directly: PIL.Image.open has a limit of its
# own, global to the process, that warns from a third of ours and refuses from two thirds.
_FORMATS: tuple[tuple[str, re.Pattern[bytes], Callable[[BinaryIO], ImageFile]], ...] = (
    ("JPEG", re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    ("WebP", re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImageFile),
    ("BMP", re.compile(rb"BM"), BmpImageFile),
    ("GIF", re.compile(rb"GIF8[79]a"), GifImageFile),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImageFile),
    ("PNM", re.compile(rb"P[1-6]\s"), PpmImageFile),
)
# What is found under the name of an image now and then, to name it in the error.
_STRANGERS = (
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer", "fetch the file: git lfs pull"),
    (re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE), "an HTML page", "download it again"),
    (re.compile(rb"(\xef\xbb\xbf)?\s*<(\?xml|svg|annotation)"), "XML text", ""),
    (re.compile(rb"%PDF"), "a PDF document", ""),
    (re.compile(rb"PK\x03\x04"), "a ZIP archive", ""),
    (re.compile(rb"....ftyp(avif|avis)", re.DOTALL), "an AVIF image", ""),
    (re.compile(rb"....ftyp(hei|hev|mif1|msf1)", re.DOTALL), "an HEIC image", ""),
    (re.compile(rb"....ftyp", re.DOTALL), "a video", ""),
    (re.compile(rb"\0\0\0\x0cjP  "), "a JPEG 2000 image", ""),
)
_CONVERT = "replace it by a JPEG, PNG, WebP or BMP image"
_COPY_AGAIN = "copy or download the file again"
_NUM_HEADER_BYTES = 64
# What a reduced image keeps of its shorter side, so that there is something left to compare.
_MIN_REDUCED_SIDE = 16
_ORIENTATION_TAG = 0x0112
_TRANSPOSING = (5, 6, 7, 8)

OpenFile = BinaryIO | io.BytesIO
ColorMode = Literal["color", "grayscale", "palette", "alpha", "16 bit", "CMYK"]
# Pillow's names of modes; what is not here is color.
_COLOR_MODES: dict[str, ColorMode] = {
    "1": "grayscale",
    "L": "grayscale",
    "P": "palette",
    "LA": "alpha",
    "PA": "alpha",
    "RGBA": "alpha",
    "RGBX": "alpha",
    "CMYK": "CMYK",
    "I": "16 bit",
    "F": "16 bit",
}

# In a JPEG's entropy-coded data, a marker is 0xFF followed by neither a stuffed zero, a restart
# number nor a fill byte (ITU-T T.81, B.1.1).
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = b"\xff\xd9"
_PNG_END = b"IEND\xaeB\x60\x82"  # the type and the checksum of the last chunk, always the same

_REDUCED_FLAGS = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}

# A broken image ends in our own error; OpenCV's log to stderr would only repeat it. (A few
# messages of libjpeg and libpng remain: they write to stderr directly.)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
# A loader worker that is forked while OpenCV has threads of its own hangs at its next call; and
# images are worked on in parallel already, one by each worker.
cv2.setNumThreads(0)
# Pillow warns of damaged EXIF data, which is common and does not concern the pixels.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")


class ImageError(DetectError):
    """An image cannot be read.

    The message alone makes the error, so that it survives the way out of a worker process.

    Attributes:
        value: what was found.
        remedy: what to do.
    """

    def __init__(self, message: str, value: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.value = value
        self.remedy = remedy

    @classmethod
    def at(cls, path: str | Path, value: str, remedy: str) -> "ImageError":
        """The error of the image at `path`."""
        return cls(f"{path}: {value}; {remedy}", value, remedy)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image says of itself before its pixels.

    Attributes:
        file_format: JPEG, PNG, WebP, BMP, GIF, TIFF or PNM.
        stored_size: (height, width) in pixels of the pixels as stored.
        orientation: EXIF's 1 … 8; 1 is upright. TIFF is always 1 here: its reader turns it.
        color_mode: how the pixels are stored; all become 8-bit RGB when they are read. `16 bit`
            is whatever has more than 8 bits a channel.
    """

    file_format: str
    stored_size: tuple[int, int]
    orientation: int
    color_mode: ColorMode = "color"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels as displayed."""
        height, width = self.stored_size
        return (width, height) if self.orientation in _TRANSPOSING else (height, width)


def read_image(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Read an image as 8-bit RGB, upright.

    The content decides the format, whatever the name's suffix. Grayscale and palettes become RGB;
    of 16 bits the upper 8 are kept; alpha is dropped; of an animation the first frame is read.

    Raises:
        ImageError: there is no such file, it is empty, no image, truncated, broken, or larger
            than `MAX_IMAGE_PIXELS` by its header.
    """
    with _open(path) as file:
        return _read_color(path, file)


def decode_image(content: bytes, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """Read an image from the bytes of a file, as `read_image` does; errors call it `name`.

    Raises:
        ImageError: as `read_image`.
    """
    return _read_color(name, io.BytesIO(content))


def _read_color(name: str | Path, file: OpenFile) -> np.ndarray:
    header, data = _load(name, file)
    # OpenCV turns a TIFF whether asked or not, and only halfway when asked not to.
    keep_as_stored = 0 if header.file_format == "TIFF" else cv2.IMREAD_IGNORE_ORIENTATION
    image = _decode(name, data, cv2.IMREAD_COLOR_RGB | keep_as_stored, header.stored_size)
    return _upright(image, header.orientation)


def read_unchanged_image(path: Path, size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """Read an image that a data set knows to be of `size` (height, width).

    Raises:
        ImageError: as `read_image`.
        DetectError: its size is another one.
    """
    image = read_image(path)
    if image.shape[:2] != size:
        raise DetectError(
            f"{path}: expected (height, width) {size} as when the data set was read, found "
            f"{image.shape[:2]}; the file was replaced meanwhile: start again"
        )
    return image


def read_image_header(path: Path) -> ImageHeader:
    """Read size and orientation without decoding the image.

    Raises:
        ImageError: as `read_image`, but damage behind the header goes unnoticed.
    """
    with _open(path) as file:
        return _parse_header(path, file)


def read_image_size(path: Path) -> tuple[int, int]:
    """Read (height, width) in pixels as displayed, without decoding the image.

    Raises:
        ImageError: as `read_image_header`.
    """
    return read_image_header(path).size


def verify_image(path: Path) -> tuple[int, int]:
    """Decode an image only to see that it can be; return (height, width) as displayed.

    Raises:
        ImageError: as `read_image`.
    """
    return read_reduced(path)[0].size


def read_reduced(path: Path) -> tuple[ImageHeader, bytes, UInt8[np.ndarray, "h w"]]:
    """Decode an image only roughly: without color, upright, an eighth of its height and width.

    A JPEG is decoded at that size, which reads all of its data at about 60 % of the time. Small
    images shrink less, so that the shorter side keeps 16 pixels if it has them.

    Returns:
        The header, the bytes of the whole file, and the gray image.

    Raises:
        ImageError: as `read_image`.
    """
    with _open(path) as opened:
        header, data = _load(path, opened)
    height, width = header.stored_size
    divisor = next((d for d in (8, 4, 2) if min(height, width) >= d * _MIN_REDUCED_SIDE), 1)
    if header.file_format == "JPEG":
        flags = _REDUCED_FLAGS[divisor] | cv2.IMREAD_IGNORE_ORIENTATION
        gray = _decode(path, data, flags, (-(-height // divisor), -(-width // divisor)))
    else:
        # a TIFF is turned already, see read_image
        keep_as_stored = 0 if header.file_format == "TIFF" else cv2.IMREAD_IGNORE_ORIENTATION
        image = _decode(path, data, cv2.IMREAD_COLOR | keep_as_stored, None)
        gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        width, height = (-(-side // divisor) for side in (image.shape[1], image.shape[0]))
        gray = cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA)
    return header, data, _upright(gray, header.orientation)


def _load(path: str | Path, file: OpenFile) -> tuple[ImageHeader, bytes]:
    """Read the whole file, but only when its header holds what it should."""
    header = _parse_header(path, file)
    file.seek(0)
    try:
        data = file.read()
    except OSError as error:
        raise _unreadable(path, error) from error
    if _is_truncated(data, header.file_format):
        value = f"the {header.file_format} is cut off: its end is missing"
        raise ImageError.at(path, value, _COPY_AGAIN)
    return header, data


def _open(path: Path) -> BinaryIO:
    try:
        status = path.stat()
        # reading from a pipe or a device could wait for ever
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise ImageError.at(path, f"expected an image, found {kind}", "name a file")
        if status.st_size == 0:
            raise ImageError.at(path, "the file is empty", _COPY_AGAIN)
        return path.open("rb")
    except FileNotFoundError as error:
        raise ImageError.at(path, "there is no such file", "check the path") from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: OSError | ValueError) -> ImageError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return ImageError.at(path, f"the file cannot be read: {reason}", "check it and its permissions")


def _parse_header(path: str | Path, file: OpenFile) -> ImageHeader:
    try:
        start = file.read(_NUM_HEADER_BYTES)
        file.seek(0)
    except OSError as error:
        raise _unreadable(path, error) from error
    known = [entry for entry in _FORMATS if entry[1].match(start)]
    if not known:
        stranger, remedy = _describe_stranger(start)
        raise ImageError.at(path, f"expected an image, found {stranger}", remedy)
    file_format, _, parse = known[0]
    try:
        image = parse(file)
        width, height = image.size
        color_mode = _color_mode(image)
    # A parser may stumble over damaged bytes with any exception at all.
    except Exception as error:
        value = f"the file begins like a {file_format} but its header is broken"
        raise ImageError.at(path, value, _COPY_AGAIN) from error
    if height * width > MAX_IMAGE_PIXELS:
        raise ImageError.at(
            path,
            f"the header claims {width:,} by {height:,} pixels, more than the {MAX_IMAGE_PIXELS:,} "
            "that are read",
            "cut the image into tiles, or replace it if the header is wrong",
        )
    is_tiff = file_format == "TIFF"
    orientation = 1 if is_tiff else _orientation(image)
    return ImageHeader(file_format, (height, width), orientation, color_mode)


def _color_mode(image: ImageFile) -> ColorMode:
    # the layout in the file, such as RGB;16B, where Pillow itself reads only 8 of the bits
    if ";16" in image.mode or any(";16" in str(tile[3]) for tile in image.tile):
        return "16 bit"
    return _COLOR_MODES.get(image.mode, "color")


def _orientation(image: ImageFile) -> int:
    """EXIF's orientation 1 … 8, or 1 where there is none or it makes no sense.

    Only what stands before the pixels counts: Image.getexif would decode a PNG to look behind.
    """
    data = image.info.get("exif")
    if not data:
        return 1
    exif = Image.Exif()
    try:
        exif.load(data)
        orientation = exif.get(_ORIENTATION_TAG)
    # Broken EXIF is common and concerns a viewer, not the pixels: it is taken for none.
    except Exception:
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _is_truncated(data: bytes, file_format: str) -> bool:
    """Whether the end of the image is missing; decoders fill the rest with gray, or not."""
    if file_format == "JPEG":
        # nearly every file ends with the marker, maybe padded; the walk is for the others
        return not data[-64:].rstrip(b"\0").endswith(_END_OF_IMAGE) and not _has_jpeg_end(data)
    if file_format == "PNG":
        return data.rfind(_PNG_END) < 0
    if file_format == "WebP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    return False


def _has_jpeg_end(data: bytes) -> bool:
    """Walk from marker to marker: images in other segments or behind the end don't count."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _START_OF_SCAN:
            found = _MARKER_AFTER_SCAN.search(data, position)
            if found is None:
                return False
            if found.group() == _END_OF_IMAGE:
                return True
            position = found.start()
    return False


def _decode(
    path: str | Path, data: bytes, flags: int, expected_size: tuple[int, int] | None
) -> np.ndarray:
    try:
        image: np.ndarray | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError):
        image = None
    if image is None:
        value = "the image cannot be decoded: its data is broken or of an unusual kind"
        raise ImageError.at(path, value, f"{_COPY_AGAIN}, or {_CONVERT}")
    if expected_size is not None and image.shape[:2] != expected_size:
        value = f"the header says {expected_size} (height, width), the data {image.shape[:2]}"
        raise ImageError.at(path, value, _COPY_AGAIN)
    return image


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo EXIF's orientation (Exif 2.3, tag 0x0112)."""
    if orientation in _TRANSPOSING:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _describe_stranger(start: bytes) -> tuple[str, str]:
    """What a file that is no image looks like, and what to do with it."""
    for pattern, description, remedy in _STRANGERS:
        if pattern.match(start):
            return description, remedy or _CONVERT
    try:
        # incremental: a character that is cut in two at the end is left out, not an error
        text = codecs.getincrementaldecoder("utf-8")().decode(start[:24])
    except UnicodeDecodeError:
        text = "\0"
    if all(character.isprintable() or character in "\r\n\t" for character in text):
        return f"text that begins with {text!r}", _CONVERT
    return f"data that begins with the bytes {start[:8].hex(' ')}", _CONVERT


def describe_size(size: tuple[int, int] | tuple[float, float]) -> str:
    """A (height, width) for people."""
    height, width = size
    return f"{width:g} wide and {height:g} high"
