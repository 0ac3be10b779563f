"""A reliability diagram as a figure: precision and number of detections over the score."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detect.evaluation.analyses.calibration import CalibrationReport, Reliability
from detect.evaluation.numbers import as_text
from detect.visualization.class_labels import class_labels
from detect.visualization.curves import line_color, save_figure

# With more classes than this, their lines hide one another; the bars of all classes stay.
MAX_CLASSES = 10


def draw_reliability(report: CalibrationReport, out: Path, title: str) -> None:
    """Draw the precision of each bin of scores against the diagonal of perfect calibration.

    Bars are those of all classes together; classes are lines where there are a few.

    Args:
        report: of calibration.
        out: a PNG, PDF or SVG file.
        title: what was judged.

    Raises:
        DetectError: `out` has another suffix or cannot be written.
    """
    figure = Figure(figsize=(10.5, 7.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    pooled = report.pooled
    width = 1 / len(pooled.counts)
    starts = np.arange(len(pooled.counts)) * width
    upper.plot([0, 1], [0, 1], "--", color="gray", label="perfect calibration")
    heights = np.nan_to_num(pooled.precision)
    upper.bar(
        starts, heights, width, align="edge", color="tab:blue", alpha=0.55, edgecolor="white",
        label=f"all classes, D-ECE {as_text(pooled.expected_error, 3)}",
    )  # fmt: skip
    if 1 < len(report.classes) <= MAX_CLASSES:
        for index, (name, entry) in enumerate(
            zip(class_labels(report.class_names), report.classes, strict=True)
        ):
            _draw_class(upper, index, name, entry)
    upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="precision")
    figure.legend(loc="outside right upper", fontsize="small")
    lower.bar(starts, pooled.counts, width, align="edge", color="tab:gray", edgecolor="white")
    lower.set(xlabel="score", ylabel="detections")
    if pooled.counts.max(initial=0) > 20 * max(np.median(pooled.counts), 1):
        lower.set_yscale("log")
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
    figure.suptitle(f"{title}, IoU ≥ {report.iou_threshold:g}")
    save_figure(figure, out)


def _draw_class(axes: Axes, index: int, name: str, entry: Reliability) -> None:
    filled = entry.counts > 0
    axes.plot(
        entry.mean_scores[filled],
        entry.precision[filled],
        ".-",
        color=line_color(index),
        linewidth=1,
        label=f"{name}, {entry.expected_error:.3f}" if filled.any() else f"{name}, no detections",
    )
