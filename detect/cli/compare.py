"""`detect compare`: detectors of any family side by side, in one table and one image."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from detect.cli.screen import say
from detect.cli.train import run_in_folder
from detect.config import load_config
from detect.configs import SUFFIXES, find_config, name_of, shipped_folders
from detect.data import DetectionDataset, fit_to_input, read_dataset
from detect.detectors import predict
from detect.detectors.stages import measured_stages
from detect.errors import DetectError
from detect.evaluation.files.detection_set import first_repeated
from detect.experiment.datasets import read_split, sources
from detect.experiment.evaluation import evaluate
from detect.experiment.model import Model, load
from detect.experiment.run import describe_device, is_finished
from detect.experiment.training import train
from detect.files import read_json, write_json
from detect.forecast import in_turn
from detect.structures import Batch
from detect.training import read_journal
from detect.visualization import draw_comparison
from detect.wording import counted, duration

# Images that are looked at before the clock starts: the first ones compile and allocate.
NUM_WARM = 2
MEGABYTE = 1e6


@dataclass(frozen=True)
class Entry:
    """What is reported of one run.

    Attributes:
        name: of the run's folder.
        detector: of the registry.
        backbone: of the registry.
        map_area: of the common images.
        map_11point: of the same.
        seconds: an image, by part: the median over the images that were timed.
        num_parameters: of the detector.
        cache_bytes: that the training kept on the disk at most, features and proposals.
        training_seconds: of all phases; None where the run does not tell.
    """

    name: str
    detector: str
    backbone: str
    map_area: float
    map_11point: float
    seconds: Mapping[str, float]
    num_parameters: int
    cache_bytes: int
    training_seconds: float | None

    @property
    def total_seconds(self) -> float:
        """An image."""
        return sum(self.seconds.values())


def run_comparison(
    runs: Sequence[str],
    out: Path,
    *,
    data: Path | None = None,
    split: str | None = None,
    num_images: int = 40,
    device: str = "auto",
    console: Console,
) -> None:
    """Train what is to be trained, judge and time each run, print the table, draw the picture.

    Args:
        runs: folders or checkpoints of detectors; configs, or folders of configs, to be trained
            first; and KEY=VALUE over the settings of those configs.
        out: folder of the table, the picture and the runs that are trained.
        data: folder of a data set to judge all on; None takes the test split of each run, which
            must have the same images.
        split: of that folder.
        num_images: that are timed.
        device: see `choose_device`.
        console: where the table is printed.

    Raises:
        DetectError: an option or a config is at fault, or the runs have different images.
    """
    if (data is None) != (split is None):
        raise DetectError("--data and --split go together: give both, or neither")
    overrides = [name for name in runs if "=" in name and not Path(name).exists()]
    paths = list(_paths([name for name in runs if name not in overrides]))
    if not paths:
        raise DetectError("expected at least one run or config, found settings alone")
    tell = partial(say, console)
    configs = {p: load_config(p, overrides)[0] for p in paths if p.suffix in SUFFIXES}
    if (name := first_repeated([path.stem for path in configs])) is not None:
        raise DetectError(f"{name}: two configs have this name, and so {out / name}; rename one")
    # all are checked before the first is trained
    to_train = {
        str(path): path
        for path, config in configs.items()
        if not is_finished(config, out / path.stem, console)
    }
    for _, path in in_turn(to_train, "configs to train", tell):
        console.rule(name_of(path))
        with run_in_folder(path, out / path.stem, True, console) as folder:
            train(configs[path], folder, resume=True, device=device, console=console)
    folders = [out / path.stem if path in configs else path for path in paths]
    entries: list[Entry] = []
    images: list[str] | None = None
    for _, folder in in_turn({str(path): path for path in folders}, "runs to judge and time", tell):
        model = load(folder, device)
        dataset = _images(model, data, split)
        if images is not None and images != _fingerprint(dataset):
            raise DetectError(
                f"{folder}: its test split has other images, objects or classes than that of "
                f"{folders[0]}; give --data ROOT and --split NAME to judge all on the same"
            )
        images = _fingerprint(dataset)
        with console.status(f"Judging {folder}"):
            entries.append(_judge(folder, model, dataset, num_images, own=data is None))
    used = describe_device(model.device)
    console.print(_table(entries, len(images or ()), used))
    report = {
        "device": used,
        "torch": torch.__version__,
        "runs": [asdict(entry) | {"total_seconds": entry.total_seconds} for entry in entries],
    }
    write_json(out / "comparison.json", report)
    draw_comparison(
        [(entry.name, entry.map_area, entry.seconds) for entry in entries],
        out / "comparison.png",
        f"{used}, one image at a time",
    )
    say(console, f"Report: {out / 'comparison.json'}, image: {out / 'comparison.png'}")


def _paths(names: Sequence[str]) -> Iterator[Path]:
    for name in names:
        path = Path(name)
        folder = path if path.is_dir() else shipped_folders().get(name, path)
        if folder.is_dir() and not (folder / "checkpoints").is_dir():
            configs = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)
            if not configs:
                raise DetectError(
                    f"{path}: expected a run (with checkpoints/), or a folder of configs, found "
                    "neither"
                )
            yield from configs
        else:
            yield folder if folder.is_dir() else find_config(name)


def _images(model: Model, data: Path | None, split: str | None) -> DetectionDataset:
    if data is not None and split is not None:
        return read_dataset(data, split, classes=model.class_names)
    if not sources(model.config, "test_split"):
        raise DetectError(
            "data.test_split of a run is null: give --data ROOT and --split NAME to judge all on "
            "the same images"
        )
    found = read_split(model.config, "test_split", Console(quiet=True), model.class_names)
    if found.skeleton is not None:
        raise DetectError("expected images with boxes, found images with joints")
    return found


def _fingerprint(dataset: DetectionDataset) -> list[str]:
    return [
        f"{name} {truth.boxes.tolist()} {[dataset.class_names[n] for n in truth.labels]}"
        for name, truth in zip(dataset.image_ids, dataset.truths, strict=True)
    ]


def _judge(
    folder: Path, model: Model, dataset: DetectionDataset, num_timed: int, *, own: bool
) -> Entry:
    kept = folder / "evaluation.json"
    if own and kept.exists():
        report = read_json(kept)
    else:
        report = evaluate(model.detector, dataset, model.config, model.device).as_dict()
    lines = list(read_journal(folder / "metrics.jsonl"))
    phases = [line for line in lines if line["kind"] == "phase"]
    return Entry(
        folder.name if folder.is_dir() else folder.stem,
        model.config.detector["name"],
        model.config.backbone.name,
        float(report["map_area"]),
        float(report["map_11point"]),
        {name: float(np.median(s)) for name, s in time_parts(model, dataset, num_timed).items()},
        sum(parameter.numel() for parameter in model.detector.parameters()),
        sum(line.get("cache_bytes", 0) for line in lines),
        sum(line["seconds"] for line in phases) if phases else None,
    )


def time_parts(model: Model, dataset: DetectionDataset, count: int) -> dict[str, list[float]]:
    """Seconds of each part of a detection in `count` images of the set, one after another."""
    rows = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int).tolist()
    times: dict[str, list[float]] = {"proposals": [], "network": [], "post-processing": []}
    for row in [*rows[:1] * NUM_WARM, *rows]:
        sample = fit_to_input(dataset[row], model.detector.input_spec)
        batch = Batch.from_samples([replace(sample, proposals=None)]).to(model.device)
        with measured_stages() as seconds:
            predict(model.detector, batch)
        for name, values in times.items():
            values.append(seconds.get(name, 0.0))
    return {name: values[NUM_WARM:] for name, values in times.items()}


def _table(entries: Sequence[Entry], num_images: int, device: str) -> Table:
    # a column for each run: the rows are many and the terminal may be narrow
    table = Table(
        title=f"{counted(num_images, 'image')}; PASCAL VOC protocol",
        caption=f"Times are medians of one image at a time on {device}, without reading it.",
    )
    table.add_column("")
    for entry in entries:
        table.add_column(entry.name, justify="right", overflow="fold")
    for name, show in ROWS.items():
        table.add_row(name, *(show(entry) for entry in entries))
    return table


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"


def _cache_size(entry: Entry) -> str:
    return f"{entry.cache_bytes / MEGABYTE:,.1f} MB" if entry.cache_bytes else "–"


def _training_time(entry: Entry) -> str:
    return "–" if entry.training_seconds is None else duration(entry.training_seconds)


ROWS: dict[str, Callable[[Entry], str]] = {
    "detector": lambda entry: entry.detector,
    "backbone": lambda entry: entry.backbone,
    "mAP, area": lambda entry: f"{entry.map_area:.3f}",
    "mAP, 11-point": lambda entry: f"{entry.map_11point:.3f}",
    "proposals, ms": lambda entry: _milliseconds(entry.seconds["proposals"]),
    "network, ms": lambda entry: _milliseconds(entry.seconds["network"]),
    "post-proc., ms": lambda entry: _milliseconds(entry.seconds["post-processing"]),
    "an image, ms": lambda entry: _milliseconds(entry.total_seconds),
    "parameters": lambda entry: f"{entry.num_parameters / 1e6:.2f} M",
    "caches": _cache_size,
    "trained in": _training_time,
}
