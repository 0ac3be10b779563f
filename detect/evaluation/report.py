"""The result of an evaluation: numbers by class, their means, and the protocol behind them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64
from rich.table import Table
from rich.text import Text

from detect.evaluation.numbers import as_text, mean_of_defined, none_for_nan
from detect.evaluation.tables import report_table
from detect.wording import counted

METRICS = {
    "map_11point": "mean over the classes of the interpolated precision at the recalls "
    "0, 0.1, …, 1 (VOC 2007)",
    "map_area": "mean over the classes of the area under the monotone precision-recall curve "
    "(VOC 2010 and later)",
}
DIFFICULT_RULE = "difficult objects are ignored"
MATCHING_RULE = (
    "each detection goes to the object of its class and image that it overlaps most; "
    "the first claim by score is the true positive, later ones are false positives"
)


@dataclass(frozen=True, slots=True)
class VOCProtocol:
    """What was measured, how, and on how much.

    Attributes:
        iou_threshold: the least IoU of a true positive, in 0…1.
        num_images: images judged, those without objects included.
        num_objects: objects to be found, difficult ones excluded.
        num_difficult: objects that are marked difficult.
        num_detections: detections judged, in all classes.
    """

    iou_threshold: float
    num_images: int
    num_objects: int
    num_difficult: int
    num_detections: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the keys are stable."""
        return {
            "name": "PASCAL VOC detection",
            "metrics": dict(METRICS),
            "iou_threshold": self.iou_threshold,
            "matching": MATCHING_RULE,
            "difficult": DIFFICULT_RULE,
            "num_images": self.num_images,
            "num_objects": self.num_objects,
            "num_difficult": self.num_difficult,
            "num_detections": self.num_detections,
        }

    def in_words(self) -> str:
        """The protocol as one paragraph."""
        return (
            f"PASCAL VOC protocol, IoU ≥ {self.iou_threshold:g}; {DIFFICULT_RULE}. "
            f"{counted(self.num_images, 'image')}, {counted(self.num_objects, 'object')}, "
            f"{counted(self.num_difficult, 'difficult object')}, "
            f"{counted(self.num_detections, 'detection')}. AP 11-point is the metric of VOC "
            f"2007, AP area that of VOC 2010 and later; a class without objects has no AP and "
            f"is left out of the mean."
        )


