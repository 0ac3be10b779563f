"""Judging detections: metrics and their reports, analyses, and detections on disk. Floor 2."""

from detect.evaluation.analysis import Analysis, analyze_detections
from detect.evaluation.average_precision import (
    average_precision_11point,
    average_precision_area,
    precision_recall,
)
from detect.evaluation.bootstrap import (
    BootstrapReport,
    ConfidenceInterval,
    bootstrap_detections,
    bootstrap_map,
)
from detect.evaluation.calibration import CalibrationReport, measure_calibration
from detect.evaluation.classification import ClassificationEvaluator, ClassificationReport
from detect.evaluation.coco import COCOEvaluator
from detect.evaluation.coco_report import COCOProtocol, COCOReport
from detect.evaluation.coco_results import COCOResults, read_coco_results, write_coco_results
from detect.evaluation.confusion_matrix import ConfusionMatrix, measure_confusion
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
from detect.evaluation.detection_recall import DetectionRecall, measure_detection_recall
from detect.evaluation.detection_set import DetectionSet, evaluate_detections, flat_detections
from detect.evaluation.hoiem import HoiemReport, hoiem_groups
from detect.evaluation.localization import LocalizationEvaluator, LocalizationReport
from detect.evaluation.pose import PoseEvaluator, PoseReport
from detect.evaluation.precision_curves import PrecisionCurves, measure_score_curves
from detect.evaluation.report import ClassReport, ThresholdReport, VOCProtocol, VOCReport
from detect.evaluation.significance import (
    MetricComparison,
    RunComparison,
    compare_detections,
    compare_runs,
)
from detect.evaluation.size_groups import SizeReport, coco_size_groups, hoiem_size_groups
from detect.evaluation.tide import TIDEReport, tide_errors
from detect.evaluation.voc import VOCEvaluator
from detect.evaluation.voc_files import (
    ReadDetections,
    read_voc_detections,
    write_voc_detections,
)

__all__ = [
    "CSV_COLUMNS",
    "Analysis",
    "BootstrapReport",
    "COCOEvaluator",
    "COCOProtocol",
    "COCOReport",
    "COCOResults",
    "CalibrationReport",
    "ClassReport",
    "ClassificationEvaluator",
    "ClassificationReport",
    "ConfidenceInterval",
    "ConfusionMatrix",
    "DetectionRecall",
    "DetectionSet",
    "HoiemReport",
    "LocalizationEvaluator",
    "LocalizationReport",
    "MetricComparison",
    "PoseEvaluator",
    "PoseReport",
    "PrecisionCurves",
    "ReadDetections",
    "RunComparison",
    "SizeReport",
    "TIDEReport",
    "ThresholdReport",
    "VOCEvaluator",
    "VOCProtocol",
    "VOCReport",
    "analyze_detections",
    "average_precision_11point",
    "average_precision_area",
    "bootstrap_detections",
    "bootstrap_map",
    "coco_size_groups",
    "compare_detections",
    "compare_runs",
    "evaluate_detections",
    "flat_detections",
    "hoiem_groups",
    "hoiem_size_groups",
    "measure_calibration",
    "measure_confusion",
    "measure_detection_recall",
    "measure_score_curves",
    "precision_recall",
    "read_coco_results",
    "read_detections",
    "read_detections_csv",
    "read_detections_json",
    "read_voc_detections",
    "tide_errors",
    "write_coco_results",
    "write_detections_csv",
    "write_detections_json",
    "write_voc_detections",
]
