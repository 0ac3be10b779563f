"""Mean average precision by the rules of the PASCAL VOC development kit.

Each detection goes to the object of its class and image that it overlaps most (ties to the first
object) and to no other. If their IoU reaches the threshold, the first claim by score is a true
positive and later ones are false positives; detections matched to a difficult object are ignored.
Everything else is a false positive. Everingham et al. 2010, section 4.2; VOCevaldet.m.

IoU is computed in float64 on continuous half-open boxes, which equals the devkit's "+1" on
inclusive pixels. Detections, objects and images are flat tensors throughout, on the device that
they came on: the best object is a segmented arg-max, the first claim a scatter-min, and there is no
loop over images, classes or thresholds.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detect.errors import DetectError
from detect.evaluation.flat import (
    CollectedImages,
    DetectionsLike,
    FlatDetections,
    FlatObjects,
    TruthLike,
)
from detect.evaluation.pairs import BestObjects, best_objects
from detect.evaluation.ranking import (
    VOC_RECALLS,
    RankedLists,
    area_under_curve,
    count_within,
    envelope,
    precision_at_recalls,
)
from detect.evaluation.report import ClassReport, ThresholdReport, VOCProtocol, VOCReport

# On a GPU, memory is ample and synchronizing is expensive: about 2 GiB of float64 results.
MAX_PAIRS_AT_ONCE = 1 << 24


class VOCEvaluator:
    """Collects detections and truths image by image and computes their average precision.

    Args:
        class_names: the name of each label 0 … C−1.
        iou_thresholds: the least IoU of a true positive, or several of them to be judged at once;
            each more than 0 and at most 1.

    Raises:
        DetectError: a threshold is out of its range.
        ValueError: a class name or a threshold is given twice, or there is no threshold.
    """

    name: ClassVar[str] = "voc"

    def __init__(
        self, class_names: Sequence[str], iou_thresholds: float | Sequence[float] = 0.5
    ) -> None:
        thresholds = (
            tuple(iou_thresholds) if isinstance(iou_thresholds, Sequence) else (iou_thresholds,)
        )
        for threshold in thresholds:
            if not 0 < threshold <= 1:
                raise DetectError(
                    f"iou_threshold: expected more than 0 and at most 1, found {threshold}"
                )
        for name, values in (("class_names", class_names), ("iou_thresholds", thresholds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: expected each once, found {list(values)}")
        if not thresholds:
            raise ValueError("iou_thresholds: expected at least one, found none")
        self.class_names = tuple(class_names)
        self.iou_thresholds = thresholds
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._images = CollectedImages(len(self.class_names))

    def update(
        self,
        detections: Sequence[DetectionsLike],
        truths: Sequence[TruthLike],
        tie_ranks: Sequence[Int[Tensor, "_"]] | None = None,
    ) -> None:
        """Add images: one record of detections and one of objects for each, in one frame.

        Records may also be dictionaries of tensors as torchmetrics has them. Tensors are kept as
        they are, on their device; values on a GPU are not read before `compute`.

        Args:
            detections: what was found, or dictionaries with `boxes` `[N, 4]` (xyxy; `boxes_xywh`
                for x, y, width and height), `scores` `[N]` and `labels` `[N]`, in any order.
            truths: the objects, difficult ones included, or dictionaries with `boxes` (or
                `boxes_xywh`) and `labels`, and maybe `difficult` `[N]`; `iscrowd` counts as it.
            tie_ranks: for each detection its rank among those of its class with an equal score,
                lower first. By default, and where ranks are equal, the detections of earlier
                updates, earlier images and earlier rows go first.

        Raises:
            ValueError: the sequences differ in length, a record is not of this form, or a label
                has no class name.
        """
        self._images.append(detections, truths, tie_ranks)

    def merge(self, other: "VOCEvaluator") -> None:
        """Add the images of `other` after those that are here; `other` stays as it is.

        Raises:
            ValueError: the evaluators differ in their classes or their thresholds.
        """
        for name in ("class_names", "iou_thresholds"):
            if getattr(self, name) != getattr(other, name):
                raise ValueError(
                    f"merge: expected an evaluator with the {name} {getattr(self, name)}, "
                    f"found {getattr(other, name)}"
                )
        self._images.extend(other._images)

    def gather(self) -> None:
        """Give each process of `torch.distributed` the images of all of them, by rank.

        Every process then computes the same numbers, those of one process that saw the images in
        this order. Alone, nothing happens.
        """
        self._images.gather()

    def flat(self) -> tuple[FlatDetections, FlatObjects]:
        """All images so far as flat tensors on the CPU, which the analyses take.

        Raises:
            ValueError: a value is not finite, a box is inverted or a label has no class name; names
                the image.
        """
        detections, objects = self._images.detections(), self._images.objects()
        return (
            FlatDetections(*(column.cpu() for column in detections)),
            FlatObjects(*(column.cpu() for column in objects)),
        )

    def compute(self) -> VOCReport:
        """Judge all images so far. Without images, or without objects, every AP is nan.

        Raises:
            ValueError: as `flat` does.
        """
        detections, objects = self._images.detections(), self._images.objects()
        num_classes = len(self.class_names)
        num_pairs = self._images.num_pairs if detections.boxes.is_cuda else None
        if num_pairs is not None and num_pairs > MAX_PAIRS_AT_ONCE:
            num_pairs = None
        verdict = judge(detections, objects, num_classes, self.iou_thresholds, num_pairs)
        found = average_precisions(detections, objects, num_classes, verdict)
        area, at_11_points = found.area.cpu().numpy(), found.at_11_points.cpu().numpy()
        thresholds = tuple(
            ThresholdReport(threshold, at_11_points[row], area[row])
            for row, threshold in enumerate(self.iou_thresholds)
        )
        num_difficult = int(objects.difficult.sum())
        return VOCReport(
            protocol=VOCProtocol(
                iou_threshold=self.iou_thresholds[0],
                num_images=len(self._images),
                num_objects=len(objects.labels) - num_difficult,
                num_difficult=num_difficult,
                num_detections=len(detections.labels),
            ),
            classes=_class_reports(self.class_names, detections, objects, verdict, thresholds[0]),
            thresholds=thresholds,
        )


class Verdict(NamedTuple):
    """What became of the detections at each of K IoU thresholds.

    Only the R detections that may find an object at the least threshold are listed; the others, and
    those that are neither of both here, are false positives.

    Attributes:
        rows: `[R]` of the detections, rising.
        true_positive: `[K, R]` the detection found an object that was still to be found.
        ignored: `[K, R]` the detection is matched to a difficult object, which is ignored.
        best: `[D]` the object that each detection overlaps most, and how far.
    """

    rows: Int[Tensor, "R"]
    true_positive: Bool[Tensor, "K R"]
    ignored: Bool[Tensor, "K R"]
    best: BestObjects


def judge(
    detections: FlatDetections,
    objects: FlatObjects,
    num_classes: int,
    iou_thresholds: Sequence[float],
    num_pairs: int | None = None,
) -> Verdict:
    """Decide on each detection by the rules at the head of this file, at all thresholds at once.

    Args:
        detections: by class and falling score.
        objects: in any order.
        num_classes: labels are less.
        iou_thresholds: K of them, in 0…1 without 0.
        num_pairs: as `best_objects` takes it; with it, a GPU never waits for the CPU, and all
            detections are listed.
    """
    best = best_objects(detections, objects, num_classes, num_pairs=num_pairs)
    device = best.overlaps.device
    thresholds = torch.tensor(iou_thresholds, dtype=torch.float64).to(device, non_blocking=True)
    if num_pairs is not None:
        rows = torch.arange(len(best.overlaps), device=device)
    else:
        rows = (best.overlaps >= min(iou_thresholds)).nonzero().flatten()
    claims = best.overlaps[rows] >= thresholds[:, None]  # [K, R]
    if len(objects.labels) == 0:
        return Verdict(rows, claims & False, claims & False, best)
    claimed = best.objects[rows].expand_as(claims)  # [K, R]
    # rows rise as scores fall, so the first claim of an object is the least row
    numbers = torch.where(claims, rows, len(best.overlaps))  # [K, R]
    first_claims = torch.full(
        (len(claims), len(objects.labels)), len(best.overlaps), device=device
    ).scatter_reduce(1, claimed, numbers, "amin")  # [K, T]
    difficult = objects.difficult[claimed]
    is_first = first_claims.gather(1, claimed) == rows
    return Verdict(rows, claims & is_first & ~difficult, claims & difficult, best)


def dense_verdict(
    verdict: Verdict, threshold: int = 0
) -> tuple[Bool[Tensor, "D"], Bool[Tensor, "D"]]:
    """For every detection, whether it is a true positive, and whether it is ignored.

    Args:
        verdict: on D detections.
        threshold: which of its IoU thresholds, by its row.
    """
    is_true = torch.zeros_like(verdict.best.objects, dtype=torch.bool)
    is_ignored = torch.zeros_like(is_true)
    is_true[verdict.rows] = verdict.true_positive[threshold]
    is_ignored[verdict.rows] = verdict.ignored[threshold]
    return is_true, is_ignored


class AveragePrecisions(NamedTuple):
    """Of C classes at K IoU thresholds, in 0…1; nan for a class without objects to find.

    Attributes:
        area: `[K, C]` float64, the metric of VOC 2010 and later.
        at_11_points: `[K, C]` float64, the metric of VOC 2007.
    """

    area: Float[Tensor, "K C"]
    at_11_points: Float[Tensor, "K C"]


def average_precisions(
    detections: FlatDetections, objects: FlatObjects, num_classes: int, verdict: Verdict
) -> AveragePrecisions:
    """Both metrics of all classes at all thresholds of the verdict, with no loop over either."""
    ranked = _ranked_lists(detections, objects, num_classes, verdict)
    best = envelope(ranked)
    shape = (len(verdict.true_positive), num_classes)
    recalls = torch.from_numpy(VOC_RECALLS).to(best.device, non_blocking=True)
    at_recalls = precision_at_recalls(ranked, best, recalls)  # [11, K·C]
    at_11_points = torch.where(ranked.num_objects > 0, at_recalls.sum(0) / 11, torch.nan)
    return AveragePrecisions(
        area_under_curve(ranked, best).reshape(shape), at_11_points.reshape(shape)
    )


def _ranked_lists(
    detections: FlatDetections, objects: FlatObjects, num_classes: int, verdict: Verdict
) -> RankedLists:
    """A list for each threshold and class, in this order; its entries are the verdict's rows."""
    num_thresholds = len(verdict.true_positive)
    labels = detections.labels[verdict.rows]
    # the detections of a class stand in a row, so ranks need no counting
    starts = torch.searchsorted(detections.labels, torch.arange(num_classes, device=labels.device))
    ranks = (verdict.rows - starts[labels] + 1).repeat(num_thresholds)  # [K·R], from 1
    thresholds = torch.arange(num_thresholds, device=labels.device)
    lists = (thresholds[:, None] * num_classes + labels).flatten()  # [K·R]
    is_true, ignored = verdict.true_positive.flatten(), verdict.ignored.flatten()
    num_lists = num_thresholds * num_classes
    hits = count_within(is_true, lists, num_lists)
    seen = ranks - count_within(ignored, lists, num_lists)
    # if the first entries are ignored, nothing that counts has been seen yet
    precision = hits.double() / seen.clamp(min=1)
    num_objects = num_objects_of(objects, num_classes)
    return RankedLists(lists, is_true, precision, num_objects.repeat(num_thresholds))


