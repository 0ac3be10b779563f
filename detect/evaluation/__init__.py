"""Judging detections: the metrics of VOC and COCO, their reports, detections on disk. Floor 2."""

from detect.evaluation.average_precision import (
    average_precision_11point,
    average_precision_area,
    precision_recall,
)
from detect.evaluation.bootstrap import BootstrapReport, ConfidenceInterval, bootstrap_map
from detect.evaluation.classification import ClassificationEvaluator, ClassificationReport
from detect.evaluation.coco import COCOEvaluator
from detect.evaluation.coco_report import COCOProtocol, COCOReport
from detect.evaluation.coco_results import COCOResults, read_coco_results, write_coco_results
from detect.evaluation.csv_files import (
    CSV_COLUMNS,
    read_detections_csv,
    write_detections_csv,
)
from detect.evaluation.detection_files import (
    read_detections,
    read_detections_json,
    write_detections_json,
)
from detect.evaluation.detection_set import DetectionSet, evaluate_detections
from detect.evaluation.localization import LocalizationEvaluator, LocalizationReport
from detect.evaluation.pose import PoseEvaluator, PoseReport
from detect.evaluation.report import ClassReport, ThresholdReport, VOCProtocol, VOCReport
from detect.evaluation.significance import (
    MetricComparison,
    RunComparison,
    compare_detections,
    compare_runs,
)
from detect.evaluation.voc import VOCEvaluator
from detect.evaluation.voc_files import (
    ReadDetections,
    read_voc_detections,
    write_voc_detections,
)

__all__ = [
    "CSV_COLUMNS",
    "BootstrapReport",
    "COCOEvaluator",
    "COCOProtocol",
    "COCOReport",
    "COCOResults",
    "ClassReport",
    "ClassificationEvaluator",
    "ClassificationReport",
    "ConfidenceInterval",
    "DetectionSet",
    "LocalizationEvaluator",
    "LocalizationReport",
    "MetricComparison",
    "PoseEvaluator",
    "PoseReport",
    "ReadDetections",
    "RunComparison",
    "ThresholdReport",
    "VOCEvaluator",
    "VOCProtocol",
    "VOCReport",
    "average_precision_11point",
    "average_precision_area",
    "bootstrap_map",
    "compare_detections",
    "compare_runs",
    "evaluate_detections",
    "precision_recall",
    "read_coco_results",
    "read_detections",
    "read_detections_csv",
    "read_detections_json",
    "read_voc_detections",
    "write_coco_results",
    "write_detections_csv",
    "write_detections_json",
    "write_voc_detections",
]
