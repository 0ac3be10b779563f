"""What a user gives as an image, or as images, and the RGB arrays that it means."""

import glob
import http.client
import io
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal
from urllib.error import HTTPError

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from detect.data import read_image
from detect.data.images import decode_image
from detect.errors import DetectError
from detect.structures import Sample

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
URL_SCHEMES = ("http://", "https://")
URL_TIMEOUT = 30.0  # seconds that a server may be silent
MAX_URL_BYTES = 2**28

ColorOrder = Literal["rgb", "bgr"]
# One image, where a path, a glob or a tensor means one.
ImageSource = str | Path | np.ndarray | Tensor | Image.Image | bytes | BinaryIO | io.BytesIO


def find_images(sources: Iterable[str | Path]) -> dict[str, Path]:
    """Unique name → file, for all images that the sources mean, in order.

    A file is taken whatever its suffix; of a folder, the files below it with a suffix of images.
    Files that are named alike get a number.

    Raises:
        DetectError: a source means no file.
    """
    paths: dict[Path, Path] = {}  # file → what its name is taken from
    for source in sources:
        for file, relative in _files_of(source).items():
            paths.setdefault(file, relative)
    named: dict[str, Path] = {}
    for file, relative in paths.items():
        name = base = str(relative.with_suffix(""))
        number = 2
        while name in named:
            name, number = f"{base}_{number}", number + 1
        named[name] = file
    return named


def is_one_image(given: Any) -> bool:
    """Whether `given` means one image, not a folder, a glob, a batch or another collection."""
    if isinstance(given, str | Path):
        return _is_url(given) or Path(given).is_file() or not _means_several(given)
    if isinstance(given, Tensor):
        return given.ndim != 4
    return not isinstance(given, Iterable) or _is_single(given)


def samples_of(given: Any, color: str = "rgb") -> Iterator[Sample]:
    """The images that `given` means, one after another, each read when its turn comes.

    Args:
        given: what `Model.predict` takes.
        color: the order of the channels of arrays and tensors.

    Raises:
        DetectError: it means no image, or one that cannot be read.
    """
    if color not in ("rgb", "bgr"):
        raise DetectError(f"color: expected 'rgb' or 'bgr', found {color!r:.40}")
    for number, (image, path) in enumerate(_images_of(given, color, "images")):
        yield Sample.of_image(image, str(number) if path is None else path.stem, path)


def image_of(given: Any, color: str = "rgb") -> UInt8[np.ndarray, "H W 3"]:
    """The one image that `given` means.

    Raises:
        DetectError: several images, or none that can be read.
    """
    if not is_one_image(given):
        raise DetectError(f"image: expected one image, found several: {type(given).__name__}")
    (sample,) = samples_of(given, color)
    return sample.image


def _images_of(given: Any, color: str, place: str) -> Iterator[tuple[np.ndarray, Path | None]]:
    if isinstance(given, str | Path):
        if _is_url(given):
            yield _downloaded(str(given)), None
            return
        for path in [Path(given)] if is_one_image(given) else _files_of(given):
            yield read_image(path), path
    elif isinstance(given, Image.Image):
        yield _of_pillow(given, place), None
    elif isinstance(given, np.ndarray):
        yield _of_array(given, color, place), None
    elif isinstance(given, Tensor):
        for row, image in enumerate(given if given.ndim == 4 else [given]):
            name = f"{place}[{row}]" if given.ndim == 4 else place
            yield _of_array(_channels_last(image, name), color, name), None
    elif isinstance(given, bytes | bytearray | memoryview):
        yield _decoded(bytes(given), f"{place} (bytes)"), None
    elif hasattr(given, "read"):
        name = str(getattr(given, "name", None) or f"{place} (a file object)")
        content = given.read()
        if not isinstance(content, bytes):
            raise DetectError(f"{name}: expected a binary file; open it with mode 'rb'")
        yield _decoded(content, name), None
    elif isinstance(given, Iterable) and not isinstance(given, dict):
        for row, item in enumerate(given):
            yield from _images_of(item, color, f"{place}[{row}]")
    else:
        raise DetectError(
            f"{place}: expected a path, URL, folder, glob, array, tensor, Pillow image, bytes or "
            f"file, or a list of them, found {type(given).__name__}"
        )


def _is_single(given: Any) -> bool:
    kinds = (Image.Image, np.ndarray, Tensor, bytes, bytearray, memoryview, dict)
    return isinstance(given, kinds) or hasattr(given, "read")


def _is_url(given: str | Path) -> bool:
    return isinstance(given, str) and given.lower().startswith(URL_SCHEMES)


def _means_several(given: str | Path) -> bool:
    return Path(given).is_dir() or glob.has_magic(str(given))


def _files_of(source: str | Path) -> dict[Path, Path]:
    """File → what it is named after, of an image, a folder or a glob."""
    path = Path(source)
    if path.is_dir():
        below = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        found = {file: file.relative_to(path) for file in below if file.is_file()}
    elif path.is_file():
        found = {path: Path(path.name)}
    else:
        matches = sorted(map(Path, glob.glob(str(source), recursive=True)))  # noqa: PTH207
        found = {match: Path(match.name) for match in matches if match.is_file()}
    if not found:
        raise DetectError(
            f"{source}: expected an image, a folder of images "
            f"({', '.join(SUFFIXES)}) or a glob that matches some, found none"
        )
    return found


def _of_pillow(given: Image.Image, place: str) -> np.ndarray:
    """As the reader of files does it: upright, alpha dropped, of 16 bits the upper 8."""
    try:
        upright = ImageOps.exif_transpose(given)
    except Exception as error:  # a damaged file, which Pillow reads when it must
        raise DetectError(f"{place}: the Pillow image cannot be read: {error}") from error
    if upright.mode == "F":
        return _of_array(np.asarray(upright), "rgb", place)
    if upright.mode.startswith("I"):
        gray = (np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return _of_array(gray, "rgb", place)
    return np.array(upright.convert("RGB"))


def _channels_last(image: Tensor, place: str) -> np.ndarray:
    if image.ndim != 3 or image.shape[0] not in (1, 3, 4):
        remedy = ""
        if image.ndim == 3 and image.shape[2] in (1, 3, 4):
            remedy = "; channels go first: tensor.permute(2, 0, 1)"
        raise DetectError(
            f"{place}: expected a tensor [3, H, W] or [B, 3, H, W], found "
            f"{list(image.shape)}{remedy}"
        )
    values = image.detach().cpu()
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    return values.permute(1, 2, 0).numpy()


def _of_array(array: np.ndarray, color: str, place: str) -> np.ndarray:
    """RGB uint8 from `[H, W]`, `[H, W, 1]`, `[H, W, 3]` or `[H, W, 4]`, uint8 or float 0…1."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        remedy = ""
        if array.ndim == 3 and array.shape[0] in (1, 3):
            remedy = "; channels go last: array.transpose(1, 2, 0)"
        elif array.ndim == 4:
            remedy = "; give several images as a list: list(array)"
        raise DetectError(
            f"{place}: expected an array [H, W, 3], or [H, W] in gray or [H, W, 4] with alpha, "
            f"found {list(array.shape)}{remedy}"
        )
    if array.size == 0:
        raise DetectError(f"{place}: expected an image, found no pixels: {list(array.shape)}")
    if np.issubdtype(array.dtype, np.floating):
        array = _of_unit_values(array, place)
    if array.dtype != np.uint8:
        as_bytes = "array.astype('uint8')"
        remedies = {
            "bool": f"{as_bytes} * 255",
            "uint16": "(array >> 8).astype('uint8')",
        }
        raise DetectError(
            f"{place}: expected uint8 0…255 or float 0…1, found {array.dtype}; convert it, such as "
            f"{remedies.get(array.dtype.name, as_bytes)}"
        )
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    array = array[:, :, :3]
    # torch wants arrays that it could write to; those that Pillow gives are not
    return np.require(array[:, :, ::-1] if color == "bgr" else array, requirements=["C", "W"])


def _of_unit_values(array: np.ndarray, place: str) -> np.ndarray:
    low, high = float(array.min()), float(array.max())  # nan if there is one
    if not (low >= 0 and high <= 1):
        remedy = "mean and standard deviation may have been applied: give the image before that"
        if low >= 0 and 1 < high <= 255:
            remedy = "divide by 255, or take array.astype('uint8')"
        raise DetectError(
            f"{place}: expected float values in 0…1, found {low:g} … {high:g}; {remedy}"
        )
    values: np.ndarray = np.rint(array * 255).astype(np.uint8)
    return values


def _decoded(content: bytes, name: str) -> np.ndarray:
    if not content:
        raise DetectError(f"{name}: expected an image, found nothing")
    return decode_image(content, name)


def _downloaded(url: str) -> np.ndarray:
    request = urllib.request.Request(url, headers={"User-Agent": "detect"})
    try:
        with urllib.request.urlopen(request, timeout=URL_TIMEOUT) as answer:
            content: bytes = answer.read(MAX_URL_BYTES + 1)
    except (
        OSError,
        ValueError,
        http.client.HTTPException,
    ) as error:  # urllib's own errors are OSErrors
        reason = error if isinstance(error, HTTPError) else getattr(error, "reason", error)
        raise DetectError(
            f"{url}: the image cannot be downloaded: {reason}; check the address and the network, "
            "or give a file"
        ) from error
    if len(content) > MAX_URL_BYTES:
        raise DetectError(
            f"{url}: expected an image, found more than {MAX_URL_BYTES:,} bytes; download it and "
            "give the file"
        )
    return _decoded(content, url)