def num_objects_of(objects: FlatObjects, num_classes: int) -> Int[Tensor, "C"]:
    """The objects of each class that are to be found: the difficult ones are not."""
    counts = torch.zeros(num_classes, dtype=torch.int64, device=objects.labels.device)
    return counts.index_add_(0, objects.labels, (~objects.difficult).long())


def _class_reports(
    class_names: Sequence[str],
    detections: FlatDetections,
    objects: FlatObjects,
    verdict: Verdict,
    averages: ThresholdReport,
) -> dict[str, ClassReport]:
    """The reports at the first threshold, with the whole curves."""
    num_classes = len(class_names)
    labels, scores = detections.labels.cpu(), detections.scores.cpu().float()
    is_true, ignored = (flags.cpu() for flags in dense_verdict(verdict))
    num_detections = labels.bincount(minlength=num_classes).tolist()
    num_difficult = objects.labels[objects.difficult].bincount(minlength=num_classes).tolist()
    num_objects = num_objects_of(objects, num_classes).tolist()
    sizes = labels[~ignored].bincount(minlength=num_classes).tolist()
    flags_by_class = is_true[~ignored].split(sizes)
    scores_by_class = scores[~ignored].split(sizes)
    reports = {}
    for label, name in enumerate(class_names):
        flags = flags_by_class[label].numpy()
        found, total = flags.cumsum(dtype=np.float64), num_objects[label]
        reports[name] = ClassReport(
            ap_11point=float(averages.ap_11point[label]),
            ap_area=float(averages.ap_area[label]),
            num_objects=num_objects[label],
            num_difficult=num_difficult[label],
            num_detections=num_detections[label],
            num_true_positives=int(flags.sum()),
            num_false_positives=int(len(flags) - flags.sum()),
            precision=found / np.arange(1, len(found) + 1),
            recall=found / total if total else np.full(len(found), np.nan),
            scores=scores_by_class[label].numpy(),
        )
    return reports
