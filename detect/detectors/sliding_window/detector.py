"""The sliding window, run as convolutions: OverFeat (Sermanet et al. 2014)."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from detect.backbones import Backbone
from detect.backbones.base import head_as_convolutions
from detect.detectors.base import DETECTORS, Detector, evaluating
from detect.detectors.derived import DerivedModule
from detect.detectors.images import pad_to
from detect.detectors.localizer.detector import build_regressor
from detect.detectors.localizer.losses import BoxLoss, box_regression_loss
from detect.detectors.localizer.recipes import PHASE_NAMES, Recipe, recipe_phases
from detect.detectors.ranges import Count, Positives, Share, Weight, in_ranges
from detect.detectors.sliding_window.windows import WindowGrid, label_windows, scale_images
from detect.detectors.stages import timed
from detect.detectors.suppression import Suppressor
from detect.errors import DetectError
from detect.ops import divisor_over_processes, merge_predictions
from detect.structures import Batch, Detections, GroundTruth, InputSpec
from detect.training import Phase, Plan

# Heights of OverFeat's six scales over that of the first (table 5: 245, 281, 317, 389, 425, 461).
OVERFEAT_SCALES = (1.0, 1.147, 1.294, 1.588, 1.735, 1.882)

# Windows whose k×k maps are in memory at once while the hardest ones are looked for.
SCORING_CHUNK = 2048


class Predictions(NamedTuple):
    """What all windows of one pass say.

    Attributes:
        grid: where the windows lie.
        logits: `[B, h, w, S]`; of the classes, the background last if there is one.
        boxes: `[B, h, w, N, 4]`; for each class or one for all, xyxy pixels of the image.
    """

    grid: WindowGrid
    logits: Float[Tensor, "B h w S"]
    boxes: Float[Tensor, "B h w N 4"]


class Examples(NamedTuple):
    """The windows of a batch that a step learns from.

    Attributes:
        maps: `[N, F, k, k]`; their part of the trunk's map.
        labels: `[N]`; the class, C for background.
        units: `[N, 4]`; the object's box (center, size) in units of the window.
        is_positive: `[N]`; whether the window shows an object.
    """

    maps: Float[Tensor, "N F k k"]
    labels: Int[Tensor, "N"]
    units: Float[Tensor, "N 4"]
    is_positive: Tensor


@DETECTORS.register("sliding_window")
class SlidingWindow(Detector):
    """A localizer looking through every window of an image, at several scales, in one pass each.

    The backbone's fully connected layers become convolutions (`dense_head`), so that a large
    image gives class scores and a box for every window position at once (section 3.5). The window
    is the square input that the backbone was designed for. Its parameters have the names of a
    `Localizer` of that input size, so that the weights of one can be run as the other
    (`initial_weights`).

    On a trunk without padding this gives what cutting the windows out would give; with padding, a
    window that was cut out sees zeros around it, where the dense pass sees the image. Training
    therefore looks at windows as the dense pass does: it runs the trunk over the whole image,
    scaled and shifted at random, and learns from windows of that map.

    Training for detection. A window shows the object that it overlaps by an IoU of at least
    `positive_iou`, and background below `negative_iou`. A step learns from all windows with objects
    and `negatives_per_positive` times as many others, half of them those that the network is most
    wrong about, half at random (section 5: "random ones or most offending ones").

    Deviations. The paper merges over the five best classes of a scale; here all scores above a
    threshold take part. The scores that merging has added up are divided by the number of windows
    that show an object on average in training: 1 means that as many as usual are sure of it.
    Trunks that don't end in a pool get finer steps by shifted inputs, at the cost of a pass each.

    Args:
        backbone: its trunk and head are used.
        num_classes: C.
        input_size: side of the square that images are letterboxed to, in pixels, before scaling.
        scales: factors of the input; the same window sees smaller objects at greater ones.
        offsets: n; windows at n × n fractions of the stride, by pooling at shifted positions
            (section 3.3, figure 3) where the trunk ends in a pool. The paper has 3.
        mode: `dense`, or `crops`: each window cut out and run alone, the slow way.
        combine: `merge` (section 4.3) or `nms`.
        background: whether there is a class for it; a localizer's weights have none.
        attach: of the regression head; see `Localizer`.
        hidden_features: of the regression head; see `Localizer`.
        reduced_channels: on the trunk, of a 1×1 convolution before it; see `Localizer`.
        class_specific: a box for each class instead of one for all.
        box_loss: see `box_regression_loss`.
        box_weight: of the box loss beside the classification loss.
        recipe: the order of the training; see `recipe_phases`.
        scales_per_step: how many of the scales, drawn at random, a training step looks at.
        positive_iou: least IoU of a window with its object.
        negative_iou: IoU below which a window is background.
        negatives_per_positive: background windows for each one with an object.
        score_threshold: class scores below are left out, in 0…1.
        match_threshold: up to which predictions are merged; see `merge_predictions`.
        suppressor: with `combine: nms`; of `merge`, only its `max_detections` count. See
            `Suppressor`.

    Attributes:
        num_windows_shown: int64; windows with an object that training has seen, of all scales.
        num_objects_shown: int64; objects that it has seen, counted once for each scale.

    Raises:
        DetectError: settings that do not fit the backbone or each other.
    """

    num_windows_shown: Tensor
    num_objects_shown: Tensor

    phase_names: ClassVar[tuple[str, ...]] = PHASE_NAMES

    @in_ranges
    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        input_size: Count = 448,
        scales: Positives = OVERFEAT_SCALES,
        offsets: Count = 1,
        mode: Literal["dense", "crops"] = "dense",
        combine: Literal["merge", "nms"] = "merge",
        background: bool = True,
        attach: Literal["trunk", "head"] = "trunk",
        hidden_features: tuple[Count, ...] | None = None,
        reduced_channels: Count | None = None,
        class_specific: bool = False,
        box_loss: BoxLoss = "l2",
        box_weight: Weight = 1.0,
        recipe: Recipe = "joint",
        scales_per_step: Count = 2,
        positive_iou: Share = 0.5,
        negative_iou: Share = 0.3,
        negatives_per_positive: Weight = 3.0,
        score_threshold: Share = 0.05,
        match_threshold: Weight = 0.75,
        suppressor: Suppressor = Suppressor(iou_threshold=0.4),
    ) -> None:
        super().__init__()
        if suppressor.suppression != "greedy" and combine == "merge":
            raise DetectError(
                "detector.suppression: with detector.combine = merge nothing is suppressed; "
                f"expected greedy, or detector.combine = nms, found {suppressor.suppression}"
            )
        if negative_iou > positive_iou:
            raise DetectError(
                "detector.negative_iou: expected at most detector.positive_iou, "
                f"{positive_iou}, found {negative_iou}"
            )
        self.num_classes = num_classes
        self.input_spec = InputSpec((input_size, input_size), keep_aspect_ratio=True)
        self.scales = scales
        self.offsets = offsets
        self.mode = mode
        self.combine = combine
        self.background = background
        self.attach = attach
        self.box_loss: BoxLoss = box_loss
        self.box_weight = box_weight
        self.recipe: Recipe = recipe
        self.scales_per_step = scales_per_step
        self.positive_iou = positive_iou
        self.negative_iou = negative_iou
        self.negatives_per_positive = negatives_per_positive
        self.score_threshold = score_threshold
        self.match_threshold = match_threshold
        self.suppressor = suppressor
        self.backbone = backbone
        self.window = backbone.image_size
        self._num_boxes = num_classes if class_specific else 1
        self.classifier = nn.Linear(backbone.feature_dim, num_classes + int(background))
        outputs = 4 * self._num_boxes
        self.regressor = build_regressor(
            backbone, attach, hidden_features, outputs, reduced_channels
        )
        self.register_buffer("num_windows_shown", torch.tensor(0))
        self.register_buffer("num_objects_shown", torch.tensor(0))
        self._dense = DerivedModule()

    # --- all windows of an image -----------------------------------------------------------------

    def look(self, images: Float[Tensor, "B 3 H W"]) -> Iterator[Predictions]:
        """What every window of images in 0…1 says, scale by scale and offset by offset."""
        for scale in self.scales:
            scaled, factors = scale_images(images, scale, self.backbone.mean, self.window)
            for offset, features in self._maps(scaled):
                logits, units = self._read(features, scaled, offset)
                grid = WindowGrid(
                    (logits.shape[1], logits.shape[2]),
                    self.window,
                    self.backbone.stride,
                    offset,
                    factors,
                )
                yield Predictions(grid, logits, grid.to_image(units))

    def _maps(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> Iterator[tuple[tuple[float, float], Float[Tensor, "B F h w"]]]:
        # the trunk's map for each offset (vertical, horizontal) in pixels
        last = self.backbone.trunk[-1]
        steps = [(i, j) for i in range(self.offsets) for j in range(self.offsets)]
        pool_stride = last.stride if isinstance(last, nn.MaxPool2d) and not last.padding else 1
        if isinstance(pool_stride, int) and 1 < self.offsets <= pool_stride:
            unpooled = self.backbone.trunk[:-1](self.backbone.normalize(images))
            step = self.backbone.stride / pool_stride
            for i, j in steps:
                yield (i * step, j * step), last(unpooled[:, :, i:, j:])
            return
        for i, j in steps:
            y, x = (round(n * self.backbone.stride / self.offsets) for n in (i, j))
            shifted = images[:, :, y:, x:]
            size = tuple(max(side, self.window) for side in shifted.shape[2:])
            shifted = pad_to(shifted, (size[0], size[1]), self.backbone.mean)
            yield (float(y), float(x)), self.backbone(shifted)

    def _read(
        self,
        features: Float[Tensor, "B F h w"],
        images: Float[Tensor, "B 3 H W"],
        offset: tuple[float, float],
    ) -> tuple[Tensor, Tensor]:
        # logits [B, h, w, S] and boxes [B, h, w, N, 4] in units of the window
        if self.mode == "crops":
            return self._read_crops(features, images, offset)
        head, classifier, regressor = self._dense_heads()
        hidden = head(features)
        logits = classifier(hidden).permute(0, 2, 3, 1).float()
        outputs = regressor(features if self.attach == "trunk" else hidden)
        units = outputs.permute(0, 2, 3, 1).float().unflatten(-1, (self._num_boxes, 4))
        return logits, units

    def _read_crops(
        self,
        features: Float[Tensor, "B F h w"],
        images: Float[Tensor, "B 3 H W"],
        offset: tuple[float, float],
    ) -> tuple[Tensor, Tensor]:
        k = self.backbone.grid
        rows, columns = features.shape[2] - k + 1, features.shape[3] - k + 1
        outputs = []
        for i in range(rows):
            for j in range(columns):
                y = round(offset[0]) + i * self.backbone.stride
                x = round(offset[1]) + j * self.backbone.stride
                crop = images[:, :, y : y + self.window, x : x + self.window]
                crop = pad_to(crop, (self.window, self.window), self.backbone.mean)
                outputs.append(self._heads(self.backbone(crop)))
        logits = torch.stack([logits for logits, _ in outputs], dim=1)
        units = torch.stack([units for _, units in outputs], dim=1)
        return logits.unflatten(1, (rows, columns)), units.unflatten(1, (rows, columns))

    def _heads(self, maps: Float[Tensor, "N F k k"]) -> tuple[Tensor, Tensor]:
        # logits [N, S] and boxes [N, boxes, 4] of single windows
        hidden = self.backbone.head(maps)
        outputs = self.regressor(maps if self.attach == "trunk" else hidden)
        units = outputs.float().unflatten(1, (self._num_boxes, 4))
        return self.classifier(hidden).float(), units

    def _dense_heads(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        def as_convolutions() -> tuple[nn.Module, nn.Module, nn.Module]:
            head = self.backbone.dense_head()
            classifier = head_as_convolutions(self.classifier, 1)
            grid = self.backbone.grid if self.attach == "trunk" else 1
            return head.eval(), classifier.eval(), head_as_convolutions(self.regressor, grid).eval()

        parts = (self.backbone.head, self.classifier, self.regressor)
        return self._dense.of(parts, as_convolutions)

    # --- training ---------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Terms `classification` and `boxes`."""
        return self._losses(self._examples(batch))

    def classification_loss(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Term `classification` alone."""
        examples = self._examples(batch)
        logits = self.classifier(self.backbone.head(examples.maps)).float()
        return {"classification": self._classification_loss(logits, examples)}

    def heads_loss(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Both terms; the gradient ends at the trunk's map."""
        with torch.no_grad(), evaluating(self.backbone.trunk):
            examples = self._examples(batch)
        return self._losses(examples)

    def regression_loss(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Term `boxes` alone; the gradient ends at the regression head."""
        with torch.no_grad(), evaluating(self.backbone), evaluating(self.classifier):
            examples = self._examples(batch)
            hidden = examples.maps
            if self.attach == "head":
                hidden = self.backbone.head(examples.maps)
        units = self.regressor(hidden).float().unflatten(1, (self._num_boxes, 4))
        return {"boxes": self._box_loss(units, examples)}

    def phases(self, plan: Plan) -> Sequence[Phase]:
        """As the recipe says; see `recipe_phases`."""
        return recipe_phases(self, self.recipe, plan)

    def _losses(self, examples: Examples) -> dict[str, Float[Tensor, ""]]:
        logits, units = self._heads(examples.maps)
        return {
            "classification": self._classification_loss(logits, examples),
            "boxes": self._box_loss(units, examples),
        }

    def _classification_loss(
        self, logits: Float[Tensor, "N S"], examples: Examples
    ) -> Float[Tensor, ""]:
        has_class = examples.labels < logits.shape[1]  # background has none if there is no class
        labels = examples.labels.clamp(max=logits.shape[1] - 1)
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return (losses * has_class).sum() / divisor_over_processes(has_class.sum())

    def _box_loss(self, units: Float[Tensor, "N boxes 4"], examples: Examples) -> Float[Tensor, ""]:
        rows = examples.labels.clamp(max=self._num_boxes - 1)[:, None, None].expand(-1, 1, 4)
        own = units.gather(1, rows).squeeze(1)
        losses = box_regression_loss(own, examples.units, self.box_loss)
        losses = torch.where(examples.is_positive, losses, 0)
        return self.box_weight * losses.sum() / divisor_over_processes(examples.is_positive.sum())

    def _examples(self, batch: Batch) -> Examples:
        images = batch.unit_images()
        # torch's global generator, whose state is in every checkpoint, as for dropout
        chosen = torch.randperm(len(self.scales))[: self.scales_per_step].tolist()
        found = [self._examples_at(images, batch.truths, self.scales[n]) for n in chosen]
        return Examples(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def _examples_at(
        self, images: Float[Tensor, "B 3 H W"], truths: Sequence[GroundTruth], scale: float
    ) -> Examples:
        scaled, factors = scale_images(images, scale, self.backbone.mean, self.window)
        stride = self.backbone.stride
        y, x = torch.randint(stride, (2,)).tolist()
        # moved down and to the right by a part of the stride: all positions come up
        size = (scaled.shape[2] + y, scaled.shape[3] + x)
        moved = self.backbone.mean.expand(len(scaled), -1, *size).clone()
        moved[:, :, y:, x:] = scaled
        features = self.backbone(moved)
        k = self.backbone.grid
        windows = features.unfold(2, k, 1).unfold(3, k, 1)  # [B, F, h, w, k, k]
        shape = (windows.shape[2], windows.shape[3])
        grid = WindowGrid(shape, self.window, stride, (-float(y), -float(x)), factors)
        labels, units = self._targets(grid, truths)
        if self.classifier.training or self.regressor.training:
            self.num_windows_shown += ((labels >= 0) & (labels < self.num_classes)).sum()
            self.num_objects_shown += (~torch.cat([truth.difficult for truth in truths])).sum()
        rows = self._choose(windows, labels)
        image, window = rows // labels.shape[1], rows % labels.shape[1]
        maps = windows[image, :, window // shape[1], window % shape[1]]
        chosen = labels.flatten()[rows]
        is_positive = chosen < self.num_classes
        return Examples(maps, chosen, units.flatten(0, 1)[rows], is_positive)

    def _targets(
        self, grid: WindowGrid, truths: Sequence[GroundTruth]
    ) -> tuple[Int[Tensor, "B N"], Float[Tensor, "B N 4"]]:
        # the class of each window, C for background, −1 for ignored, and the box in its units
        labels, units = [], []
        for truth in truths:
            shown = label_windows(grid, truth, self.positive_iou, self.negative_iou)
            own = torch.full_like(shown, -1)
            own[shown == -1] = self.num_classes
            boxes = torch.zeros(len(shown), 4, device=shown.device)
            positive = (shown >= 0).nonzero().squeeze(1)
            own[positive] = truth.labels[shown[positive]]
            boxes[positive] = grid.to_units(truth.boxes[shown[positive]], positive)
            labels.append(own)
            units.append(boxes)
        return torch.stack(labels), torch.stack(units)

    @torch.no_grad()
    def _choose(
        self, windows: Float[Tensor, "B F h w k k"], labels: Int[Tensor, "B N"]
    ) -> Int[Tensor, "M"]:
        # flat numbers of all positive windows and of some background: the hardest and random ones
        flat = labels.flatten()
        positive = ((flat >= 0) & (flat < self.num_classes)).nonzero().squeeze(1)
        background = (flat == self.num_classes).nonzero().squeeze(1)
        # a batch without objects still learns what background is
        count = max(int(self.negatives_per_positive * len(positive)), len(labels))
        background = background[torch.randperm(len(background), device=flat.device)]
        if not self.background or len(background) <= count:
            return torch.cat((positive, background[:count]))
        random, rest = background[: count // 2], background[count // 2 :]
        with evaluating(self.backbone.head), evaluating(self.classifier):
            scores = torch.cat(
                [
                    self._foreground(windows, rows, labels.shape[1])
                    for rows in rest.split(SCORING_CHUNK)
                ]
            )
        hardest = rest[scores.topk(min(count - len(random), len(rest))).indices]
        return torch.cat((positive, random, hardest))

    def _foreground(
        self, windows: Float[Tensor, "B F h w k k"], rows: Int[Tensor, "N"], per_image: int
    ) -> Float[Tensor, "N"]:
        # probability that windows show any object
        image, window = rows // per_image, rows % per_image
        maps = windows[image, :, window // windows.shape[3], window % windows.shape[3]]
        logits: Tensor = self.classifier(self.backbone.head(maps)).float()
        return 1 - logits.softmax(dim=1)[:, -1]

    # --- inference --------------------------------------------------------------------------------

    def _detect(self, batch: Batch) -> list[Detections]:
        images = batch.unit_images()
        with timed("network"):
            looks = list(self.look(images))
        with timed("post-processing"):
            found = []
            for seen in looks:
                probabilities = seen.logits.softmax(dim=-1)[..., : self.num_classes]
                image, row, column, label = (probabilities >= self.score_threshold).nonzero(
                    as_tuple=True
                )
                own = label if self._num_boxes > 1 else torch.zeros_like(label)
                scores = probabilities[image, row, column, label]
                found.append((seen.boxes[image, row, column, own], scores, label, image))
            boxes, scores, labels, image_index = map(torch.cat, zip(*found, strict=True))
            return self._combine(boxes, scores, labels, image_index, len(images))

    def _windows_per_object(self) -> Float[Tensor, ""]:
        # of all scales and offsets, as training has counted them at one offset; at least 1
        share = self.num_windows_shown / self.num_objects_shown.clamp(min=1)
        return (share * len(self.scales) * self.offsets**2).clamp(min=1)

    def _combine(
        self,
        boxes: Float[Tensor, "N 4"],
        scores: Float[Tensor, "N"],
        labels: Int[Tensor, "N"],
        image_index: Int[Tensor, "N"],
        num_images: int,
    ) -> list[Detections]:
        if self.combine == "nms":
            candidates = (boxes, scores, labels, image_index)
            return self.suppressor(*candidates, num_images, self.score_threshold)
        groups = image_index * self.num_classes + labels
        boxes, scores, groups = merge_predictions(
            boxes, scores, groups, max_match=self.match_threshold
        )
        scores = scores / self._windows_per_object()
        found = []
        for image in range(num_images):
            rows = (groups // self.num_classes == image).nonzero().squeeze(1)
            rows = rows[scores[rows].argsort(descending=True, stable=True)]
            rows = rows[: self.suppressor.max_detections]
            found.append(Detections(boxes[rows], scores[rows], groups[rows] % self.num_classes))
        return found
