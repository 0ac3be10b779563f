"""R-CNN: Girshick et al. 2014, "Rich feature hierarchies for accurate object detection"."""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from detect.backbones import Backbone
from detect.detectors.base import DETECTORS, Detector, evaluating
from detect.detectors.images import clip_to_frames, frames_of, unit_images
from detect.detectors.proposing import FittedSource, ProposalSettings, concatenated, find_in_batch
from detect.detectors.ranges import Count, CountOrZero, Share, Weight, in_ranges
from detect.detectors.rcnn.box_regression import fit_box_regressors
from detect.detectors.rcnn.features import first_fully_connected
from detect.detectors.rcnn.regions import regions_of
from detect.detectors.rcnn.training_regions import (
    RegionSettings,
    SVMSettings,
    TrainingRegions,
    solved_layer,
)
from detect.detectors.stages import timed
from detect.detectors.suppression import Suppressor
from detect.errors import DetectError
from detect.ops import box_iou, decode_deltas, divisor_over_processes, match, sample_balanced
from detect.ops.regions import Warp, warp_regions
from detect.structures import Batch, Detections, InputSpec
from detect.training import Fit, FitPhase, Phase, Plan, Watch
from detect.wording import counted

FeatureLayer = Literal["trunk", "fc6", "head"]

# A quarter of the windows of a step show an object: 32 of 128 (section 2.3).
POSITIVE_FRACTION = 0.25
# Windows are mirrored in training with this probability, as in the release.
MIRRORED = 0.5

# Regions that go through the network at a time.
REGION_CHUNK = 256


class Windows(NamedTuple):
    """The windows that a step learns from.

    Attributes:
        boxes: `[N, 4]` xyxy pixels of the input.
        image_index: `[N]`; the image of the batch that each is of.
        labels: `[N]`; the class, C for background.
    """

    boxes: Float[Tensor, "N 4"]
    image_index: Int[Tensor, "N"]
    labels: Int[Tensor, "N"]


class Outputs(NamedTuple):
    """What the network and the linear layers behind it say of N regions.

    Attributes:
        scores: `[N, C]`; margins of the SVMs, or probabilities.
        deltas: `[N, C, 4]`; to the box of an object of each class; zeros without box regression.
    """

    scores: Float[Tensor, "N C"]
    deltas: Float[Tensor, "N C 4"]


