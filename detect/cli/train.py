"""`detect train`."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from detect.config import describe, load_config
from detect.errors import DetectError, Interrupted
from detect.experiment.run import CHECKPOINTS
from detect.experiment.training import train
from detect.training import Processes, joined_processes
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
    with run_in_folder(config_file, out, resume, console) as folder:
        evaluation = train(config, folder, resume=resume, device=device, console=console)
    for table in [] if evaluation is None else evaluation.tables():
        console.print(table)


@contextmanager
def run_in_folder(
    config_file: Path, out: Path | None, resume: bool, console: Console
) -> Iterator[Path]:
    """The folder of a run, whose curves are drawn when its training ends or is interrupted.

    Several processes have the same folder; the first one draws. A run that trains nothing has no
    curves.
    """
    with joined_processes() as processes:
        folder = out or processes.gather(run_folder(config_file.stem, resume))[0]
        console.print(f"Run folder: {folder}", highlight=False)
        try:
            yield folder
        except Interrupted:
            _draw_curves(folder, processes)
            raise
        _draw_curves(folder, processes)


def _draw_curves(folder: Path, processes: Processes) -> None:
    metrics = folder / "metrics.jsonl"
    if processes.is_first and metrics.exists() and metrics.stat().st_size > 0:
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
