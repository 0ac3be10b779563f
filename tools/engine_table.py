"""What each key of speed and memory does to a training: time, memory and mAP, run by run."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

# What is on by default or in the config, turned off; each run then turns on one key.
OFF = ("engine.channels_last=false", "backbone.freeze=[batch_norm]")
VARIANTS = (
    "off",
    "engine.channels_last=true",
    "engine.precision=mixed",
    "engine.compile=true",
    "engine.gradient_checkpointing=true",
    "training.accumulate=4",
    "training.ema_decay=0.99",
    "backbone.freeze=[batch_norm,C3]",
    "data.image_cache=1",
)


def print_engine_table(
    config: Path, overrides: list[str], out: Path, only: list[str] | None
) -> None:
    """Train once with each key; print a row of Markdown for each.

    Times are of the training phase: elapsed, and of the processor, which others on the machine
    disturb less (that of the whole run, evaluation included). Memory is the most that the process
    had.
    """
    print("| on | elapsed | of the processor | memory | mAP (area) |\n|---|---|---|---|---|")
    for key in VARIANTS:
        if only and key != "off" and not any(name in key for name in only):
            continue
        folder = out / key.partition("=")[0].replace(".", "_")
        settings = [*OFF, *overrides, *([] if key == "off" else [key])]
        seconds, processor = train(config, folder, settings)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        phases = [line for line in lines if line["kind"] == "phase"]
        memory = max(line["peak_memory_mib"] or 0 for line in phases)
        score = json.loads((folder / "evaluation.json").read_text())["map_area"]
        trained = sum(line["seconds"] for line in phases)
        print(
            f"| {key} | {trained:.0f} s of {seconds:.0f} | {processor:.0f} s | {memory} MiB | "
            f"{score:.3f} |",
            flush=True,
        )


def train(config: Path, folder: Path, settings: list[str]) -> tuple[float, float]:
    """Run a training in a process of its own; seconds elapsed, and of the processor."""
    command = [sys.executable, "-m", "detect", "train", str(config), *settings]
    begin = time.perf_counter()
    process = subprocess.Popen([*command, "--out", str(folder)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}")
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime
