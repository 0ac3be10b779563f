"""One look at every image's file: its header, whether it can be decoded, and what it resembles.

Reading and decoding is what a check of images costs; hash and thumbnail come from the same bytes
and the same reduced decode, so that they cost next to nothing besides.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from detect.data.faults import Progress
from detect.data.images import ImageError, ImageHeader, read_image, read_reduced
from detect.data.measuring import look_at_images

# The side of the thumbnail that decides whether two images are alike: 256 bytes an image, so
# that a million of them fit into memory.
THUMBNAIL_SIDE = 16
# 128 bits: a chance match among a million images has a probability of 1e-27.
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True, eq=False)
class InspectedImage:
    """What is kept of an image that can be decoded.

    Attributes:
        header: size, format, orientation and color mode.
        file_digest: equal for files of equal bytes.
        gray_digest: equal for images that are equal when decoded roughly and without color.
        difference_hash: 64 bits, of which few differ between images that look alike.
        thumbnail: gray, the whole image squeezed into a square.
    """

    header: ImageHeader
    file_digest: bytes
    gray_digest: bytes
    difference_hash: int
    thumbnail: UInt8[np.ndarray, "16 16"]


def inspect_image(path: Path) -> InspectedImage:
    """Read and decode one image.

    Raises:
        ImageError: as `read_image`.
    """
    header, data, gray = read_reduced(path)
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return InspectedImage(
        header,
        _digest(data),
        _digest(np.ascontiguousarray(gray).data),
        difference_hash(gray),
        cv2.resize(gray, side, interpolation=cv2.INTER_AREA),
    )


def inspect_images(
    paths: Sequence[Path], progress: Progress | None = None
) -> dict[Path, InspectedImage | ImageError]:
    """Look at each image.

    Args:
        paths: of the images; one that comes twice is read once.
        progress: called with the number of images looked at and the number of all.
    """
    unique = list(dict.fromkeys(paths))
    return dict(zip(unique, look_at_images(unique, inspect_image, progress), strict=True))


def difference_hash(gray: UInt8[np.ndarray, "h w"]) -> int:
    """Whether each of 8 × 8 cells is brighter than its left neighbor, as 64 bits.

    The dHash of N. Krawetz, "Kind of like that" (2013): scaling, compression and brightness leave
    nearly all of its bits as they are.
    """
    cells = cv2.resize(gray, (9, 8), interpolation=cv2.INTER_AREA)
    bits = cells[:, 1:] > cells[:, :-1]  # [8, 8]
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def pixel_digest(path: Path) -> bytes | None:
    """Equal for images of equal size and pixels; None where the file cannot be read any more."""
    try:
        image = read_image(path)
    except ImageError:
        return None
    return _digest(np.ascontiguousarray(image).data) + repr(image.shape).encode()


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
