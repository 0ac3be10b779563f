"""What the trainings of detectors and of classifiers share: device, folder, processes. Floor 4."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from torch import nn

from detect.backbones import Backbone
from detect.config import Experiment, load_experiment
from detect.data import CachedSamples, SampleSource
from detect.errors import DetectError
from detect.files import write_text
from detect.training import (
    CheckpointFolder,
    Phase,
    Processes,
    TrainingRun,
    joined_processes,
    load_checkpoint,
    local_rank,
    record_start,
    save_checkpoint,
    synchronize_batch_norm,
)
from detect.wording import counted, duration

# The folder of a run that holds its checkpoints.
CHECKPOINTS = "checkpoints"

# Settings of which a run may be continued with others: they change the result by rounding at most.
FREE_SETTINGS = (
    "data.cache",
    "data.num_workers",
    "data.image_cache",
    "detector.feature_budget",
    "detector.feature_cache",
    "engine.checkpoint_minutes",
    "engine.checkpoint_steps",
    "engine.keep",
    "engine.on_nan",
)


@contextmanager
def running(config: Experiment, console: Console | None) -> Iterator[tuple[Processes, Console]]:
    """A training: the processes that take it, and where this one may talk.

    Raises:
        DetectError: another process of the run failed.
    """
    with joined_processes() as processes:
        if console is None or not processes.is_first:
            console = Console(quiet=True)
        with _deterministic_algorithms(config.engine_settings.deterministic):
            yield processes, console


def choose_device(name: str) -> torch.device:
    """`auto` (CUDA if there is any), `cpu`, `cuda` or `cuda:1`.

    Of several processes on a machine, `auto` and `cuda` give each a device of its own.

    Raises:
        DetectError: a device that is not here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and local_rank() is not None:
        name = f"cuda:{local_rank()}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DetectError(f"device: expected auto, cpu, cuda or cuda:N, found {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DetectError(
            f"device: {name} was asked for, and the number of CUDA devices is "
            f"{torch.cuda.device_count()}; 'detect doctor' tells more"
        )
    return device


def describe_device(device: torch.device) -> str:
    """`cuda:0 (NVIDIA …)` or `cpu (2 threads)`."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({counted(torch.get_num_threads(), 'thread')})"


def complete_run(run: TrainingRun, phases: Sequence[Phase], resume: bool) -> None:
    """Run the phases that are left and put the model into its best state, that of `best.pt`.

    Args:
        run: of the model.
        phases: all of them.
        resume: take up the state of the run's folder first, if there is one.
    """
    if resume:
        run.resume()
    begin = time.monotonic()
    run.run(phases)
    run.display.say(f"Trained in {duration(time.monotonic() - begin)}; the run is in {run.folder}")
    with run.processes.first_alone():
        # no evaluation chose one: it is the last
        if run.evaluate is None or not run.best.exists():
            save_checkpoint(run.best, {**run.identity, run.kind: run.model.state_dict()})
        run.model.load_state_dict(load_checkpoint(run.best)[run.kind])


def record_run(
    folder: Path, config: Experiment, device: torch.device, processes: Processes
) -> None:
    """Write `config.yaml`, resolved, into a run folder, and this start into `starts.jsonl`."""
    if not processes.is_first:
        return
    record_start(folder / "starts.jsonl", device, processes.count)
    text = yaml.safe_dump(config.as_dict(), sort_keys=False, allow_unicode=True)
    write_text(folder / "config.yaml", text)


def prepare_run(
    config: Experiment,
    folder: Path,
    resume: bool,
    device: str,
    console: Console,
    processes: Processes,
) -> torch.device:
    """Check that a run may use its folder, and settle on its device.

    Raises:
        DetectError: the folder has another run, the device is not here, or the images of a step
            cannot be shared by the processes.
    """
    with processes.first_alone():
        _check_folder(config, folder, resume, console)
    _check_shares(config, processes)
    target = choose_device(device)
    if target.type == "cpu":
        _share_cores(config.data.num_workers)
    else:
        torch.cuda.set_device(target)
    together = f", {counted(processes.count, 'process')}" if processes.count > 1 else ""
    console.print(f"Device: {describe_device(target)}{together}")
    return target


def _check_shares(config: Experiment, processes: Processes) -> None:
    for phase in config.phase_names:
        size = config.settings_of(phase).batch_size
        if size % processes.count:
            raise DetectError(
                f"training.batch_size: expected a multiple of the {processes.count} processes, "
                f"since it counts the images of a step over all of them, found {size} for "
                f"{phase}"
            )


def _share_cores(num_workers: int) -> None:
    # Threads of torch that share a core with a loader worker wait for one another: measured on two
    # cores, training is up to ten times slower than with a core for each.
    torch.set_num_threads(max(1, torch.get_num_threads() - num_workers))


def cached(samples: SampleSource, config: Experiment) -> SampleSource:
    """Training images, kept in memory as far as `data.image_cache` goes."""
    num_bytes = round(config.data.image_cache * 2**30)
    return CachedSamples(samples, num_bytes) if num_bytes else samples


def memory_format(config: Experiment) -> torch.memory_format:
    """The layout of maps: channels last is what convolutions are fastest in, on CPUs and GPUs."""
    return torch.channels_last if config.engine_settings.channels_last else torch.contiguous_format


def start_engine(model: nn.Module, config: Experiment, processes: Processes) -> None:
    """Prepare a model for a training as the config's `engine` section says."""
    engine = config.engine_settings
    if engine.sync_batch_norm and processes.count > 1:
        synchronize_batch_norm(model)
    for module in model.modules():
        if isinstance(module, Backbone):
            module.is_recomputed = engine.gradient_checkpointing
            if engine.compile:
                module.compile_layers()
    if processes.count > 1:
        # as alone until here: now each draws dropout, regions and anchors of its own
        torch.manual_seed(config.seed + 1_000_003 * processes.rank)


@contextmanager
def _deterministic_algorithms(is_on: bool) -> Iterator[None]:
    """Within it, torch refuses operations that differ from run to run, if that is wanted.

    Raises:
        DetectError: one of the operations knows no other way.
    """
    if not is_on:
        yield
        return
    # what cuBLAS needs for it, read when it starts
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    was_on = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise DetectError(
            f"engine.deterministic: {str(error).splitlines()[0]}. Take engine.deterministic=false: "
            "the order of the data stays the same, results differ by rounding"
        ) from error
    finally:
        torch.use_deterministic_algorithms(was_on)


def _check_folder(config: Experiment, folder: Path, resume: bool, console: Console) -> None:
    checkpoints = CheckpointFolder(folder / CHECKPOINTS)
    if not checkpoints.has_state():
        return
    if not resume:
        raise DetectError(
            f"{folder}: there is a run in this folder already; continue it with --resume, or name "
            "another folder with --out"
        )
    newest = checkpoints.load_newest(console.print)
    assert newest is not None
    _refuse_changes(
        newest[1]["config"],
        config,
        f"{folder}: the run to be continued was begun with other settings. Take them back, or "
        "start again with another --out:",
    )


def is_finished(config: Experiment, folder: Path, console: Console) -> bool:
    """Whether a folder holds the results of a run with these settings, which need no training.

    Raises:
        DetectError: its results, or the state of an unfinished run, are of other settings.
    """
    if not (folder / "evaluation.json").exists():
        _check_folder(config, folder, True, console)
        return False
    stored, _ = load_experiment(folder / "config.yaml", (), type(config))
    _refuse_changes(
        stored.as_dict(),
        config,
        f"{folder}: holds the results of a run with other settings. Take them back, give another "
        "--out, or delete the folder to train again:",
    )
    console.print(
        f"{folder}: trained already with these settings; its results are reused",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return True


def _refuse_changes(stored: dict[str, Any], config: Experiment, message: str) -> None:
    before, now = _flat(stored), _flat(config.as_dict())
    changed = [
        f"\n  {key}: {_as_yaml(before.get(key))} before, {_as_yaml(now.get(key))} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key not in FREE_SETTINGS
    ]
    if changed:
        raise DetectError(message + "".join(changed))


def _as_yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000)
    return text.removesuffix("...\n").strip()


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
