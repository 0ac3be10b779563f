"""Pictures for people: boxes drawn on photographs, contact sheets and curves. Floor 5."""

from detect.visualization.comparison import draw_comparison
from detect.visualization.contact_sheet import contact_sheet, save_picture
from detect.visualization.curves import draw_curves, draw_precision_recall
from detect.visualization.drawing import (
    class_color,
    crop_detections,
    draw_detections,
    draw_truth,
)

__all__ = [
    "class_color",
    "contact_sheet",
    "crop_detections",
    "draw_comparison",
    "draw_curves",
    "draw_detections",
    "draw_precision_recall",
    "draw_truth",
    "save_picture",
]
