"""`detect pretrain`."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from detect.cli.train import run_folder
from detect.config import PretrainConfig, describe, load_experiment
from detect.errors import Interrupted
from detect.pretraining import pretrain
from detect.visualization import draw_curves


def run_pretraining(
    config_file: Path,
    overrides: Sequence[str],
    out: Path | None,
    resume: bool,
    device: str,
    print_config: bool,
    console: Console,
) -> None:
    """Train a classifier, print its accuracy, draw the curves."""
    config, origins = load_experiment(config_file, overrides, PretrainConfig)
    if print_config:
        console.print(describe(config, origins), markup=False, highlight=False, soft_wrap=True)
        return
    folder = out or run_folder(config_file.stem, resume)
    console.print(f"Run folder: {folder}", highlight=False)
    metrics = folder / "metrics.jsonl"
    try:
        report = pretrain(config, folder, resume=resume, device=device, console=console)
    except Interrupted:
        if metrics.exists() and metrics.stat().st_size > 0:
            draw_curves(metrics, folder / "curves.png")
        raise
    draw_curves(metrics, folder / "curves.png")
    if report is not None:
        console.print(report.table())
