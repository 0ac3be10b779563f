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
from detect.detectors.fast_rcnn.pooling import FeatureMap, Pooling
from detect.detectors.fast_rcnn.region_detector import (
    Head,
    RegionDetector,
    input_spec_of,
)
from detect.detectors.fast_rcnn.regions import PaddedTruths, pad_truths
from detect.detectors.faster_rcnn.rpn import (
    AnchorOutputs,
    PaddedProposals,
    RegionProposalNetwork,
    anchor_losses,
    sample_anchors,
    select_proposals,
)
from detect.detectors.images import frames_of, generator_on, unit_images
from detect.detectors.ranges import (
    Count,
    CountOrZero,
    Counts,
    Positives,
    Rising,
    Share,
    Weight,
    in_ranges,
)
from detect.detectors.stages import timed
from detect.errors import DetectError
from detect.structures import Batch, Detections
from detect.training import FitPhase, Phase, Plan, Watch

# Sides of the anchors in pixels: of one map (section 3.1.1), and of the finest map of a pyramid,
# doubled from level to level (Lin et al. 2017, section 4.1).
ANCHOR_SIZES = (128.0, 256.0, 512.0)
FINEST_ANCHOR_SIZE = 32.0

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

    Deviations. The proposals of steps 2 and 4 are found anew for each augmented image, by the
    network of the step before, not once for the set. Step 3 begins with the proposal layers of
    step 1. For those of the proposal network's loss see `RegionProposalNetwork`.

    Args:
        backbone: its trunk up to `level` sees the image, the rest each region.
        num_classes: C.
        input_size: most pixels of the longer side.
        shorter_side: pixels of the shorter side; None pads images to squares of `input_size`.
        recipe: see above.
        level: of the map, such as C4 for stride 16; None takes that, or the last one of a shorter
            trunk.
        neck: `fpn` makes a feature pyramid of the trunk's maps (Lin et al. 2017); it wants the head
            `mlp`, and regions are taken from the level of their size.
        neck_channels: of the pyramid's maps.
        pooling: `max` is the paper's; `align` takes interpolated values at exact points.
        head: `backbone` is the backbone's own, with all layers behind `level`; `mlp` has fully
            connected layers of its own, drawn at random.
        hidden_features: of the head `mlp`.
        region_size: k of the head `mlp`; the backbone's own head has its k.
        rpn_channels: of the proposal network's 3×3 convolution; None takes 512, with a
            pyramid as many as its maps have.
        anchor_sizes: square roots of the anchors' areas in pixels of the input; of a pyramid, one
            for each level. None takes 128, 256 and 512; of a pyramid 32, 64, …
        anchor_ratios: height by width.
        crossing_anchors: whether anchors across the border of the image are learned from; the
            paper leaves them out.
        anchors_per_image: that the proposal network learns from in a step, half of them positive
            at most.
        anchor_positive_iou: from here on an anchor shows the object.
        anchor_negative_iou: below, an anchor shows none.
        train_proposals: in training, how many of an image (of each level of a pyramid) go into
            their suppression, and how many of the image come out.
        test_proposals: the same for detection.
        proposal_iou: of that suppression.
        min_proposal_size: the least width and height of a proposal in pixels of the input; the
            release has 16.
        regions_per_image: that the detection network learns from, a quarter with an object at
            most.
        positive_iou: least IoU with an object of a region that shows it.
        background_iou: from and to; the greatest IoU with any object of a background region.
        box_weight: λ, the weight of the regions' box loss (Girshick 2015, equation 1: 1).
        box_beta: the error from which that loss, smooth L1, is a line, in normalized deltas (the
            paper's equation 3: 1); less asks for more exact boxes, as torchvision's 1/9 does.
        truncated_svd: see `FastRCNN`.
        score_threshold: probabilities below are left out.
        iou_threshold: of the suppression among detections of a class.
        max_detections: kept for each image.

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
        input_size: Count = 1000,
        shorter_side: Count | None = 600,
        recipe: Recipe = "joint",
        level: str | None = None,
        neck: Literal["fpn"] | None = None,
        neck_channels: Count = 256,
        pooling: Pooling = "max",
        head: Head = "backbone",
        hidden_features: Counts = (1024, 1024),
        region_size: Count = 7,
        rpn_channels: Count | None = None,
        anchor_sizes: Positives | None = None,
        anchor_ratios: Positives = (0.5, 1.0, 2.0),
        crossing_anchors: bool = False,
        anchors_per_image: Count = 256,
        anchor_positive_iou: Share = 0.7,
        anchor_negative_iou: Share = 0.3,
        train_proposals: tuple[Count, Count] = (12000, 2000),
        test_proposals: tuple[Count, Count] = (6000, 300),
        proposal_iou: Share = 0.7,
        min_proposal_size: Weight = 1.0,
        regions_per_image: Count = 128,
        positive_iou: Share = 0.5,
        background_iou: Rising = (0.0, 0.5),
        box_weight: Weight = 1.0,
        box_beta: Weight = 1.0,
        truncated_svd: tuple[CountOrZero, ...] | None = None,
        score_threshold: Share = 0.01,
        iou_threshold: Share = 0.3,
        max_detections: Count = 100,
    ) -> None:
        super().__init__(
            backbone,
            num_classes,
            input_spec=input_spec_of(input_size, shorter_side),
            level=level,
            neck=neck,
            neck_channels=neck_channels,
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
        if anchor_negative_iou > anchor_positive_iou:
            raise DetectError(
                "detector.anchor_negative_iou: expected at most detector.anchor_positive_iou, "
                f"{anchor_positive_iou}, found {anchor_negative_iou}"
            )
        self.recipe: Recipe = recipe
        self.crossing_anchors = crossing_anchors
        self.anchors_per_image = anchors_per_image
        self.anchor_positive_iou = anchor_positive_iou
        self.anchor_negative_iou = anchor_negative_iou
        self.train_proposals = train_proposals
        self.test_proposals = test_proposals
        self.proposal_iou = proposal_iou
        self.min_proposal_size = min_proposal_size
        self.score_threshold = score_threshold
        self.rpn = RegionProposalNetwork(
            self.map_channels,
            rpn_channels or (neck_channels if neck else 512),
            self._anchor_sizes(anchor_sizes),
            anchor_ratios,
        )
        self.rpn_backbone: Backbone | None = None
        self.rpn_neck: FeaturePyramidNetwork | None = None
        if recipe == "alternating":
            self.rpn_backbone = copy.deepcopy(backbone)
            self.rpn_backbone.end_at(self.levels[-1])
            self.rpn_neck = copy.deepcopy(self.neck)
        self.register_buffer("is_shared", torch.tensor(recipe == "joint"))

    def _anchor_sizes(self, sizes: Sequence[float] | None) -> list[list[float]]:
        # for each level
        if self.neck is None:
            return [list(sizes or ANCHOR_SIZES)]
        num_levels = len(self.levels) + 1
        sizes = sizes or [FINEST_ANCHOR_SIZE * 2**level for level in range(num_levels)]
        if len(sizes) != num_levels:
            raise DetectError(
                f"detector.anchor_sizes: expected one for each of the pyramid's {num_levels} "
                f"levels, found {list(sizes)}"
            )
        return [[size] for size in sizes]

    # --- training ---------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Terms `objectness`, `anchor_boxes`, `classification` and `boxes`."""
        maps, truths = self.maps(self._images(batch)), pad_truths(batch.truths)
        outputs: AnchorOutputs = self.rpn(maps)
        found = self._select(outputs, frames_of(batch), self.train_proposals)
        return {
            **self._anchor_loss(outputs, batch, truths),
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
        return self._anchor_loss(self.rpn(maps), batch, pad_truths(batch.truths))

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
            found = self._select(self.rpn(proposal_maps), frames_of(batch), self.train_proposals)
        return self.region_loss(maps, found.boxes, found.valid, pad_truths(batch.truths))

    def _share(self, watch: Watch) -> None:
        self.is_shared.fill_(True)
        watch.say("from here on, proposals come from the detection network's trunk")

    def _anchor_loss(
        self, outputs: AnchorOutputs, batch: Batch, truths: PaddedTruths
    ) -> dict[str, Float[Tensor, ""]]:
        targets = sample_anchors(
            outputs.anchors,
            truths,
            frames_of(batch),
            anchors_per_image=self.anchors_per_image,
            positive_iou=self.anchor_positive_iou,
            negative_iou=self.anchor_negative_iou,
            crossing=self.crossing_anchors,
            generator=generator_on(outputs.anchors.device),
        )
        objectness, boxes = anchor_losses(outputs, targets)
        return {"objectness": objectness, "anchor_boxes": boxes}

    # --- inference --------------------------------------------------------------------------------

    def _detect(self, batch: Batch) -> list[Detections]:
        with timed("network"):
            images = self._images(batch)
            maps = self.maps(images)
        with timed("proposals"):
            proposal_maps = maps if self.is_shared else self._rpn_maps(images)
            frames = frames_of(batch)
            found = self._select(self.rpn(proposal_maps), frames, self.test_proposals)
            boxes, image_index = found.boxes[found.valid], found.valid.nonzero()[:, 0]
        with timed("network"):
            scores, deltas = self.outputs(maps, boxes, image_index)
        with timed("post-processing"):
            return self.suppress(boxes, image_index, scores, deltas, frames, self.score_threshold)

    @torch.no_grad()
    def propose(self, batch: Batch) -> list[Float[Tensor, "_ 4"]]:
        """The proposals of each image `[N, 4]`, best first, in the input frame."""
        with evaluating(self):
            images = self._images(batch)
            maps = self.maps(images) if self.is_shared else self._rpn_maps(images)
            found = self._select(self.rpn(maps), frames_of(batch), self.test_proposals)
        return [boxes[valid] for boxes, valid in zip(found.boxes, found.valid, strict=True)]

    def _images(self, batch: Batch) -> Float[Tensor, "B 3 H W"]:
        return unit_images(batch, self.backbone.mean)

    def _rpn_maps(self, images: Float[Tensor, "B 3 H W"]) -> list[FeatureMap]:
        return self.maps(images, backbone=self.rpn_backbone, neck=self.rpn_neck)

    def _select(
        self, outputs: AnchorOutputs, frames: Float[Tensor, "B 4"], counts: tuple[int, int]
    ) -> PaddedProposals:
        return select_proposals(
            outputs,
            frames,
            num_before=counts[0],
            num_after=counts[1],
            iou_threshold=self.proposal_iou,
            min_size=self.min_proposal_size,
        )
