"""Regions with CNN features: R-CNN (Girshick et al. 2014)."""

from detect.detectors.rcnn.detector import RCNN
