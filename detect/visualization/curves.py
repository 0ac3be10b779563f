"""The curves of a run and of its evaluation, as figures."""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detect.errors import DetectError
from detect.files import replacing
from detect.visualization.drawing import class_color

# The loss is drawn on a log scale where its greatest value is this many times its smallest.
LOG_SCALE_FROM = 20.0

# From so many points on, the loss is smoothed; the raw values stay visible behind.
SMOOTH_FROM = 60

# Scores of evaluation lines: the quantity, the name in the legend, color and marker.
SCORES = {
    "map_area": ("mAP", "mAP, area", "tab:blue", "o"),
    "map_11point": ("mAP", "mAP, 11-point", "tab:orange", "s"),
    "top1": ("accuracy", "top-1 accuracy", "tab:blue", "o"),
    "top5": ("accuracy", "top-5 accuracy", "tab:orange", "s"),
}

SUFFIXES = (".png", ".pdf", ".svg")


def draw_curves(metrics_file: Path, out: Path) -> None:
    """Draw a run's `metrics.jsonl`: loss with its terms, scores and learning rate over the steps.

    Phases follow each other on the axis of steps, whether or not their own count starts over. Steps
    that a continued run has repeated are drawn once, as they came out last. A line that cannot be
    read, as a killed run leaves it, is left out; the figure says how many were.

    Args:
        metrics_file: one JSON object a line. Training lines have `kind` "train", `phase`, `step`,
            `loss` and may have `terms` (name → value) and `learning_rate`; evaluation lines have
            `kind` "evaluation", `phase`, `step` and scores of `SCORES`. Other kinds are
            passed over.
        out: a PNG, PDF or SVG file.

    Raises:
        DetectError: the file is missing or has no line of metrics, or `out` has another suffix.
    """
    phases, num_unreadable = _read_phases(metrics_file)
    figure = Figure(figsize=(9, 9), layout="constrained")
    loss_axes, score_axes, rate_axes = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    _draw_loss(loss_axes, phases)
    _draw_scores(score_axes, phases)
    _draw_learning_rate(rate_axes, phases)
    for axes in (loss_axes, score_axes, rate_axes):
        _mark_phases(axes, phases, named=axes is loss_axes)
        axes.grid(alpha=0.25)
    rate_axes.set_xlabel("step")
    if num_unreadable:
        figure.supxlabel(f"{num_unreadable} unreadable line(s) left out", fontsize="small")
    save_figure(figure, out)


# --- reading -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Phase:
    """The lines of one phase; `offset` is added to their steps to place them on the axis."""

    name: str
    train: list[dict[str, Any]] = field(default_factory=list)
    evaluation: list[dict[str, Any]] = field(default_factory=list)
    offset: int = 0

    def add(self, line: dict[str, Any]) -> None:
        """Append a line; a step that comes back takes the place of all from that step on."""
        lines = self.train if line["kind"] == "train" else self.evaluation
        while lines and lines[-1]["step"] >= line["step"]:
            lines.pop()
        lines.append(line)

    def steps(self, lines: Sequence[dict[str, Any]]) -> list[int]:
        return [line["step"] + self.offset for line in lines]

    @property
    def first_step(self) -> int:
        return min(int(lines[0]["step"]) for lines in (self.train, self.evaluation) if lines)

    @property
    def last_step(self) -> int:
        return max(int(lines[-1]["step"]) for lines in (self.train, self.evaluation) if lines)


def _read_phases(metrics_file: Path) -> tuple[list[_Phase], int]:
    """The phases in order, placed on the axis, and the number of lines that cannot be read."""
    try:
        content = metrics_file.read_bytes()
    except OSError as error:
        raise DetectError(
            f"{metrics_file}: cannot be read: {error.strerror or error}; "
            "expected the metrics.jsonl of a run"
        ) from error
    phases: dict[str, _Phase] = {}
    num_unreadable = 0
    for text in content.splitlines():
        if not text.strip():
            continue
        line = _parsed(text)
        if line is None:
            num_unreadable += 1
        elif line["kind"] in ("train", "evaluation"):
            phases.setdefault(line["phase"], _Phase(line["phase"])).add(line)
    if not phases:
        raise DetectError(
            f"{metrics_file}: expected lines of metrics, found none "
            f"({num_unreadable} line(s) cannot be read); train the run first"
        )
    ordered = list(phases.values())
    for before, after in itertools.pairwise(ordered):
        if not after.train:  # it took no step: it was judged where the one before ended
            after.offset = before.offset
        elif after.first_step <= before.last_step + before.offset:  # its count starts over
            after.offset = before.last_step + before.offset
    return ordered, num_unreadable