@DETECTORS.register("rcnn")
class RCNN(Detector):
    """Regions with CNN features.

    Regions that may hold an object are warped to the network's input, one by one. The network is
    tuned to tell the C classes and background apart on such windows; then its features of all
    regions train an SVM for each class, and the trunk's features ridge regressions that move the
    boxes. What they leave behind are two linear layers.

    Deviations. The windows of a step come from the images of a batch, not from all images of
    the set. Hard negatives are shared by the classes (see `mine_svms`).

    Args:
        backbone: its trunk and head are used, at the input size that it was designed for.
        num_classes: C.
        input_size: side of the square that images are letterboxed to, in pixels; proposals are
            searched and regions cut out there. The paper searches images 500 pixels wide.
        proposing: see `ProposalSettings`.
        warp: how a region becomes a square (appendix A); see `warp_regions`.
        context: pixels of the warped square, on each side, that show what surrounds the region.
        feature_layer: of the SVMs: the `trunk`'s map (the paper's pool5), `fc6`, where the head
            has two fully connected layers, or the `head`'s features (fc7).
        finetune: whether the network is tuned on windows first.
        windows_per_step: of fine-tuning, a quarter of them with objects at most.
        positive_iou: least IoU with an object of a window that shows it, in fine-tuning.
        svm_settings: see `SVMSettings`.
        box_regression: whether boxes are moved (appendix C).
        regression_iou: least IoU with its object of a proposal that the regressors learn from.
        regression_strength: λ of the ridge regressions.
        suppressor: see `Suppressor`.

    Attributes:
        has_svms: whether the SVMs have been trained.
        has_regressors: whether the box regressors have been.
    """

    phase_names: ClassVar[tuple[str, ...]] = ("finetune",)

    has_svms: Tensor
    has_regressors: Tensor

    @in_ranges
    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        input_size: Count = 500,
        proposing: ProposalSettings = ProposalSettings(),
        warp: Warp = "warp",
        context: CountOrZero = 16,
        feature_layer: FeatureLayer = "head",
        finetune: bool = True,
        windows_per_step: Count = 128,
        positive_iou: Share = 0.5,
        svm_settings: SVMSettings = SVMSettings(svm=True),
        box_regression: bool = True,
        regression_iou: Share = 0.6,
        regression_strength: Weight = 1000.0,
        suppressor: Suppressor = Suppressor(iou_threshold=0.3),
    ) -> None:
        super().__init__()
        if 2 * context >= backbone.image_size:
            raise DetectError(
                f"detector.context: expected 0 or more and less than half of the "
                f"{backbone.image_size} pixels of the backbone's input, found {context}"
            )
        self.num_classes = num_classes
        self.input_spec = InputSpec((input_size, input_size), keep_aspect_ratio=True)
        self.proposing = proposing
        self.warp: Warp = warp
        self.context = context
        self.feature_layer: FeatureLayer = feature_layer
        self.finetune = finetune
        self.windows_per_step = windows_per_step
        self.positive_iou = positive_iou
        self.svm_settings = svm_settings
        self.box_regression = box_regression
        self.regression_iou = regression_iou
        self.regression_strength = regression_strength
        self.suppressor = suppressor
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.feature_dim, num_classes + 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        self.trunk_dim = backbone.channels * backbone.grid**2
        self.svms = solved_layer(self._measure_features(), num_classes)
        self.regressors = solved_layer(self.trunk_dim, 4 * num_classes)
        self.register_buffer("has_svms", torch.tensor(False))
        self.register_buffer("has_regressors", torch.tensor(False))

    @cached_property
    def proposal_source(self) -> FittedSource:
        """Where the regions come from."""
        return self.proposing.source(self.input_spec)  # a file is read only when it is needed

    def lacks(self) -> str | None:
        """What is switched on and has not been trained."""
        missing = [
            (name, key)
            for name, key, is_wanted, valid in (
                ("SVMs", "svm", self.svm_settings.svm, self.has_svms),
                ("box regressors", "box_regression", self.box_regression, self.has_regressors),
            )
            if is_wanted and not valid
        ]
        if not missing:
            return None
        names = " and ".join(name for name, _ in missing)
        off = " ".join(f"detector.{key}=false" for _, key in missing)
        return f"its {names} have not been trained: go on with the training, or set {off}"

    # --- the network ------------------------------------------------------------------------------

    def images(self, batch: Batch) -> Float[Tensor, "B 3 H W"]:
        """The input in 0…1; beyond the border of each image is the mean color."""
        return unit_images(batch, self.backbone.mean)

    def warped(
        self,
        images: Float[Tensor, "B 3 H W"],
        boxes: Float[Tensor, "N 4"],
        numbers: Int[Tensor, "N"],
    ) -> Float[Tensor, "N 3 S S"]:
        """Regions of `images`, each of the image of its number, as the network takes them."""
        return warp_regions(
            images,
            boxes,
            numbers,
            self.backbone.image_size,
            context=self.context,
            warp=self.warp,
            fill=self.backbone.mean,
        )

    def embed(self, crops: Float[Tensor, "N 3 S S"]) -> tuple[Tensor, Tensor]:
        """The features `[N, D]` of the SVMs' layer, and the trunk's `[N, T]`."""
        trunk_map = self.backbone(crops)
        return self._features(trunk_map), self.backbone.pooled_to_grid(trunk_map).flatten(1)

    def _features(self, trunk_map: Float[Tensor, "N F h w"]) -> Float[Tensor, "N D"]:
        if self.feature_layer == "head":
            return self.backbone.head_features(trunk_map)
        features = self.backbone.pooled_to_grid(trunk_map)
        if self.feature_layer == "trunk":
            return features.flatten(1)
        for layer in self._layers_to_fc6():
            features = layer(features)
        return features

    def _layers_to_fc6(self) -> list[nn.Module]:
        layers = first_fully_connected(self.backbone.head)
        if layers is None:
            raise DetectError(
                "detector.feature_layer: fc6 is the first of two fully connected layers, and this "
                "backbone's head has not so many; expected trunk or head"
            )
        return layers

    @torch.no_grad()
    def _measure_features(self) -> int:
        if self.feature_layer == "trunk":
            return self.trunk_dim
        if self.feature_layer == "head":
            return self.backbone.feature_dim
        linear = [layer for layer in self._layers_to_fc6() if isinstance(layer, nn.Linear)]
        return linear[0].out_features

    # --- training ---------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Term `classification`, of windows of the batch's images."""
        windows = self._sample_windows(batch)
        count = divisor_over_processes(len(windows.labels))
        if len(windows.labels) == 0:
            return {"classification": 0 * self.classifier.bias.sum()}
        crops = self.warped(self.images(batch), windows.boxes, windows.image_index)
        is_mirrored = torch.rand(len(crops), device=crops.device) < MIRRORED
        crops = torch.where(is_mirrored[:, None, None, None], crops.flip(-1), crops)
        features = self.backbone.head_features(self.backbone(crops))
        logits = self.classifier(features).float()
        losses = functional.cross_entropy(logits, windows.labels, reduction="sum")
        return {"classification": losses / count}

    def phases(self, plan: Plan) -> Sequence[Phase]:
        """Fine-tuning; the features of all regions; SVMs; box regressors."""
        # those of weights to start from are of another network
        self.has_svms.fill_(False)
        self.has_regressors.fill_(False)
        phases: list[Phase] = []
        if self.finetune:
            phases.append(plan.gradient_phase("finetune", self, self.loss))
        if not self.svm_settings.svm and not self.box_regression:
            return phases
        regions = self._training_regions(plan)
        fits: list[tuple[str, Fit]] = [("features", regions.prepare)]
        if self.svm_settings.svm:
            fits.append(("svms", partial(self._fit_svms, regions)))
        if self.box_regression:
            fits.append(("box_regression", partial(self._fit_regressors, regions)))
        last_name, last_fit = fits.pop()

        def fit_and_clear(watch: Watch) -> None:
            last_fit(watch)
            regions.remove()

        phases += [FitPhase(name, fit) for name, fit in fits]
        return [*phases, FitPhase(last_name, fit_and_clear)]

    @torch.no_grad()
    def _sample_windows(self, batch: Batch) -> Windows:
        sampled = []
        proposals = find_in_batch(self.proposal_source, batch)
        for number, (truth, found) in enumerate(zip(batch.truths, proposals, strict=True)):
            candidates = regions_of(truth, found)
            iou = box_iou(candidates, truth.boxes)
            objects = match(iou, self.positive_iou, self.positive_iou).indices
            classes = objects.new_full((len(candidates),), self.num_classes)
            is_positive = objects >= 0
            classes[is_positive] = truth.labels[objects[is_positive]]
            sampled.append(Windows(candidates, torch.full_like(classes, number), classes))
        windows = Windows(*(torch.cat(parts) for parts in zip(*sampled, strict=True)))
        is_positive = windows.labels < self.num_classes
        chosen = torch.cat(
            sample_balanced(
                is_positive,
                ~is_positive,
                self.windows_per_step,
                POSITIVE_FRACTION,
                torch.default_generator,  # whose state every checkpoint has
            )
        )
        return Windows(*(values[chosen] for values in windows))

    def _training_regions(self, plan: Plan) -> TrainingRegions:
        settings = RegionSettings(
            self.num_classes,
            self.proposing.max_proposals,
            self.regression_iou,
            self.svms.in_features,
            self.trunk_dim if self.box_regression else 0,
            self.svm_settings,
        )
        address = {
            "layer": self.feature_layer,
            "warp": self.warp,
            "context": self.context,
            "image_size": self.backbone.image_size,
        }
        return TrainingRegions(settings, plan, self._embed_regions, self.backbone, address)

    @torch.no_grad()
    def _embed_regions(self, batch: Batch, boxes: Float[Tensor, "N 4"]) -> tuple[Tensor, Tensor]:
        device = self.classifier.weight.device
        batch, boxes = batch.to(device), boxes.to(device)
        with evaluating(self):
            images = self.images(batch)
            numbers = torch.zeros(len(boxes), dtype=torch.int64, device=device)
            parts = [
                self.embed(self.warped(images, *part))
                for part in zip(boxes.split(REGION_CHUNK), numbers.split(REGION_CHUNK), strict=True)
            ]
        features, trunk = zip(*parts, strict=True)
        return torch.cat(features), torch.cat(trunk)

    def _fit_svms(self, regions: TrainingRegions, watch: Watch) -> None:
        regions.fit_svms(self.svms, watch)
        self.has_svms.fill_(True)

    @torch.no_grad()
    def _fit_regressors(self, regions: TrainingRegions, watch: Watch) -> None:
        table, device = regions.table(watch), self.regressors.weight.device
        fitted = fit_box_regressors(
            regions.features(watch).regressed(watch).to(device),
            table.deltas.to(device),
            table.classes.to(device),
            self.num_classes,
            self.regression_strength,
        )
        self.regressors.weight.copy_(fitted.weight.flatten(0, 1))
        self.regressors.bias.copy_(fitted.bias.flatten())
        self.has_regressors.fill_(True)
        watch.say(f"learned from {counted(len(table.classes), 'proposal')}")

    # --- inference --------------------------------------------------------------------------------

    def _detect(self, batch: Batch) -> list[Detections]:
        with timed("proposals"):
            proposals = find_in_batch(self.proposal_source, batch)
        with timed("network"):
            boxes, numbers = concatenated(proposals)
            outputs = self.outputs(batch, boxes, numbers)
        with timed("post-processing"):
            return self.suppress(boxes, numbers, outputs, frames_of(batch))

    def outputs(
        self, batch: Batch, boxes: Float[Tensor, "N 4"], numbers: Int[Tensor, "N"]
    ) -> Outputs:
        """What is said of regions, each of the image of its number."""
        images = self.images(batch)
        # asked once, since the answer is on the device
        uses_svms, moves = self._uses_svms, self.box_regression and bool(self.has_regressors)
        parts = [
            self._outputs(self.warped(images, *part), uses_svms, moves)
            for part in zip(boxes.split(REGION_CHUNK), numbers.split(REGION_CHUNK), strict=True)
            if len(part[0])
        ]
        nothing = boxes.new_zeros(0, self.num_classes, 4)
        return Outputs(
            torch.cat([nothing[..., 0], *(part.scores for part in parts)]),
            torch.cat([nothing, *(part.deltas for part in parts)]),
        )

    def _outputs(self, crops: Float[Tensor, "N 3 S S"], uses_svms: bool, moves: bool) -> Outputs:
        trunk_map = self.backbone(crops)
        if uses_svms:
            scores: Tensor = self.svms(self._features(trunk_map)).float()
        else:
            logits = self.classifier(self.backbone.head_features(trunk_map)).float()
            scores = logits.softmax(dim=1)[:, : self.num_classes]
        deltas = scores.new_zeros(len(scores), 4 * self.num_classes)
        if moves:
            trunk = self.backbone.pooled_to_grid(trunk_map).flatten(1)
            deltas = self.regressors(trunk).float()
        return Outputs(scores, deltas.unflatten(1, (self.num_classes, 4)))

    @property
    def _uses_svms(self) -> bool:
        # while the network is being tuned, the softmax is what there is
        return self.svm_settings.svm and bool(self.has_svms)

    def suppress(
        self,
        proposals: Float[Tensor, "N 4"],
        numbers: Int[Tensor, "N"],
        outputs: Outputs,
        frames: Float[Tensor, "B 4"],
    ) -> list[Detections]:
        """The detections of all images: boxes moved, clipped, and suppressed by class."""
        threshold = self.svm_settings.least_score(self._uses_svms)
        rows, labels = (outputs.scores >= threshold).nonzero(as_tuple=True)
        image_index = numbers[rows]
        moved = decode_deltas(outputs.deltas[rows, labels], proposals[rows])
        boxes = clip_to_frames(moved, frames[image_index])
        scores = outputs.scores[rows, labels]
        return self.suppressor(boxes, scores, labels, image_index, len(frames), threshold)
