"""All analyses of the detections of a split at once: what is wrong with them, and how much."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from detect.errors import DetectError
from detect.evaluation.analyses.calibration import CalibrationReport, measure_calibration
from detect.evaluation.analyses.confusion_matrix import ConfusionMatrix, measure_confusion
from detect.evaluation.analyses.hoiem import HoiemReport, hoiem_groups
from detect.evaluation.analyses.precision_curves import PrecisionCurves, measure_score_curves
from detect.evaluation.analyses.recall import DetectionRecall, measure_detection_recall
from detect.evaluation.analyses.size_groups import SizeReport, coco_size_groups, hoiem_size_groups
from detect.evaluation.analyses.tide import TIDEReport, tide_errors
from detect.evaluation.files.detection_set import DetectionSet, flat_detections
from detect.evaluation.flat import FlatDetections, FlatObjects
from detect.evaluation.judged import check_iou_threshold
from detect.structures import GroundTruth


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """The result of all analyses.

    Attributes:
        num_images: images, those without objects included.
        num_objects: objects to be found.
        num_difficult: objects that are marked difficult.
        num_detections: in all classes.
        score_curves: precision, recall and F1 over the score.
        confusion: at the score threshold that was asked for, or that of the best F1.
        tide: by VOC's matching.
        tide_release: by the rules of TIDE's release.
        hoiem: the groups of the best detections.
        sizes: AP by COCO's groups.
        relative_sizes: AP by Hoiem's groups.
        recall: over the number of detections of an image.
        calibration: None where the scores are no probabilities.
        notes: what was left out, and why.
    """

    num_images: int
    num_objects: int
    num_difficult: int
    num_detections: int
    score_curves: PrecisionCurves
    confusion: ConfusionMatrix
    tide: TIDEReport
    tide_release: TIDEReport
    hoiem: HoiemReport
    sizes: SizeReport
    relative_sizes: SizeReport
    recall: DetectionRecall
    calibration: CalibrationReport | None
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the keys are stable, and a number that is not there is None."""
        return {
            "num_images": self.num_images,
            "num_objects": self.num_objects,
            "num_difficult": self.num_difficult,
            "num_detections": self.num_detections,
            "score_thresholds": self.score_curves.as_dict(),
            "precision_recall": self.score_curves.precision_recall(),
            "confusion_matrix": self.confusion.as_dict(),
            "tide": self.tide.as_dict(),
            "tide_release": self.tide_release.as_dict(),
            "hoiem": self.hoiem.as_dict(),
            "sizes": self.sizes.as_dict(),
            "relative_sizes": self.relative_sizes.as_dict(),
            "recall": self.recall.as_dict(),
            "calibration": None if self.calibration is None else self.calibration.as_dict(),
            "notes": list(self.notes),
        }

    def tables(self) -> list[Table]:
        """For the terminal."""
        tables = [
            *self.tide.tables(),
            self.hoiem.table(),
            self.score_curves.table(),
            self.confusion.table(),
            self.sizes.table(),
            self.relative_sizes.table(),
            self.recall.table(),
        ]
        return tables if self.calibration is None else [*tables, self.calibration.table()]


def analyze_detections(
    detections: DetectionSet,
    class_names: Sequence[str],
    image_ids: Sequence[str],
    truths: Sequence[GroundTruth],
    *,
    iou_threshold: float = 0.5,
    score_threshold: float | None = None,
    similar_classes: Iterable[Sequence[str]] | None = None,
) -> Analysis:
    """Analyze detections from anywhere.

    Args:
        detections: what was found; an image of the split without an entry has no detections.
        class_names: the classes of the truths.
        image_ids: the images of the split.
        truths: the objects of each of these images, difficult ones included.
        iou_threshold: the least IoU of a true positive. TIDE and Hoiem's groups keep to the 0.5
            of their papers.
        score_threshold: of the confusion matrix; None takes that of the best F1 of all classes.
        similar_classes: as `hoiem_groups` takes them.

    Raises:
        DetectError: a class or an image of the detections is not among the given ones, or a
            threshold is out of its range.
    """
    check_iou_threshold(iou_threshold)
    found, objects = flat_detections(detections, class_names, image_ids, truths)
    curves = measure_score_curves(found, objects, class_names, iou_threshold)
    calibration, notes = _calibration(found, objects, class_names, iou_threshold)
    num_difficult = int(objects.difficult.sum())
    return Analysis(
        num_images=len(image_ids),
        num_objects=len(objects.labels) - num_difficult,
        num_difficult=num_difficult,
        num_detections=len(found.labels),
        score_curves=curves,
        confusion=measure_confusion(
            found,
            objects,
            class_names,
            _score_threshold(curves) if score_threshold is None else score_threshold,
            iou_threshold,
        ),
        tide=tide_errors(found, objects, class_names),
        tide_release=tide_errors(found, objects, class_names, protocol="release"),
        hoiem=hoiem_groups(found, objects, class_names, similar_classes),
        sizes=coco_size_groups(found, objects, class_names, iou_threshold),
        relative_sizes=hoiem_size_groups(found, objects, class_names, iou_threshold),
        recall=measure_detection_recall(found, objects, len(image_ids)),
        calibration=calibration,
        notes=notes,
    )


def _score_threshold(curves: PrecisionCurves) -> float:
    best = curves.pooled.best_score
    return 0.0 if math.isnan(best) else best


def _calibration(
    detections: FlatDetections,
    objects: FlatObjects,
    class_names: Sequence[str],
    iou_threshold: float,
) -> tuple[CalibrationReport | None, tuple[str, ...]]:
    """The calibration, or the reason why there is none: the other analyses need none."""
    try:
        return measure_calibration(detections, objects, class_names, iou_threshold), ()
    except DetectError as error:
        return None, (f"left out: {error}",)
