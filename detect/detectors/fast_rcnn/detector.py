"""Fast R-CNN: Girshick 2015."""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from detect.backbones import Backbone
from detect.detectors.base import DETECTORS, evaluating
from detect.detectors.fast_rcnn.pooling import FeatureMap, Pooling
from detect.detectors.fast_rcnn.region_detector import (
    Head,
    RegionDetector,
    input_spec_of,
)
from detect.detectors.fast_rcnn.regions import pad_truths
from detect.detectors.images import frames_of, padded, unit_images
from detect.detectors.proposing import FittedSource, build_source, find_in_batch
from detect.detectors.ranges import (
    Count,
    CountOrZero,
    Counts,
    Finite,
    Positive,
    Positives,
    Rising,
    Share,
    Weight,
    in_ranges,
)
from detect.detectors.rcnn.training_regions import (
    FeatureCache,
    RegionSettings,
    TrainingRegions,
    solved_layer,
)
from detect.detectors.stages import timed
from detect.structures import Batch, Detections
from detect.training import FitPhase, Phase, Plan, Watch

# Scores below are left out: margins of SVMs (R-CNN's release), probabilities.
LEAST_MARGIN = -1.5
LEAST_PROBABILITY = 0.01


@DETECTORS.register("fast_rcnn")
class FastRCNN(RegionDetector):
    """Regions of one feature map of an image, classified and moved by one network.

    The trunk sees an image once; each proposal is pooled from its map to k×k and goes through the
    head, which gives a softmax over C classes and background and, for each class, the way to the
    object's box. All of it is trained at once.

    Deviations. With several scales, the images of a step have one scale in common, drawn anew for
    each step; the paper draws one for each image. The targets' spread is a constant of the
    authors' later release, not measured on the training set. An image without objects gives
    background from all its proposals; the paper's sets have none.

    Args:
        backbone: its trunk up to `level` sees the image, the rest each region.
        num_classes: C.
        input_size: most pixels of the longer side.
        shorter_side: pixels of the shorter side; None pads images to squares of `input_size`.
        scales: of the input, as its factors. In training, one is drawn for each step; in detection,
            each region is taken from the scale at which its area is nearest to 224² pixels.
        proposals: the name of a proposal method, the path of a file of boxes (.npz, .mat), or
            `rpn:RUN` for those of a Faster R-CNN.
        proposal_options: of the method; see docs/proposals.md.
        max_proposals: the best ones of each image that are used.
        level: of the map that regions are taken from, such as C4 for stride 16; None takes that, or
            the last one of a shorter trunk.
        pooling: `max` is the paper's; `align` takes interpolated values at exact points.
        head: `backbone` is the backbone's own, with all layers behind `level`; `mlp` has fully
            connected layers of its own, drawn at random.
        hidden_features: of the head `mlp`.
        region_size: k of the head `mlp`; the backbone's own head has its k.
        regions_per_image: R/N: that a step learns from, a quarter with an object at most.
        positive_iou: least IoU with an object of a region that shows it.
        background_iou: from and to; the greatest IoU with any object of a background region.
        box_weight: λ, the weight of the regions' box loss (Girshick 2015, equation 1: 1).
        box_beta: the error from which that loss, smooth L1, is a line, in normalized deltas (the
            paper's equation 3: 1); less asks for more exact boxes, as torchvision's 1/9 does.
        svm: whether SVMs, trained with hard negatives as those of R-CNN, give the scores in place
            of the softmax (section 5.4).
        svm_cost: see `RCNN`.
        negative_iou: see `RCNN`.
        mining_epochs: see `RCNN`.
        feature_cache: see `RCNN`.
        feature_budget: see `RCNN`.
        truncated_svd: singular values that are kept of each fully connected layer of the head in
            detection, such as [1024, 256] for VGG's fc6 and fc7 (section 4.4); 0 leaves one whole.
        score_threshold: scores below are left out; None takes a probability of 0.01, with SVMs a
            margin of −1.5.
        iou_threshold: of the suppression among detections of a class.
        max_detections: kept for each image.

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
        input_size: Count = 1000,
        shorter_side: Count | None = 600,
        scales: Positives = (1.0,),
        proposals: str = "selective-search",
        proposal_options: dict[str, Any] | None = None,
        max_proposals: Count = 2000,
        level: str | None = None,
        pooling: Pooling = "max",
        head: Head = "backbone",
        hidden_features: Counts = (1024, 1024),
        region_size: Count = 7,
        regions_per_image: Count = 64,
        positive_iou: Share = 0.5,
        background_iou: Rising = (0.1, 0.5),
        box_weight: Weight = 1.0,
        box_beta: Weight = 1.0,
        svm: bool = False,
        svm_cost: Positive = 0.001,
        negative_iou: Share = 0.3,
        mining_epochs: Count = 1,
        feature_cache: FeatureCache = "disk",
        feature_budget: Weight = 20.0,
        truncated_svd: tuple[CountOrZero, ...] | None = None,
        score_threshold: Finite | None = None,
        iou_threshold: Share = 0.3,
        max_detections: Count = 100,
    ) -> None:
        super().__init__(
            backbone,
            num_classes,
            input_spec=input_spec_of(input_size, shorter_side),
            level=level,
            head=head,
            hidden_features=hidden_features,
            region_size=region_size,
            pooling=pooling,
            truncated_svd=truncated_svd,
            regions_per_image=regions_per_image,
            positive_iou=positive_iou,
            background_iou=background_iou,
            box_weight=box_weight,
            box_beta=box_beta,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
        )
        self.scales = scales
        self.proposals = proposals
        self.proposal_options = dict(proposal_options or {})
        self.max_proposals = max_proposals
        self.svm = svm
        self.svm_cost = svm_cost
        self.negative_iou = negative_iou
        self.mining_epochs = mining_epochs
        self.feature_cache: FeatureCache = feature_cache
        self.feature_budget = feature_budget
        self.score_threshold = score_threshold
        self.svms = solved_layer(self.feature_dim, num_classes)
        self.register_buffer("has_svms", torch.tensor(False))
        self._source: FittedSource | None = None

    @property
    def proposal_source(self) -> FittedSource:
        """Where the regions come from."""
        if self._source is None:  # a file is read only when it is needed
            source = build_source(self.proposals, self.proposal_options)
            self._source = FittedSource(source, self.input_spec, self.max_proposals)
        return self._source

    def lacks(self) -> str | None:
        """SVMs that are switched on and have not been trained."""
        if not self.svm or self.has_svms:
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
        if not self.svm:
            return phases
        regions = self._training_regions(plan)
        phases.append(FitPhase("features", regions.prepare))
        return [*phases, FitPhase("svms", partial(self._fit_svms, regions))]

    def _training_regions(self, plan: Plan) -> TrainingRegions:
        settings = RegionSettings(
            self.num_classes,
            self.max_proposals,
            self.negative_iou,
            regression_iou=1.0,
            dim=self.feature_dim,
            trunk_dim=0,
            cache=self.feature_cache,
            budget=self.feature_budget,
        )
        address = {"level": self.level, "pooling": self.pooling, "scales": list(self.scales)}
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
        regions.fit_svms(self.svms, self.svm_cost, self.mining_epochs, watch)
        self.has_svms.fill_(True)
        regions.remove()

    # --- inference --------------------------------------------------------------------------------

    def _detect(self, batch: Batch) -> list[Detections]:
        with timed("proposals"):
            proposals = find_in_batch(self.proposal_source, batch)
            counts = torch.tensor([len(boxes) for boxes in proposals])
            image_index = (
                torch.arange(len(counts)).repeat_interleave(counts).to(batch.images.device)
            )
            boxes = torch.cat(proposals)
        with timed("network"):
            maps = self._all_maps(batch)
            scores, deltas = self.outputs(maps, boxes, image_index, scales=self.scales)
        with timed("post-processing"):
            threshold = self.score_threshold
            if threshold is None:
                threshold = LEAST_MARGIN if self._uses_svms else LEAST_PROBABILITY
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
        return self.svm and bool(self.has_svms)

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
