"""Precision, recall and the two average precisions of PASCAL VOC, as pure functions on arrays."""

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray

# The 11 recalls as the products k · 0.1, not as tenths: 6 * 0.1 is a little more than 0.6, so a
# recall of exactly 3/5 does not reach it. Published VOC numbers rest on this grid (the devkit's
# `t=0:0.1:1`, py-faster-rcnn's `np.arange(0., 1.1, 0.1)`).
RECALL_THRESHOLDS: NDArray[np.float64] = np.arange(11, dtype=np.float64) * 0.1


def precision_recall(
    true_positives: Bool[np.ndarray, "N"], num_objects: int
) -> tuple[Float64[np.ndarray, "N"], Float64[np.ndarray, "N"]]:
    """Precision and recall after each of N detections of one class.

    Args:
        true_positives: `[N]`, by falling score; what is not a true positive is a false positive.
            Detections that a difficult object swallows are not among them.
        num_objects: the objects to be found, difficult ones excluded.

    Returns:
        `(precision, recall)`, each in 0…1; the recall is nan throughout when `num_objects` is 0.

    Source: Everingham et al. 2010, "The PASCAL Visual Object Classes (VOC) Challenge", section
    4.2; VOCevaldet.m of the devkit.
    """
    found = true_positives.cumsum(dtype=np.float64)
    precision = found / np.arange(1, len(found) + 1)
    recall = found / num_objects if num_objects > 0 else np.full(len(found), np.nan)
    return precision, recall


def average_precision_11point(
    recall: Float64[np.ndarray, "N"], precision: Float64[np.ndarray, "N"]
) -> float:
    """Mean of the best precision at or beyond the recalls 0, 0.1, …, 1: the metric of VOC 2007.

    Args:
        recall: `[N]` in 0…1, never falling.
        precision: `[N]` in 0…1.

    Returns:
        The average precision in 0…1; 0 without detections, nan where the recall is nan.

    Source: Everingham et al. 2010, section 4.2, equations 1 and 2; VOCevaldet.m of the VOC 2007
    devkit. A recall is compared with the float64 product k · 0.1, see `RECALL_THRESHOLDS`.
    """
    if np.isnan(recall).any():
        return float("nan")
    best_from_here = np.append(_envelope(precision), 0.0)  # a recall never reached counts as 0
    first_reached = np.searchsorted(recall, RECALL_THRESHOLDS, side="left")
    return float(best_from_here[first_reached].sum() / len(RECALL_THRESHOLDS))


def average_precision_area(
    recall: Float64[np.ndarray, "N"], precision: Float64[np.ndarray, "N"]
) -> float:
    """Area under the monotone precision-recall curve: the metric of VOC 2010 and later.

    Args:
        recall: `[N]` in 0…1, never falling.
        precision: `[N]` in 0…1.

    Returns:
        The average precision in 0…1; 0 without detections, nan where the recall is nan.

    Source: Everingham et al. 2015, "The PASCAL Visual Object Classes Challenge: A Retrospective",
    section 3.2.1; VOCap.m of the devkit. The precision at a recall is first raised to the best
    precision at this or any greater recall; the area of the steps is then exact.
    """
    if np.isnan(recall).any():
        return float("nan")
    return float((np.diff(recall, prepend=0.0) * _envelope(precision)).sum())


def _envelope(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum.accumulate(precision[::-1])[::-1]
