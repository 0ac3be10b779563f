"""How well proposals cover the objects: recall and average best overlap, by number of proposals.

Uijlings et al. 2013, "Selective search for object recognition", section 5: the average best overlap
(ABO) of a class is the mean, over its objects, of the highest IoU of a proposal with the object;
MABO is its mean over the classes. Recall is the share of objects of all classes with a best overlap
of a threshold or more. Average recall is its mean over IoU 0.5, 0.55, …, 0.95 (Hosang et al. 2016,
"What makes for effective detection proposals?", section 5). Difficult objects are not counted.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int

from detect.errors import DetectError
from detect.ops import box_iou
from detect.proposals.collection import Proposals
from detect.structures import GroundTruth

IOU_THRESHOLDS = (0.5, 0.7)

# quotients, which equal the literals: 0.55, …
AVERAGED_IOU_THRESHOLDS = tuple(hundredths / 100 for hundredths in range(50, 100, 5))

# Pairs whose IoU is held at a time: 32 MB in float64, three times as much with temporaries.
MAX_PAIRS = 2**22


@dataclass(frozen=True)
class Coverage:
    """The best overlap of each object that is not difficult, for several numbers of proposals.

    Attributes:
        class_names: of the labels.
        labels: `[M]` class of each object.
        limits: numbers of proposals taken of an image at most, rising.
        best_overlaps: `[limits, M]` IoU in 0…1.
        num_images: images, those without objects included.
        num_difficult: objects that are not counted.
        mean_counts: `[limits]` mean number of proposals taken of an image.
    """

    class_names: tuple[str, ...]
    labels: Int[np.ndarray, "M"]
    limits: tuple[int, ...]
    best_overlaps: Float64[np.ndarray, "L M"]
    num_images: int
    num_difficult: int
    mean_counts: Float64[np.ndarray, "L"]

    def recall(self, iou_threshold: float) -> Float64[np.ndarray, "L"]:
        """The share of objects with a best overlap of the threshold or more; nan without any."""
        if not len(self.labels):
            return np.full(len(self.limits), math.nan)
        recall: np.ndarray = (self.best_overlaps >= iou_threshold).mean(axis=1)
        return recall

    def average_recall(self) -> Float64[np.ndarray, "L"]:
        """The mean of the recall over `AVERAGED_IOU_THRESHOLDS`; nan without objects."""
        recalls = [self.recall(threshold) for threshold in AVERAGED_IOU_THRESHOLDS]
        average: np.ndarray = np.mean(recalls, axis=0)
        return average

    def recall_of_classes(self, iou_threshold: float) -> Float64[np.ndarray, "L C"]:
        """The recall of each class by itself; nan for a class without objects."""
        return self._mean_by_class((self.best_overlaps >= iou_threshold).astype(np.float64))

    def average_best_overlap(self) -> Float64[np.ndarray, "L C"]:
        """ABO of each class; nan for a class without objects."""
        return self._mean_by_class(self.best_overlaps)

    def mean_average_best_overlap(self) -> Float64[np.ndarray, "L"]:
        """MABO: the mean over the classes that have objects; nan without any."""
        averages = self.average_best_overlap()
        known = averages[:, ~np.isnan(averages).all(axis=0)]  # [limits, classes with objects]
        if not known.shape[1]:
            return np.full(len(self.limits), math.nan)
        mabo: np.ndarray = known.mean(axis=1)
        return mabo

    def _mean_by_class(self, values: Float64[np.ndarray, "L M"]) -> Float64[np.ndarray, "L C"]:
        means = np.full((len(self.limits), len(self.class_names)), math.nan)
        for label in np.unique(self.labels):
            means[:, label] = values[:, self.labels == label].mean(axis=1)
        return means

    def as_dict(self) -> dict[str, Any]:
        """Plain data: the figures of all proposals, of each class, and the curve."""
        curves = {
            "mean_boxes": self.mean_counts,
            **{f"recall_{threshold}": self.recall(threshold) for threshold in IOU_THRESHOLDS},
            "average_recall": self.average_recall(),
            "mabo": self.mean_average_best_overlap(),
        }
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        of_classes = {"abo": self.average_best_overlap()}
        for threshold in IOU_THRESHOLDS:
            of_classes[f"recall_{threshold}"] = self.recall_of_classes(threshold)

        def at(row: int) -> dict[str, float]:
            return {name: float(values[row]) for name, values in curves.items()}

        return {
            "protocol": {
                "objects": "difficult objects are not counted",
                "recall": "share of objects with a best IoU of at least the threshold",
                "average_recall": "mean of the recall over IoU 0.5, 0.55, ..., 0.95",
                "mabo": "mean over classes of the mean best IoU of their objects",
                "num_images": self.num_images,
                "num_objects": len(self.labels),
                "num_difficult": self.num_difficult,
            },
            **at(-1),
            "classes": {
                name: {
                    "num_objects": int(counts[label]),
                    **{key: float(values[-1, label]) for key, values in of_classes.items()},
                }
                for label, name in enumerate(self.class_names)
            },
            "curve": [{"max_boxes": limit, **at(row)} for row, limit in enumerate(self.limits)],
        }


def measure_coverage(
    proposals: Proposals,
    truths: Mapping[str, GroundTruth],
    class_names: Sequence[str],
    limits: Sequence[int] | None = None,
) -> Coverage:
    """Find the best overlap of each object among the first n proposals of its image.

    Args:
        proposals: of all images of `truths`.
        truths: the objects of each image.
        class_names: of the labels.
        limits: the numbers n, rising; None takes `curve_limits`. An image may have fewer.

    Raises:
        DetectError: an image has no entry in `proposals`, or the limits do not rise from 1 or more.
    """
    chosen = curve_limits(proposals) if limits is None else tuple(limits)
    if not chosen or chosen[0] < 1 or any(a >= b for a, b in itertools.pairwise(chosen)):
        raise DetectError(f"limits: expected rising numbers from 1 on, found {list(chosen)}")
    overlaps, labels, counts = [np.zeros((len(chosen), 0))], [np.zeros(0, np.int64)], []
    for image_id, truth in truths.items():
        counted = truth.without_difficult()
        boxes = proposals[image_id]
        objects = counted.boxes.double().numpy()
        overlaps.append(best_overlaps(boxes.astype(np.float64), objects, chosen))
        labels.append(counted.labels.numpy())
        counts.append(np.minimum(len(boxes), chosen))
    return Coverage(
        class_names=tuple(class_names),
        labels=np.concatenate(labels),
        limits=chosen,
        best_overlaps=np.concatenate(overlaps, axis=1),
        num_images=len(truths),
        num_difficult=sum(int(truth.difficult.sum()) for truth in truths.values()),
        mean_counts=np.mean(counts, axis=0) if counts else np.zeros(len(chosen)),
    )


def best_overlaps(
    boxes: Float[np.ndarray, "N 4"], objects: Float[np.ndarray, "M 4"], limits: Sequence[int]
) -> Float64[np.ndarray, "L M"]:
    """The highest IoU of each object with the first n boxes, for each n; 0 without boxes."""
    best = np.zeros((len(limits), len(objects)))
    so_far = np.zeros(len(objects))
    start, step = 0, max(1, MAX_PAIRS // max(1, len(objects)))
    for row, limit in enumerate(limits):
        end = min(limit, len(boxes))
        for first in range(start, end, step):
            part = torch.from_numpy(boxes[first : min(first + step, end)])
            iou = box_iou(part, torch.from_numpy(objects)).numpy()  # [part, M]
            so_far = np.maximum(so_far, iou.max(axis=0))
        best[row] = so_far
        start = max(start, end)
    return best


def curve_limits(proposals: Proposals) -> tuple[int, ...]:
    """1, 2, 5, 10, 20, 50, … up to the greatest number of boxes that an image has, and that."""
    greatest = max(1, int(proposals.counts.max(initial=0)))
    steps = (digit * 10**power for power in range(len(str(greatest))) for digit in (1, 2, 5))
    return (*(step for step in steps if step < greatest), greatest)
