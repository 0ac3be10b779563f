"""Hoiem's groups of the best detections as a figure: a pie of all, a bar for each class."""

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detect.evaluation.analyses.hoiem import GROUPS, HoiemReport
from detect.visualization.class_labels import class_labels
from detect.visualization.curves import save_figure

COLORS = dict(
    zip(GROUPS, ("tab:green", "tab:orange", "tab:purple", "tab:pink", "lightgray"), strict=True)
)

# A share below this has no room for its number in a bar.
LEAST_LABELED_SHARE = 0.05


def draw_hoiem(report: HoiemReport, out: Path, title: str) -> None:
    """Draw the mean shares as a pie, as in figure 4 of the YOLO paper, and those of each class.

    Args:
        report: Hoiem's groups.
        out: a PNG, PDF or SVG file.
        title: what was judged.

    Raises:
        DetectError: `out` has another suffix or cannot be written.
    """
    height = max(4.4, 1.6 + 0.3 * len(report.class_names))
    figure = Figure(figsize=(13, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    _draw_pie(left, report.mean_shares)
    _draw_bars(right, report)
    figure.suptitle(f"{title}: the N best detections of a class with N objects")
    save_figure(figure, out)


def _draw_pie(axes: Axes, shares: dict[str, float]) -> None:
    axes.set_title("mean over the classes", fontsize="medium")
    if math.isnan(shares[GROUPS[0]]):
        axes.text(0.5, 0.5, "no detections", ha="center", transform=axes.transAxes)
        axes.axis("off")
        return
    wedges = axes.pie(
        list(shares.values()),
        colors=[COLORS[group] for group in shares],
        startangle=90,
        counterclock=False,
        wedgeprops={"edgecolor": "white"},
    )[0]
    # in a legend, small shares side by side don't write over one another
    labels = [f"{group}  {share:.1%}" for group, share in shares.items()]
    axes.legend(wedges, labels, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=2)


def _draw_bars(axes: Axes, report: HoiemReport) -> None:
    labels = class_labels(report.class_names)
    for row, name in enumerate(report.class_names):
        start = 0.0
        for group, share in report.shares(name).items():
            if math.isnan(share):
                continue
            axes.barh(row, share, left=start, color=COLORS[group], edgecolor="white")
            if share >= LEAST_LABELED_SHARE:
                text = f"{100 * share:.0f}"
                axes.text(start + share / 2, row, text, ha="center", va="center", fontsize=8)
            start += share
    counts = [sum(report.counts[name].values()) for name in report.class_names]
    names = [f"{label}  ({count})" for label, count in zip(labels, counts, strict=True)]
    axes.set_yticks(range(len(names)), names, fontsize="small")
    bottom = max(len(names), 1) - 0.5
    axes.set(xlim=(0, 1), ylim=(bottom, -0.5), xlabel="share of these detections, in %")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
