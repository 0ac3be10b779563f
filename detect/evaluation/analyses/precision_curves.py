"""Precision, recall and F1 over the score, and the score threshold with the best F1.

A threshold is a score: the detections with this score or more are kept, so detections of equal
score stay together and each distinct score gives one point. Precision and recall: Everingham et
al. 2010, section 4.2; F1, their harmonic mean: van Rijsbergen 1979, "Information Retrieval",
chapter 7.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from rich.table import Table
from rich.text import Text
from torch import Tensor

from detect.evaluation.flat import FlatDetections, FlatObjects
from detect.evaluation.judged import (
    JudgedDetections,
    area_average_precision,
    class_ranks,
    judge_detections,
    ranked_classes,
)
from detect.evaluation.numbers import as_text, none_for_nan, plain
from detect.evaluation.ordering import order_by_group_and_score
from detect.evaluation.ranking import count_within
from detect.evaluation.tables import report_table


@dataclass(frozen=True, slots=True, eq=False)
class ScoreCurve:
    """Precision, recall and F1 when the detections with a score or more are kept.

    Attributes:
        scores: `[K]` distinct and falling.
        precision: `[K]` in 0…1.
        recall: `[K]` in 0…1; nan without objects.
        f1: `[K]` in 0…1; nan without objects.
        num_objects: to be found.
    """

    scores: Float64[np.ndarray, "K"]
    precision: Float64[np.ndarray, "K"]
    recall: Float64[np.ndarray, "K"]
    f1: Float64[np.ndarray, "K"]
    num_objects: int

    @property
    def best(self) -> int | None:
        """The point of the best F1, ties to the higher score; None if no object is ever found."""
        if self.num_objects == 0 or not (self.f1 > 0).any():
            return None
        return int(self.f1.argmax())

    @property
    def best_score(self) -> float:
        """The threshold with the best F1; nan if no object is ever found."""
        return math.nan if self.best is None else float(self.scores[self.best])

    def interpolated(self, recalls: Float64[np.ndarray, "R"]) -> Float64[np.ndarray, "R"]:
        """The best precision at or beyond each recall; 0 where it is not reached, or nan."""
        if self.num_objects == 0:
            return np.full(len(recalls), math.nan)
        best: np.ndarray = np.append(np.maximum.accumulate(self.precision[::-1])[::-1], 0.0)
        return best[np.searchsorted(self.recall, recalls)]

    def at_best(self) -> dict[str, float]:
        """Threshold, precision, recall and F1 at the best F1; nan if no object is ever found."""
        names = ("score_threshold", "precision", "recall", "f1")
        if self.best is None:
            return dict.fromkeys(names, math.nan)
        columns = (self.scores, self.precision, self.recall, self.f1)
        return {name: float(column[self.best]) for name, column in zip(names, columns, strict=True)}


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionCurves:
    """The curves of all classes at one IoU threshold.

    Attributes:
        iou_threshold: the least IoU of a true positive.
        class_names: the name of each label.
        classes: the curve of each class, by label.
        pooled: of the detections and objects of all classes together, under one threshold.
        average_precision: of each class, the area under its curve; nan without objects.
        mean_f1: the F1 of the classes with objects, their mean, at each score of `pooled`.
    """

    iou_threshold: float
    class_names: tuple[str, ...]
    classes: tuple[ScoreCurve, ...]
    pooled: ScoreCurve
    average_precision: tuple[float, ...]
    mean_f1: Float64[np.ndarray, "K"]

    @property
    def best_mean_f1(self) -> tuple[float, float]:
        """The threshold with the best mean F1, ties to the higher score, and this F1; or nan."""
        if not (self.mean_f1 > 0).any():
            return math.nan, math.nan
        best = int(self.mean_f1.argmax())
        return float(self.pooled.scores[best]), float(self.mean_f1[best])

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the keys are stable, and a number that is not there is None."""
        threshold, mean_f1 = self.best_mean_f1
        return {
            "iou_threshold": self.iou_threshold,
            "classes": {
                name: _plain(curve)
                for name, curve in zip(self.class_names, self.classes, strict=True)
            },
            "all_classes": _plain(self.pooled),
            "mean_over_classes": plain({"score_threshold": threshold, "f1": mean_f1}),
        }

    def precision_recall(self) -> dict[str, Any]:
        """For JSON: the AP of each class, and the best precision at or beyond 101 recalls."""
        recalls = np.arange(101) / 100
        curves = zip(self.class_names, self.average_precision, self.classes, strict=True)
        return {
            "iou_threshold": self.iou_threshold,
            "recall": recalls.tolist(),
            "classes": {
                name: {
                    "ap_area": none_for_nan(average_precision),
                    "precision": [
                        none_for_nan(round(value, 6))
                        for value in curve.interpolated(recalls).tolist()
                    ],
                }
                for name, average_precision, curve in curves
            },
        }

    def table(self) -> Table:
        """The best threshold of each class and of all."""
        table = report_table(
            "class",
            ("score ≥", "F1", "precision", "recall", "objects"),
            title=f"Score thresholds of the best F1, IoU ≥ {self.iou_threshold:g}",
            caption="Detections with this score or more are kept. All classes: one threshold for "
            "the detections and objects of all classes together; mean over classes: one threshold, "
            "and the mean F1 of the classes with objects.",
        )
        for name, curve in zip(self.class_names, self.classes, strict=True):
            table.add_row(Text(name), *_cells(curve))
        table.add_section()
        table.add_row("all classes", *_cells(self.pooled))
        threshold, mean_f1 = self.best_mean_f1
        table.add_row("mean over classes", as_text(threshold), as_text(mean_f1), "", "", "")
        return table


