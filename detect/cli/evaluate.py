"""`detect evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from detect.config import Config
from detect.data import ClassNames, DataFormat, VOCDataset, VOCSource, read_data
from detect.errors import DetectError
from detect.evaluation import (
    VOCReport,
    evaluate_detections,
    read_detections,
    write_detections_json,
    write_voc_detections,
)
from detect.experiment import (
    Evaluation,
    evaluate,
    format_of_kind,
    load,
    read_split,
    report_skipped,
    sources,
)
from detect.files import write_json
from detect.registry import nearest

OnError = Literal["stop", "skip"]


def evaluate_model(
    path: Path,
    overrides: Sequence[str],
    root: Path | None,
    split: str | None,
    iou_threshold: float | None,
    json_file: Path | None,
    save: Path | None,
    on_error: OnError,
    device: str,
    console: Console,
) -> None:
    """Run a model over a split, print the table and save what it found."""
    model = load(path, device, overrides)
    config = _with_threshold(model.config, iou_threshold)
    if root is None and split is None:
        kind = "test_split" if sources(config, "test_split") else "val_split"
        dataset = read_split(config, kind, console, model.class_names)
        split = "+".join(dict.fromkeys(source.split for source in sources(config, kind)))
    else:
        if root is None and not isinstance(config.data.root, str):
            raise DetectError("--split: the run has several data folders; name one with --data")
        split = split or "test"
        source = VOCSource(root or Path(str(config.data.root)), split)
        on_error = on_error if root is not None else config.data.on_error
        data_format = format_of_kind(config.data.kind) if root is None else None
        dataset = _read(source, model.class_names, on_error, console, data_format)
    with console.status(f"Running the detector over {len(dataset)} pictures"):
        evaluation = evaluate(model.detector, dataset, config, model.device)
    _show(evaluation, json_file, console)
    folder = path if path.is_dir() else path.parent
    target = save or folder / f"detections-{split}.json"
    if target.suffix == ".json":
        write_detections_json(target, evaluation.detections)
    else:
        write_voc_detections(target, split, evaluation.detections)
    console.print(f"Detections: {target}", highlight=False)


def evaluate_files(
    detections_path: Path,
    root: Path,
    split: str,
    iou_threshold: float | None,
    json_file: Path | None,
    on_error: OnError,
    console: Console,
) -> None:
    """Judge detections from files, print the table and say what has no counterpart."""
    source = VOCSource(root, split)
    dataset = _read(source, "auto", on_error, console)
    found = read_detections(detections_path, split, dataset.image_ids)
    extra = [name for name in found.detections.class_names if name not in dataset.class_names]
    for name in extra:
        alike = nearest(name, dataset.class_names, count=1)
        hint = f"; did you mean {alike[0]!r}?" if alike else ""
        console.print(f"note: {split} has no object of the class {name!r} of the detections{hint}")
    if extra:
        dataset = _read(source, sorted({*dataset.class_names, *extra}), on_error, console)
    for name in found.classes_without_file:
        console.print(f"note: there is no file for the class {name!r}: it has no detections")
    threshold = 0.5 if iou_threshold is None else iou_threshold
    report = evaluate_detections(
        found.detections, dataset.class_names, dataset.image_ids, dataset.truths, threshold
    )
    _show(report, json_file, console)


def _read(
    source: VOCSource,
    classes: ClassNames,
    on_error: OnError,
    console: Console,
    data_format: DataFormat | None = None,
) -> VOCDataset:
    with console.status(f"Reading {source.root}, {source.split}"):
        dataset = read_data([source], classes, data_format, on_error=on_error, verify_images=False)
    report_skipped(dataset, console)
    return dataset


def _with_threshold(config: Config, iou_threshold: float | None) -> Config:
    if iou_threshold is None:
        return config
    if not 0 < iou_threshold <= 1:
        raise DetectError(f"--iou: expected more than 0 and at most 1, found {iou_threshold}")
    section = config.evaluation.model_copy(update={"iou_threshold": iou_threshold})
    return config.model_copy(update={"evaluation": section})


def _show(report: VOCReport | Evaluation, json_file: Path | None, console: Console) -> None:
    for table in report.tables() if isinstance(report, Evaluation) else [report.table()]:
        console.print(table)
    if json_file is not None:
        write_json(json_file, report.as_dict())
        console.print(f"Report: {json_file}", highlight=False)
