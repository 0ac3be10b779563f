"""COCO's twelve numbers, with the average precision of each class and the protocol behind them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from detect.evaluation.numbers import as_text, plain
from detect.evaluation.tables import report_table
from detect.wording import counted

SIZES = ("all", "small", "medium", "large")
CROWD_RULE = "crowds and difficult objects are ignored"


@dataclass(frozen=True, slots=True)
class COCOProtocol:
    """What was measured, how, and on how much.

    Attributes:
        iou_thresholds: AP and AR are means over these.
        max_detections: limits of the detections of an image and class.
        num_images: images judged, those without objects included.
        num_objects: objects to be found, crowds excluded.
        num_crowds: crowds, and difficult objects, which count as such.
        num_detections: all detections, also those beyond the limit.
    """

    iou_thresholds: tuple[float, ...]
    max_detections: tuple[int, int, int]
    num_images: int
    num_objects: int
    num_crowds: int
    num_detections: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the keys are stable."""
        return {
            "name": "COCO detection",
            "interpolation": "mean of the interpolated precision at 101 recalls 0, 0.01, …, 1",
            "iou_thresholds": [round(threshold, 12) for threshold in self.iou_thresholds],
            "max_detections": list(self.max_detections),
            "crowds": CROWD_RULE,
            "areas": "small up to 32², medium up to 96², large beyond, in square pixels",
            "num_images": self.num_images,
            "num_objects": self.num_objects,
            "num_crowds": self.num_crowds,
            "num_detections": self.num_detections,
        }

    def in_words(self) -> str:
        """The protocol as one paragraph."""
        first, last = self.iou_thresholds[0], self.iou_thresholds[-1]
        return (
            f"COCO protocol, {counted(len(self.iou_thresholds), 'IoU threshold')} from "
            f"{first:g} to {last:g}, at most "
            f"{counted(self.max_detections[-1], 'detection')} per image and class; "
            f"{CROWD_RULE}. {counted(self.num_images, 'image')}, "
            f"{counted(self.num_objects, 'object')}, {counted(self.num_crowds, 'crowd')}, "
            f"{counted(self.num_detections, 'detection')}. Small objects have an area of up to 32² "
            f"square pixels, medium ones of up to 96². A number without any object behind it is —."
        )


