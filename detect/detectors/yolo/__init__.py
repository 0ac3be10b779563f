"""YOLO (Redmon et al. 2016, "You Only Look Once: Unified, Real-Time Object Detection")."""

from detect.detectors.yolo.detector import YOLO
