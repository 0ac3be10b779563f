"""The contract of proposals: boxes of an image that may hold an object, best first.

A source takes an image and returns `[N, 4]` float32 boxes, xyxy pixels, half-open, within the
image, each of positive size, without duplicates, ranked: whoever wants n boxes takes the first n.
It knows nothing of classes.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from detect.errors import DetectError
from detect.registry import Registry

RGBImage = UInt8[np.ndarray, "H W 3"]
Boxes = Float32[np.ndarray, "N 4"]  # xyxy pixels


@runtime_checkable
class ProposalSource(Protocol):
    """Finds proposals in one image at a time."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Plain data that says all that the boxes depend on, apart from the image and its id."""
        ...

    def __call__(self, image: RGBImage, image_id: str) -> Boxes:
        """Find the boxes, best first.

        The result depends only on the arguments and the settings, not on the order of images or
        on the process.

        Args:
            image: RGB.
            image_id: the name of the image in its set; random draws depend on it.
        """
        ...


# The sources that need nothing but options, by the names that the command line has for them.
PROPOSALS: Registry[Any] = Registry("proposal method")


def generator_for(seed: int, image_id: str) -> np.random.Generator:
    """A generator for one image: its numbers depend only on the seed and the id."""
    digest = hashlib.sha256(image_id.encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, np.uint32).tolist()])


def check_at_least(owner: str, **values: tuple[int, int]) -> None:
    """Raise DetectError where the first of a named pair is less than the second."""
    for name, (value, least) in values.items():
        if value < least:
            raise DetectError(f"{name} of {owner}: expected {least} or more, found {value}")


def first_of_each(boxes: Float[np.ndarray, "N 4"] | Int[np.ndarray, "N 4"]) -> Int[np.ndarray, "M"]:
    """The rows that do not repeat an earlier row, in their order."""
    _, first = np.unique(boxes, axis=0, return_index=True)
    return np.sort(first)


def is_large_enough(
    boxes: Float[np.ndarray, "N 4"] | Int[np.ndarray, "N 4"], min_size: int, size: tuple[int, int]
) -> Bool[np.ndarray, "N"]:
    """Whether neither side is less than `min_size` pixels.

    Along a side of an image that is shorter than that, its length is enough, so the box of the
    whole image always counts. `size` is the image's (height, width); boxes are xyxy pixels.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    least = np.minimum(min_size, (size[1], size[0]))
    kept: np.ndarray = (sides >= least).all(axis=1)
    return kept