def _parsed(text: bytes) -> dict[str, Any] | None:
    """One line, or None if it is torn or lacks what every line has."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    if not isinstance(line, dict) or not isinstance(line.get("kind"), str):
        return None
    line = {"phase": "train", "terms": {}} | line
    if line["kind"] in ("train", "evaluation") and not (
        isinstance(line.get("step"), int)
        and isinstance(line["phase"], str)
        and isinstance(line["terms"], dict)
    ):
        return None
    return line


def _values(lines: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    """The numbers under `name`, nan where there is none; nan and infinite losses are null."""
    numbers = (line.get(name) for line in lines)
    return np.array([float(n) if isinstance(n, int | float) else math.nan for n in numbers])


# --- panels --------------------------------------------------------------------------------------


def _draw_loss(axes: Axes, phases: Sequence[_Phase]) -> None:
    names = list(dict.fromkeys(name for phase in phases for name in _term_names(phase)))
    everything = [_values(phase.train, "loss") for phase in phases]
    for phase, losses in zip(phases, everything, strict=True):
        _draw_smoothed(axes, phase.steps(phase.train), losses, "black", "total", 2.0)
        if len(_term_names(phase)) < 2:
            continue  # the only term is the total
        terms = [line["terms"] for line in phase.train]
        for name in _term_names(phase):
            color = line_color(names.index(name))
            _draw_smoothed(axes, phase.steps(phase.train), _values(terms, name), color, name, 1.2)
    losses = np.concatenate(everything)
    losses = losses[np.isfinite(losses)]
    if losses.size and losses.min() > 0 and losses.max() >= LOG_SCALE_FROM * losses.min():
        axes.set_yscale("log")
    axes.set_ylabel("loss")
    _add_legend(axes, "upper right", ncols=1 + len(names) // 7)


def _draw_scores(axes: Axes, phases: Sequence[_Phase]) -> None:
    drawn = []
    for phase in phases:
        for name, (quantity, label, color, marker) in SCORES.items():
            values = _values(phase.evaluation, name)
            if np.isfinite(values).any():
                steps = phase.steps(phase.evaluation)
                axes.plot(steps, values, color=color, marker=marker, markersize=4, label=label)
                drawn.append(quantity)
    if not axes.lines:
        axes.text(0.5, 0.5, "no evaluation yet", transform=axes.transAxes, ha="center")
    axes.set(ylabel=", ".join(dict.fromkeys(drawn)) or "score", ylim=(0, 1))
    _add_legend(axes, "lower right")


def _draw_learning_rate(axes: Axes, phases: Sequence[_Phase]) -> None:
    for phase in phases:
        axes.plot(
            phase.steps(phase.train), _values(phase.train, "learning_rate"), color="tab:green"
        )
    axes.set(ylabel="learning rate")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


def _draw_smoothed(
    axes: Axes, steps: Sequence[int], values: np.ndarray, color: Any, label: str, width: float
) -> None:
    """Draw a line; one of many points as its running mean, before the faint raw values."""
    if np.isfinite(values).sum() < 2:
        axes.plot(steps, values, color=color, marker=".", label=label)
        return
    if len(values) < SMOOTH_FROM:
        axes.plot(steps, values, color=color, linewidth=width, label=label)
        return
    axes.plot(steps, values, color=color, linewidth=0.6, alpha=0.25)
    window = len(values) // (SMOOTH_FROM // 2) | 1  # odd, so that it has a middle
    known = np.isfinite(values)
    weights = np.convolve(known, np.ones(window), mode="same")
    sums = np.convolve(np.where(known, values, 0), np.ones(window), mode="same")
    means = np.where(known, sums / np.maximum(weights, 1), math.nan)
    axes.plot(steps, means, color=color, linewidth=width, label=label)


def _mark_phases(axes: Axes, phases: Sequence[_Phase], *, named: bool) -> None:
    """Draw a border before each phase but the first, and the names above if there are several."""
    if len(phases) < 2:
        return
    start = 0
    for index, phase in enumerate(phases):
        if index > 0:
            axes.axvline(start, color="gray", linestyle="--", linewidth=1)
        if named:
            place = axes.get_xaxis_transform()  # steps along, shares of the panel upward
            axes.text(start, 1.02, f" {phase.name}", transform=place, color="gray", clip_on=False)
        start = phase.last_step + phase.offset


def _term_names(phase: _Phase) -> list[str]:
    return list(dict.fromkeys(name for line in phase.train for name in line["terms"]))


def _add_legend(
    axes: Axes, location: Literal["upper right", "lower right"], ncols: int = 1
) -> None:
    """A legend with each label once, however many phases drew it."""
    handles, labels = axes.get_legend_handles_labels()
    by_label = {label: handle for handle, label in zip(handles, labels, strict=True)}
    if by_label:
        axes.legend(
            list(by_label.values()), list(by_label), loc=location, fontsize="small", ncols=ncols
        )


def line_color(index: int) -> tuple[float, float, float]:
    """The color of class `index`, darker, since it stands on white paper."""
    red, green, blue = class_color(index)
    return 0.8 * red / 255, 0.8 * green / 255, 0.8 * blue / 255


def save_figure(figure: Figure, out: Path) -> None:
    """Write a figure as the suffix of its file says.

    Raises:
        DetectError: a suffix other than those of `SUFFIXES`.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise DetectError(
            f"{out}: expected a file with the suffix {', '.join(SUFFIXES)}, "
            f"found {out.suffix or 'none'!r}; name it otherwise"
        )
    with replacing(out) as temporary:
        figure.savefig(temporary, format=out.suffix.lower()[1:], dpi=120)
