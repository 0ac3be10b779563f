"""Runs side by side: how exact and how fast each is, and what its time goes into."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from detect.visualization.curves import save_figure

PART_COLORS = {"proposals": "tab:orange", "network": "tab:blue", "post-processing": "tab:gray"}

Run = tuple[str, float, Mapping[str, float]]


def draw_comparison(runs: Sequence[Run], out: Path, title: str) -> None:
    """Draw mAP over the time of an image, and the parts of that time.

    Args:
        runs: of each the name, mAP in 0…1, and the seconds an image by part.
        out: a PNG, PDF or SVG file.
        title: what was measured and where.

    Raises:
        DetectError: `out` has another suffix.
    """
    figure = Figure(figsize=(11, 4.5 + 0.2 * len(runs)), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_exactness(left, runs)
    _draw_parts(right, runs)
    figure.suptitle(title)
    save_figure(figure, out)


def _draw_exactness(axes: Axes, runs: Sequence[Run]) -> None:
    totals = [1000 * sum(seconds.values()) for _, _, seconds in runs]
    for (name, score, _), total in zip(runs, totals, strict=True):
        (point,) = axes.plot([total], [score], "o", markersize=8)
        axes.annotate(
            name,
            (total, score),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            color=point.get_color(),
        )
    axes.set(xscale="log", ylim=(0, 1.05), xlabel="milliseconds an image", ylabel="mAP, area")
    # at least a factor of four, so that numbers stand at the axis and names beside the points fit
    axes.set_xlim(min(totals) / 2, 2 * max(totals))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)


def _draw_parts(axes: Axes, runs: Sequence[Run]) -> None:
    names = [name for name, _, _ in runs]
    begins = [0.0] * len(runs)
    for part, color in PART_COLORS.items():
        shares = [
            seconds.get(part, 0.0) / max(sum(seconds.values()), 1e-12) for _, _, seconds in runs
        ]
        axes.barh(names, shares, left=begins, color=color, label=part)
        begins = [begin + share for begin, share in zip(begins, shares, strict=True)]
    for row, (_, _, seconds) in enumerate(runs):
        axes.text(1.01, row, f"{1000 * sum(seconds.values()):.3g} ms", va="center")
    axes.set(xlim=(0, 1.18), xlabel="share of the time of an image")
    axes.invert_yaxis()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.1), ncols=3, frameon=False)
