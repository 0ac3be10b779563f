"""`detect pretrain`."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from detect.cli.train import run_in_folder
from detect.config import PretrainConfig, describe, load_experiment
from detect.experiment.pretraining import pretrain


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
    with run_in_folder(config_file, out, resume, console) as folder:
        report = pretrain(config, folder, resume=resume, device=device, console=console)
    if report is not None:
        console.print(report.table())
