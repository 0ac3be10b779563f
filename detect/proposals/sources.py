"""Other proposal sources: dense windows, random boxes, jittered truth, given boxes.

They show what a detector makes of boxes that know nothing of the image, or everything.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from detect.errors import DetectError
from detect.proposals.base import (
    PROPOSALS,
    Boxes,
    RGBImage,
    check_at_least,
    first_of_each,
    generator_for,
    is_large_enough,
)
from detect.proposals.collection import Proposals


@PROPOSALS.register("dense-windows")
@dataclass(frozen=True, slots=True)
class DenseWindows:
    """Windows of all sizes at all places, as a sliding window visits them.

    Large ones come first; those of one size and shape row by row.

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

    def __call__(self, image: RGBImage, image_id: str) -> Boxes:
        """The windows in whole pixels, clipped to the image."""
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
    """Boxes with corners drawn uniformly: a baseline.

    Args:
        count: boxes of an image; a small image may have fewer.
        seed: of the draw.
        min_size: of a side in pixels.
    """

    count: int = 2000
    seed: int = 0
    min_size: int = 20

    def __post_init__(self) -> None:
        check_at_least(
            "random boxes", count=(self.count, 1), seed=(self.seed, 0), min_size=(self.min_size, 0)
        )

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments."""
        return {"method": "random-boxes", **asdict(self)}

    def __call__(self, image: RGBImage, image_id: str) -> Boxes:
        """Draw boxes in whole pixels until enough distinct ones are large enough."""
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
    """The true boxes, shifted and scaled a little: proposals of any chosen quality.

    Each edge moves by a uniform share of the box's side and is clipped to the image; boxes of less
    than half a pixel are dropped. The first box of each object comes before the second of any.

    Args:
        truths: the `[N, 4]` boxes of each image, xyxy pixels.
        jitter: the largest shift of an edge, as a share of the box's side; 0 gives the truth.
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
        check_at_least("jittered truth", count=(self.count, 1), seed=(self.seed, 0))

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

    def __call__(self, image: RGBImage, image_id: str) -> Boxes:
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
    """Boxes that already exist, such as those of a file.

    Args:
        proposals: of `read_proposals`, which has checked them.
    """

    proposals: Proposals

    @property
    def settings(self) -> dict[str, Any]:
        """What made the boxes."""
        return dict(self.proposals.settings)

    def __call__(self, image: RGBImage, image_id: str) -> Boxes:
        """The boxes of the image; DetectError if there are none of it."""
        del image  # they were found in it earlier
        return self.proposals[image_id]


# Ends the drawing where an image is too small for `count` distinct boxes.
MAX_ROUNDS = 50


def _places(length: int, side: float, stride: float) -> tuple[np.ndarray, int]:
    """The starts of windows along one axis, spread evenly from border to border, and their size."""
    window = int(np.clip(round(side), 1, length))
    num_steps = int(np.ceil((length - window) / max(1.0, window * stride)))
    places: np.ndarray = np.rint(np.linspace(0, length - window, num_steps + 1))
    return places, window
