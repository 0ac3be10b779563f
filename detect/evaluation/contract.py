"""What every judge of detections offers: an evaluator that collects, and its report."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from rich.table import Table

from detect.structures import Detections, GroundTruth


@runtime_checkable
class Report(Protocol):
    """The result of an evaluation."""

    def scores(self) -> dict[str, float]:
        """The numbers that are followed during a training, by unique names."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the keys are stable, and a number that is not there is None."""
        ...

    def tables(self) -> list[Table]:
        """Tables for the terminal; 80 columns hold them."""
        ...


@runtime_checkable
class Evaluator(Protocol):
    """Collects detections and truths image by image, and computes a report of them all.

    Attributes:
        name: of the report among others, and its key in JSON.
    """

    name: ClassVar[str]

    def update(self, detections: Sequence[Detections], truths: Sequence[GroundTruth]) -> None:
        """Add images: one record of detections and one of objects for each, in one frame."""
        ...

    def compute(self) -> Report:
        """Judge all images so far."""
        ...


def reports_as_dict(reports: Mapping[str, Report]) -> dict[str, Any]:
    """Reports as one dictionary for JSON: the keys of VOC's, and each other one under its name."""
    values = reports["voc"].as_dict() if "voc" in reports else {}
    return values | {name: report.as_dict() for name, report in reports.items() if name != "voc"}
