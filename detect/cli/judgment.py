"""The verdict on one contestant: VOC's numbers, COCO's or both, for the terminal and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from rich import box
from rich.table import Table
from rich.text import Text

from detect.cli.judged_split import Contestant, JudgedSplit
from detect.errors import DetectError
from detect.evaluation import (
    COCOEvaluator,
    COCOReport,
    Metric,
    Report,
    VOCReport,
    evaluate_detection_set,
    reports_as_dict,
)
from detect.evaluation.numbers import as_text

# More thresholds than this are a mistyped step.
_MAX_THRESHOLDS = 1000
_DECIMALS = 10


@dataclass(frozen=True)
class Judgment:
    """The numbers of one contestant.

    Attributes:
        name: of the contestant.
        reports: VOC's at all thresholds and COCO's, as asked for, and those that a run's detector
            has besides; by their names.
    """

    name: str
    reports: Mapping[str, Report]

    @property
    def voc(self) -> VOCReport | None:
        """None if not asked for."""
        return cast(VOCReport | None, self.reports.get("voc"))

    @property
    def coco(self) -> COCOReport | None:
        """None if not asked for."""
        return cast(COCOReport | None, self.reports.get("coco"))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: VOC's keys, and a key for each other report."""
        return reports_as_dict(self.reports)

    def tables(self) -> list[Table]:
        """For the terminal."""
        return [table for report in self.reports.values() for table in report.tables()]

    def numbers(self) -> dict[str, float]:
        """The means by name, to be set beside those of another."""
        values: dict[str, float] = {}
        if self.voc is not None:
            for entry in self.voc.thresholds:
                values[f"mAP 11-point, IoU ≥ {entry.iou_threshold:g}"] = entry.map_11point
                values[f"mAP area, IoU ≥ {entry.iou_threshold:g}"] = entry.map_area
        if self.coco is not None:
            values |= {f"COCO {name}": value for name, value in self.coco.numbers.items()}
        return values


def judge(
    found: Contestant, split: JudgedSplit, metric: Metric, thresholds: Sequence[float]
) -> Judgment:
    """Judge one contestant on a split.

    Raises:
        DetectError: a class or an image of the detections is not in the split.
    """
    reports: dict[str, Report] = {}
    if metric != "coco":
        reports["voc"] = _judge_voc(found, split, thresholds)
    if metric != "voc":
        reports["coco"] = _judge_coco(found, split)
    if found.evaluation is not None:
        reports |= {n: one for n, one in found.evaluation.reports.items() if n != "voc"}
    return Judgment(found.name, reports)


def _judge_voc(found: Contestant, split: JudgedSplit, thresholds: Sequence[float]) -> VOCReport:
    if found.evaluation is not None and len(thresholds) == 1:
        return found.evaluation.report  # judged by this threshold
    return evaluate_detection_set(
        found.detections, split.class_names, split.image_ids, split.voc_truths(), tuple(thresholds)
    )


def _judge_coco(found: Contestant, split: JudgedSplit) -> COCOReport:
    image_names, truths = split.coco_truths()
    # where there is an annotation file, labels are by its categories
    class_names = split.class_names
    if split.coco is not None:
        further = [name for name in split.class_names if name not in split.coco.class_names]
        class_names = (*split.coco.class_names, *further)
    evaluator = COCOEvaluator(class_names)
    evaluator.update(found.coco_records(class_names, image_names), truths)
    return evaluator.compute()


def side_by_side(judgments: Sequence[Judgment]) -> Table:
    """The means of all contestants, one column each; of two, the difference as well."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("", no_wrap=True)
    for judgment in judgments:
        table.add_column(Text(judgment.name), justify="right", overflow="fold")
    if len(judgments) == 2:
        table.add_column("first − second", justify="right", no_wrap=True)
    columns = [judgment.numbers() for judgment in judgments]
    for name in columns[0]:
        values = [column[name] for column in columns]
        cells = [as_text(value) for value in values]
        if len(values) == 2:
            cells.append(as_text(values[0] - values[1], sign="+"))
        table.add_row(name, *cells)
    return table


def parse_thresholds(texts: Sequence[str]) -> tuple[float, ...]:
    """The thresholds that the values of `--iou` mean, each once, in their order.

    >>> parse_thresholds(["0.3", "0.5:0.6:0.05"])
    (0.3, 0.5, 0.55, 0.6)

    Raises:
        DetectError: a value is no number or range, or a threshold is out of its range.
    """
    thresholds = [threshold for text in texts for threshold in _thresholds_of(text)]
    return tuple(dict.fromkeys(thresholds))


def _thresholds_of(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        thresholds = numbers
    elif len(numbers) == 3:
        begin, end, step = numbers
        if not step > 0 or not begin <= end or not (end - begin) / step < _MAX_THRESHOLDS:
            raise DetectError(
                f"--iou: expected a range BEGIN:END:STEP that rises by a STEP above 0, such as "
                f"0.5:0.95:0.05, found '{text}'"
            )
        # rounded, so that 0.5 + 0.05 + … meets the decimals that are meant, the end included
        count = int(round((end - begin) / step, 6)) + 1
        thresholds = [round(begin + row * step, _DECIMALS) for row in range(count)]
    else:
        raise DetectError(
            f"--iou: expected a number, such as 0.5, or a range BEGIN:END:STEP, such as "
            f"0.5:0.95:0.05, found '{text}'"
        )
    for threshold in thresholds:
        if not 0 < threshold <= 1:
            raise DetectError(f"--iou: expected more than 0 and at most 1, found {threshold}")
    return thresholds
