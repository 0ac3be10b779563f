"""Recall over the number of detections of an image, as a figure."""

from pathlib import Path

from matplotlib.figure import Figure

from detect.evaluation.analyses.recall import DetectionRecall
from detect.visualization.curves import save_figure


def draw_recall(recall: DetectionRecall, out: Path, title: str) -> None:
    """Draw recall at two IoU thresholds and the average recall.

    Args:
        recall: over the number of detections.
        out: a PNG, PDF or SVG file.
        title: what was judged.

    Raises:
        DetectError: `out` has another suffix or cannot be written.
    """
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    for values, color, style, label in (
        (recall.recall(0.5), "tab:blue", ".-", "recall, IoU 0.5"),
        (recall.recall(0.75), "tab:orange", ".-", "recall, IoU 0.75"),
        (recall.average_recall, "black", ".--", "average recall, IoU 0.5 to 0.95"),
    ):
        axes.plot(recall.limits, values, style, color=color, label=label)
    axes.set(
        xscale="log",
        ylim=(0, 1.02),
        xlabel="detections of an image, at most",
        ylabel="share of objects",
        title=title,
    )
    # the last limit is any number, so the one before may be too near to be labeled as well
    ticks = [limit for limit in recall.limits if not 0.8 < limit / recall.limits[-1] < 1]
    axes.set_xticks(ticks, [f"{limit:,}" for limit in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right")
    save_figure(figure, out)
