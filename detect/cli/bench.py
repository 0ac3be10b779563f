"""`detect bench`: time parts of the toolkit beside other libraries."""

from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from detect.benchmarks import benchmark_table, named_benchmarks
from detect.cli.screen import say
from detect.errors import DetectError
from detect.experiment.run import choose_device, describe_device
from detect.files import write_json
from detect.forecast import in_turn

# What a figure depends on, by the names to install.
LIBRARIES = ("torch", "torchvision", "numpy", "pycocotools", "faster-coco-eval", "torchmetrics")


def run_benchmarks(
    name: str, device: str, repeats: int, small: bool, json_file: Path | None, console: Console
) -> None:
    """Run one benchmark, or all, print tables and write the report.

    Raises:
        DetectError: there is no such benchmark, a rival is not installed, or results differ.
    """
    if repeats < 1:
        raise DetectError(f"--repeats: expected at least 1, found {repeats}")
    chosen = named_benchmarks(name)
    target = choose_device(device)
    report: dict[str, Any] = {
        "device": describe_device(target),
        "threads": torch.get_num_threads(),
        "versions": _versions(),
        "repeats": repeats,
        "small": small,
        "benchmarks": {},
    }
    console.print(
        f"{report['device']}, torch {torch.__version__}; medians of {repeats}, contenders in turn",
        highlight=False,
    )
    for title, run in in_turn(chosen, "benchmarks", partial(say, console)):
        with console.status(f"Running the benchmark {title}"):
            rows = run(device, repeats, small)
        console.print(benchmark_table(title, rows))
        report["benchmarks"][title] = rows
    if small:
        console.print("--small is for trying it out: its figures say nothing about speed")
    if json_file is not None:
        write_json(json_file, report)
        say(console, f"Report: {json_file}")


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
