"""How sure a mAP is: the same metric on resampled sets of images.

The images of a set are a sample of those that might have been taken. Drawing as many of them
again, with replacement, a thousand times over, shows how far the metric would move with another
sample: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13 (percentile
intervals). Objects of one image are not independent, so whole images are drawn.

An image that is drawn n times counts n times, so nothing is matched again. And precision matters at
true positives only: what is needed of the false ones is how many of each image stand between two
true positives, which a sparse matrix holds. Its product with the counts of all resamplings is most
of the work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from numpy.typing import NDArray
from rich.table import Table
from scipy import sparse
from torch import Tensor

from detect.evaluation.files.detection_set import DetectionSet, flat_detections
from detect.evaluation.flat import FlatDetections, FlatObjects
from detect.evaluation.judged import check_iou_threshold
from detect.evaluation.numbers import as_text, plain
from detect.evaluation.ordering import order_by_group_and_score
from detect.evaluation.ranking import VOC_RECALLS, best_from_each
from detect.evaluation.tables import report_table
from detect.evaluation.voc import dense_verdict, judge
from detect.structures import GroundTruth
from detect.wording import counted

# True positives × resamplings that are held at once: 2 MiB an array. With 32 MiB, a thousand
# resamplings take four times as long, since every array is new memory from the system (measured).
MAX_CELLS = 1 << 18


class ImageCounts(NamedTuple):
    """What the images give to the average precision of each of C classes.

    Attributes:
        lists: `[J]` the class of each true positive, never falling; by falling score within it.
        images: `[J]` its image.
        false_before: `[J, I]` false positives of each of I images between the true positive
            before, of the same class, and this one.
        objects: `[C, I]` objects to be found.
    """

    lists: Int[Tensor, "J"]
    images: Int[Tensor, "J"]
    false_before: sparse.csr_array
    objects: sparse.csr_array


class ResampledPrecision(NamedTuple):
    """The two metrics of VOC, each a mean over the classes, in each of B resamplings.

    Attributes:
        map_11point: `[B]` in 0…1; nan if no class has objects.
        map_area: `[B]`, likewise.
    """

    map_11point: Float64[np.ndarray, "B"]
    map_area: Float64[np.ndarray, "B"]


@dataclass(frozen=True, slots=True, eq=False)
class ConfidenceInterval:
    """A metric with the interval that holds it with some confidence.

    Attributes:
        value: on the images as they are, in 0…1.
        low: the lower end.
        high: the upper end.
        standard_error: the standard deviation over the resamplings.
        confidence: the share of resamplings within the ends.
        num_resamplings: how many there were.
    """

    value: float
    low: float
    high: float
    standard_error: float
    confidence: float
    num_resamplings: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is not defined is None."""
        names = ("value", "low", "high", "standard_error", "confidence", "num_resamplings")
        return plain({name: getattr(self, name) for name in names})

    def __str__(self) -> str:
        return self.in_brackets().replace("\n", " ")

    def in_brackets(self, sign: str = "") -> str:
        """Value and ends in two lines; `sign="+"` writes the signs of a difference."""
        value, low, high = (as_text(one, sign=sign) for one in (self.value, self.low, self.high))
        return f"{value}\n[{low}, {high}]"


@dataclass(frozen=True, slots=True, eq=False)
class BootstrapReport:
    """The confidence intervals of the two metrics of VOC.

    Attributes:
        map_11point: the metric of VOC 2007.
        map_area: that of VOC 2010 and later.
        num_images: images that were drawn from.
        iou_threshold: the least IoU of a true positive.
    """

    map_11point: ConfidenceInterval
    map_area: ConfidenceInterval
    num_images: int
    iou_threshold: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "method": "percentile bootstrap over images",
            "num_images": self.num_images,
            "iou_threshold": self.iou_threshold,
            "map_11point": self.map_11point.as_dict(),
            "map_area": self.map_area.as_dict(),
        }

    def table(self) -> Table:
        """A table for the terminal."""
        interval = self.map_area
        table = report_table(
            "mAP",
            ("value", "low", "high", "standard error"),
            caption=f"{interval.confidence:.0%} of the "
            f"{counted(interval.num_resamplings, 'resampling')} of "
            f"{counted(self.num_images, 'image')} lie between low and high, IoU ≥ "
            f"{self.iou_threshold:g}.",
        )
        for name, one in (("11-point", self.map_11point), ("area", self.map_area)):
            numbers = (one.value, one.low, one.high, one.standard_error)
            table.add_row(name, *map(as_text, numbers))
        return table


