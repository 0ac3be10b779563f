"""Precision over recall of each class as a figure: a panel for each."""

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detect.evaluation.analyses.precision_curves import PrecisionCurves, ScoreCurve
from detect.evaluation.numbers import as_text, mean_of_defined
from detect.visualization.class_labels import class_labels
from detect.visualization.curves import save_figure

# Inches: a few panels share this width, and many are no narrower than a class name of small print.
FIGURE_WIDTH, LEAST_PANEL_WIDTH, GREATEST_PANEL_WIDTH = 14.0, 1.5, 4.5


def draw_precision_recall(curves: PrecisionCurves, out: Path, title: str) -> None:
    """Draw the precision-recall curve of each class in a panel of its own, with its AP.

    The filled area is that under the monotone curve, which is the AP of VOC 2010 and later; the
    line is the precision as it is.

    Args:
        curves: of each class.
        out: a PNG, PDF or SVG file.
        title: what was judged, such as "shapes test".

    Raises:
        DetectError: `out` has another suffix or cannot be written.
    """
    count = max(len(curves.classes), 1)
    num_columns = min(count, math.ceil(math.sqrt(1.3 * count)))
    num_rows = math.ceil(count / num_columns)
    width = min(max(FIGURE_WIDTH / num_columns, LEAST_PANEL_WIDTH), GREATEST_PANEL_WIDTH)
    size = (max(num_columns * width, 6.0), num_rows * (0.8 * width + 0.3) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False).flat
    print_size = min(10.0, 5.5 + width)  # points
    labels = class_labels(curves.class_names)
    entries = zip(labels, curves.classes, curves.average_precision, strict=True)
    for axes, (name, curve, average_precision) in zip(panels, entries, strict=False):
        _draw_curve(axes, curve)
        if curve.num_objects == 0:
            axes.text(0.5, 0.5, "no objects", ha="center", va="center", fontsize=print_size)
        axes.set_title(f"{name}\nAP {as_text(average_precision, 3)}", fontsize=print_size)
        axes.tick_params(labelsize=print_size)
    for axes in panels[len(curves.classes) :]:
        axes.axis("off")
    panels[0].set(xlim=(0, 1.02), ylim=(0, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    mean = as_text(mean_of_defined(curves.average_precision), 3)
    figure.suptitle(f"{title}, IoU ≥ {curves.iou_threshold:g}: mAP (area) {mean}")
    figure.supxlabel("recall", fontsize="medium")
    figure.supylabel("precision", fontsize="medium")
    save_figure(figure, out)


def _draw_curve(axes: Axes, curve: ScoreCurve) -> None:
    axes.grid(alpha=0.25)
    if curve.num_objects == 0 or not len(curve.recall):
        return
    # from recall 0 on, where the precision is that of the first detection
    recall = np.append(0.0, curve.recall)
    best = curve.interpolated(recall)
    axes.fill_between(recall, best, step="pre", color="tab:blue", alpha=0.2, linewidth=0)
    axes.plot(recall, np.append(curve.precision[0], curve.precision), linewidth=1.2)
