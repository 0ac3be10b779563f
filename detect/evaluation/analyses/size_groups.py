"""Average precision by the size of the objects, under the rules of PASCAL VOC.

Within a group, objects of other sizes are treated as difficult: they are ignored, and so are the
detections matched to them. A detection without a match whose own size lies
outside the group does not count either, since it would be an error of another group: COCO's rule
(Lin et al. 2014; cocoeval.py). Matching stays VOC's, one for all groups: each detection goes to the
object of its class that it overlaps most, whatever its size, where COCO prefers one of the group.

Sizes are areas of boxes in square pixels of the image; COCO takes those of the masks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from rich.table import Table
from rich.text import Text
from torch import Tensor

from detect.evaluation.flat import FlatDetections, FlatObjects
from detect.evaluation.judged import (
    area_average_precision,
    check_iou_threshold,
    ranked_classes,
)
from detect.evaluation.numbers import as_text, mean_of_defined, none_for_nan, plain
from detect.evaluation.ordering import order_by_group_and_score
from detect.evaluation.pairs import best_objects
from detect.evaluation.tables import report_table
from detect.evaluation.voc import num_objects_of

# Lin et al. 2014; cocoeval.py: the area from which a group begins.
COCO_GROUPS = {"small": 0.0, "medium": 32.0**2, "large": 96.0**2}

# Hoiem et al. 2012, section 3: shares of the objects of a class, by rising area, at which a group
# begins: the smallest 10%, the next 20%, the middle 40%, the next 20%, the largest 10%.
HOIEM_GROUPS = {"XS": 0.0, "S": 0.1, "M": 0.3, "L": 0.7, "XL": 0.9}


@dataclass(frozen=True, slots=True, eq=False)
class SizeReport:
    """The AP of each group of sizes.

    Attributes:
        kind: what the groups are, in words.
        iou_threshold: the least IoU of a true positive.
        class_names: the name of each label.
        groups: the name of each group, by rising size.
        starts: `[G, C]` the area from which a group of a class begins, in square pixels.
        average_precision: `[G, C]` the area under the curve, in 0…1; nan without objects.
        num_objects: `[G, C]` objects of the group, difficult ones excluded.
    """

    kind: str
    iou_threshold: float
    class_names: tuple[str, ...]
    groups: tuple[str, ...]
    starts: Float64[np.ndarray, "G C"]
    average_precision: Float64[np.ndarray, "G C"]
    num_objects: Int[np.ndarray, "G C"]

    @property
    def mean(self) -> dict[str, float]:
        """The mean AP of each group over the classes with objects in it; nan without any."""
        rows = self.average_precision.tolist()
        return {group: mean_of_defined(row) for group, row in zip(self.groups, rows, strict=True)}

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the keys are stable, and a number that is not there is None."""
        return {
            "kind": self.kind,
            "iou_threshold": self.iou_threshold,
            "map_area": plain(self.mean),
            "classes": {
                name: {
                    group: {
                        "ap_area": none_for_nan(float(self.average_precision[row, label])),
                        "num_objects": int(self.num_objects[row, label]),
                        "from_area": _none_for_infinity(float(self.starts[row, label])),
                    }
                    for row, group in enumerate(self.groups)
                }
                for label, name in enumerate(self.class_names)
            },
        }

    def table(self) -> Table:
        """AP and number of objects of each class and group."""
        # of five groups, four digits would not fit
        digits = 4 if len(self.groups) < 4 else 3
        width = len(str(int(self.num_objects.max(initial=0)))) + 2
        means = (as_text(mean, digits) + " " * (width + 1) for mean in self.mean.values())
        table = report_table(
            "class",
            self.groups,
            footer=("mean", *means),
            title=f"AP by size of the object, IoU ≥ {self.iou_threshold:g}",
            caption=f"Groups are {self.kind}; in parentheses, the number of objects.",
        )
        for label, name in enumerate(self.class_names):
            cells = (
                f"{as_text(value, digits)} {f'({count})':>{width}}"
                for value, count in zip(
                    self.average_precision[:, label].tolist(),
                    self.num_objects[:, label].tolist(),
                    strict=True,
                )
            )
            table.add_row(Text(name), *cells)
        return table


def coco_size_groups(
    detections: FlatDetections,
    objects: FlatObjects,
    class_names: Sequence[str],
    iou_threshold: float = 0.5,
) -> SizeReport:
    """AP of small, medium and large objects: below 32², below 96² square pixels, and the rest.

    Args:
        detections: by class and falling score.
        objects: in any order.
        class_names: the name of each label 0 … C−1.
        iou_threshold: the least IoU of a true positive.

    Raises:
        DetectError: the threshold is out of its range.
    """
    starts = torch.tensor(list(COCO_GROUPS.values()), dtype=torch.float64)
    return _report(
        "COCO's: area below 32², below 96² and from 96² square pixels",
        tuple(COCO_GROUPS),
        starts[:, None].expand(-1, len(class_names)),
        detections,
        objects,
        class_names,
        iou_threshold,
    )


