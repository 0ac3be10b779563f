"""What `import detect` does: training, evaluation and configs as Python calls. Floor 6."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from detect.cli.train import run_in_folder
from detect.config import Config, DetectionDataSection, resolve
from detect.data import (
    CheckReport,
    DataFaults,
    DataFormat,
    DetectionDataset,
    OnError,
    check_annotated,
    read_annotated,
    write_annotated,
)
from detect.errors import DetectError
from detect.experiment import training
from detect.experiment.datasets import IN_PYTHON
from detect.experiment.evaluation import Evaluation
from detect.experiment.model import Model, load
from detect.registry import hint
from detect.settings import KeyPath, Settings, read_settings

FORMATS: tuple[DataFormat, ...] = ("voc", "coco", "yolo")
SPLITS = ("train", "val", "test")

ConfigSource = str | Path | Mapping[str, Any] | Config


def load_config(config: ConfigSource, **overrides: Any) -> Config:
    """A checked config with a value for every key.

    Args:
        config: the path of a YAML file, the name of a config that comes with the toolkit, or the
            sections as a dict.
        overrides: sections with the keys to change, `training={"epochs": 2}`, or dotted keys in a
            dict, `**{"training.epochs": 2}`.

    Raises:
        DetectError: with every fault.
    """
    if isinstance(config, Config):
        settings, source = Settings(config.as_dict(), {}), "config"
    elif isinstance(config, Mapping):
        settings, source = Settings(_plain(config), {}), "config"
    else:
        settings, source = read_settings(config), str(config)
    for keys, value in _leaves(overrides, ()):
        name = ".".join(keys)
        settings.set(keys, _plain(value), "overrides", name)
    return resolve(settings, source)


def train(
    config: ConfigSource,
    data: DetectionDataset | Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
    **overrides: Any,
) -> Model:
    """Train a detector, judge it, and leave a run folder, as `detect train` does.

    >>> detect.train("yolo_tiny_shapes", training={"epochs": 2})  # doctest: +SKIP

    Args:
        config: see `load_config`.
        data: a data set to train on, or several by `train`, `val` and `test`, or keys of the
            config's section `data`; None reads what the config names.
        out: the run folder; None makes one in `runs/`, named after the config and the time.
        resume: continue the run in `out`, or the newest one of this config.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        progress: whether to print how it goes.
        overrides: see `load_config`.

    Returns:
        The best model of the run; its `evaluation` is that of the test split, or of the validation
        split where there is no other, or None with neither.

    Raises:
        DetectError: anything that a user can fix.
        Interrupted: Ctrl-C or the kernel's stop button; `resume=True` continues.
    """
    splits = None
    if isinstance(data, Mapping) and not any(
        isinstance(given, DetectionDataset) for given in data.values()
    ):
        overrides["data"] = data
    elif data is not None:
        splits = _splits_of(data)
    resolved = load_config(config, **overrides)
    if splits is not None:
        values = resolved.as_dict()
        # without what only the reader of the config's own data takes
        kept = {key: values["data"][key] for key in DetectionDataSection.model_fields}
        names = {f"{name}_split": name if name in splits else None for name in SPLITS}
        values["data"] = {**kept, "kind": IN_PYTHON, "root": "", **names, "classes": "auto"}
        resolved = load_config(values)
    console = Console(quiet=not progress)
    name = Path(config if isinstance(config, str | Path) else resolved.detector["name"])
    with run_in_folder(name, None if out is None else Path(out), resume, console) as folder:
        evaluation = training.train(
            resolved,
            folder,
            resume=resume,
            device=device,
            console=console,
            splits=None if splits is None else {f"{key}_split": splits[key] for key in splits},
        )
    return replace(load(folder, device), evaluation=evaluation)


def evaluate(
    model: Model | str | Path,
    data: DetectionDataset | str | Path | None = None,
    split: str | None = None,
) -> Evaluation:
    """Judge a model, or that of a run or checkpoint; see `Model.evaluate`."""
    if not isinstance(model, Model):
        model = load(model)
    return model.evaluate(data, split)


def check_dataset(
    root: str | Path, splits: Sequence[str] | None = None, kind: str = "auto"
) -> CheckReport:
    """Find what is wrong with a data set, and what is legal but rarely meant: `detect data check`.

    Args:
        root: its folder; of YOLO's format also the YAML file.
        splits: the splits to look at; None for the whole set.
        kind: `voc`, `coco`, `yolo`, or `auto` to find out.

    Raises:
        DetectError: there is no such set or split, or a file of the set as a whole is broken.
    """
    annotated = read_annotated(
        Path(root), splits, data_format=_format_named(kind), with_extras=False
    )
    return check_annotated(annotated, is_whole=splits is None)


def convert_dataset(
    root: str | Path, out: str | Path, to: str, kind: str = "auto", *, on_error: OnError = "stop"
) -> Path:
    """Write a data set in another format: `detect data convert`.

    Args:
        root: its folder; of YOLO's format also the YAML file.
        out: a folder that is empty or not there yet.
        to: `voc`, `coco` or `yolo`.
        kind: the format of `root`, or `auto` to find out.
        on_error: `stop` raises all faults together; `skip` leaves faulty objects and images out.

    Returns:
        `out`, as a path.

    Raises:
        DataFaults: objects or images are faulty, and `on_error` is `stop`.
        DetectError: there is no such set, or the folder cannot be written.
    """
    annotated = read_annotated(Path(root), data_format=_format_named(kind))
    if on_error == "stop" and any(fault.severity == "error" for fault in annotated.faults):
        raise DataFaults(annotated.faults, [Path(root)], is_voc=annotated.data_format == "voc")
    target = _format_named(to)
    if target is None:
        raise DetectError(f"to: expected one of {', '.join(FORMATS)}, found {to!r}")
    write_annotated(annotated, Path(out), target)
    return Path(out)


def _format_named(kind: str) -> DataFormat | None:
    for known in FORMATS:
        if kind == known:
            return known
    if kind != "auto":
        raise DetectError(f"unknown format {kind!r}; {hint(kind, FORMATS)}")
    return None


def _splits_of(
    data: DetectionDataset | Mapping[str, DetectionDataset],
) -> dict[str, DetectionDataset]:
    splits = dict(data) if isinstance(data, Mapping) else {"train": data}
    unknown = [name for name in splits if name not in SPLITS]
    if unknown or "train" not in splits:
        raise DetectError(
            f"data: expected a data set, or a dict with train and, if wanted, val and test, found "
            f"the keys {', '.join(map(str, splits)) or 'of an empty dict'}"
        )
    names = splits["train"].class_names
    for name, dataset in splits.items():
        if dataset.class_names != names:
            raise DetectError(
                f"data: expected the classes of train, {', '.join(names)}, in {name}, found "
                f"{', '.join(dataset.class_names)}"
            )
    return splits


def _leaves(section: Mapping[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """The keys that are set, dotted ones split, each with its value."""
    for key, value in section.items():
        here = (*path, *str(key).split("."))
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, here)
        else:
            yield here, value


def _plain(value: Any) -> Any:
    """The same as YAML has it: dicts, lists, and paths as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else copy.copy(value)
