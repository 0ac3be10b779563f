"""`detect ablation`: what each part of R-CNN is worth on one's own data."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from detect.backbones import create_backbone
from detect.cli.screen import say
from detect.config import Config, load_config
from detect.configs import name_of
from detect.detectors.rcnn.features import first_fully_connected
from detect.errors import DetectError
from detect.experiment.datasets import read_split, sources
from detect.experiment.evaluation import evaluate
from detect.experiment.model import load
from detect.experiment.run import is_finished
from detect.experiment.training import train
from detect.files import read_json, write_json
from detect.forecast import in_turn

# The names of the paper (table 2) for the layers.
PAPER_NAMES = {"trunk": "pool5", "fc6": "fc6", "head": "fc7"}


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        layer: whose features are scored.
        finetuned: whether the network was tuned on windows first.
        scores: SVMs or softmax.
        plain: mAP area without box regression.
        regressed: and with it; None where there is none.
    """

    layer: str
    finetuned: bool
    scores: str
    plain: float
    regressed: float | None


def run_ablation(
    config_file: Path,
    overrides: Sequence[str],
    out: Path,
    *,
    json_file: Path | None = None,
    device: str = "auto",
    console: Console,
) -> None:
    """Train what is not there yet, judge each with and without its parts, print the table."""
    config, _ = load_config(config_file, overrides)
    if config.detector["name"] != "rcnn":
        raise DetectError(
            f"{name_of(config_file)}: the table is of R-CNN's parts; expected detector.name rcnn, "
            f"found '{config.detector['name']}'"
        )
    rows = list(_rows(config_file, overrides, config, out, device, console))
    console.print(_table(rows, config))
    target = json_file or out / "ablation.json"
    write_json(target, [row._asdict() for row in rows])
    say(console, f"Report: {target}")


def _rows(
    config_file: Path,
    overrides: Sequence[str],
    config: Config,
    out: Path,
    device: str,
    console: Console,
) -> Iterator[Row]:
    tuned = out / "head-finetuned"
    layers = _layers(config)
    # the one that tunes the network first; the others begin with its weights
    runs = [(tuned, "head", True), *((out / layer, layer, False) for layer in layers)]
    runs += [(out / f"{layer}-finetuned", layer, True) for layer in layers if layer != "head"]
    found: dict[tuple[str, bool], Row] = {}
    planned = {}
    for folder, layer, is_tuned in runs:  # all are checked before the first is trained
        settings = {"feature_layer": layer, "svm": True, "box_regression": True}
        changes: list[str] = []
        if folder != tuned:
            settings["finetune"] = False
            if is_tuned:
                changes.append(f"initial_weights={tuned}")
        changes += [f"detector.{key}={str(value).lower()}" for key, value in settings.items()]
        own, _ = load_config(config_file, [*overrides, *changes])
        name = f"{PAPER_NAMES[layer]}{', fine-tuned' if is_tuned else ''}: {folder}"
        planned[name] = (folder, layer, is_tuned, own, is_finished(own, folder, console))
    for name, run in in_turn(planned, "runs to train and judge", partial(say, console)):
        folder, layer, is_tuned, own, finished = run
        if not finished:
            console.rule(name.partition(":")[0])
            train(own, folder, resume=True, device=device, console=console)
        regressed = float(read_json(folder / "evaluation.json")["map_area"])
        plain = _judge(folder, device, ["detector.box_regression=false"], console)
        found[layer, is_tuned] = Row(layer, is_tuned, "SVM", plain, regressed)
    for is_tuned in (False, True):
        yield from (found[layer, is_tuned] for layer in layers)
    off = ["detector.svm=false", "detector.box_regression=false"]
    yield Row("head", True, "softmax", _judge(tuned, device, off, console), None)


def _layers(config: Config) -> list[str]:
    section = config.backbone
    head = create_backbone(section.name, image_size=section.image_size).head
    has_two = first_fully_connected(head) is not None
    return ["trunk", *(["fc6"] if has_two else []), "head"]


def _judge(folder: Path, device: str, overrides: Sequence[str], console: Console) -> float:
    name = "evaluation-" + "-".join(o.split(".")[-1].replace("=false", "") for o in overrides)
    file = folder / f"{name}-off.json"
    if not file.exists():
        model = load(folder, device, overrides)
        split = "test_split" if sources(model.config, "test_split") else "val_split"
        dataset = read_split(model.config, split, Console(quiet=True), model.class_names)
        with console.status(f"Judging {folder} with {' '.join(overrides)}"):
            report = evaluate(model.detector, dataset, model.config, model.device)
        write_json(file, report.as_dict())
    return float(read_json(file)["map_area"])


def _table(rows: Sequence[Row], config: Config) -> Table:
    weights = config.backbone.weights
    origin = "random weights" if weights == "none" else f"the weights {weights}"
    table = Table(
        title="Table 2 of Girshick et al. 2014 on these data: mAP area",
        caption=f"Without fine-tuning, features are those of {origin}.",
    )
    for name in ("features", "fine-tuned", "scores"):
        table.add_column(name)
    for name in ("without", "with box regression"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            f"{PAPER_NAMES[row.layer]} ({row.layer})",
            "yes" if row.finetuned else "no",
            row.scores,
            _percent(row.plain),
            "–" if row.regressed is None else _percent(row.regressed),
        )
    return table


def _percent(value: Any) -> str:
    return f"{100 * value:.1f} %"