def hoiem_size_groups(
    detections: FlatDetections,
    objects: FlatObjects,
    class_names: Sequence[str],
    iou_threshold: float = 0.5,
) -> SizeReport:
    """AP of extra-small to extra-large objects, compared with those of their class.

    Hoiem et al. 2012, section 3. The groups are shares of the objects that are not difficult;
    objects of equal area stay together, in the greater group. The paper normalizes precision for
    the number of objects of a group; here it is not, which puts groups with fewer objects at a
    disadvantage.

    The arguments and errors are those of `coco_size_groups`.
    """
    return _report(
        "Hoiem's, within a class: the smallest 10% of its objects, 20%, 40%, 20%, the largest 10%",
        tuple(HOIEM_GROUPS),
        _quantiles(objects, len(class_names), list(HOIEM_GROUPS.values())),
        detections,
        objects,
        class_names,
        iou_threshold,
    )


def _report(
    kind: str,
    groups: tuple[str, ...],
    starts: Float[Tensor, "G C"],
    detections: FlatDetections,
    objects: FlatObjects,
    class_names: Sequence[str],
    iou_threshold: float,
) -> SizeReport:
    check_iou_threshold(iou_threshold)
    num_classes = len(class_names)
    claims = _claims(detections, objects, num_classes, iou_threshold)
    ends = torch.cat((starts[1:], torch.full((1, num_classes), math.inf, dtype=torch.float64)))
    found_areas, object_areas = _areas(detections.boxes), _areas(objects.boxes)
    averages, counts = [], []
    for start, end in zip(starts, ends, strict=True):
        is_inside = (object_areas >= start[objects.labels]) & (object_areas < end[objects.labels])
        of_group = objects._replace(difficult=objects.difficult | ~is_inside)
        is_own = (found_areas >= start[detections.labels]) & (found_areas < end[detections.labels])
        is_true, counts_here = _judged_in_group(claims, of_group, is_own)
        num_objects = num_objects_of(of_group, num_classes)
        ranked = ranked_classes(detections.labels[counts_here], is_true[counts_here], num_objects)
        averages.append(area_average_precision(ranked))
        counts.append(num_objects)
    return SizeReport(
        kind,
        iou_threshold,
        tuple(class_names),
        groups,
        starts.numpy(),
        torch.stack(averages).numpy(),
        torch.stack(counts).numpy(),
    )


class _Claims:
    """The object that each detection claims, and which claim is the first."""

    def __init__(self, objects: Tensor, is_claim: Tensor, is_first: Tensor) -> None:
        self.objects, self.is_claim, self.is_first = objects, is_claim, is_first


def _claims(
    detections: FlatDetections, objects: FlatObjects, num_classes: int, iou_threshold: float
) -> _Claims:
    """As `judge` has it, but not yet with the difficult objects, which differ by group."""
    best = best_objects(detections, objects, num_classes)
    is_claim = best.overlaps >= iou_threshold
    rows = is_claim.nonzero().flatten()
    first = torch.full((len(objects.labels),), len(is_claim))
    first.scatter_reduce_(0, best.objects[rows], rows, "amin")
    is_first = torch.zeros_like(is_claim)
    is_first[rows] = first[best.objects[rows]] == rows
    return _Claims(best.objects, is_claim, is_first)


def _judged_in_group(
    claims: _Claims, objects: FlatObjects, is_own: Bool[Tensor, "D"]
) -> tuple[Bool[Tensor, "D"], Bool[Tensor, "D"]]:
    """Which detections are true positives of the group, and which count in it at all."""
    ignored = torch.zeros_like(claims.is_claim)
    ignored[claims.is_claim] = objects.difficult[claims.objects[claims.is_claim]]
    is_true = claims.is_first & ~ignored
    return is_true, is_true | (is_own & ~ignored)


def _quantiles(
    objects: FlatObjects, num_classes: int, shares: Sequence[float]
) -> Float[Tensor, "G C"]:
    """The area at which each share of the required objects of a class begins; inf without any."""
    labels = objects.labels[~objects.difficult]
    areas = _areas(objects.boxes[~objects.difficult])
    order = order_by_group_and_score(labels, -areas)
    counts = labels.bincount(minlength=num_classes)
    firsts = counts.cumsum(0) - counts
    # as in 0.1 · 30, which is a little more than 3, products may miss a whole number
    skipped = (torch.tensor(shares, dtype=torch.float64)[:, None] * counts - 1e-9).ceil().long()
    sorted_areas = torch.cat((areas[order], areas.new_full((1,), math.inf)))
    places = torch.where(skipped < counts, firsts + skipped, len(areas))
    starts = sorted_areas[places]
    starts[0] = 0.0  # detections may be smaller than any object
    return starts


def _areas(boxes: Float[Tensor, "N 4"]) -> Float[Tensor, "N"]:
    return (boxes[:, 2:] - boxes[:, :2]).double().prod(dim=1)


def _none_for_infinity(value: float) -> float | None:
    return None if math.isinf(value) else value
