"""Detections that are right or wrong at an IoU threshold: what the analyses begin with."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detect.errors import DetectError
from detect.evaluation.flat import FlatDetections, FlatObjects
from detect.evaluation.ranking import (
    RankedLists,
    area_under_curve,
    count_within,
    envelope,
    precision_at_recalls,
)
from detect.evaluation.voc import dense_verdict, judge, num_objects_of


class JudgedDetections(NamedTuple):
    """The detections that count, by class and falling score.

    Those matched to a difficult object are left out.

    Attributes:
        rows: `[K]` of the flat detections, rising.
        scores: `[K]` higher is better.
        labels: `[K]` classes 0 … C−1.
        is_true: `[K]` whether the detection found an object that was still to be found.
        num_objects: `[C]` the objects of each class that are to be found.
    """

    rows: Int[Tensor, "K"]
    scores: Float[Tensor, "K"]
    labels: Int[Tensor, "K"]
    is_true: Bool[Tensor, "K"]
    num_objects: Int[Tensor, "C"]


def judge_detections(
    detections: FlatDetections, objects: FlatObjects, num_classes: int, iou_threshold: float
) -> JudgedDetections:
    """Judge by the rules of PASCAL VOC at one IoU threshold, as `VOCEvaluator` does.

    Raises:
        DetectError: the threshold is out of its range.
    """
    check_iou_threshold(iou_threshold)
    verdict = judge(detections, objects, num_classes, (iou_threshold,))
    is_true, is_ignored = dense_verdict(verdict)
    rows = (~is_ignored).nonzero().flatten()
    return JudgedDetections(
        rows,
        detections.scores[rows],
        detections.labels[rows],
        is_true[rows],
        num_objects_of(objects, num_classes),
    )


def check_iou_threshold(iou_threshold: float) -> None:
    """Raise a DetectError unless the threshold is more than 0 and at most 1."""
    if not 0 < iou_threshold <= 1:
        raise DetectError(
            f"iou_threshold: expected more than 0 and at most 1, found {iou_threshold}"
        )


def class_ranks(labels: Int[Tensor, "K"], num_classes: int) -> Int[Tensor, "K"]:
    """The place of each detection in its class, from 1; labels never fall."""
    starts = torch.searchsorted(labels, torch.arange(num_classes, device=labels.device))
    return torch.arange(len(labels), device=labels.device) - starts[labels] + 1


def ranked_classes(
    labels: Int[Tensor, "K"], is_true: Bool[Tensor, "K"], num_objects: Int[Tensor, "C"]
) -> RankedLists:
    """The ranked list of each class, by its true positives alone.

    Args:
        labels: of the detections that count, never falling, by falling score within a class.
        is_true: whether they found an object.
        num_objects: that are to be found.
    """
    num_classes = len(num_objects)
    hits = count_within(is_true, labels, num_classes)
    precision = hits.double() / class_ranks(labels, num_classes)
    return RankedLists(labels[is_true], is_true[is_true], precision[is_true], num_objects)


def area_average_precision(ranked: RankedLists) -> Float[Tensor, "C"]:
    """The AP of VOC 2010 and later, float64 in 0…1; nan without objects."""
    return area_under_curve(ranked, envelope(ranked))


def sampled_average_precision(
    ranked: RankedLists, recalls: Float[Tensor, "R"]
) -> Float[Tensor, "C"]:
    """The mean precision at some recalls, float64 in 0…1; nan without objects."""
    at_recalls = precision_at_recalls(ranked, envelope(ranked), recalls)
    return torch.where(ranked.num_objects > 0, at_recalls.mean(dim=0), torch.nan)
