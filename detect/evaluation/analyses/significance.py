"""Is run A better than run B? Two runs on the same images, compared image by image.

Two questions, two resamplings. How large is the difference: its confidence interval comes from a
bootstrap in which both runs meet the same resampled images, so that hard images are hard for
both. Could it be chance: if the runs were alike, each image's detections might as well have come
from the other run, so they are exchanged at random, and the p-value is the share of exchanges after
which the difference is as large as the true one (approximate randomization; Noreen 1989, "Computer-
Intensive Methods for Testing Hypotheses", chapter 2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from rich.table import Table
from rich.text import Text

from detect.evaluation.analyses.bootstrap import (
    ConfidenceInterval,
    count_by_image,
    draw_images,
    interval_of,
    merged_counts,
    resampled_precision,
)
from detect.evaluation.files.detection_set import DetectionSet, flat_detections
from detect.evaluation.flat import FlatDetections, FlatObjects
from detect.evaluation.judged import check_iou_threshold
from detect.evaluation.numbers import none_for_nan
from detect.evaluation.tables import report_table
from detect.structures import GroundTruth
from detect.wording import counted


@dataclass(frozen=True, slots=True, eq=False)
class MetricComparison:
    """One metric of two runs.

    Attributes:
        first: of run A, with its confidence interval.
        second: of run B.
        difference: A minus B, with the interval of the paired bootstrap.
        p_value: two-sided, of the difference being chance; at least 1 / (1 + resamplings).
    """

    first: ConfidenceInterval
    second: ConfidenceInterval
    difference: ConfidenceInterval
    p_value: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is not defined is None."""
        return {
            "a": self.first.as_dict(),
            "b": self.second.as_dict(),
            "difference": self.difference.as_dict(),
            "p_value": none_for_nan(self.p_value),
        }


@dataclass(frozen=True, slots=True, eq=False)
class RunComparison:
    """Both metrics of VOC of two runs on the same images.

    Attributes:
        map_11point: the metric of VOC 2007.
        map_area: that of VOC 2010 and later.
        num_images: images judged.
        iou_threshold: the least IoU of a true positive.
    """

    map_11point: MetricComparison
    map_area: MetricComparison
    num_images: int
    iou_threshold: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "methods": {
                "intervals": "paired percentile bootstrap over images",
                "p_value": "two-sided randomization test, detections exchanged by image",
            },
            "num_images": self.num_images,
            "iou_threshold": self.iou_threshold,
            "map_11point": self.map_11point.as_dict(),
            "map_area": self.map_area.as_dict(),
        }

    def table(self, names: tuple[str, str] = ("A", "B")) -> Table:
        """A table for the terminal; `names` are those of the runs."""
        interval = self.map_area.difference
        table = report_table(
            "mAP",
            (*map(Text, names), "difference", "p"),
            caption=f"In brackets: the interval of {interval.confidence:.0%} of "
            f"{counted(interval.num_resamplings, 'resampling')} of "
            f"{counted(self.num_images, 'image')}, the same for both, IoU ≥ "
            f"{self.iou_threshold:g}. p: how often exchanging the detections of images at random "
            "gives a difference at least as large.",
        )
        for name, one in (("11-point", self.map_11point), ("area", self.map_area)):
            table.add_row(
                name,
                one.first.in_brackets(),
                one.second.in_brackets(),
                one.difference.in_brackets(sign="+"),
                "—" if math.isnan(one.p_value) else f"{one.p_value:.3g}",
            )
        return table


def compare_detections(
    detections_a: DetectionSet,
    detections_b: DetectionSet,
    class_names: Sequence[str],
    image_ids: Sequence[str],
    truths: Sequence[GroundTruth],
    iou_threshold: float = 0.5,
    *,
    resamplings: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> RunComparison:
    """Compare two sets of detections on the same images; see the head of this file.

    Args:
        detections_a: of run A; an image without an entry has no detections.
        detections_b: of run B, likewise.
        class_names: the classes of the truths.
        image_ids: the images of the split.
        truths: the objects of each of these images, difficult ones included.
        iou_threshold: the least IoU of a true positive, more than 0 and at most 1.
        resamplings: of the bootstrap, and exchanges of the test.
        confidence: the share of resamplings within the intervals.
        seed: of both draws.

    Raises:
        DetectError: a class or an image of the detections is not among the given ones, or the
            threshold is out of its range.
        ValueError: there are no images.
    """
    check_iou_threshold(iou_threshold)
    (first, objects), (second, _) = (
        flat_detections(found, class_names, image_ids, truths)
        for found in (detections_a, detections_b)
    )
    return compare_runs(
        (first, second),
        objects,
        len(class_names),
        len(image_ids),
        iou_threshold,
        num_resamplings=resamplings,
        confidence=confidence,
        seed=seed,
    )


def compare_runs(
    runs: tuple[FlatDetections, FlatDetections],
    objects: FlatObjects,
    num_classes: int,
    num_images: int,
    iou_threshold: float = 0.5,
    *,
    num_resamplings: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> RunComparison:
    """As `compare_detections`, from the flat tensors of two evaluators.

    Raises:
        ValueError: there are no images.
    """
    if num_images < 1:
        raise ValueError("compare_runs: expected images to draw from, found none")
    drawn = draw_images(num_images, num_resamplings, seed)
    once = np.ones((num_images, 1), dtype=np.int32)
    values, resampled = [], []
    for run in runs:
        counts = count_by_image(run, objects, num_classes, num_images, iou_threshold)
        values.append(resampled_precision(counts, once))
        resampled.append(resampled_precision(counts, drawn))
    exchanged = _exchanged_differences(
        runs, objects, num_classes, num_images, iou_threshold, num_resamplings, seed
    )

    def compared(metric: int) -> MetricComparison:
        value_a, value_b = (float(value[metric][0]) for value in values)
        drawn_a, drawn_b = (one[metric] for one in resampled)
        difference = value_a - value_b
        return MetricComparison(
            interval_of(value_a, drawn_a, confidence),
            interval_of(value_b, drawn_b, confidence),
            interval_of(difference, drawn_a - drawn_b, confidence),
            _p_value(difference, exchanged[metric]),
        )

    return RunComparison(compared(0), compared(1), num_images, iou_threshold)


def _exchanged_differences(
    runs: tuple[FlatDetections, FlatDetections],
    objects: FlatObjects,
    num_classes: int,
    num_images: int,
    iou_threshold: float,
    num_exchanges: int,
    seed: int,
) -> list[Float64[np.ndarray, "B"]]:
    """Each metric of one mixture of the runs minus that of its complement."""
    counts = merged_counts(runs, objects, num_classes, num_images, iou_threshold)
    generator = np.random.default_rng([seed, 1])  # another draw than the bootstrap's
    own = generator.integers(0, 2, (num_images, num_exchanges), dtype=np.int32)
    other = 1 - own
    once = np.ones_like(own)
    mixture = resampled_precision(counts, np.concatenate((own, other)), once)
    complement = resampled_precision(counts, np.concatenate((other, own)), once)
    return [first - second for first, second in zip(mixture, complement, strict=True)]


def _p_value(difference: float, exchanged: Float64[np.ndarray, "B"]) -> float:
    """The share of differences as large as the true one, which counts as one of them."""
    if np.isnan(difference):
        return float("nan")
    # sums in another order differ in the last bits
    as_large = np.abs(exchanged) >= abs(difference) - 1e-12
    return float((1 + as_large.sum()) / (1 + len(exchanged)))
