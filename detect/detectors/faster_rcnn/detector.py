"""Faster R-CNN: Ren et al. 2015 (NIPS) and 2017 (TPAMI)."""

import copy
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from detect.backbones import Backbone
from detect.detectors.base import DETECTORS, evaluating
from detect.detectors.fast_rcnn.pooling import FeatureMap
from detect.detectors.fast_rcnn.region_detector import RegionDetector
from detect.detectors.fast_rcnn.regions import pad_truths
from detect.detectors.fast_rcnn.settings import (
    HeadSettings,
    InputSettings,
    PyramidSettings,
    RegionLearning,
)
from detect.detectors.faster_rcnn.rpn import AnchorOutputs, PaddedProposals, RPNSettings
from detect.detectors.images import frames_of, unit_images
from detect.detectors.ranges import Share, in_ranges
from detect.detectors.stages import timed
from detect.detectors.suppression import Suppressor
from detect.structures import Batch, Detections
from detect.training import FitPhase, Phase, Plan, Watch

Recipe = Literal["joint", "alternating"]


@DETECTORS.register("faster_rcnn")
class FasterRCNN(RegionDetector):
    """Fast R-CNN whose proposals come from a network on the same feature map.

    `recipe: joint` is approximate joint training: all losses at once, proposals taken as given
    (section 3.2). `recipe: alternating` is the paper's four steps, as phases:

    1. `rpn`: the proposal network, on a trunk of its own.
    2. `fast_rcnn`: the detection network on those proposals, from the same initial weights; the two
       share nothing yet.
    3. `shared_rpn`: the proposal network on the detection network's trunk, which is held.
    4. `shared_fast_rcnn`: the layers behind the shared ones, on the new proposals.

    Deviations. The proposals of steps 2 and 4 are found again for each augmented image, by the
    network of the step before, not once for the set. Step 3 begins with the proposal layers of
    step 1. For those of the proposal network's loss see `RegionProposalNetwork`.

    Args:
        backbone: its trunk up to `level` sees the image, the rest each region.
        num_classes: C.
        inputs: see `InputSettings`.
        recipe: see above.
        pyramid: see `PyramidSettings`.
        region_head: see `HeadSettings`.
        rpn: see `RPNSettings`.
        learning: see `RegionLearning`.
        score_threshold: probabilities below are left out.
        suppressor: see `Suppressor`.

    Attributes:
        is_shared: whether proposals come from the detection network's trunk; of `alternating`, so
            after the second step.

    Raises:
        DetectError: settings that do not fit the backbone or each other.
    """

    phase_names: ClassVar[tuple[str, ...]] = (
        "train",
        "rpn",
        "fast_rcnn",
        "shared_rpn",
        "shared_fast_rcnn",
    )

    is_shared: Tensor

    @in_ranges
    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        inputs: InputSettings = InputSettings(),
        recipe: Recipe = "joint",
        pyramid: PyramidSettings = PyramidSettings(),
        region_head: HeadSettings = HeadSettings(),
        rpn: RPNSettings = RPNSettings(),
        learning: RegionLearning = RegionLearning(),
        score_threshold: Share = 0.01,
        suppressor: Suppressor = Suppressor(iou_threshold=0.3),
    ) -> None:
        super().__init__(backbone, num_classes, inputs, region_head, learning, suppressor, pyramid)
        self.recipe: Recipe = recipe
        self.score_threshold = score_threshold
        self.rpn_settings = rpn
        self.rpn = rpn.network(self.map_channels, len(self.levels) + 1 if self.neck else None)
        self.rpn_backbone: Backbone | None = None
        self.rpn_neck: FeaturePyramidNetwork | None = None
        if recipe == "alternating":
            self.rpn_backbone = copy.deepcopy(backbone)
            self.rpn_backbone.end_at(self.levels[-1])
            self.rpn_neck = copy.deepcopy(self.neck)
        self.register_buffer("is_shared", torch.tensor(recipe == "joint"))

    # --- training ---------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Terms `objectness`, `anchor_boxes`, `classification` and `boxes`."""
        maps, truths = self.maps(self._images(batch)), pad_truths(batch.truths)
        outputs: AnchorOutputs = self.rpn(maps)
        frames = frames_of(batch)
        found = self.rpn_settings.select(outputs, frames, self.rpn_settings.train_proposals)
        return {
            **self.rpn_settings.losses(outputs, frames, truths),
            **self.region_loss(maps, found.boxes, found.valid, truths),
        }

    def phases(self, plan: Plan) -> Sequence[Phase]:
        """One descent on all losses, or the four steps."""
        if self.recipe == "joint":
            return [plan.gradient_phase("train", self, self.loss)]
        assert self.rpn_backbone is not None
        self.is_shared.fill_(False)
        # the weights to start from, wherever they have come from, are those of both trunks
        own = self.backbone.state_dict()
        self.rpn_backbone.load_state_dict(
            {name: own[name] for name in self.rpn_backbone.state_dict()}
        )
        necks = [] if self.neck is None else [self.neck]
        rpn_necks = [] if self.rpn_neck is None else [self.rpn_neck]
        outputs = [self.classifier, self.regressor]
        head = [self.hidden or self.backbone.part_behind(self.level)]
        proposing = nn.ModuleList([self.rpn_backbone, *rpn_necks, self.rpn])
        hidden = [] if self.hidden is None else [self.hidden]
        detecting = nn.ModuleList([self.backbone, *necks, *hidden, *outputs])
        return [
            plan.gradient_phase("rpn", proposing, self._loss_of_rpn),
            plan.gradient_phase("fast_rcnn", detecting, self._loss_of_regions),
            FitPhase("share", self._share),
            plan.gradient_phase("shared_rpn", self.rpn, self._loss_of_rpn),
            plan.gradient_phase(
                "shared_fast_rcnn", nn.ModuleList([*head, *outputs]), self._loss_of_regions
            ),
        ]

    def _loss_of_rpn(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        # steps 1 and 3
        if self.is_shared:
            with torch.no_grad(), evaluating(self.backbone):
                maps = self.maps(self._images(batch))
        else:
            maps = self._rpn_maps(self._images(batch))
        outputs: AnchorOutputs = self.rpn(maps)
        return self.rpn_settings.losses(outputs, frames_of(batch), pad_truths(batch.truths))

    def _loss_of_regions(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        # steps 2 and 4
        images = self._images(batch)
        if self.is_shared:
            with torch.no_grad(), evaluating(self.backbone):
                maps = proposal_maps = self.maps(images)
        else:
            maps = self.maps(images)
            with torch.no_grad(), evaluating(self):
                proposal_maps = self._rpn_maps(images)
        with torch.no_grad():
            counts = self.rpn_settings.train_proposals
            found = self.rpn_settings.select(self.rpn(proposal_maps), frames_of(batch), counts)
        return self.region_loss(maps, found.boxes, found.valid, pad_truths(batch.truths))

    def _share(self, watch: Watch) -> None:
        self.is_shared.fill_(True)
        watch.say("from here on, proposals come from the detection network's trunk")

    # --- inference --------------------------------------------------------------------------------

    def _detect(self, batch: Batch) -> list[Detections]:
        with timed("network"):
            images = self._images(batch)
            maps = self.maps(images)
        with timed("proposals"):
            found = self._found(batch, maps if self.is_shared else self._rpn_maps(images))
            boxes, image_index = found.boxes[found.valid], found.valid.nonzero()[:, 0]
        with timed("network"):
            scores, deltas = self.outputs(maps, boxes, image_index)
        with timed("post-processing"):
            frames = frames_of(batch)
            return self.suppress(boxes, image_index, scores, deltas, frames, self.score_threshold)

    @torch.no_grad()
    def propose(self, batch: Batch) -> list[Float[Tensor, "_ 4"]]:
        """The proposals of each image `[N, 4]`, best first, in the input frame."""
        with evaluating(self):
            images = self._images(batch)
            maps = self.maps(images) if self.is_shared else self._rpn_maps(images)
            found = self._found(batch, maps)
        return [boxes[valid] for boxes, valid in zip(found.boxes, found.valid, strict=True)]

    def _found(self, batch: Batch, maps: list[FeatureMap]) -> PaddedProposals:
        counts = self.rpn_settings.test_proposals
        return self.rpn_settings.select(self.rpn(maps), frames_of(batch), counts)

    def _images(self, batch: Batch) -> Float[Tensor, "B 3 H W"]:
        return unit_images(batch, self.backbone.mean)

    def _rpn_maps(self, images: Float[Tensor, "B 3 H W"]) -> list[FeatureMap]:
        return self.maps(images, backbone=self.rpn_backbone, neck=self.rpn_neck)
