"""TIDE's errors as a figure: what each type costs, and how often it occurs."""

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detect.evaluation.analyses.tide import ERROR_TYPES, SPECIAL_ERRORS, TIDEReport
from detect.evaluation.numbers import as_text
from detect.visualization.curves import save_figure

COLORS = dict(
    zip(
        ERROR_TYPES,
        ("tab:red", "tab:orange", "tab:purple", "tab:olive", "tab:gray", "tab:blue"),
        strict=True,
    )
)


def draw_tide(report: TIDEReport, out: Path, title: str) -> None:
    """Draw dAP of the six types and of the two special errors, and the number of errors.

    Args:
        report: of TIDE.
        out: a PNG, PDF or SVG file.
        title: what was judged.

    Raises:
        DetectError: `out` has another suffix or cannot be written.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    names = [*ERROR_TYPES, *SPECIAL_ERRORS]
    # nan, where no class has objects, is no bar
    costs = [0.0 if math.isnan(report.delta[name]) else report.delta[name] for name in names]
    places = [*range(len(ERROR_TYPES)), len(ERROR_TYPES) + 0.6, len(ERROR_TYPES) + 1.6]
    colors = [COLORS.get(name, "black") for name in names]
    _draw_bars(left, places, names, costs, colors, [as_text(report.delta[name]) for name in names])
    left.set_xlabel("dAP: mAP gained by fixing errors of this type alone")
    left.axhline(len(ERROR_TYPES) - 0.2, color="gray", linewidth=0.8)
    counts = [sum(report.counts[name]) for name in ERROR_TYPES]
    _draw_bars(
        right,
        places[: len(counts)],
        list(ERROR_TYPES),
        counts,
        colors[: len(counts)],
        [f"{count:,}" for count in counts],
    )
    right.set_xlabel("number of errors")
    figure.suptitle(
        f"{title}: mAP {as_text(report.average_precision)}, TIDE with t_f "
        f"{report.foreground_threshold:g}, t_b {report.background_threshold:g}"
    )
    save_figure(figure, out)


def _draw_bars(
    axes: Axes,
    places: list[float],
    names: list[str],
    values: list[float] | list[int],
    colors: list[str],
    texts: list[str],
) -> None:
    axes.barh(places, values, color=colors)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    greatest = max(values) or 1
    axes.set_xlim(0, 1.22 * greatest)  # with room for the numbers
    for place, value, text in zip(places, values, texts, strict=True):
        axes.text(value + 0.02 * greatest, place, text, va="center")
    axes.grid(alpha=0.25, axis="x")
    axes.set_axisbelow(True)
