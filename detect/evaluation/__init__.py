"""Judging detections: metrics and their reports, analyses, and detections on disk. Floor 2."""

from detect.evaluation.analyses.analysis import Analysis, analyze_detections
from detect.evaluation.analyses.bootstrap import (
    BootstrapReport,
    ConfidenceInterval,
    bootstrap_detections,
    bootstrap_map,
)
from detect.evaluation.analyses.calibration import CalibrationReport, measure_calibration
from detect.evaluation.analyses.confusion_matrix import ConfusionMatrix, measure_confusion
from detect.evaluation.analyses.hoiem import HoiemReport, hoiem_groups
from detect.evaluation.analyses.precision_curves import PrecisionCurves, measure_score_curves
from detect.evaluation.analyses.recall import DetectionRecall, measure_detection_recall
from detect.evaluation.analyses.significance import (
    MetricComparison,
    RunComparison,
    compare_detections,
    compare_runs,
)
from detect.evaluation.analyses.size_groups import SizeReport, coco_size_groups, hoiem_size_groups
from detect.evaluation.analyses.tide import TIDEReport, tide_errors
from detect.evaluation.coco import COCOEvaluator
from detect.evaluation.coco_report import COCOProtocol, COCOReport
from detect.evaluation.contract import Evaluator, Report, reports_as_dict
from detect.evaluation.evaluate import Metric, evaluate_detections
from detect.evaluation.files.coco_results import COCOResults, read_coco_results, write_coco_results
from detect.evaluation.files.comp4 import (
    ReadDetections,
    read_voc_detections,
    write_voc_detections,
)
from detect.evaluation.files.csv import (
    CSV_COLUMNS,
    read_detections_csv,
    write_detections_csv,
)
from detect.evaluation.files.detection_files import (
    read_detections,
    read_detections_json,
    write_detections_json,
)
from detect.evaluation.files.detection_set import (
    DetectionSet,
    evaluate_detection_set,
    flat_detections,
)
from detect.evaluation.fusion import FUSION_IOU, fuse_detections
from detect.evaluation.report import ClassReport, ThresholdReport, VOCProtocol, VOCReport
from detect.evaluation.tasks.classification import ClassificationEvaluator, ClassificationReport
from detect.evaluation.tasks.localization import LocalizationEvaluator, LocalizationReport
from detect.evaluation.tasks.pose import PoseEvaluator, PoseReport
from detect.evaluation.voc import VOCEvaluator
