"""A confusion matrix as a figure: what objects of each class were found as."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from detect.evaluation.analyses.confusion_matrix import ConfusionMatrix
from detect.visualization.class_labels import class_labels
from detect.visualization.curves import save_figure

# Inches of a cell: numbers of four digits fit, and a matrix of 80 classes stays readable.
CELL_SIZE, SMALL_CELL_SIZE = 0.48, 0.2
MAX_CLASSES_WITH_NUMBERS = 40


def draw_confusion(matrix: ConfusionMatrix, out: Path, title: str) -> None:
    """Draw the matrix: numbers, and as colors their shares of the row.

    The colors of the last row are shares of all detections of the background.

    Args:
        matrix: objects in rows, detections in columns.
        out: a PNG, PDF or SVG file.
        title: what was judged.

    Raises:
        DetectError: `out` has another suffix or cannot be written.
    """
    counts = np.array(matrix.counts)
    side = len(counts)
    with_numbers = side <= MAX_CLASSES_WITH_NUMBERS
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    extent = max(side * (CELL_SIZE if with_numbers else SMALL_CELL_SIZE), 3.2)
    figure = Figure(figsize=(extent + 3.4, extent + 2.6), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)  # type: ignore[call-arg, union-attr]
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    labels = class_labels(matrix.names)
    size = "small" if with_numbers else 5
    axes.set_xticks(range(side), labels, rotation=90, fontsize=size)
    axes.set_yticks(range(side), labels, fontsize=size)
    # the background belongs to no class: a line sets it apart
    axes.axhline(side - 1.5, color="gray", linewidth=0.8)
    axes.axvline(side - 1.5, color="gray", linewidth=0.8)
    axes.set(xlabel="detections", ylabel="objects")
    if with_numbers:
        for row, column in zip(*counts.nonzero(), strict=True):
            axes.text(
                column,
                row,
                _short_number(int(counts[row, column])),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if shares[row, column] > 0.55 else "black",
            )
    figure.colorbar(image, ax=axes, label="share of the row", fraction=0.046, pad=0.02)
    figure.suptitle(
        f"{title}\nscore ≥ {matrix.score_threshold:.3g}, IoU ≥ {matrix.iou_threshold:g}",
        fontsize="medium",
    )
    save_figure(figure, out)


def _short_number(number: int) -> str:
    return str(number) if number < 10_000 else f"{number / 1000:.0f}k"