def measure_score_curves(
    detections: FlatDetections,
    objects: FlatObjects,
    class_names: Sequence[str],
    iou_threshold: float = 0.5,
) -> PrecisionCurves:
    """The curves of each class and of all classes together, by VOC's rules of matching.

    Detections matched to a difficult object are ignored.

    Args:
        detections: by class and falling score.
        objects: in any order.
        class_names: the name of each label 0 … C−1.
        iou_threshold: the least IoU of a true positive.

    Raises:
        DetectError: the threshold is out of its range.
    """
    num_classes = len(class_names)
    judged = judge_detections(detections, objects, num_classes, iou_threshold)
    points = _points(judged.labels, judged)
    sizes = points.lists.bincount(minlength=num_classes).tolist()
    parts = zip(*(column.split(sizes) for column in points), strict=True)
    num_objects = judged.num_objects.tolist()
    curves = tuple(
        _curve(_Points(*part), of_class) for part, of_class in zip(parts, num_objects, strict=True)
    )
    ranked = ranked_classes(judged.labels, judged.is_true, judged.num_objects)
    together = _all_in_one_list(judged)
    pooled = _points(torch.zeros_like(together.labels), together)
    return PrecisionCurves(
        iou_threshold,
        tuple(class_names),
        curves,
        _curve(pooled, sum(num_objects)),
        tuple(area_average_precision(ranked).tolist()),
        _mean_f1(points, judged.num_objects, pooled.scores).numpy(),
    )


class _Points(NamedTuple):
    """The points of the curves of some lists, by list and falling score."""

    lists: Int[Tensor, "P"]
    scores: Float[Tensor, "P"]
    num_true: Int[Tensor, "P"]
    num_kept: Int[Tensor, "P"]


def _points(lists: Int[Tensor, "K"], judged: JudgedDetections) -> _Points:
    """One point for each list and distinct score: what is kept from this score on."""
    num_lists = len(judged.num_objects)
    is_point = _is_last_of_its_score(lists, judged.scores)
    hits = count_within(judged.is_true, lists, num_lists)
    ranks = class_ranks(lists, num_lists)
    return _Points(lists[is_point], judged.scores[is_point], hits[is_point], ranks[is_point])


def _is_last_of_its_score(lists: Int[Tensor, "K"], scores: Float[Tensor, "K"]) -> Bool[Tensor, "K"]:
    is_last = torch.ones_like(lists, dtype=torch.bool)
    is_last[:-1] = (lists[1:] != lists[:-1]) | (scores[1:] != scores[:-1])
    return is_last


def _all_in_one_list(judged: JudgedDetections) -> JudgedDetections:
    order = order_by_group_and_score(torch.zeros_like(judged.labels), judged.scores)
    return JudgedDetections(
        judged.rows[order],
        judged.scores[order],
        judged.labels[order],
        judged.is_true[order],
        judged.num_objects.sum()[None],
    )


def _curve(points: _Points, num_objects: int) -> ScoreCurve:
    num_true, num_kept = points.num_true.numpy(), points.num_kept.numpy()
    no_objects = np.full(len(num_true), np.nan)
    return ScoreCurve(
        points.scores.double().numpy(),
        num_true / num_kept,
        num_true / num_objects if num_objects else no_objects,
        # 2 / (1 / precision + 1 / recall), as one quotient, so that equal values are equal
        2 * num_true / (num_kept + num_objects) if num_objects else no_objects,
        num_objects,
    )


def _mean_f1(
    points: _Points, num_objects: Int[Tensor, "C"], scores: Float[Tensor, "K"]
) -> Float[Tensor, "K"]:
    """The mean F1 of the classes with objects at each score, which are all that there are.

    The F1 of a class is a step function of the score, so the sum over the classes is the running
    sum of all steps, by falling score.
    """
    num_classes = int((num_objects > 0).sum())
    if num_classes == 0:
        return torch.full((len(scores),), torch.nan, dtype=torch.float64)
    # a class without objects has no true positives, hence steps of 0
    f1 = 2 * points.num_true.double() / (points.num_kept + num_objects[points.lists])
    steps = f1.clone()
    steps[1:] -= torch.where(points.lists[1:] == points.lists[:-1], f1[:-1], 0.0)
    order = order_by_group_and_score(torch.zeros_like(points.lists), points.scores)
    is_last = _is_last_of_its_score(torch.zeros_like(points.lists), points.scores[order])
    sums: Tensor = steps[order].cumsum(0)[is_last]
    return sums / num_classes


def _plain(curve: ScoreCurve) -> dict[str, Any]:
    return {**plain(curve.at_best()), "num_objects": curve.num_objects}


def _cells(curve: ScoreCurve) -> list[str]:
    best = curve.at_best()
    names = ("score_threshold", "f1", "precision", "recall")
    return [*(as_text(best[name]) for name in names), str(curve.num_objects)]