@dataclass(frozen=True, slots=True, eq=False)
class ClassReport:
    """The result of one class.

    Attributes:
        ap_11point: average precision at 11 recalls, in 0…1; nan without objects.
        ap_area: average precision as an area, in 0…1; nan without objects.
        num_objects: objects to be found, difficult ones excluded.
        num_difficult: objects that are marked difficult.
        num_detections: all detections, those matched to a difficult object included.
        num_true_positives: detections matched to an object.
        num_false_positives: detections without a match, duplicates included.
        precision: `[K]` after each true or false positive, by falling score.
        recall: `[K]`, likewise; nan without objects.
        scores: `[K]` the scores of these detections.
    """

    ap_11point: float
    ap_area: float
    num_objects: int
    num_difficult: int
    num_detections: int
    num_true_positives: int
    num_false_positives: int
    precision: Float64[np.ndarray, "K"]
    recall: Float64[np.ndarray, "K"]
    scores: Float32[np.ndarray, "K"]

    def __repr__(self) -> str:
        return (
            f"ClassReport: AP (area) {as_text(self.ap_area)}, (11-point) "
            f"{as_text(self.ap_11point)}, {counted(self.num_objects, 'object')}, "
            f"{counted(self.num_detections, 'detection')}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the keys are stable, and a number that is not there is None."""
        return {
            "ap_11point": none_for_nan(self.ap_11point),
            "ap_area": none_for_nan(self.ap_area),
            "num_objects": self.num_objects,
            "num_difficult": self.num_difficult,
            "num_detections": self.num_detections,
        }


@dataclass(frozen=True, slots=True, eq=False)
class ThresholdReport:
    """The average precisions of all classes at one IoU threshold.

    Attributes:
        iou_threshold: the least IoU of a true positive, in 0…1.
        ap_11point: `[C]` in 0…1; nan for a class without objects.
        ap_area: `[C]`, likewise.
    """

    iou_threshold: float
    ap_11point: Float64[np.ndarray, "C"]
    ap_area: Float64[np.ndarray, "C"]

    @property
    def map_11point(self) -> float:
        """Mean over the classes with objects, in 0…1; nan without any."""
        return mean_of_defined(self.ap_11point.tolist())

    @property
    def map_area(self) -> float:
        """Mean over the classes with objects, in 0…1; nan without any."""
        return mean_of_defined(self.ap_area.tolist())

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the keys are stable."""
        return {
            "iou_threshold": self.iou_threshold,
            "map_11point": none_for_nan(self.map_11point),
            "map_area": none_for_nan(self.map_area),
        }


@dataclass(frozen=True, slots=True, eq=False)
class VOCReport:
    """The result of all classes under the PASCAL VOC protocol.

    Attributes:
        protocol: what was measured, how, and on how much, at the first IoU threshold.
        classes: the result of each class at it, in the order of the labels.
        thresholds: the average precisions at each IoU threshold that was asked for.
    """

    protocol: VOCProtocol
    classes: Mapping[str, ClassReport]
    thresholds: tuple[ThresholdReport, ...] = ()

    def __repr__(self) -> str:
        return (
            f"VOCReport: mAP (area) {as_text(self.map_area)}, (11-point) "
            f"{as_text(self.map_11point)} at IoU {self.protocol.iou_threshold:g}, "
            f"{counted(self.protocol.num_images, 'image')}, "
            f"{counted(len(self.classes), 'class')}"
        )

    @property
    def map_11point(self) -> float:
        """Mean of the 11-point AP over the classes with objects, in 0…1; nan without any."""
        return mean_of_defined([entry.ap_11point for entry in self.classes.values()])

    @property
    def map_area(self) -> float:
        """Mean of the area AP over the classes with objects, in 0…1; nan without any."""
        return mean_of_defined([entry.ap_area for entry in self.classes.values()])

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON.

        The keys are stable: `protocol`, `map_11point`, `map_area` and `classes`, which maps the
        name of each class to `ap_11point`, `ap_area`, `num_objects` (difficult ones excluded),
        `num_difficult` and `num_detections`. An AP that is not defined is None. With several IoU
        thresholds, these are the numbers at the first one, and `thresholds` lists the means at all.
        """
        content: dict[str, Any] = {
            "protocol": self.protocol.as_dict(),
            "map_11point": none_for_nan(self.map_11point),
            "map_area": none_for_nan(self.map_area),
            "classes": {name: entry.as_dict() for name, entry in self.classes.items()},
        }
        if len(self.thresholds) > 1:
            content["thresholds"] = [entry.as_dict() for entry in self.thresholds]
        return content

    def scores(self) -> dict[str, float]:
        """Both means, the numbers that are followed during a training."""
        return {"map_area": self.map_area, "map_11point": self.map_11point}

    def tables(self) -> list[Table]:
        """The table of the classes and, with several IoU thresholds, that of the thresholds."""
        return (
            [self.table(), self.threshold_table()] if len(self.thresholds) > 1 else [self.table()]
        )

    def threshold_table(self) -> Table:
        """A table for the terminal: the means at each IoU threshold, and the mean of these."""
        columns = [
            [entry.map_11point for entry in self.thresholds],
            [entry.map_area for entry in self.thresholds],
        ]
        means = (as_text(sum(values) / len(values)) for values in columns)
        table = report_table("IoU ≥", ("mAP 11-point", "mAP area"), footer=("mean", *means))
        for entry, *values in zip(self.thresholds, *columns, strict=True):
            table.add_row(f"{entry.iou_threshold:g}", *map(as_text, values))
        return table

    def table(self) -> Table:
        """A table for the terminal: one row for each class, the means, and the protocol."""
        counts = (
            self.protocol.num_objects,
            self.protocol.num_difficult,
            self.protocol.num_detections,
            sum(entry.num_true_positives for entry in self.classes.values()),
        )
        table = report_table(
            "class",
            ("AP\n11-point", "AP\narea", "objects", "difficult", "detections", "true\npositives"),
            footer=(
                "mean / total",
                as_text(self.map_11point),
                as_text(self.map_area),
                *map(str, counts),
            ),
            caption=self.protocol.in_words(),
        )
        for name, entry in self.classes.items():
            table.add_row(
                Text(name),  # a name is no markup, whatever brackets it has
                as_text(entry.ap_11point),
                as_text(entry.ap_area),
                str(entry.num_objects),
                str(entry.num_difficult),
                str(entry.num_detections),
                str(entry.num_true_positives),
            )
        return table
