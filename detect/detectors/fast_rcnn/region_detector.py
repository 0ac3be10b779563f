"""What Fast and Faster R-CNN share: one pass of the trunk an image, and a head for its regions."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from detect.backbones import Backbone
from detect.detectors.base import Detector
from detect.detectors.derived import DerivedModule
from detect.detectors.fast_rcnn.pooling import (
    FeatureMap,
    nearest_scale,
    pool_regions,
    pyramid_level,
)
from detect.detectors.fast_rcnn.regions import (
    PaddedTruths,
    moved_boxes,
    region_losses,
    sample_regions,
)
from detect.detectors.fast_rcnn.settings import (
    HeadSettings,
    InputSettings,
    PyramidSettings,
    RegionLearning,
)
from detect.detectors.fast_rcnn.truncated_svd import check_ranks, with_truncated_layers
from detect.detectors.images import clip_to_frames, generator_on, pad_to
from detect.detectors.suppression import Suppressor
from detect.errors import DetectError
from detect.ops import divisor_over_processes, has_area
from detect.structures import Detections

# A quarter of the regions of a step show an object (Girshick 2015, section 2.3).
POSITIVE_FRACTION = 0.25

# Power of two of the stride of the pyramid's finest map (Lin et al. 2017, section 3).
FINEST_LEVEL = 2

# Regions that go through the head at a time when nothing is learned: a bound on the memory.
REGION_CHUNK = 1024


class RegionDetector(Detector):
    """One or several feature maps of an image, and a head that classifies and moves regions.

    Args:
        backbone: its trunk up to the level, and what is behind that for the backbone's own head.
        num_classes: C.
        inputs: how it is fed.
        region_head: see `HeadSettings`.
        learning: see `RegionLearning`.
        suppressor: makes detections of the moved regions.
        pyramid: see `PyramidSettings`.

    Raises:
        DetectError: settings that do not fit the backbone or each other.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        inputs: InputSettings,
        region_head: HeadSettings,
        learning: RegionLearning,
        suppressor: Suppressor,
        pyramid: PyramidSettings | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.input_spec = inputs.spec()
        self.region_head = region_head
        self.learning = learning
        self.suppressor = suppressor
        self.level = _level_of(backbone, region_head.level)
        self.levels: tuple[str, ...] = (self.level,)
        self.neck: FeaturePyramidNetwork | None = None
        self.map_channels = backbone.level_channels[self.level]
        if pyramid is not None and pyramid.neck is not None:
            self.levels = _pyramid_levels(backbone, region_head)
            inputs_of_neck = [backbone.level_channels[name] for name in self.levels]
            self.map_channels = pyramid.neck_channels
            self.neck = FeaturePyramidNetwork(inputs_of_neck, self.map_channels, LastLevelMaxPool())
        self.hidden: nn.Sequential | None = None
        if region_head.head == "mlp":
            self.region_size = region_head.region_size
            self.feature_dim = region_head.hidden_features[-1]
            self.hidden = _fully_connected(
                self.map_channels * self.region_size**2, region_head.hidden_features
            )
            backbone.end_at(self.levels[-1])
        else:
            self.region_size = backbone.grid_at(self.level)
            self.feature_dim = backbone.feature_dim
        self.backbone = backbone
        self._least_size = backbone.least_size(self.levels[-1])
        self.classifier = nn.Linear(self.feature_dim, num_classes + 1)
        self.regressor = nn.Linear(self.feature_dim, 4 * num_classes)
        for layer, std in ((self.classifier, 0.01), (self.regressor, 0.001)):  # section 2.3
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        self._truncated = DerivedModule()
        if region_head.truncated_svd is not None:
            own_head = self.hidden or backbone.part_behind(self.level)
            check_ranks(own_head, region_head.truncated_svd)

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
        pooled = pool_regions(
            maps, choice, boxes, image_index, self.region_size, self.region_head.pooling
        )
        features: Tensor = self._head()(pooled)
        return features

    def _head(self) -> nn.Module:
        head = self.hidden or self.backbone.part_behind(self.level)
        ranks = self.region_head.truncated_svd
        if ranks is None or self.training:
            return head
        return self._truncated.of([head], lambda: with_truncated_layers(head, ranks))

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
            regions_per_image=self.learning.regions_per_image,
            positive_fraction=POSITIVE_FRACTION,
            positive_iou=self.learning.positive_iou,
            background_iou=self.learning.background_iou,
            generator=generator_on(proposals.device),
        )
        if len(regions.labels) == 0:  # normalization over nothing is not defined
            divisor_over_processes(0)  # the others count theirs
            nothing: Tensor = 0 * (self.classifier.bias.sum() + self.regressor.bias.sum())
            return {"classification": nothing, "boxes": nothing}
        features = self.region_features(maps, regions.boxes, regions.image_index)
        logits, deltas = self.classifier(features).float(), self._deltas(features)
        classification, boxes = region_losses(logits, deltas, regions, self.learning.box_beta)
        return {"classification": classification, "boxes": self.learning.box_weight * boxes}

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
        candidates = (moved[kept], values[kept], labels[kept], numbers[kept])
        return self.suppressor(*candidates, len(frames), score_threshold)


def _level_of(backbone: Backbone, level: str | None) -> str:
    if level is None:
        return "C4" if "C4" in backbone.levels else backbone.levels[-1]
    if level not in backbone.levels:
        levels = ", ".join(backbone.levels)
        raise DetectError(f"detector.level: unknown {level!r}; this backbone has {levels}")
    return level


def _pyramid_levels(backbone: Backbone, region_head: HeadSettings) -> tuple[str, ...]:
    if region_head.level is not None or region_head.head != "mlp":
        raise DetectError(
            "detector.neck: regions of a pyramid come from all its maps, which the backbone's own "
            "head does not fit: expected detector.head mlp and no detector.level, found "
            f"{region_head.head} and {region_head.level}"
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
