"""Localization by regression: a class and a box for each image, from one network with two heads.

The lecture's recipe and its papers: Krizhevsky et al. 2012 and Simonyan & Zisserman 2015 for
ILSVRC's localization task, Sermanet et al. 2014 (OverFeat) for a regression head on the trunk,
Toshev & Szegedy 2014 (DeepPose) for one behind the fully connected layers.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from detect.backbones import Backbone
from detect.detectors.base import DETECTORS, Detector, evaluating
from detect.detectors.localizer.assignment import Assignment, hungarian_slots, ordered_slots
from detect.detectors.localizer.cascade import RefinementStage
from detect.detectors.localizer.losses import BoxLoss, box_regression_loss
from detect.detectors.localizer.recipes import PHASE_NAMES, Recipe, recipe_phases
from detect.detectors.ranges import (
    Count,
    CountOrZero,
    Positive,
    Share,
    Weight,
    check_input_size,
    in_ranges,
)
from detect.detectors.stages import timed
from detect.detectors.suppression import Suppressor
from detect.errors import DetectError
from detect.ops import divisor_over_processes, from_center_size, to_center_size
from detect.structures import Batch, Detections, GroundTruth, InputSpec
from detect.training import BatchSource, FitPhase, Phase, Plan, Watch

# Phases that train the later stages of a cascade: three stages are the most the paper tried.
STAGE_PHASES = ("refine_2", "refine_3")

# Of the regression head on the trunk (Sermanet et al. 2014, section 4.1).
OVERFEAT_HIDDEN = (4096, 1024)


class Targets(NamedTuple):
    """What the heads should say of each image and slot.

    Attributes:
        labels: `[B, K]`; the class, C for nothing (K > 1), −1 for no say (K = 1, no object).
        boxes: `[B, K, 4]` pixels of the input; zeros where there is no object.
        has_object: `[B, K]`.
        joints: `[B, J, 3]` of the image's object, x, y and visibility; zeros where there is none.
    """

    labels: Int[Tensor, "B K"]
    boxes: Float[Tensor, "B K 4"]
    has_object: Bool[Tensor, "B K"]
    joints: Float[Tensor, "B J 3"]


@DETECTORS.register("localizer")
class Localizer(Detector):
    """A classification head and a regression head on one backbone.

    A box is predicted as (center x, center y, width, height) in units of the input's width and
    height, by linear outputs.

    With one object (K = 1), the class head names the image's object, and an image without
    objects teaches nothing. Its detections are the five most probable classes, each with its box:
    the five guesses of ILSVRC. With K objects, each of K slots has a box and scores for C classes
    and "nothing", slots stand for objects by `assignment`, and detections are suppressed by class.

    Args:
        backbone: its trunk and head are used.
        num_classes: C.
        input_size: side of the square input in pixels.
        attach: where the regression head sits: on the `trunk`'s map (OverFeat, VGG) or behind the
            backbone's `head` (DeepPose, R-CNN).
        hidden_features: of the regression head's hidden layers; None gives OverFeat's 4,096 and
            1,024 on the trunk, and behind the head none, as DeepPose has it.
        reduced_channels: on the trunk, a 1×1 convolution first brings the map to so many channels.
            It is the same at all places, so that fewer images teach the rest (not in the papers).
        class_specific: a box for each class (4 × C numbers) instead of one for all (4).
        num_objects: K, boxes for each image.
        num_joints: J, joints (x, y) that the regression head gives of the image's one object
            besides its box, in units of the input (Toshev & Szegedy 2014, section 3.1: "a joint
            regression problem"); only labeled ones are learned from. None for data without joints.
        assignment: of the objects to the slots: `left_to_right`, `by_size` (the largest first) or
            `hungarian` (least cost); with more than K objects, the K largest count.
        object_choice: which object of an image is meant where K = 1: the `largest`, or its
            `single` one, where images with several teach nothing.
        box_loss: `l2` is the papers'; `smooth_l1` (Girshick 2015), or 1 − `iou`, `giou`, `diou`,
            `ciou`.
        box_weight: of the box loss beside the classification loss.
        joint_weight: of the loss of the joints, which is L2.
        num_stages: of DeepPose's cascade, 1 to 3: each after the first has a network of its own,
            trained after the one before, that looks closer at each joint; see `RefinementStage`.
        diameter_joints: numbers (from 0) of two joints across the torso, such as left shoulder and
            right hip, whose distance says how large a person is; for stages after the first.
        stage_context: side of the square that such a stage looks at, over that distance.
        recipe: the order of the training: `frozen` is the lecture's and OverFeat's, classification
            first, then the regression head alone; see `recipe_phases`.
        guesses: detections of an image where K = 1 (ILSVRC: 5).
        score_threshold: with K > 1, detections below are left out, in 0…1.
        suppressor: with K > 1; see `Suppressor`.

    Raises:
        DetectError: settings that do not fit the backbone or each other.
    """

    phase_names: ClassVar[tuple[str, ...]] = (*PHASE_NAMES, *STAGE_PHASES)

    @in_ranges
    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        input_size: Count = 224,
        attach: Literal["trunk", "head"] = "trunk",
        hidden_features: tuple[Count, ...] | None = None,
        reduced_channels: Count | None = None,
        class_specific: bool = False,
        num_objects: Count = 1,
        num_joints: CountOrZero = 0,
        assignment: Assignment = "left_to_right",
        object_choice: Literal["largest", "single"] = "largest",
        box_loss: BoxLoss = "l2",
        box_weight: Weight = 1.0,
        joint_weight: Weight = 1.0,
        num_stages: Count = 1,
        diameter_joints: tuple[CountOrZero, CountOrZero] | None = None,
        stage_context: Positive = 1.0,
        recipe: Recipe = "frozen",
        guesses: Count = 5,
        score_threshold: Share = 0.01,
        suppressor: Suppressor = Suppressor(max_detections=None),
    ) -> None:
        super().__init__()
        if suppressor.suppression != "greedy" and num_objects == 1:
            raise DetectError(
                "detector.suppression: with detector.num_objects = 1 nothing is suppressed; "
                f"expected greedy, found {suppressor.suppression}"
            )
        if num_joints and num_objects > 1:
            raise DetectError(
                f"detector.num_joints: joints are of one object an image, found "
                f"detector.num_objects = {num_objects}; set it to 1"
            )
        check_input_size(backbone, input_size)
        _check_cascade(num_stages, diameter_joints, num_joints)
        self.metrics = ("localization", "pose") if num_joints else ("localization",)
        self.num_classes = num_classes
        self.input_spec = InputSpec((input_size, input_size))
        self.attach = attach
        self.class_specific = class_specific
        self.num_objects = num_objects
        self.assignment: Assignment = assignment
        self.object_choice = object_choice
        self.box_loss: BoxLoss = box_loss
        self.box_weight = box_weight
        self.joint_weight = joint_weight
        self.num_joints = num_joints
        self.recipe = recipe
        self.guesses = guesses
        self.score_threshold = score_threshold
        self.suppressor = suppressor
        self.backbone = backbone
        # with several slots, "nothing" is one class more
        self._num_scores = num_classes + (1 if num_objects > 1 else 0)
        self._num_boxes = num_classes if class_specific else 1
        self.classifier = nn.Linear(backbone.feature_dim, num_objects * self._num_scores)
        outputs = num_objects * self._num_boxes * 4 + 2 * num_joints
        self.regressor = build_regressor(
            backbone, attach, hidden_features, outputs, reduced_channels
        )
        self.stages = nn.ModuleList()
        if diameter_joints is not None:
            self.stages.extend(
                RefinementStage(backbone, num_joints, diameter_joints, stage_context)
                for _ in range(num_stages - 1)
            )

    # --- the network ------------------------------------------------------------------------------

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The trunk's map, averaged to `[B, C, k, k]`, and the head's features `[B, D]`."""
        features = self.backbone(batch.unit_images())
        return self.backbone.pooled_to_grid(features), self.backbone.head_features(features)

    def classify(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B K S"]:
        """Class logits of each slot."""
        logits: Tensor = self.classifier(features)
        slots: Tensor = logits.unflatten(1, (self.num_objects, self._num_scores))
        return slots

    def regress(
        self, grid: Float[Tensor, "B F k k"], features: Float[Tensor, "B D"]
    ) -> tuple[Float[Tensor, "B K _ 4"], Float[Tensor, "B J 2"]]:
        """Boxes of each slot, for each class or one for all, and joints, in pixels of the input."""
        outputs = self.regressor(grid if self.attach == "trunk" else features).float()
        units, joints = outputs.split(
            (outputs.shape[1] - 2 * self.num_joints, 2 * self.num_joints), dim=1
        )
        boxes = units.unflatten(1, (self.num_objects, self._num_boxes, 4))
        points = joints.unflatten(1, (self.num_joints, 2))
        scale = self._scale(units)
        return from_center_size(boxes * scale), points * scale[:2]

    def _scale(self, like: Tensor) -> Tensor:
        height, width = self.input_spec.size
        return like.new_tensor([width, height, width, height])

    # --- training ---------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Terms `classification`, `boxes` and, where there are any, `joints`."""
        return self._losses(self.backbone(batch.unit_images()), batch.truths)

    def classification_loss(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Term `classification` alone.

        With the Hungarian assignment, boxes that nobody has trained would say which slot stands for
        which object; the objects are taken from left to right then.
        """
        _, features = self.features(batch)
        logits = self.classify(features).float()
        targets = self._ordered_targets(batch.truths, logits.device)
        return {"classification": self._classification_loss(logits, targets)}

    def heads_loss(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """All terms; the gradient ends at the trunk's map."""
        with torch.no_grad(), evaluating(self.backbone.trunk):
            trunk_map = self.backbone(batch.unit_images())
        return self._losses(trunk_map, batch.truths)

    def regression_loss(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Terms `boxes` and `joints` alone; the gradient ends at the regression head."""
        with torch.no_grad(), evaluating(self.backbone), evaluating(self.classifier):
            grid, features = self.features(batch)
            logits = self.classify(features).float()
        boxes, joints = self.regress(grid, features)
        return self._regression_losses(boxes, joints, self._targets(batch.truths, logits, boxes))

    def phases(self, plan: Plan) -> Sequence[Phase]:
        """As the recipe says (see `recipe_phases`); then two for each later stage of a cascade."""
        phases = list(recipe_phases(self, self.recipe, plan))
        for number, stage in enumerate(self.stages[: 0 if self.recipe == "none" else None]):
            name = STAGE_PHASES[number]
            batches = plan.batches(plan.settings[name])
            measure = partial(self._measure_errors, number, batches)
            loss = partial(self._stage_loss, number)
            phases += [
                FitPhase(f"measure_errors_{number + 1}", measure),
                plan.gradient_phase(name, stage, loss),
            ]
        return phases

    def _losses(
        self, trunk_map: Float[Tensor, "B F h w"], truths: Sequence[GroundTruth]
    ) -> dict[str, Float[Tensor, ""]]:
        features = self.backbone.head_features(trunk_map)
        logits = self.classify(features).float()
        boxes, joints = self.regress(self.backbone.pooled_to_grid(trunk_map), features)
        targets = self._targets(truths, logits, boxes)
        return {
            "classification": self._classification_loss(logits, targets),
            **self._regression_losses(boxes, joints, targets),
        }

    def _classification_loss(
        self, logits: Float[Tensor, "B K S"], targets: Targets
    ) -> Float[Tensor, ""]:
        labels = targets.labels.flatten()
        losses = functional.cross_entropy(
            logits.flatten(0, 1), labels.clamp(min=0), reduction="none"
        )
        has_say = labels >= 0
        return (losses * has_say).sum() / divisor_over_processes(has_say.sum())

    def _regression_losses(
        self, boxes: Float[Tensor, "B K _ 4"], joints: Float[Tensor, "B J 2"], targets: Targets
    ) -> dict[str, Float[Tensor, ""]]:
        losses = {"boxes": self._box_loss(boxes, targets)}
        if self.num_joints:
            losses["joints"] = self._joint_loss(joints, targets)
        return losses

    def _joint_loss(self, joints: Float[Tensor, "B J 2"], targets: Targets) -> Float[Tensor, ""]:
        # equation 3 of DeepPose: the L2 distance over the joints that are labeled
        scale = self._scale(joints)[:2]
        losses = ((joints - targets.joints[..., :2]) / scale).square().sum(dim=-1) / 2
        is_labeled = targets.joints[..., 2] > 0
        losses = torch.where(is_labeled, losses, 0)
        return self.joint_weight * losses.sum() / divisor_over_processes(is_labeled.sum())

    def _stage_loss(self, number: int, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        targets = self._ordered_targets(batch.truths, batch.images.device)
        return {"joints": self._stage(number).loss(batch, targets.joints)}

    @torch.no_grad()
    def _measure_errors(self, number: int, batches: BatchSource, watch: Watch) -> None:
        # what the stages up to this one are wrong by, on an epoch of training images
        def pairs() -> Iterator[tuple[Tensor, Tensor]]:
            for done, batch in enumerate(batches.epoch(0)):
                watch(done, len(batches))
                batch = batch.to(self.classifier.weight.device)
                targets = self._ordered_targets(batch.truths, batch.images.device)
                _, joints = self.regress(*self.features(batch))
                yield self._refine(batch, joints, number), targets.joints

        with evaluating(self):
            self._stage(number).measure_errors(pairs(), self.input_spec.size[0])

    def _refine(
        self, batch: Batch, joints: Float[Tensor, "B J 2"], num_stages: int
    ) -> Float[Tensor, "B J 2"]:
        # by the first of the later stages
        for number in range(num_stages):
            joints = self._stage(number).refine(batch.unit_images(), joints)
        return joints

    def _stage(self, number: int) -> RefinementStage:
        stage = self.stages[number]
        assert isinstance(stage, RefinementStage)
        return stage

    def _box_loss(self, boxes: Float[Tensor, "B K _ 4"], targets: Targets) -> Float[Tensor, ""]:
        rows = targets.labels.clamp(0, self._num_boxes - 1)[..., None, None]  # [B, K, 1, 1]
        own = boxes.gather(2, rows.expand(-1, -1, 1, 4)).squeeze(2)  # [B, K, 4], of the true class
        scale = self._scale(boxes)
        losses = box_regression_loss(
            to_center_size(own) / scale, to_center_size(targets.boxes) / scale, self.box_loss
        )
        has_object = targets.has_object
        # boxes of images without an object are not looked at, whatever their values
        losses = torch.where(has_object, losses, 0)
        return self.box_weight * losses.sum() / divisor_over_processes(has_object.sum())

    def _targets(
        self,
        truths: Sequence[GroundTruth],
        logits: Float[Tensor, "B K S"],
        boxes: Float[Tensor, "B K _ 4"],
    ) -> Targets:
        if self.num_objects == 1 or self.assignment != "hungarian":
            return self._ordered_targets(truths, logits.device)
        pairs = []
        probabilities = logits.detach().softmax(dim=-1)
        for index, truth in enumerate(truths):
            # the box of each slot's most probable class stands for the slot
            best = probabilities[index, :, : self.num_classes].argmax(dim=-1)
            rows = best.clamp(max=self._num_boxes - 1)[:, None, None].expand(-1, 1, 4)
            own = boxes[index].detach().gather(1, rows).squeeze(1)
            pairs.append(hungarian_slots(truth, own, probabilities[index]))
        return self._make_targets(truths, pairs, logits.device)

    def _ordered_targets(self, truths: Sequence[GroundTruth], device: torch.device) -> Targets:
        pairs = []
        assignment: Assignment = "left_to_right"
        if self.num_objects == 1 or self.assignment == "by_size":
            assignment = "by_size"
        for truth in truths:
            objects = ordered_slots(truth, self.num_objects, assignment)
            if self.num_objects == 1 and self.object_choice == "single" and len(truth) > 1:
                objects = objects[:0]
            slots = torch.arange(len(objects), device=objects.device)
            pairs.append(torch.stack((slots, objects), dim=1))
        return self._make_targets(truths, pairs, device)

    def _make_targets(
        self, truths: Sequence[GroundTruth], pairs: Sequence[Tensor], device: torch.device
    ) -> Targets:
        shape = (len(truths), self.num_objects)
        nothing = self.num_classes if self.num_objects > 1 else -1
        labels = torch.full(shape, nothing, dtype=torch.int64, device=device)
        boxes = torch.zeros(*shape, 4, device=device)
        has_object = torch.zeros(shape, dtype=torch.bool, device=device)
        joints = torch.zeros(len(truths), self.num_joints, 3, device=device)
        for index, (truth, rows) in enumerate(zip(truths, pairs, strict=True)):
            slots, objects = rows[:, 0], rows[:, 1]
            labels[index, slots] = truth.labels[objects]
            boxes[index, slots] = truth.boxes[objects]
            has_object[index, slots] = True
            if self.num_joints and len(objects):
                joints[index] = self._joints_of(truth)[objects[0]]
        return Targets(labels, boxes, has_object, joints)

    def _joints_of(self, truth: GroundTruth) -> Float[Tensor, "N J 3"]:
        found = "none" if truth.joints is None else str(truth.joints.shape[1])
        if truth.joints is None or truth.joints.shape[1] != self.num_joints:
            raise DetectError(
                f"detector.num_joints: expected data with {self.num_joints} joints an object, "
                f"found {found}; data.kind 'figures' and 'coco_keypoints' have joints"
            )
        return truth.joints

    # --- inference --------------------------------------------------------------------------------

    def _detect(self, batch: Batch) -> list[Detections]:
        with timed("network"):
            grid, features = self.features(batch)
            logits = self.classify(features).float()
            boxes, joints = self.regress(grid, features)
            joints = self._refine(batch, joints, len(self.stages))
        with timed("post-processing"):
            probabilities = logits.softmax(dim=-1)[..., : self.num_classes]
            boxes = boxes.expand(-1, -1, self.num_classes, -1)
            if self.num_objects == 1:
                return self._guess(probabilities[:, 0], boxes[:, 0], joints)
            image, slot, label = (probabilities >= self.score_threshold).nonzero(as_tuple=True)
            scores = probabilities[image, slot, label]
            candidates = (boxes[image, slot, label], scores, label, image)
            return self.suppressor(*candidates, len(boxes), self.score_threshold)

    def _guess(
        self,
        probabilities: Float[Tensor, "B C"],
        boxes: Float[Tensor, "B C 4"],
        joints: Float[Tensor, "B J 2"],
    ) -> list[Detections]:
        count = min(self.guesses, self.num_classes)
        scores, labels = probabilities.sort(dim=1, descending=True, stable=True)
        return [
            Detections(
                own[order[:count]],
                score[:count],
                order[:count],
                points.expand(count, -1, -1) if self.num_joints else None,
            )
            for own, score, order, points in zip(boxes, scores, labels, joints, strict=True)
        ]


def _check_cascade(
    num_stages: int, diameter_joints: tuple[int, int] | None, num_joints: int
) -> None:
    most = len(STAGE_PHASES) + 1
    if num_stages > most:
        raise DetectError(f"detector.num_stages: expected 1 to {most}, found {num_stages}")
    if num_stages == 1:
        return
    if not num_joints:
        raise DetectError(
            f"detector.num_stages: {num_stages} stages refine joints, and detector.num_joints is "
            "0; set it to the number of joints, or num_stages to 1"
        )
    pair = diameter_joints or ()
    if len({joint for joint in pair if 0 <= joint < num_joints}) != 2:
        raise DetectError(
            "detector.diameter_joints: expected two joints across the torso, as numbers from 0 to "
            f"{num_joints - 1}, such as those of left shoulder and right hip, found "
            f"{None if diameter_joints is None else list(diameter_joints)}"
        )


def build_regressor(
    backbone: Backbone,
    attach: Literal["trunk", "head"],
    hidden_features: Sequence[int] | None,
    outputs: int,
    reduced_channels: int | None = None,
) -> nn.Sequential:
    """The regression head, which begins at the middle of the image.

    On the trunk it takes the flattened k×k map, and has two hidden layers by default (Sermanet et
    al. 2014, section 4.1: 4,096 and 1,024). Behind the head it is one linear layer by default
    (Toshev & Szegedy 2014, section 3.1).

    Raises:
        DetectError: channels of a map are to be reduced where there is none.
    """
    if attach == "head" and reduced_channels is not None:
        raise DetectError(
            "detector.reduced_channels: there is no map behind the head; expected null with "
            f"detector.attach = head, found {reduced_channels}"
        )
    layers: list[nn.Module] = []
    inputs = backbone.feature_dim
    if attach == "trunk":
        channels = backbone.channels
        if reduced_channels is not None:
            layers += [nn.Conv2d(channels, reduced_channels, 1), nn.ReLU(inplace=True)]
            channels = reduced_channels
        inputs = channels * backbone.grid**2
        layers.append(nn.Flatten())
    if hidden_features is None:
        hidden_features = OVERFEAT_HIDDEN if attach == "trunk" else ()
    for features in hidden_features:
        layers += [nn.Linear(inputs, features), nn.ReLU(inplace=True)]
        inputs = features
    last = nn.Linear(inputs, outputs)
    nn.init.normal_(last.weight, std=0.001)
    assert last.bias is not None
    nn.init.constant_(last.bias, 0.5)
    return nn.Sequential(*layers, last)
