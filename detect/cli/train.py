"""`detect train`."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from detect.config import describe, load_config
from detect.errors import DetectError, Interrupted
from detect.experiment import CHECKPOINTS, train
from detect.visualization import draw_curves

RUNS = Path("runs")


def run_training(
    config_file: Path,
    overrides: Sequence[str],
    out: Path | None,
    resume: bool,
    device: str,
    print_config: bool,
    console: Console,
) -> None:
    """Train, print the table, draw the curves."""
    config, origins = load_config(config_file, overrides)
    if print_config:
        console.print(describe(config, origins), markup=False, highlight=False, soft_wrap=True)
        return
    folder = out or run_folder(config_file.stem, resume)
    console.print(f"Run folder: {folder}", highlight=False)
    with drawing_curves(folder):
        evaluation = train(config, folder, resume=resume, device=device, console=console)
    for table in [] if evaluation is None else evaluation.tables():
        console.print(table)


@contextmanager
def drawing_curves(folder: Path) -> Iterator[None]:
    """Draw the curves of the run in `folder` when its training ends or is interrupted.

    A run that trains nothing has none.
    """
    try:
        yield
    except Interrupted:
        _draw_curves(folder)
        raise
    _draw_curves(folder)


def _draw_curves(folder: Path) -> None:
    metrics = folder / "metrics.jsonl"
    if metrics.exists() and metrics.stat().st_size > 0:
        draw_curves(metrics, folder / "curves.png")


def run_folder(name: str, resume: bool) -> Path:
    """A new folder for a run of the config of that name, or that of the newest one to resume."""
    if not resume:
        return RUNS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    runs = sorted(
        RUNS.glob(f"{name}-*/{CHECKPOINTS}/last.pt"), key=lambda file: file.stat().st_mtime
    )
    if not runs:
        raise DetectError(
            f"--resume: there is no run of this config in {RUNS}/; name its folder with --out"
        )
    return runs[-1].parent.parent
