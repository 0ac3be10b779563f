"""Mean average precision by the rules of the PASCAL VOC development kit.

Each detection goes to the object of its class and picture that it overlaps most (ties to the first
object) and to no other. If their IoU reaches the threshold, the first claim by score is a true
positive and later ones are false positives; a difficult object swallows any number of claims.
Everything else is a false positive. Everingham et al. 2010, section 4.2; VOCevaldet.m.

IoU is computed in float64 on continuous half-open boxes, which equals the devkit's "+1" on
inclusive pixels. Detections, objects and pictures are handled as flat tensors throughout.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detect.errors import DetectError
from detect.evaluation.average_precision import (
    average_precision_11point,
    average_precision_area,
    precision_recall,
)
from detect.evaluation.report import ClassReport, VOCProtocol, VOCReport
from detect.ops import elementwise_box_iou
from detect.structures import Detections, GroundTruth

# Pairs of detection and object that are held at once: about 60 MiB of float64 boxes and results.
MAX_PAIRS = 1 << 19


class VOCEvaluator:
    """Collects detections and truths picture by picture and computes their average precision.

    Args:
        class_names: the name of each label 0 … C−1.
        iou_threshold: the least IoU of a true positive, more than 0 and at most 1.

    Raises:
        DetectError: the threshold is out of its range.
        ValueError: a class name stands twice.
    """

    def __init__(self, class_names: Sequence[str], iou_threshold: float = 0.5) -> None:
        if not 0 < iou_threshold <= 1:
            raise DetectError(
                f"iou_threshold: expected more than 0 and at most 1, found {iou_threshold}"
            )
        if len(set(class_names)) < len(class_names):
            raise ValueError(f"class_names: expected each name once, found {list(class_names)}")
        self.class_names = tuple(class_names)
        self.iou_threshold = iou_threshold
        self.reset()

    def reset(self) -> None:
        """Forget all pictures."""
        self._detections: list[Detections] = []
        self._truths: list[GroundTruth] = []
        self._tie_ranks: list[Tensor] = []

    def update(
        self,
        detections: Sequence[Detections],
        truths: Sequence[GroundTruth],
        tie_ranks: Sequence[Int[Tensor, "_"]] | None = None,
    ) -> None:
        """Add pictures: one record of detections and one of objects for each, in one frame.

        Args:
            detections: what was found; copied to the CPU and detached if need be.
            truths: what is there, difficult objects included.
            tie_ranks: for each detection its rank among those of its class with an equal score,
                lower first. By default, and where ranks are equal, the detections of earlier
                updates, earlier pictures and earlier rows go first.

        Raises:
            ValueError: the sequences differ in length, or a label has no class name.
        """
        if tie_ranks is None:
            tie_ranks = [torch.zeros(len(found), dtype=torch.int64) for found in detections]
        if not len(detections) == len(truths) == len(tie_ranks):
            raise ValueError(
                f"expected detections, truths and tie ranks of as many pictures, "
                f"found {len(detections)}, {len(truths)} and {len(tie_ranks)}"
            )
        for found, ranks in zip(detections, tie_ranks, strict=True):
            if len(found) != len(ranks):
                raise ValueError(f"expected {len(found)} tie ranks, found {len(ranks)}")
        on_cpu = [_on_cpu(found) for found in detections]
        truths = [_truth_on_cpu(truth) for truth in truths]
        self._check_labels("detections", [found.labels for found in on_cpu])
        self._check_labels("truths", [truth.labels for truth in truths])
        self._detections.extend(on_cpu)
        self._truths.extend(truths)
        self._tie_ranks.extend(ranks.cpu() for ranks in tie_ranks)

    def merge(self, other: "VOCEvaluator") -> None:
        """Add the pictures of `other` after those that are here; `other` stays as it is.

        Raises:
            ValueError: the evaluators differ in their classes or their threshold.
        """
        for name in ("class_names", "iou_threshold"):
            if getattr(self, name) != getattr(other, name):
                raise ValueError(
                    f"merge: expected an evaluator with the {name} {getattr(self, name)}, "
                    f"found {getattr(other, name)}"
                )
        # list() lets an evaluator be merged with itself
        self._detections.extend(list(other._detections))
        self._truths.extend(list(other._truths))
        self._tie_ranks.extend(list(other._tie_ranks))

    def compute(self) -> VOCReport:
        """Judge all pictures so far. Without pictures, or without objects, every AP is nan."""
        detections = _flat_detections(self._detections, self._tie_ranks)
        objects = _flat_objects(self._truths)
        verdict = judge(detections, objects, len(self.class_names), self.iou_threshold)
        difficult = int(objects.difficult.sum())
        return VOCReport(
            protocol=VOCProtocol(
                iou_threshold=self.iou_threshold,
                num_images=len(self._truths),
                num_objects=len(objects.labels) - difficult,
                num_difficult=difficult,
                num_detections=len(detections.labels),
            ),
            classes=_class_reports(self.class_names, detections, objects, verdict),
        )

    def _check_labels(self, owner: str, labels: Sequence[Tensor]) -> None:
        greatest = max((int(row.max()) for row in labels if len(row)), default=-1)
        if greatest >= len(self.class_names):
            raise ValueError(
                f"{owner}: expected labels below {len(self.class_names)}, the number of classes, "
                f"found {greatest}"
            )


class FlatDetections(NamedTuple):
    """The detections of all pictures, sorted by class and within a class by falling score.

    Attributes:
        images: `[D]` the number of the picture.
        boxes: `[D, 4]` xyxy pixels.
        scores: `[D]` higher is better.
        labels: `[D]` classes 0 … C−1.
    """

    images: Int[Tensor, "D"]
    boxes: Float[Tensor, "D 4"]
    scores: Float[Tensor, "D"]
    labels: Int[Tensor, "D"]


class FlatObjects(NamedTuple):
    """The objects of all pictures, sorted by picture, within a picture in their own order.

    Attributes:
        images: `[T]` the number of the picture.
        boxes: `[T, 4]` xyxy pixels.
        labels: `[T]` classes 0 … C−1.
        difficult: `[T]` whether the object is neither demanded nor punished.
    """

    images: Int[Tensor, "T"]
    boxes: Float[Tensor, "T 4"]
    labels: Int[Tensor, "T"]
    difficult: Bool[Tensor, "T"]


class Verdict(NamedTuple):
    """What became of each of D detections; what is neither of both is a false positive.

    Attributes:
        true_positive: `[D]` the detection found an object that was still to be found.
        swallowed: `[D]` the detection found a difficult object, so it does not count.
    """

    true_positive: Bool[Tensor, "D"]
    swallowed: Bool[Tensor, "D"]


def judge(
    detections: FlatDetections, objects: FlatObjects, num_classes: int, iou_threshold: float
) -> Verdict:
    """Decide on each detection by the rules at the head of this file."""
    overlaps, claimed = _best_objects(detections, objects, num_classes)
    claims = (overlaps >= iou_threshold).nonzero().flatten()  # [K], rising: by falling score
    claimed = claimed[claims]
    first_claims = torch.full((len(objects.labels),), len(detections.labels))  # [T]
    first_claims = first_claims.scatter_reduce(0, claimed, claims, "amin")
    difficult = objects.difficult[claimed]
    swallowed = torch.zeros(len(detections.labels), dtype=torch.bool)
    swallowed[claims] = difficult
    true_positive = torch.zeros(len(detections.labels), dtype=torch.bool)
    true_positive[claims] = ~difficult & (first_claims[claimed] == claims)
    return Verdict(true_positive, swallowed)


def _best_objects(
    detections: FlatDetections, objects: FlatObjects, num_classes: int
) -> tuple[Float[Tensor, "D"], Int[Tensor, "D"]]:
    """The object of its class and picture that each detection overlaps most: its IoU and index.

    Where the class has no object in the picture, both are 0.
    """
    overlaps = torch.zeros(len(detections.labels), dtype=torch.float64)
    best = torch.zeros(len(detections.labels), dtype=torch.int64)
    # number the groups of one picture and class, and bring the objects of a group together
    groups, by_group = (objects.images * num_classes + objects.labels).sort(stable=True)
    wanted = detections.images * num_classes + detections.labels
    starts = torch.searchsorted(groups, wanted)
    counts = torch.searchsorted(groups, wanted, right=True) - starts  # [D], objects in its group
    detection_boxes, object_boxes = detections.boxes.double(), objects.boxes.double()
    rows = counts.nonzero().flatten()
    starts, counts = starts[rows], counts[rows]
    chunk_numbers = (counts.cumsum(0) - 1) // MAX_PAIRS
    sizes = chunk_numbers.unique_consecutive(return_counts=True)[1].tolist()
    for chunk, chunk_starts, chunk_counts in zip(
        rows.split(sizes), starts.split(sizes), counts.split(sizes), strict=True
    ):
        owner, candidates = _pairs(chunk_starts, chunk_counts)
        candidates = by_group[candidates]
        iou = elementwise_box_iou(detection_boxes[chunk[owner]], object_boxes[candidates])
        chunk_overlaps, chunk_best = _segment_argmax(iou, owner, candidates, len(chunk))
        overlaps[chunk], best[chunk] = chunk_overlaps, chunk_best
    return overlaps, best


def _pairs(
    starts: Int[Tensor, "K"], counts: Int[Tensor, "K"]
) -> tuple[Int[Tensor, "P"], Int[Tensor, "P"]]:
    """The numbers `starts[k] … starts[k] + counts[k] − 1` of all k in a row, each after its k."""
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
    firsts = counts.cumsum(0) - counts  # [K], where the pairs of k begin
    return owner, torch.arange(len(owner)) - firsts[owner] + starts[owner]


def _segment_argmax(
    values: Float[Tensor, "P"], owner: Int[Tensor, "P"], items: Int[Tensor, "P"], num_owners: int
) -> tuple[Float[Tensor, "K"], Int[Tensor, "K"]]:
    """The greatest value of each owner and its item; the least item among equal values."""
    greatest = values.new_zeros(num_owners).scatter_reduce(0, owner, values, "amax")
    last = torch.iinfo(items.dtype).max
    tied = torch.where(values == greatest[owner], items, last)
    return greatest, items.new_full((num_owners,), last).scatter_reduce(0, owner, tied, "amin")


def _class_reports(
    class_names: Sequence[str], detections: FlatDetections, objects: FlatObjects, verdict: Verdict
) -> dict[str, ClassReport]:
    num_classes = len(class_names)
    num_difficult = objects.labels[objects.difficult].bincount(minlength=num_classes).tolist()
    num_objects = objects.labels[~objects.difficult].bincount(minlength=num_classes).tolist()
    num_detections = detections.labels.bincount(minlength=num_classes).tolist()
    counted = ~verdict.swallowed
    sizes = detections.labels[counted].bincount(minlength=num_classes).tolist()
    flags_by_class = verdict.true_positive[counted].split(sizes)
    scores_by_class = detections.scores[counted].split(sizes)
    reports = {}
    for label, name in enumerate(class_names):
        flags = flags_by_class[label].numpy()
        precision, recall = precision_recall(flags, num_objects[label])
        judged = num_objects[label] > 0
        reports[name] = ClassReport(
            ap_11point=average_precision_11point(recall, precision) if judged else float("nan"),
            ap_area=average_precision_area(recall, precision) if judged else float("nan"),
            num_objects=num_objects[label],
            num_difficult=num_difficult[label],
            num_detections=num_detections[label],
            num_true_positives=int(flags.sum()),
            num_false_positives=int(len(flags) - flags.sum()),
            precision=precision,
            recall=recall,
            scores=scores_by_class[label].numpy(),
        )
    return reports


def _flat_detections(
    records: Sequence[Detections], tie_ranks: Sequence[Int[Tensor, "_"]]
) -> FlatDetections:
    records = [Detections.empty(), *records]  # so that there is something to concatenate
    scores = torch.cat([record.scores for record in records])
    labels = torch.cat([record.labels for record in records])
    # stable sorts from the least key to the greatest: tie rank, score, class
    order = torch.cat([torch.zeros(0, dtype=torch.int64), *tie_ranks]).argsort(stable=True)
    order = order[scores[order].argsort(descending=True, stable=True)]
    order = order[labels[order].argsort(stable=True)]
    return FlatDetections(
        _image_numbers(records)[order],
        torch.cat([record.boxes for record in records])[order],
        scores[order],
        labels[order],
    )


def _flat_objects(records: Sequence[GroundTruth]) -> FlatObjects:
    records = [GroundTruth.empty(), *records]
    return FlatObjects(
        _image_numbers(records),
        torch.cat([record.boxes for record in records]),
        torch.cat([record.labels for record in records]),
        torch.cat([record.difficult for record in records]),
    )


def _image_numbers(records: Sequence[Detections] | Sequence[GroundTruth]) -> Int[Tensor, "N"]:
    lengths = torch.tensor([len(record) for record in records])
    return torch.repeat_interleave(torch.arange(len(records)), lengths)


def _on_cpu(detections: Detections) -> Detections:
    # a record that is there already is not made, and so not checked, a second time
    if detections.boxes.is_cpu and not (
        detections.boxes.requires_grad or detections.scores.requires_grad
    ):
        return detections
    return replace(
        detections,
        boxes=detections.boxes.detach().cpu(),
        scores=detections.scores.detach().cpu(),
        labels=detections.labels.cpu(),
    )


def _truth_on_cpu(truth: GroundTruth) -> GroundTruth:
    return truth if truth.boxes.is_cpu else truth.to(torch.device("cpu"))
