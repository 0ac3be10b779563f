"""Faster R-CNN."""

from detect.detectors.faster_rcnn.detector import FasterRCNN
from detect.detectors.faster_rcnn.source import RPNProposals