def bootstrap_detections(
    detections: DetectionSet,
    class_names: Sequence[str],
    image_ids: Sequence[str],
    truths: Sequence[GroundTruth],
    iou_threshold: float = 0.5,
    *,
    resamplings: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> BootstrapReport:
    """`bootstrap_map` of detections from anywhere.

    Args:
        detections: what was found; an image of the split without an entry has no detections.
        class_names: the classes of the truths.
        image_ids: the images of the split.
        truths: the objects of each of these images, difficult ones included.
        iou_threshold: the least IoU of a true positive, more than 0 and at most 1.
        resamplings: of the images.
        confidence: the share of resamplings within the intervals.
        seed: of the draw.

    Raises:
        DetectError: a class or an image of the detections is not among the given ones, or the
            threshold is out of its range.
        ValueError: as `bootstrap_map`.
    """
    check_iou_threshold(iou_threshold)
    found, objects = flat_detections(detections, class_names, image_ids, truths)
    return bootstrap_map(
        found,
        objects,
        len(class_names),
        len(image_ids),
        iou_threshold=iou_threshold,
        num_resamplings=resamplings,
        confidence=confidence,
        seed=seed,
    )


def bootstrap_map(
    detections: FlatDetections,
    objects: FlatObjects,
    num_classes: int,
    num_images: int,
    *,
    iou_threshold: float = 0.5,
    num_resamplings: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> BootstrapReport:
    """Confidence intervals of both mAPs of VOC over resampled images.

    A class without objects in a resampling is left out of its mean.

    Args:
        detections: from `VOCEvaluator.flat()`.
        objects: from there, too.
        num_classes: labels are less.
        num_images: images, those without objects and detections included.
        iou_threshold: the least IoU of a true positive, in 0…1 without 0.
        num_resamplings: a thousand give ends that are good to about a tenth of the interval.
        confidence: the share of resamplings within the interval, in 0…1.
        seed: of the draw.

    Raises:
        ValueError: there are no images, or the confidence or the number is out of range.
    """
    if num_images < 1:
        raise ValueError("bootstrap_map: expected images to draw from, found none")
    if not 0 < confidence < 1 or num_resamplings < 1:
        raise ValueError(
            "bootstrap_map: expected a confidence between 0 and 1 and at least one resampling, "
            f"found {confidence} and {num_resamplings}"
        )
    counts = count_by_image(detections, objects, num_classes, num_images, iou_threshold)
    value = resampled_precision(counts, np.ones((num_images, 1), dtype=np.int32))
    drawn = resampled_precision(counts, draw_images(num_images, num_resamplings, seed))
    eleven, area = (
        interval_of(float(one[0]), many, confidence) for one, many in zip(value, drawn, strict=True)
    )
    return BootstrapReport(eleven, area, num_images, iou_threshold)


def draw_images(num_images: int, num_resamplings: int, seed: int) -> NDArray[np.int32]:
    """How many times each of I images is drawn in each of B resamplings, `[I, B]`."""
    generator = np.random.default_rng(seed)
    counts = np.empty((num_images, num_resamplings), dtype=np.int32)
    for column in range(num_resamplings):
        drawn = generator.integers(0, num_images, num_images)
        counts[:, column] = np.bincount(drawn, minlength=num_images)
    return counts


def interval_of(
    value: float, resampled: Float64[np.ndarray, "B"], confidence: float
) -> ConfidenceInterval:
    """The percentile interval of resampled values; those that are nan are left out."""
    numbers = resampled[~np.isnan(resampled)]
    tail = (1 - confidence) / 2
    low, high, error = float("nan"), float("nan"), float("nan")
    if numbers.size:
        low, high = (float(end) for end in np.quantile(numbers, (tail, 1 - tail)))
        error = float(numbers.std())
    return ConfidenceInterval(value, low, high, error, confidence, len(resampled))


def count_by_image(
    detections: FlatDetections,
    objects: FlatObjects,
    num_classes: int,
    num_images: int,
    iou_threshold: float,
) -> ImageCounts:
    """Judge the detections once, and count what each image gives."""
    verdict = judge(detections, objects, num_classes, (iou_threshold,))
    flags = dense_verdict(verdict)
    return ImageCounts(
        *_true_positives(detections.labels, detections.images, *flags, num_images),
        _objects_by_image(objects, num_classes, num_images),
    )


def merged_counts(
    runs: tuple[FlatDetections, FlatDetections],
    objects: FlatObjects,
    num_classes: int,
    num_images: int,
    iou_threshold: float,
) -> ImageCounts:
    """Those of two runs on the same I images as if on 2·I: the second run's come behind.

    A resampling then takes the detections of each image from one run or the other.
    """
    columns: list[tuple[Tensor, ...]] = []
    for row, run in enumerate(runs):
        verdict = judge(run, objects, num_classes, (iou_threshold,))
        flags = dense_verdict(verdict)
        columns.append((run.labels, run.images + row * num_images, run.scores, *flags))
    labels, images, scores, is_true, is_ignored = (
        torch.cat(parts).cpu() for parts in zip(*columns, strict=True)
    )
    order = order_by_group_and_score(labels, scores)
    return ImageCounts(
        *_true_positives(
            labels[order], images[order], is_true[order], is_ignored[order], 2 * num_images
        ),
        _objects_by_image(objects, num_classes, num_images),
    )


def resampled_precision(
    counts: ImageCounts,
    drawn: NDArray[np.int32],
    drawn_objects: NDArray[np.int32] | None = None,
) -> ResampledPrecision:
    """Both metrics with each image counted as often as it was drawn.

    Detections of equal score in one image are taken in their order, each with all its copies.

    Args:
        counts: what each image gives.
        drawn: `[I, B]` how often each image is drawn in each resampling.
        drawn_objects: `[I, B]` the same for the objects, where another count than that of the
            detections holds for them.
    """
    num_objects = counts.objects @ (drawn if drawn_objects is None else drawn_objects)  # [C, B]
    step = max(1, MAX_CELLS // max(1, len(counts.lists)))
    parts = [
        _mean_precisions(counts, drawn[:, start : start + step], num_objects[:, start:][:, :step])
        for start in range(0, drawn.shape[1], step)
    ]
    eleven, area = (torch.cat(columns).numpy() for columns in zip(*parts, strict=True))
    return ResampledPrecision(eleven, area)


def _mean_precisions(
    counts: ImageCounts, drawn: NDArray[np.int32], num_objects: NDArray[np.int32]
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    objects = torch.from_numpy(np.ascontiguousarray(num_objects)).double()  # [C, B]
    lists = counts.lists
    weights = torch.from_numpy(np.ascontiguousarray(drawn))[counts.images]  # [J, B]
    false = torch.from_numpy(counts.false_before @ np.ascontiguousarray(drawn))  # [J, B]
    starts = torch.searchsorted(lists, lists)  # [J] of the list of each entry
    hits, seen = _running(weights, starts), _running(false, starts)
    seen += hits
    best = best_from_each(hits / seen.clamp(min=1), lists)
    heights = objects.new_zeros(objects.shape)
    area = heights.index_add(0, lists, best * weights) / objects
    # the recalls of the metric between those of one true positive and of the one before it
    reached = torch.bucketize(
        hits / objects[lists], torch.from_numpy(VOC_RECALLS), right=True, out_int32=True
    )
    before = torch.zeros_like(reached)
    before[1:] = torch.where((lists[1:] == lists[:-1])[:, None], reached[:-1], 0)
    eleven = heights.index_add(0, lists, best * (reached - before)) / len(VOC_RECALLS)
    valid = objects > 0
    num_classes = valid.sum(0)  # 0 makes nan of the mean
    return (
        torch.where(valid, eleven, 0.0).sum(0) / num_classes,
        torch.where(valid, area, 0.0).sum(0) / num_classes,
    )


def _running(values: Int[Tensor, "J B"], starts: Int[Tensor, "J"]) -> Float[Tensor, "J B"]:
    """The sums of each list from its start on, as float64, which holds them exactly."""
    total = values.cumsum(0, dtype=torch.int64)
    if len(total) == 0:
        return total.double()
    before = (total - values)[starts]
    return (total - before).double()


def _true_positives(
    labels: Int[Tensor, "D"],
    images: Int[Tensor, "D"],
    is_true: Bool[Tensor, "D"],
    is_ignored: Bool[Tensor, "D"],
    num_images: int,
) -> tuple[Tensor, Tensor, sparse.csr_array]:
    """Classes and images of the true positives, and the false ones before each."""
    labels, images, is_true, is_ignored = (
        column.cpu() for column in (labels, images, is_true, is_ignored)
    )
    rows = is_true.nonzero().flatten()
    lists = labels[rows]
    false = (~is_true & ~is_ignored).nonzero().flatten()
    following = is_true.cumsum(0)[false]  # the true positive behind each false one
    in_list = following < len(rows)
    in_list[in_list.clone()] = lists[following[in_list]] == labels[false[in_list]]
    # those behind the last true positive of their class change nothing
    cells = following[in_list].numpy(), images[false[in_list]].numpy()
    ones = np.ones(len(cells[0]), dtype=np.int32)
    matrix = sparse.csr_array((ones, cells), shape=(len(rows), num_images))
    matrix.sum_duplicates()
    return lists, images[rows], matrix


def _objects_by_image(objects: FlatObjects, num_classes: int, num_images: int) -> sparse.csr_array:
    required = ~objects.difficult
    cells = objects.labels[required].cpu().numpy(), objects.images[required].cpu().numpy()
    ones = np.ones(len(cells[0]), dtype=np.int32)
    return sparse.csr_array((ones, cells), shape=(num_classes, num_images))
