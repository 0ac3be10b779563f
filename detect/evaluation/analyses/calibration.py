"""Whether scores are probabilities: of the detections with score 0.8, are 80% right?

Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2: detections are put into M
bins of equal width by their score, bin m being ((m − 1) / M, m / M], and the expected calibration
error (ECE, equation 3) is the mean distance between precision and mean score of a bin, weighted by
its detections. For detections, right means a true positive at an IoU threshold: the detection ECE
(D-ECE) of Küppers et al. 2020, "Multivariate Confidence Calibration for Object Detection", with the
score as the only dimension. They bin by place and size of the boxes as well; here that is not done.

A score of 0 belongs to the first bin. Detections matched to a difficult object are ignored,
and duplicates are wrong: VOC's rules of matching. D-ECE says nothing of objects that are not found.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int
from rich.table import Table
from rich.text import Text

from detect.errors import DetectError
from detect.evaluation.flat import FlatDetections, FlatObjects
from detect.evaluation.judged import JudgedDetections, judge_detections
from detect.evaluation.numbers import as_text, none_for_nan
from detect.evaluation.tables import report_table
from detect.wording import counted


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """The detections by bins of their score.

    Attributes:
        counts: `[M]` detections of each bin.
        mean_scores: `[M]` in 0…1; nan for an empty bin.
        precision: `[M]` share of them that is right, in 0…1; nan for an empty bin.
    """

    counts: Int[np.ndarray, "M"]
    mean_scores: Float64[np.ndarray, "M"]
    precision: Float64[np.ndarray, "M"]

    @property
    def expected_error(self) -> float:
        """D-ECE in 0…1; nan without detections."""
        if not self.counts.sum():
            return math.nan
        gaps = np.abs(self.precision - self.mean_scores)
        return float(np.nansum(gaps * self.counts) / self.counts.sum())

    @property
    def greatest_error(self) -> float:
        """The greatest distance of a bin (MCE, equation 5); nan without detections."""
        if not self.counts.sum():
            return math.nan
        return float(np.nanmax(np.abs(self.precision - self.mean_scores)))

    @property
    def overconfidence(self) -> float:
        """Mean score less precision of all detections, in −1…1; nan without detections."""
        if not self.counts.sum():
            return math.nan
        gaps = (self.mean_scores - self.precision) * self.counts
        return float(np.nansum(gaps) / self.counts.sum())

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the keys are stable, and a number that is not there is None."""
        return {
            "expected_calibration_error": none_for_nan(self.expected_error),
            "maximum_calibration_error": none_for_nan(self.greatest_error),
            "overconfidence": none_for_nan(self.overconfidence),
            "num_detections": int(self.counts.sum()),
        }


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationReport:
    """The reliability of the scores of each class and of all.

    Attributes:
        iou_threshold: the least IoU of a true positive.
        class_names: the name of each label.
        classes: of the detections of each class, by label.
        pooled: of the detections of all classes together.
    """

    iou_threshold: float
    class_names: tuple[str, ...]
    classes: tuple[Reliability, ...]
    pooled: Reliability

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the keys are stable, and a number that is not there is None."""
        pooled = self.pooled
        return {
            "iou_threshold": self.iou_threshold,
            "num_bins": len(pooled.counts),
            "all_classes": pooled.as_dict(),
            "bins": [
                {
                    "num_detections": count,
                    "mean_score": none_for_nan(score),
                    "precision": none_for_nan(precision),
                }
                for count, score, precision in zip(
                    pooled.counts.tolist(),
                    pooled.mean_scores.tolist(),
                    pooled.precision.tolist(),
                    strict=True,
                )
            ],
            "classes": {
                name: entry.as_dict()
                for name, entry in zip(self.class_names, self.classes, strict=True)
            },
        }

    def table(self) -> Table:
        """The calibration errors of each class and of all."""
        table = report_table(
            "class",
            ("D-ECE", "MCE", "overconfidence", "detections"),
            title=f"Calibration of the scores, IoU ≥ {self.iou_threshold:g}, "
            f"{counted(len(self.pooled.counts), 'bin')}",
            caption="D-ECE: mean gap between score and precision; MCE: the gap of the worst bin; "
            "overconfidence: mean score minus precision.",
        )
        for name, entry in zip(self.class_names, self.classes, strict=True):
            table.add_row(Text(name), *_cells(entry))
        table.add_section()
        table.add_row("all classes", *_cells(self.pooled))
        return table


def measure_calibration(
    detections: FlatDetections,
    objects: FlatObjects,
    class_names: Sequence[str],
    iou_threshold: float = 0.5,
    num_bins: int = 15,
) -> CalibrationReport:
    """Compare scores with precision, as the head of this file says.

    Args:
        detections: by class and falling score; scores in 0…1.
        objects: in any order.
        class_names: the name of each label 0 … C−1.
        iou_threshold: the least IoU of a true positive.
        num_bins: M; the paper has 15.

    Raises:
        DetectError: a score is outside of 0…1, or the threshold or the bins are out of range.
    """
    if num_bins < 1:
        raise DetectError(f"num_bins: expected 1 or more, found {num_bins}")
    scores = detections.scores
    outside = (scores < 0) | (scores > 1)
    if outside.any():
        raise DetectError(
            f"calibration: expected scores in 0…1, as probabilities have, found "
            f"{float(scores[outside][0]):g} for the class "
            f"{class_names[int(detections.labels[outside][0])]!r}; scores without bounds, such as "
            "the margins of SVMs, have no calibration: map them to probabilities first"
        )
    num_classes = len(class_names)
    judged = judge_detections(detections, objects, num_classes, iou_threshold)
    sums = _sums(judged, num_classes, num_bins)
    counts, scores_in, hits = (part.numpy() for part in sums)
    return CalibrationReport(
        iou_threshold,
        tuple(class_names),
        tuple(map(_reliability, counts, scores_in, hits)),
        _reliability(counts.sum(axis=0), scores_in.sum(axis=0), hits.sum(axis=0)),
    )


def _sums(judged: JudgedDetections, num_classes: int, num_bins: int) -> tuple[torch.Tensor, ...]:
    """Detections, sum of scores and true positives of each class and bin, each `[C, M]`."""
    scores = judged.scores.double()
    edges = torch.arange(1, num_bins, dtype=torch.float64) / num_bins
    bins = judged.labels * num_bins + torch.bucketize(scores, edges)
    return tuple(
        bins.bincount(weights, minlength=num_classes * num_bins).reshape(num_classes, num_bins)
        for weights in (None, scores, judged.is_true.double())
    )


def _reliability(counts: np.ndarray, scores: np.ndarray, hits: np.ndarray) -> Reliability:
    some = np.maximum(counts, 1)
    nothing = counts == 0
    return Reliability(
        counts,
        np.where(nothing, np.nan, scores / some),
        np.where(nothing, np.nan, hits / some),
    )


def _cells(entry: Reliability) -> list[str]:
    return [
        as_text(entry.expected_error),
        as_text(entry.greatest_error),
        as_text(entry.overconfidence),
        str(int(entry.counts.sum())),
    ]
