"""Fast R-CNN."""

from detect.detectors.fast_rcnn.detector import FastRCNN
