"""The detectors, by name. Floor 3."""

from detect.detectors.base import DETECTORS, Detector, evaluating, list_detectors, predict
from detect.detectors.fast_rcnn import FastRCNN
from detect.detectors.faster_rcnn import FasterRCNN
from detect.detectors.localizer import Localizer
from detect.detectors.rcnn import RCNN
from detect.detectors.sliding_window import SlidingWindow
from detect.detectors.yolo import YOLO
