"""Other sources of proposals behind the same contract: windows, random, jittered, given boxes.

They are for comparison and for study: what a detector makes of boxes that know nothing of the
image, or that know it all.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from detect.errors import DetectError
from detect.proposals.base import PROPOSALS, first_of_each, generator_for, is_large_enough
from detect.proposals.collection import Proposals


@PROPOSALS.register("dense-windows")
@dataclass(frozen=True, slots=True)
class DenseWindows:
    """Windows of all sizes at all places: what the sliding window looks at.

    The large ones stand first; those of one size and shape row by row.

    Args:
        scales: the square root of a window's area, as a share of the image's.
        aspect_ratios: width over height.
        stride: the step, as a share of the window's own width and height.
    """

    scales: tuple[float, ...] = (0.8, 0.56, 0.4, 0.28, 0.2, 0.14, 0.1)
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    stride: float = 0.33

    def __post_init__(self) -> None:
        for name in ("scales", "aspect_ratios"):
            values = getattr(self, name)
            if not values or min(values) <= 0:
                raise DetectError(f"{name} of dense windows: expected more than 0, found {values}")
        if self.stride <= 0:
            raise DetectError(f"stride of dense windows: expected more than 0, found {self.stride}")

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "method": "dense-windows",
            "scales": list(self.scales),
            "aspect_ratios": list(self.aspect_ratios),
            "stride": self.stride,
        }

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], image_id: str
    ) -> Float32[np.ndarray, "N 4"]:
        """The windows, whole pixels; one that is larger than the image is cut off there."""
        del image_id  # nothing is drawn
        height, width = image.shape[:2]
        side = np.sqrt(height * width)
        parts = [np.zeros((0, 4))]
        for scale in sorted(self.scales, reverse=True):
            for ratio in self.aspect_ratios:
                xs, widths = _places(width, scale * side * np.sqrt(ratio), self.stride)
                ys, heights = _places(height, scale * side / np.sqrt(ratio), self.stride)
                x, y = np.meshgrid(xs, ys)
                starts = np.stack((x.ravel(), y.ravel()), axis=1)  # [places, 2]
                ends = starts + np.array([widths, heights])
                parts.append(np.concatenate((starts, ends), axis=1))
        boxes = np.concatenate(parts).astype(np.float32)
        distinct: np.ndarray = boxes[first_of_each(boxes)]
        return distinct


@PROPOSALS.register("random-boxes")
@dataclass(frozen=True, slots=True)
class RandomBoxes:
    """Boxes with corners drawn uniformly: what proposals must be better than.

    Args:
        count: boxes of an image; fewer where a small image does not have so many.
        seed: of the draw.
        min_size: of a side in pixels.
    """

    count: int = 2000
    seed: int = 0
    min_size: int = 20

    def __post_init__(self) -> None:
        _check_at_least("random boxes", count=(self.count, 1), seed=(self.seed, 0))
        _check_at_least("random boxes", min_size=(self.min_size, 0))

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments."""
        return {"method": "random-boxes", **asdict(self)}

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], image_id: str
    ) -> Float32[np.ndarray, "N 4"]:
        """Draw boxes of whole pixels until there are enough different ones of the least size."""
        height, width = image.shape[:2]
        generator = generator_for(self.seed, image_id)
        boxes = np.zeros((0, 4), np.int64)
        for _ in range(MAX_ROUNDS):
            xs = np.sort(generator.integers(0, width + 1, (self.count, 2)), axis=1)
            ys = np.sort(generator.integers(0, height + 1, (self.count, 2)), axis=1)
            drawn = np.stack((xs[:, 0], ys[:, 0], xs[:, 1], ys[:, 1]), axis=1)
            drawn = drawn[(drawn[:, 2:] > drawn[:, :2]).all(axis=1)]
            drawn = drawn[is_large_enough(drawn, self.min_size, (height, width))]
            boxes = np.concatenate((boxes, drawn))
            boxes = boxes[first_of_each(boxes)]
            if len(boxes) >= self.count:
                break
        return np.asarray(boxes[: self.count], np.float32)


@dataclass(frozen=True, slots=True)
class JitteredTruth:
    """The true boxes, moved and scaled a little: proposals as good as one likes.

    Box by box in turn, the first of each before the second of any; each edge is moved by a uniform
    share of the box's side, and cut off at the image. Those with less than half a pixel left are
    not given.

    Args:
        truths: the `[N, 4]` boxes of each image, xyxy pixels.
        jitter: the greatest shift of an edge, as a share of the box's side; 0 gives the truth.
        count: boxes for each object.
        seed: of the draw.
    """

    truths: Mapping[str, Float[np.ndarray, "_ 4"]] = field(repr=False)
    jitter: float = 0.2
    count: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.jitter < 0.5:
            raise DetectError(
                f"jitter of the truth: expected 0 or more and less than 0.5, where a box could "
                f"turn over, found {self.jitter}"
            )
        _check_at_least("jittered truth", count=(self.count, 1), seed=(self.seed, 0))

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments, the truths as a fingerprint."""
        truths = {name: boxes.astype(np.float32) for name, boxes in self.truths.items()}
        return {
            "method": "jittered-truth",
            "truths": Proposals.of_images(truths, {}).fingerprint,
            "jitter": self.jitter,
            "count": self.count,
            "seed": self.seed,
        }

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], image_id: str
    ) -> Float32[np.ndarray, "N 4"]:
        """Move the edges of each true box of the image."""
        height, width = image.shape[:2]
        truth = np.asarray(self.truths[image_id], np.float64)
        sides = np.tile(truth[:, 2:] - truth[:, :2], 2)  # [N, 4]
        shifts = generator_for(self.seed, image_id).uniform(
            -self.jitter, self.jitter, (self.count, *truth.shape)
        )
        boxes = (truth + shifts * sides).reshape(-1, 4)
        boxes = boxes.clip(0, (width, height, width, height)).astype(np.float32)
        boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= 0.5).all(axis=1)]
        distinct: np.ndarray = boxes[first_of_each(boxes)]
        return distinct


@dataclass(frozen=True, slots=True)
class GivenBoxes:
    """Boxes that are there already, such as those of a file.

    Args:
        proposals: of `read_proposals`, which has checked them.
    """

    proposals: Proposals

    @property
    def settings(self) -> dict[str, Any]:
        """What made the boxes."""
        return dict(self.proposals.settings)

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], image_id: str
    ) -> Float32[np.ndarray, "N 4"]:
        """The boxes of the image.

        Raises:
            DetectError: there are none of this image.
        """
        del image  # they were found in it already
        return self.proposals[image_id]


# Where an image is so small that `count` different boxes are rare or do not exist, drawing ends.
MAX_ROUNDS = 50


def _places(length: int, side: float, stride: float) -> tuple[np.ndarray, int]:
    """The starts of windows along one axis, spread evenly from border to border, and their side."""
    window = int(np.clip(round(side), 1, length))
    num_steps = int(np.ceil((length - window) / max(1.0, window * stride)))
    places: np.ndarray = np.rint(np.linspace(0, length - window, num_steps + 1))
    return places, window


def _check_at_least(owner: str, **values: tuple[int, int]) -> None:
    for name, (value, least) in values.items():
        if value < least:
            raise DetectError(f"{name} of {owner}: expected {least} or more, found {value}")
