"""Detections and truths in, report out: one call where no evaluator is wanted."""

from collections.abc import Sequence
from typing import Literal, overload

from detect.errors import DetectError
from detect.evaluation.coco import COCOEvaluator
from detect.evaluation.coco_report import COCOReport
from detect.evaluation.flat import DetectionsLike, TruthLike
from detect.evaluation.report import VOCReport
from detect.evaluation.voc import VOCEvaluator

Metric = Literal["voc", "coco", "both"]


@overload
def evaluate_detections(
    detections: Sequence[DetectionsLike],
    truths: Sequence[TruthLike],
    class_names: Sequence[str],
    metric: Literal["voc"] = "voc",
    iou_thresholds: float | Sequence[float] = 0.5,
) -> VOCReport: ...


@overload
def evaluate_detections(
    detections: Sequence[DetectionsLike],
    truths: Sequence[TruthLike],
    class_names: Sequence[str],
    metric: Literal["coco"],
) -> COCOReport: ...


@overload
def evaluate_detections(
    detections: Sequence[DetectionsLike],
    truths: Sequence[TruthLike],
    class_names: Sequence[str],
    metric: Literal["both"],
    iou_thresholds: float | Sequence[float] = 0.5,
) -> tuple[VOCReport, COCOReport]: ...


def evaluate_detections(
    detections: Sequence[DetectionsLike],
    truths: Sequence[TruthLike],
    class_names: Sequence[str],
    metric: str = "voc",
    iou_thresholds: float | Sequence[float] | None = None,
) -> VOCReport | COCOReport | tuple[VOCReport, COCOReport]:
    """Compute the mean average precision of detections, by VOC's protocol, COCO's or both.

    Args:
        detections: of each image: `Detections`, or a dictionary as torchmetrics takes it, with
            `boxes` `[N, 4]` (x1, y1, x2, y2 in pixels; `boxes_xywh` for x, y, width and height),
            `scores` `[N]` and `labels` `[N]`, as tensors, arrays or lists.
        truths: of each image, in the same order: `GroundTruth`, or a dictionary with
            `boxes` (or `boxes_xywh`), `labels`, and optionally `difficult`, `iscrowd` and, for
            COCO's sizes, `area` in square pixels.
        class_names: the name of each label 0 … C−1.
        metric: "voc", "coco", or "both" for a pair of reports.
        iou_thresholds: of VOC's protocol, each more than 0 and at most 1; 0.5 by default. COCO's
            ten thresholds are fixed.

    Returns:
        A `VOCReport` (`map_area`, `map_11point`, `classes`), a `COCOReport` (`numbers`, `classes`),
        or both. A number that no object decides on is nan.

    Raises:
        DetectError: there is no such metric, or a threshold is out of range or not used by it.
        ValueError: the sequences differ in length, or a record is not of this form; names the
            image.

    >>> found = {"boxes": [[10, 10, 50, 50]], "scores": [0.9], "labels": [0]}
    >>> truth = {"boxes": [[10, 10, 50, 48]], "labels": [0]}
    >>> evaluate_detections([found], [truth], ["dog"])
    VOCReport: mAP (area) 1.0000, (11-point) 1.0000 at IoU 0.5, 1 image, 1 class
    """
    if metric not in ("voc", "coco", "both"):
        raise DetectError(f"metric: expected voc, coco or both, found {metric!r}; choose one")
    if metric == "coco":
        if iou_thresholds is not None:
            raise DetectError(
                "iou_thresholds: expected none with the metric coco, whose thresholds are fixed, "
                f"found {iou_thresholds}; leave them out, or choose the metric voc or both"
            )
        return _coco_report(detections, truths, class_names)
    voc = VOCEvaluator(class_names, 0.5 if iou_thresholds is None else iou_thresholds)
    voc.update(detections, truths)
    report = voc.compute()
    return report if metric == "voc" else (report, _coco_report(detections, truths, class_names))


def _coco_report(
    detections: Sequence[DetectionsLike], truths: Sequence[TruthLike], class_names: Sequence[str]
) -> COCOReport:
    evaluator = COCOEvaluator(class_names)
    evaluator.update(detections, truths)
    return evaluator.compute()
