"""Figures for people: boxes drawn on images, contact sheets and curves. Floor 5."""

from detect.visualization.comparison import draw_comparison
from detect.visualization.confusion import draw_confusion
from detect.visualization.contact_sheet import contact_sheet, save_image
from detect.visualization.curves import draw_curves
from detect.visualization.detection_groups import draw_hoiem
from detect.visualization.drawing import (
    class_color,
    crop_detections,
    draw_detections,
    draw_truth,
)
from detect.visualization.error_types import draw_tide
from detect.visualization.precision_recall import draw_precision_recall
from detect.visualization.recall_curve import draw_recall
from detect.visualization.reliability import draw_reliability
from detect.visualization.score_curves import draw_score_curves
