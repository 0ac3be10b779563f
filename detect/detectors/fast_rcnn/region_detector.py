"""What Fast and Faster R-CNN share: one pass of the trunk an image, and a head for its regions."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from detect.backbones import Backbone
from detect.detectors.base import Detector
from detect.detectors.fast_rcnn.pooling import (
    FeatureMap,
    Pooling,
    nearest_scale,
    pool_regions,
    pyramid_level,
)
from detect.detectors.fast_rcnn.regions import (
    PaddedTruths,
    moved_boxes,
    rank_in_image,
    region_losses,
    sample_regions,
)
from detect.detectors.fast_rcnn.truncated_svd import check_ranks, with_truncated_layers
from detect.detectors.images import clip_to_frames, generator_on, pad_to
from detect.errors import DetectError
from detect.ops import divisor_over_processes, grouped_nms, has_area
from detect.structures import Detections, InputSpec

Head = Literal["backbone", "mlp"]

# A quarter of the regions of a step show an object (Girshick 2015, section 2.3).
POSITIVE_FRACTION = 0.25

# Power of two of the stride of the pyramid's finest map (Lin et al. 2017, section 3).
FINEST_LEVEL = 2

# Regions that go through the head at a time when nothing is learned: a bound on the memory.
REGION_CHUNK = 1024


class RegionDetector(Detector):
    """One or several feature maps of an image, and a head that classifies and moves regions.

    Args:
        backbone: its trunk up to `level`, and what is behind that for the backbone's own head.
        num_classes: C.
        input_spec: how it wants to be fed.
        level: of the map that regions are taken from; None takes stride 16, where there is one.
        head: see `FastRCNN`.
        hidden_features: of the head `mlp`.
        region_size: of the head `mlp`.
        pooling: see `pool_regions`.
        truncated_svd: see `FastRCNN`.
        regions_per_image: that a step learns from.
        positive_iou: see `sample_regions`.
        background_iou: see `sample_regions`.
        box_weight: λ of the loss.
        box_beta: see `region_losses`.
        iou_threshold: of the suppression among detections of a class.
        max_detections: kept for each image.
        neck: `fpn` for a feature pyramid instead of the one map.
        neck_channels: of the pyramid's maps.

    Raises:
        DetectError: settings that do not fit the backbone or each other.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        input_spec: InputSpec,
        level: str | None,
        head: Head,
        hidden_features: Sequence[int],
        region_size: int,
        pooling: Pooling,
        truncated_svd: Sequence[int] | None,
        regions_per_image: int,
        positive_iou: float,
        background_iou: tuple[float, float],
        box_weight: float,
        box_beta: float,
        iou_threshold: float,
        max_detections: int,
        neck: Literal["fpn"] | None = None,
        neck_channels: int = 256,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.input_spec = input_spec
        self.pooling: Pooling = pooling
        self.truncated_svd = truncated_svd
        self.regions_per_image = regions_per_image
        self.positive_iou = positive_iou
        self.background_iou = background_iou
        self.box_weight = box_weight
        self.box_beta = box_beta
        self.iou_threshold = iou_threshold
        self.max_detections = max_detections
        self.level = _level_of(backbone, level)
        self.levels = (self.level,) if neck is None else _pyramid_levels(backbone, level, head)
        self.neck: FeaturePyramidNetwork | None = None
        channels = backbone.level_channels[self.level]
        if neck is not None:
            inputs = [backbone.level_channels[name] for name in self.levels]
            self.neck = FeaturePyramidNetwork(inputs, neck_channels, LastLevelMaxPool())
            channels = neck_channels
        self.hidden: nn.Sequential | None = None
        if head == "mlp":
            self.region_size = region_size
            self.hidden = _fully_connected(channels * region_size**2, hidden_features)
            backbone.end_at(self.levels[-1])
        else:
            self.region_size = backbone.grid_at(self.level)
        self.backbone = backbone
        self._least_size = backbone.least_size(self.levels[-1])
        self.map_channels = channels
        feature_dim = hidden_features[-1] if head == "mlp" else backbone.feature_dim
        self.feature_dim = feature_dim
        self.classifier = nn.Linear(feature_dim, num_classes + 1)
        self.regressor = nn.Linear(feature_dim, 4 * num_classes)
        for layer, std in ((self.classifier, 0.01), (self.regressor, 0.001)):  # section 2.3
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        self._truncated: tuple[tuple[int, ...], nn.Module] | None = None
        if truncated_svd is not None:
            check_ranks(self.hidden or backbone.part_behind(self.level), truncated_svd)

    def maps(
        self,
        images: Float[Tensor, "B 3 H W"],
        scale: float = 1.0,
        *,
        backbone: Backbone | None = None,
        neck: FeaturePyramidNetwork | None = None,
    ) -> list[FeatureMap]:
        """The maps that regions are taken from; of a pyramid, one coarser map stands behind them.

        Images that are too small or narrow for the trunk to leave a map are padded.

        Args:
            images: in 0…1.
            scale: of the images to the input.
            backbone: another one than the detector's.
            neck: and its neck.
        """
        backbone = backbone or self.backbone
        height, width = (max(side, self._least_size) for side in images.shape[2:])
        images = pad_to(images, (height, width), backbone.mean)
        strides = [2 ** int(level[1:]) for level in self.levels]
        if self.neck is None:
            return [FeatureMap(backbone.trunk_to(self.level, images), scale / strides[0])]
        found = backbone.pyramid(images)
        pyramid = (neck or self.neck)(OrderedDict((name, found[name]) for name in self.levels))
        strides = [*strides, 2 * strides[-1]]
        return [
            FeatureMap(values, scale / stride)
            for values, stride in zip(pyramid.values(), strides, strict=True)
        ]

    def region_features(
        self,
        maps: Sequence[FeatureMap],
        boxes: Float[Tensor, "N 4"],
        image_index: Int[Tensor, "N"],
        *,
        scales: Sequence[float] | None = None,
    ) -> Float[Tensor, "N D"]:
        """The head's features of regions.

        Args:
            maps: of the batch.
            boxes: xyxy pixels of the input.
            image_index: the image of the batch that each is of.
            scales: those of `maps`, where they are of the same level; each region is taken from
                that at which its size is nearest to the canonical one.
        """
        choice: Tensor | None = None
        if self.neck is not None:
            choice = pyramid_level(boxes, FINEST_LEVEL, FINEST_LEVEL + len(self.levels) - 1)
        elif scales is not None and len(scales) > 1:
            choice = nearest_scale(boxes, scales)
        pooled = pool_regions(maps, choice, boxes, image_index, self.region_size, self.pooling)
        features: Tensor = self._head()(pooled)
        return features

    def _head(self) -> nn.Module:
        head = self.hidden or self.backbone.part_behind(self.level)
        if self.truncated_svd is None or self.training:
            return head
        parameters = list(head.parameters())
        version = tuple(number for p in parameters for number in (p._version, p.data_ptr()))
        if self._truncated is None or self._truncated[0] != version:
            self._truncated = (version, with_truncated_layers(head, self.truncated_svd))
        return self._truncated[1]

    # --- training ---------------------------------------------------------------------------------

    def region_loss(
        self,
        maps: Sequence[FeatureMap],
        proposals: Float[Tensor, "B P 4"],
        valid: Tensor,
        truths: PaddedTruths,
    ) -> dict[str, Float[Tensor, ""]]:
        """Terms `classification` and `boxes`, of regions drawn from proposals and objects."""
        regions = sample_regions(
            proposals,
            valid,
            truths,
            self.num_classes,
            regions_per_image=self.regions_per_image,
            positive_fraction=POSITIVE_FRACTION,
            positive_iou=self.positive_iou,
            background_iou=self.background_iou,
            generator=generator_on(proposals.device),
        )
        if len(regions.labels) == 0:  # normalization over nothing is not defined
            divisor_over_processes(0)  # the others count theirs
            nothing: Tensor = 0 * (self.classifier.bias.sum() + self.regressor.bias.sum())
            return {"classification": nothing, "boxes": nothing}
        features = self.region_features(maps, regions.boxes, regions.image_index)
        logits, deltas = self.classifier(features).float(), self._deltas(features)
        classification, boxes = region_losses(logits, deltas, regions, self.box_beta)
        return {"classification": classification, "boxes": self.box_weight * boxes}

    def _deltas(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N C 4"]:
        deltas: Tensor = self.regressor(features).float()
        return deltas.view(-1, self.num_classes, 4)

    # --- inference --------------------------------------------------------------------------------

    def scores_of(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Probabilities of the classes."""
        logits: Tensor = self.classifier(features).float()
        return logits.softmax(dim=1)[:, : self.num_classes]

    def outputs(
        self,
        maps: Sequence[FeatureMap],
        boxes: Float[Tensor, "N 4"],
        image_index: Int[Tensor, "N"],
        *,
        scales: Sequence[float] | None = None,
    ) -> tuple[Float[Tensor, "N C"], Float[Tensor, "N C 4"]]:
        """Scores and normalized deltas of regions for each class."""
        scores, deltas = [], []
        for part in zip(boxes.split(REGION_CHUNK), image_index.split(REGION_CHUNK), strict=True):
            if len(part[0]):
                features = self.region_features(maps, *part, scales=scales)
                scores.append(self.scores_of(features))
                deltas.append(self._deltas(features))
        if not scores:
            nothing = boxes.new_zeros(0, self.num_classes, 4)
            return nothing[..., 0], nothing
        return torch.cat(scores), torch.cat(deltas)

    def suppress(
        self,
        boxes: Float[Tensor, "N 4"],
        image_index: Int[Tensor, "N"],
        scores: Float[Tensor, "N C"],
        deltas: Float[Tensor, "N C 4"],
        frames: Float[Tensor, "B 4"],
        score_threshold: float,
    ) -> list[Detections]:
        """The detections of all images: regions moved, clipped, and suppressed by class."""
        rows, labels = (scores >= score_threshold).nonzero(as_tuple=True)
        values, numbers = scores[rows, labels], image_index[rows]
        moved = clip_to_frames(moved_boxes(deltas[rows, labels], boxes[rows]), frames[numbers])
        # what lies wholly outside has no area left, and suppresses nothing
        kept = has_area(moved).nonzero().flatten()
        groups = (numbers * self.num_classes + labels)[kept]
        kept = kept[grouped_nms(moved[kept], values[kept], groups, self.iou_threshold)]
        kept = kept[rank_in_image(numbers[kept], len(frames)) < self.max_detections]
        kept = kept[numbers[kept].argsort(stable=True)]
        counts = torch.bincount(numbers[kept], minlength=len(frames)).tolist()
        parts = (values[kept].split(counts), labels[kept].split(counts))
        return [Detections(*found) for found in zip(moved[kept].split(counts), *parts, strict=True)]


def input_spec_of(input_size: int, shorter_side: int | None) -> InputSpec:
    """How a detector is fed that takes images of any shape.

    Raises:
        DetectError: the shorter side is longer than the longer one.
    """
    if shorter_side is not None and shorter_side > input_size:
        raise DetectError(
            f"detector.shorter_side: expected 1 to {input_size} pixels (detector.input_size is the "
            f"most that the longer side may have), found {shorter_side}; null pads all images to "
            "a square of input_size"
        )
    size = (input_size, input_size)
    return InputSpec(size, keep_aspect_ratio=shorter_side is None, shorter_side=shorter_side)


def _level_of(backbone: Backbone, level: str | None) -> str:
    if level is None:
        return "C4" if "C4" in backbone.levels else backbone.levels[-1]
    if level not in backbone.levels:
        levels = ", ".join(backbone.levels)
        raise DetectError(f"detector.level: unknown {level!r}; this backbone has {levels}")
    return level


def _pyramid_levels(backbone: Backbone, level: str | None, head: Head) -> tuple[str, ...]:
    if level is not None or head != "mlp":
        raise DetectError(
            "detector.neck: regions of a pyramid come from all its maps, which the backbone's own "
            "head does not fit: expected detector.head mlp and no detector.level, found "
            f"{head} and {level}"
        )
    levels = tuple(name for name in backbone.levels if int(name[1:]) >= FINEST_LEVEL)
    expected = tuple(f"C{FINEST_LEVEL + number}" for number in range(len(levels)))
    if not levels or levels != expected:
        raise DetectError(
            "detector.neck: a pyramid wants maps of stride 4, 8, … without a gap, found "
            f"{', '.join(backbone.levels) or 'none'}; take another backbone or neck null"
        )
    return levels


def _fully_connected(inputs: int, hidden_features: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for outputs in hidden_features:
        layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
        inputs = outputs
    return nn.Sequential(*layers)
