"""The detectors, by name. Floor 3."""

from detect.detectors.base import DETECTORS, Detector, evaluating, predict
from detect.detectors.yolo import YOLO

__all__ = ["DETECTORS", "YOLO", "Detector", "evaluating", "predict"]
