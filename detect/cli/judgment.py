"""The verdict on one contestant: VOC's numbers, COCO's or both, for the terminal and as JSON."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich import box
from rich.table import Table
from rich.text import Text

from detect.cli.contestants import Contestant
from detect.cli.judged_split import JudgedSplit
from detect.evaluation import COCOEvaluator, COCOReport, VOCReport, evaluate_detections
from detect.experiment.evaluation import Evaluation

Metric = Literal["voc", "coco", "both"]


@dataclass(frozen=True)
class Judgment:
    """The numbers of one contestant.

    Attributes:
        name: of the contestant.
        voc: by VOC's protocol, at all thresholds; None if not asked for.
        coco: by COCO's protocol; None if not asked for.
        evaluation: of a run, for the further reports that its detector has.
    """

    name: str
    voc: VOCReport | None
    coco: COCOReport | None
    evaluation: Evaluation | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: VOC's keys, `coco`, and a key for each other report."""
        values: dict[str, Any] = {} if self.voc is None else self.voc.as_dict()
        if self.coco is not None:
            values["coco"] = self.coco.as_dict()
        if self.evaluation is not None:
            others = self.evaluation.as_dict()
            values |= {key: others[key] for key in ("localization", "pose") if key in others}
        return values

    def tables(self) -> list[Table]:
        """For the terminal."""
        tables = [] if self.voc is None else self.voc.tables()
        if self.coco is not None:
            tables += self.coco.tables()
        if self.evaluation is not None:
            others = (self.evaluation.localization, self.evaluation.pose)
            tables += [report.table() for report in others if report is not None]
        return tables

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
    voc = None if metric == "coco" else _judge_voc(found, split, thresholds)
    coco = None if metric == "voc" else _judge_coco(found, split)
    return Judgment(found.name, voc, coco, found.evaluation)


def _judge_voc(found: Contestant, split: JudgedSplit, thresholds: Sequence[float]) -> VOCReport:
    if found.evaluation is not None and len(thresholds) == 1:
        return found.evaluation.report  # judged by this threshold
    return evaluate_detections(
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
        cells = [_as_text(value) for value in values]
        if len(values) == 2:
            cells.append(_as_difference(values[0], values[1]))
        table.add_row(name, *cells)
    return table


def _is_number(value: float) -> bool:
    return not math.isnan(value)


def _as_text(value: float) -> str:
    return f"{value:.4f}" if _is_number(value) else "—"


def _as_difference(first: float, second: float) -> str:
    return f"{first - second:+.4f}" if _is_number(first) and _is_number(second) else "—"
