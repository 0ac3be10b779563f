"""`detect train` and `detect pretrain`."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from detect.config import Config, Experiment, PretrainConfig, describe, load_experiment
from detect.errors import DetectError, Interrupted
from detect.experiment.pretraining import pretrain
from detect.experiment.run import CHECKPOINTS
from detect.experiment.training import train
from detect.training import Processes, joined_processes
from detect.visualization import draw_curves

RUNS = Path("runs")


def run_training(
    config_file: str | Path,
    overrides: Sequence[str] = (),
    *,
    classifier: bool = False,
    out: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    print_config: bool = False,
    console: Console,
) -> None:
    """Train a detector, or a backbone as a classifier; print how good it is, draw the curves."""
    kind: type[Experiment] = PretrainConfig if classifier else Config
    config, origins = load_experiment(config_file, overrides, kind)
    if print_config:
        console.print(describe(config, origins), markup=False, highlight=False, soft_wrap=True)
        return
    with run_in_folder(Path(config_file), out, resume, console) as folder:
        if isinstance(config, PretrainConfig):
            accuracy = pretrain(config, folder, resume=resume, device=device, console=console)
            tables = [] if accuracy is None else [accuracy.table()]
        else:
            assert isinstance(config, Config)
            judged = train(config, folder, resume=resume, device=device, console=console)
            tables = [] if judged is None else judged.tables()
    for table in tables:
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
