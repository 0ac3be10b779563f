"""Selective search: many segmentations, grouped in many ways, their regions ranked at random.

Uijlings et al. 2013, "Selective search for object recognition". Table 5 of the paper names the
modes; a mode is a product of color spaces, similarity measures and scales of the first
segmentation.
"""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Int, UInt8

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
from detect.proposals.grouping import Similarity, group_regions
from detect.proposals.regions import (
    ColorSpace,
    color_bins,
    measure_regions,
    segment,
    texture_bins,
    to_color_space,
)

Mode = Literal["single", "fast", "quality"]

ALL = Similarity(color=True, texture=True, size=True, fill=True)
WITHOUT_COLOR = Similarity(texture=True, size=True, fill=True)
FILL = Similarity(fill=True)
SIZE = Similarity(size=True)


@dataclass(frozen=True, slots=True)
class Strategies:
    """All combinations of these are searched.

    Attributes:
        color_spaces: to segment and take histograms in.
        similarities: by which regions are grouped.
        scales: the k of the first segmentation, and its smallest segment in pixels.
    """

    color_spaces: tuple[ColorSpace, ...]
    similarities: tuple[Similarity, ...]
    scales: tuple[int, ...]


MODES: dict[Mode, Strategies] = {  # table 5
    "single": Strategies(("hsv",), (ALL,), (100,)),
    "fast": Strategies(("hsv", "lab"), (ALL, WITHOUT_COLOR), (50, 100)),
    "quality": Strategies(
        ("hsv", "lab", "rgi", "hue", "intensity"),
        (ALL, WITHOUT_COLOR, FILL, SIZE),
        (50, 100, 150, 300),
    ),
}

# Raise this when the same settings give other boxes, so that no old cache is used.
REVISION = 1


@PROPOSALS.register("selective-search")
@dataclass(frozen=True, slots=True)
class SelectiveSearch:
    """Selective search.

    Args:
        mode: `single`, `fast` or `quality` of the paper's table 5; or custom strategies.
        seed: of the pseudo-random ranking.
        min_size: boxes with a shorter side, in pixels of the searched image, are dropped. The
            paper has no limit; the default of 20 is that of the authors' release and of R-CNN.
        width: in pixels, to which the image is scaled first; the boxes are scaled back. R-CNN's
            release has 500. None searches the image as it is, as the paper does.
    """

    mode: Mode | Strategies = "fast"
    seed: int = 0
    min_size: int = 20
    width: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.mode, str) and self.mode not in MODES:
            raise DetectError(
                f"mode of selective search: expected one of {', '.join(MODES)}, found {self.mode!r}"
            )
        check_at_least("selective search", seed=(self.seed, 0), min_size=(self.min_size, 0))
        if self.width is not None and self.width < 1:
            raise DetectError(
                f"width of selective search: expected positive pixels, found {self.width}"
            )

    @property
    def strategies(self) -> Strategies:
        """What the mode stands for."""
        return self.mode if isinstance(self.mode, Strategies) else MODES[self.mode]

    @property
    def settings(self) -> dict[str, Any]:
        """All that the boxes depend on, including the versions of the libraries."""
        strategies = asdict(self.strategies)
        strategies["similarities"] = [
            "+".join(name for name, used in similarity._asdict().items() if used)
            for similarity in self.strategies.similarities
        ]
        return {
            "method": "selective-search",
            "revision": REVISION,
            "strategies": {name: list(values) for name, values in strategies.items()},
            "seed": self.seed,
            "min_size": self.min_size,
            "width": self.width,
            "scikit-image": version("scikit-image"),
            "opencv": cv2.__version__,
        }

    def __call__(self, image: RGBImage, image_id: str) -> Boxes:
        """Find the boxes of all regions of all hierarchies."""
        original_size = image.shape[:2]
        if self.width is not None:
            image = _scaled(image, self.width)
        boxes, positions = search(image, self.strategies)
        # section 4.3: the rank of a region is its position times a random number in 0…1
        ranks = positions * generator_for(self.seed, image_id).random(len(positions))
        boxes = boxes[ranks.argsort(kind="stable")]
        boxes = boxes[is_large_enough(boxes, self.min_size, image.shape[:2])]
        boxes = boxes[first_of_each(boxes)]
        height, width = original_size
        factors = np.tile((width / image.shape[1], height / image.shape[0]), 2)
        return np.asarray((boxes * factors).clip(0, (width, height) * 2), np.float32)


def search(
    image: RGBImage, strategies: Strategies
) -> tuple[Int[np.ndarray, "N 4"], Int[np.ndarray, "N"]]:
    """The box of each region of each hierarchy, and its position there, 1 for the whole image.

    Strategies of one color space and scale share the segmentation and its histograms, and its
    segments are returned once. Segments have no order: all take the position behind the merged
    regions.
    """
    all_boxes, all_positions = [], []
    for space in strategies.color_spaces:
        channels = to_color_space(image, space)
        colors, textures = color_bins(channels), texture_bins(channels)
        for labels, num_regions in segment(channels, strategies.scales):
            regions = measure_regions(labels, num_regions, colors, textures)
            all_boxes.append(regions.boxes)
            all_positions.append(np.full(num_regions, num_regions))
            for similarity in strategies.similarities:
                hierarchy = group_regions(regions, similarity)
                all_boxes.append(hierarchy.boxes[num_regions:])
                all_positions.append(np.arange(num_regions - 1, 0, -1))
    return np.concatenate(all_boxes), np.concatenate(all_positions)


def _scaled(image: RGBImage, width: int) -> UInt8[np.ndarray, "h width 3"]:
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    shrinks = width < image.shape[1]
    scaled: np.ndarray = cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return scaled
