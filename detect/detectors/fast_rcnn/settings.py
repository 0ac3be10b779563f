"""The options that Fast and Faster R-CNN share, in groups."""

from dataclasses import dataclass
from typing import Literal

from detect.detectors.fast_rcnn.pooling import Pooling
from detect.detectors.ranges import Count, CountOrZero, Counts, Rising, Share, Weight
from detect.errors import DetectError
from detect.structures import InputSpec

Head = Literal["backbone", "mlp"]


@dataclass(frozen=True)
class InputSettings:
    """How images of any shape are fed.

    Attributes:
        input_size: most pixels of the longer side.
        shorter_side: pixels of the shorter side; None pads images to squares of `input_size`.
    """

    input_size: Count = 1000
    shorter_side: Count | None = 600

    def spec(self) -> InputSpec:
        """What the transforms are built from.

        Raises:
            DetectError: the shorter side is longer than the longer one.
        """
        if self.shorter_side is not None and self.shorter_side > self.input_size:
            raise DetectError(
                f"detector.shorter_side: expected 1 to {self.input_size} pixels "
                "(detector.input_size is the most that the longer side may have), found "
                f"{self.shorter_side}; null pads all images to a square of input_size"
            )
        size = (self.input_size, self.input_size)
        return InputSpec(size, self.shorter_side is None, self.shorter_side)


@dataclass(frozen=True)
class PyramidSettings:
    """Whether regions come from one map or from a pyramid.

    Attributes:
        neck: `fpn` makes a feature pyramid of the trunk's maps (Lin et al. 2017); it requires the
            head `mlp`, and regions are taken from the level of their size. None takes one map.
        neck_channels: of the pyramid's maps.
    """

    neck: Literal["fpn"] | None = None
    neck_channels: Count = 256


@dataclass(frozen=True)
class HeadSettings:
    """Where regions are taken from, and what classifies and moves them.

    Attributes:
        level: of the map, such as C4 for stride 16; None takes that, or the last one of a shorter
            trunk.
        pooling: `max` is the paper's; `align` takes interpolated values at exact points.
        head: `backbone` is the backbone's own, with all layers behind `level`; `mlp` has fully
            connected layers of its own, drawn at random.
        hidden_features: of the head `mlp`.
        region_size: k of the head `mlp`; the backbone's own head has its k.
        truncated_svd: singular values that are kept of each fully connected layer of the head in
            detection, such as [1024, 256] for VGG's fc6 and fc7 (Girshick 2015, section 4.4); 0
            leaves one whole.
    """

    level: str | None = None
    pooling: Pooling = "max"
    head: Head = "backbone"
    hidden_features: Counts = (1024, 1024)
    region_size: Count = 7
    truncated_svd: tuple[CountOrZero, ...] | None = None


@dataclass(frozen=True)
class RegionLearning:
    """Which regions a step learns from, and how much their boxes count.

    Attributes:
        regions_per_image: R/N: the number drawn, at most a quarter of them with an object.
        positive_iou: least IoU with an object of a region that shows it.
        background_iou: from and to; the greatest IoU with any object of a background region.
        box_weight: λ, the weight of the regions' box loss (Girshick 2015, equation 1: 1).
        box_beta: the error from which that loss, smooth L1, is a line, in normalized deltas (the
            paper's equation 3: 1); less asks for more exact boxes, as torchvision's 1/9 does.
    """

    regions_per_image: Count = 128
    positive_iou: Share = 0.5
    background_iou: Rising = (0.0, 0.5)
    box_weight: Weight = 1.0
    box_beta: Weight = 1.0
