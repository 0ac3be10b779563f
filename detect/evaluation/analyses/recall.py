"""Recall over the number of detections of an image, whatever their classes: as for proposals.

Hosang et al. 2016, "What makes for effective detection proposals?", section 4: an object is covered
at an IoU if one of the first n boxes of its image reaches it, and the average recall is the mean
of the recall over the IoU from 0.5 to 1, which correlates with detection performance (section 5).
The first n detections of an image are those of highest score, over all classes.

Our deviations: the average is over the IoU 0.5, 0.55, …, 0.95 as in COCO's AR, not an integral; and
a box may cover several objects, as `detect proposals` counts, where COCO's AR assigns boxes one to
one and by class. Difficult objects are not counted.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int
from rich.table import Table
from torch import Tensor

from detect.errors import DetectError
from detect.evaluation.flat import FlatDetections, FlatObjects
from detect.evaluation.judged import class_ranks
from detect.evaluation.numbers import as_text, none_for_nan
from detect.evaluation.ordering import order_by_group_and_score
from detect.evaluation.pairs import overlapping_pairs
from detect.evaluation.tables import report_table

# Hundredths as quotients: 0.55 is the number that the literal is.
AVERAGED_IOU_THRESHOLDS = tuple(hundredths / 100 for hundredths in range(50, 100, 5))


@dataclass(frozen=True, slots=True, eq=False)
class DetectionRecall:
    """The best overlap of each object that is not difficult, for several numbers of detections.

    Attributes:
        limits: at most so many detections of an image were taken, rising.
        best_overlaps: `[limits, M]` IoU in 0…1 of each object; less than 0.5 may be 0.
        mean_counts: `[limits]` detections of an image that were there to take, the mean.
    """

    limits: tuple[int, ...]
    best_overlaps: Float64[np.ndarray, "L M"]
    mean_counts: Float64[np.ndarray, "L"]

    def recall(self, iou_threshold: float) -> Float64[np.ndarray, "L"]:
        """The share of objects with a best overlap of 0.5 ≤ `iou_threshold` or more; or nan."""
        if not self.best_overlaps.shape[1]:
            return np.full(len(self.limits), math.nan)
        recall: np.ndarray = (self.best_overlaps >= iou_threshold).mean(axis=1)
        return recall

    @property
    def average_recall(self) -> Float64[np.ndarray, "L"]:
        """The mean of the recall over `AVERAGED_IOU_THRESHOLDS`; nan without objects."""
        recalls = [self.recall(threshold) for threshold in AVERAGED_IOU_THRESHOLDS]
        average: np.ndarray = np.mean(recalls, axis=0)
        return average

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the keys are stable, and a number that is not there is None."""
        columns = {
            "mean_detections": self.mean_counts,
            "recall_0.5": self.recall(0.5),
            "recall_0.75": self.recall(0.75),
            "average_recall": self.average_recall,
        }
        return {
            "num_objects": self.best_overlaps.shape[1],
            "curve": [
                {"max_detections": limit}
                | {name: none_for_nan(float(column[row])) for name, column in columns.items()}
                for row, limit in enumerate(self.limits)
            ],
        }

    def table(self) -> Table:
        """Recall at each number of detections."""
        table = report_table(
            "at most",
            ("per image", "IoU 0.5", "IoU 0.75", "average recall"),
            title="Recall of objects by the best-scored detections of an image, of any class",
            caption="At most: the limit of detections per image; per image: how many there are on "
            "average. Average recall: the mean over IoU 0.5 to 0.95 in steps of 0.05.",
        )
        columns = (self.recall(0.5), self.recall(0.75), self.average_recall)
        for row, limit in enumerate(self.limits):
            figures = (as_text(float(column[row])) for column in columns)
            table.add_row(f"{limit:,}", f"{self.mean_counts[row]:,.1f}", *figures)
        return table


def measure_detection_recall(
    detections: FlatDetections,
    objects: FlatObjects,
    num_images: int,
    limits: Sequence[int] | None = None,
) -> DetectionRecall:
    """Find the best overlap of each object among the first n detections of its image.

    Args:
        detections: of all images; equal scores of an image keep their order.
        objects: of all images.
        num_images: images, those without detections included.
        limits: the numbers n, rising; None takes 1, 2, 5, 10, … up to the greatest number that an
            image has.

    Raises:
        DetectError: the limits make no sense.
    """
    counts = detections.images.bincount(minlength=num_images)
    chosen = _limits(counts) if limits is None else tuple(limits)
    if not chosen or chosen[0] < 1 or any(a >= b for a, b in itertools.pairwise(chosen)):
        raise DetectError(f"limits: expected rising numbers from 1 on, found {list(chosen)}")
    required = FlatObjects(*(column[~objects.difficult] for column in objects))
    ranks = _ranks_in_image(detections, num_images)
    least = min(AVERAGED_IOU_THRESHOLDS)
    pairs = overlapping_pairs(detections, required, 1, least, same_class=False)
    ranks_of_pairs = ranks[pairs.detections]
    best = torch.zeros(len(chosen), len(required.labels), dtype=torch.float64)
    for row, limit in enumerate(chosen):
        is_first = ranks_of_pairs <= limit
        best[row].scatter_reduce_(0, pairs.objects[is_first], pairs.overlaps[is_first], "amax")
    limited = torch.minimum(counts, torch.tensor(chosen)[:, None])  # [limits, images]
    mean_counts = limited.double().mean(dim=1).nan_to_num(0.0)
    return DetectionRecall(chosen, best.numpy(), mean_counts.numpy())


def _ranks_in_image(detections: FlatDetections, num_images: int) -> Int[Tensor, "D"]:
    """The place of each detection by falling score within its image, from 1."""
    order = order_by_group_and_score(detections.images, detections.scores)
    ranks = torch.empty_like(order)
    ranks[order] = class_ranks(detections.images[order], num_images)
    return ranks


def _limits(counts: Int[Tensor, "I"]) -> tuple[int, ...]:
    greatest = max(1, int(counts.max()) if len(counts) else 1)
    steps = (digit * 10**power for power in range(len(str(greatest))) for digit in (1, 2, 5))
    return (*(step for step in steps if step < greatest), greatest)