@dataclass(frozen=True, slots=True, eq=False)
class COCOReport:
    """The result of all classes under the COCO protocol.

    Attributes:
        protocol: what was measured, how, and on how much.
        class_names: the name of each label 0 … C−1.
        precision: `[T, 4, C, 101]` at T IoU thresholds, for all, small, medium and large objects,
            at the recalls 0, 0.01, …, 1; nan for a class without such objects.
        recall: `[3, T, 4, C]` the greatest recall, with each limit of detections; nan likewise.
        num_objects: `[4, C]` the objects to be found.
    """

    protocol: COCOProtocol
    class_names: tuple[str, ...]
    precision: Float64[np.ndarray, "T 4 C R"]
    recall: Float64[np.ndarray, "3 T 4 C"]
    num_objects: Int64[np.ndarray, "4 C"]

    def __repr__(self) -> str:
        numbers = self.numbers
        return (
            f"COCOReport: AP {as_text(numbers['AP'])}, AP50 {as_text(numbers['AP50'])}, "
            f"AP75 {as_text(numbers['AP75'])}, {counted(self.protocol.num_images, 'image')}, "
            f"{counted(len(self.class_names), 'class')}"
        )

    def scores(self) -> dict[str, float]:
        """The twelve numbers, as `numbers`."""
        return self.numbers

    @property
    def numbers(self) -> dict[str, float]:
        """The twelve numbers in COCO's order, in 0…1.

        AP over all thresholds, at 0.5, at 0.75, of small, medium and large objects; AR with each
        limit of detections, and of small, medium and large objects. nan, where COCO says −1, if no
        class has such objects, or 0.5 or 0.75 is not among the thresholds.
        """
        limits = self.protocol.max_detections
        return {
            "AP": self._mean_precision(slice(None), 0),
            "AP50": self._mean_precision(self._at(0.5), 0),
            "AP75": self._mean_precision(self._at(0.75), 0),
            "APs": self._mean_precision(slice(None), 1),
            "APm": self._mean_precision(slice(None), 2),
            "APl": self._mean_precision(slice(None), 3),
            **{f"AR{limit}": _mean(self.recall[row, :, 0]) for row, limit in enumerate(limits)},
            "ARs": _mean(self.recall[-1, :, 1]),
            "ARm": _mean(self.recall[-1, :, 2]),
            "ARl": _mean(self.recall[-1, :, 3]),
        }

    @property
    def classes(self) -> dict[str, dict[str, float]]:
        """AP, AP50, AP75, those of the sizes, and AR of each class; nan as in `numbers`."""
        return {
            name: {
                "AP": self._mean_precision(slice(None), 0, label),
                "AP50": self._mean_precision(self._at(0.5), 0, label),
                "AP75": self._mean_precision(self._at(0.75), 0, label),
                "APs": self._mean_precision(slice(None), 1, label),
                "APm": self._mean_precision(slice(None), 2, label),
                "APl": self._mean_precision(slice(None), 3, label),
                "AR": _mean(self.recall[-1, :, 0, label]),
            }
            for label, name in enumerate(self.class_names)
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: `protocol`, the twelve numbers by their names, and `classes`.

        Each class has its AP by the same names, AR and `num_objects`. What is not defined is None.
        """
        counts = self.num_objects[0].tolist()
        return {
            "protocol": self.protocol.as_dict(),
            **plain(self.numbers),
            "classes": {
                name: {**plain(values), "num_objects": count}
                for (name, values), count in zip(self.classes.items(), counts, strict=True)
            },
        }

    def tables(self) -> list[Table]:
        """The table of the classes and that of the twelve numbers."""
        return [self.class_table(), self.table()]

    def table(self) -> Table:
        """A table for the terminal: the twelve numbers, and the protocol."""
        table = report_table("AP", ("", "AR", ""), caption=self.protocol.in_words())
        table.columns[2].justify = "left"
        thresholds = self.protocol.iou_thresholds
        limits = self.protocol.max_detections
        words = [
            f"IoU {thresholds[0]:g} to {thresholds[-1]:g}",
            "IoU 0.5",
            "IoU 0.75",
            *SIZES[1:],
            *(counted(limit, "detection") for limit in limits),
            *SIZES[1:],
        ]
        rows = list(zip(words, self.numbers.values(), strict=True))
        for (left, precision), (right, recall) in zip(rows[:6], rows[6:], strict=True):
            table.add_row(left, as_text(precision), right, as_text(recall))
        return table

    def class_table(self) -> Table:
        """A table for the terminal: one row for each class, and the means."""
        numbers, counts = self.numbers, self.num_objects[0]
        names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
        means = [
            *(numbers[name] for name in names),
            numbers[f"AR{self.protocol.max_detections[-1]}"],
        ]
        table = report_table(
            "class",
            (*names, "AR", "objects"),
            footer=("mean / total", *map(as_text, means), str(int(counts.sum()))),
        )
        for (name, values), count in zip(self.classes.items(), counts.tolist(), strict=True):
            # a name is no markup, whatever brackets it has
            table.add_row(Text(name), *map(as_text, values.values()), str(count))
        return table

    def _mean_precision(
        self, thresholds: slice | list[int], area: int, label: int | slice = slice(None)
    ) -> float:
        return _mean(self.precision[thresholds][:, area, label])

    def _at(self, iou_threshold: float) -> list[int]:
        thresholds = self.protocol.iou_thresholds
        return [row for row, threshold in enumerate(thresholds) if threshold == iou_threshold]


def _mean(values: NDArray[np.float64]) -> float:
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if numbers.size else float("nan")
