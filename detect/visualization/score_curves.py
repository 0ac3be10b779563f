"""Precision, recall and F1 of each class over the score, as a figure."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detect.evaluation.analyses.precision_curves import PrecisionCurves, ScoreCurve
from detect.visualization.class_labels import class_labels
from detect.visualization.curves import line_color, save_figure

# Curves of more points than can be told apart are thinned.
MAX_POINTS = 2000

ROWS_OF_LEGEND = 42

LINE_STYLES = ("-", "--", ":")


def draw_score_curves(curves: PrecisionCurves, out: Path, title: str) -> None:
    """Draw precision over recall, and F1, precision and recall over the score threshold.

    A dot marks the best F1 of each class, a vertical line that of all classes together.

    Args:
        curves: of each class and of all classes.
        out: a PNG, PDF or SVG file.
        title: what was judged, such as "shapes test".

    Raises:
        DetectError: `out` has another suffix or cannot be written.
    """
    num_columns = math.ceil((len(curves.classes) + 1) / ROWS_OF_LEGEND)
    figure = Figure(figsize=(10.4 + 2.6 * num_columns, 8.5), layout="constrained")
    panels = figure.subplots(2, 2)
    _draw_panel(panels[0, 0], curves, "recall", "precision")
    _draw_panel(panels[0, 1], curves, "score threshold", "F1")
    _draw_panel(panels[1, 0], curves, "score threshold", "precision")
    _draw_panel(panels[1, 1], curves, "score threshold", "recall")
    best = curves.pooled.at_best()
    if curves.pooled.best is not None:
        score = best["score_threshold"]
        for axes in (panels[0, 1], panels[1, 0], panels[1, 1]):
            axes.axvline(score, color="black", linewidth=0.8, linestyle=":")
        panels[0, 1].set_title(
            f"best F1 of all classes: {best['f1']:.3f} at score ≥ {score:.3g}", fontsize="medium"
        )
    # at the left, where no legend comes, however wide it is
    figure.suptitle(f"{title}, IoU ≥ {curves.iou_threshold:g}", x=0.02, ha="left")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside right upper",
        fontsize="small",
        ncols=num_columns,
        title="F1, at score ≥",
    )
    save_figure(figure, out)


def _draw_panel(axes: Axes, curves: PrecisionCurves, x: str, y: str) -> None:
    names = class_labels(curves.class_names) if len(curves.classes) > 1 else []
    for index, (name, curve) in enumerate(zip(names, curves.classes, strict=False)):
        style: dict[str, Any] = {
            "color": line_color(index),
            "linestyle": LINE_STYLES[index // 10 % 3],
            "linewidth": 1.3,
        }
        _draw_curve(axes, curve, name, x, y, style)
    # a single class is all classes
    pooled = "all classes" if len(curves.classes) != 1 else class_labels(curves.class_names)[0]
    _draw_curve(axes, curves.pooled, pooled, x, y, {"color": "black", "linewidth": 2.4})
    axes.set(xlabel=x, ylabel=y, ylim=(0, 1.03))
    if x == "recall":
        axes.set_xlim(0, 1.02)
    axes.grid(alpha=0.25)


def _draw_curve(
    axes: Axes, curve: ScoreCurve, name: str, x: str, y: str, style: dict[str, Any]
) -> None:
    columns = {
        "recall": curve.recall,
        "precision": curve.precision,
        "F1": curve.f1,
        "score threshold": curve.scores,
    }
    points = _thinned(len(curve.scores), curve.best)
    axes.plot(columns[x][points], columns[y][points], label=_legend(curve, name), **style)
    if curve.best is not None and y == "F1":
        axes.plot(curve.scores[curve.best], curve.f1[curve.best], "o", color=style["color"])


def _legend(curve: ScoreCurve, name: str) -> str:
    if curve.num_objects == 0:
        return f"{name}  no objects"
    if curve.best is None:
        return f"{name}  nothing found"
    return f"{name}  {curve.f1[curve.best]:.2f}, {curve.best_score:.3g}"


def _thinned(count: int, best: int | None) -> Int[np.ndarray, "K"]:
    """The rows to draw: all, or evenly spread ones and the best one."""
    if count <= MAX_POINTS:
        return np.arange(count)
    rows = np.linspace(0, count - 1, MAX_POINTS).astype(np.int64)
    return rows if best is None else np.unique(np.append(rows, best))
