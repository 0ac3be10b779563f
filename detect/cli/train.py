"""`detect train`."""

import time
from collections.abc import Sequence
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
    metrics = folder / "metrics.jsonl"
    try:
        evaluation = train(config, folder, resume=resume, device=device, console=console)
    except Interrupted:
        if metrics.exists() and metrics.stat().st_size > 0:
            draw_curves(metrics, folder / "curves.png")
        raise
    draw_curves(metrics, folder / "curves.png")
    for table in [] if evaluation is None else evaluation.tables():
        console.print(table)


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
