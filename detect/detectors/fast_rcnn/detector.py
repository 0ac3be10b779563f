"""Fast R-CNN: Girshick 2015."""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from detect.backbones import Backbone
from detect.detectors.base import DETECTORS, evaluating
from detect.detectors.fast_rcnn.pooling import FeatureMap
from detect.detectors.fast_rcnn.region_detector import RegionDetector
from detect.detectors.fast_rcnn.regions import pad_truths
from detect.detectors.fast_rcnn.settings import HeadSettings, InputSettings, RegionLearning
from detect.detectors.images import frames_of, padded, unit_images
from detect.detectors.proposing import FittedSource, ProposalSettings, concatenated, find_in_batch
from detect.detectors.ranges import Positives, in_ranges
from detect.detectors.rcnn.training_regions import (
    RegionSettings,
    SVMSettings,
    TrainingRegions,
    solved_layer,
)
from detect.detectors.stages import timed
from detect.detectors.suppression import Suppressor
from detect.structures import Batch, Detections
from detect.training import FitPhase, Phase, Plan, Watch


@DETECTORS.register("fast_rcnn")
class FastRCNN(RegionDetector):
    """Regions of one feature map of an image, classified and moved by one network.

    The trunk sees an image once; each proposal is pooled from its map to k×k and goes through the
    head, which gives a softmax over C classes and background and, for each class, the way to the
    object's box. All of it is trained at once.

    Deviations. With several scales, the images of a step have one scale in common, drawn again for
    each step; the paper draws one for each image. The targets' spread is a constant of the
    authors' later release, not measured on the training set. An image without objects gives
    background from all its proposals; the paper's sets have none.

    Args:
        backbone: its trunk up to `level` sees the image, the rest each region.
        num_classes: C.
        inputs: see `InputSettings`.
        scales: of the input, as its factors. In training, one is drawn for each step; in detection,
            each region is taken from the scale at which its area is nearest to 224² pixels.
        proposing: see `ProposalSettings`.
        region_head: see `HeadSettings`.
        learning: see `RegionLearning`.
        svm_settings: see `SVMSettings`, and section 5.4 of the paper.
        suppressor: see `Suppressor`.

    Attributes:
        has_svms: whether the SVMs have been trained.

    Raises:
        DetectError: settings that do not fit the backbone or each other.
    """

    phase_names: ClassVar[tuple[str, ...]] = ("train",)

    has_svms: Tensor

    @in_ranges
    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        inputs: InputSettings = InputSettings(),
        scales: Positives = (1.0,),
        proposing: ProposalSettings = ProposalSettings(),
        region_head: HeadSettings = HeadSettings(),
        learning: RegionLearning = RegionLearning(regions_per_image=64, background_iou=(0.1, 0.5)),
        svm_settings: SVMSettings = SVMSettings(svm=False),
        suppressor: Suppressor = Suppressor(iou_threshold=0.3),
    ) -> None:
        super().__init__(backbone, num_classes, inputs, region_head, learning, suppressor)
        self.scales = scales
        self.proposing = proposing
        self.svm_settings = svm_settings
        self.svms = solved_layer(self.feature_dim, num_classes)
        self.register_buffer("has_svms", torch.tensor(False))

    @cached_property
    def proposal_source(self) -> FittedSource:
        """Where the regions come from."""
        return self.proposing.source(self.input_spec)  # a file is read only when it is needed

    def lacks(self) -> str | None:
        """SVMs that are switched on and have not been trained."""
        if not self.svm_settings.svm or self.has_svms:
            return None
        return "its SVMs have not been trained: go on with the training, or set detector.svm=false"

    # --- training ---------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Terms `classification` and `boxes`."""
        images = unit_images(batch, self.backbone.mean)
        number = int(torch.randint(len(self.scales), (1,), generator=torch.default_generator))
        maps = self.maps(*self._at_scale(images, self.scales[number]))
        boxes, valid = padded(find_in_batch(self.proposal_source, batch))
        return self.region_loss(maps, boxes, valid, pad_truths(batch.truths))

    def phases(self, plan: Plan) -> Sequence[Phase]:
        """One descent; with SVMs, the features of all regions, then the SVMs."""
        self.has_svms.fill_(False)  # those of weights to start from are of another network
        phases: list[Phase] = [plan.gradient_phase("train", self, self.loss)]
        if not self.svm_settings.svm:
            return phases
        regions = self._training_regions(plan)
        phases.append(FitPhase("features", regions.prepare))
        return [*phases, FitPhase("svms", partial(self._fit_svms, regions))]

    def _training_regions(self, plan: Plan) -> TrainingRegions:
        settings = RegionSettings(
            self.num_classes,
            self.proposing.max_proposals,
            regression_iou=1.0,
            dim=self.feature_dim,
            trunk_dim=0,
            svm=self.svm_settings,
        )
        address = {
            "level": self.level,
            "pooling": self.region_head.pooling,
            "scales": list(self.scales),
        }
        network = nn.ModuleList([self.backbone, *([self.hidden] if self.hidden else [])])
        return TrainingRegions(settings, plan, self._embed_regions, network, address)

    @torch.no_grad()
    def _embed_regions(self, batch: Batch, boxes: Float[Tensor, "N 4"]) -> tuple[Tensor, Tensor]:
        device = self.classifier.weight.device
        batch, boxes = batch.to(device), boxes.to(device)
        with evaluating(self):
            image_index = torch.zeros(len(boxes), dtype=torch.int64, device=device)
            features = self.region_features(
                self._all_maps(batch), boxes, image_index, scales=self.scales
            )
        return features, features[:, :0]

    def _fit_svms(self, regions: TrainingRegions, watch: Watch) -> None:
        regions.fit_svms(self.svms, watch)
        self.has_svms.fill_(True)
        regions.remove()

    # --- inference --------------------------------------------------------------------------------

    def _detect(self, batch: Batch) -> list[Detections]:
        with timed("proposals"):
            proposals = find_in_batch(self.proposal_source, batch)
            boxes, image_index = concatenated(proposals)
        with timed("network"):
            maps = self._all_maps(batch)
            scores, deltas = self.outputs(maps, boxes, image_index, scales=self.scales)
        with timed("post-processing"):
            threshold = self.svm_settings.least_score(self._uses_svms)
            return self.suppress(boxes, image_index, scores, deltas, frames_of(batch), threshold)

    def scores_of(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Probabilities of the classes, or margins of the SVMs."""
        if self._uses_svms:
            margins: Tensor = self.svms(features).float()
            return margins
        return super().scores_of(features)

    @property
    def _uses_svms(self) -> bool:
        # until they are trained, the softmax is what there is
        return self.svm_settings.svm and bool(self.has_svms)

    def _all_maps(self, batch: Batch) -> list[FeatureMap]:
        images = unit_images(batch, self.backbone.mean)
        return [
            found for scale in self.scales for found in self.maps(*self._at_scale(images, scale))
        ]

    def _at_scale(
        self, images: Float[Tensor, "B 3 H W"], scale: float
    ) -> tuple[Float[Tensor, "B 3 h w"], float]:
        if scale == 1:
            return images, scale
        size = [max(1, round(side * scale)) for side in images.shape[2:]]
        return functional.interpolate(images, size, mode="bilinear", antialias=True), scale
