"""`detect evaluate`: judge runs and files of detections, alone or side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from detect.cli.contestants import (
    Contestant,
    holds_detections,
    read_contestant,
    save_detections,
)
from detect.cli.judged_split import JudgedSplit, OnError, split_of_files, split_of_run
from detect.cli.judgment import Judgment, judge, side_by_side
from detect.cli.thresholds import parse_thresholds
from detect.config import Config
from detect.errors import DetectError
from detect.evaluation import (
    BootstrapReport,
    Metric,
    RunComparison,
    bootstrap_detections,
    compare_detections,
)
from detect.experiment.evaluation import evaluate
from detect.experiment.model import Model, load
from detect.files import write_json
from detect.training import present_processes
from detect.wording import counted

DEFAULT_IOU_THRESHOLD = 0.5


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        targets: runs, checkpoints, files and folders of detections.
        overrides: KEY=VALUE over the settings of the runs.
        detections: further files and folders of detections.
        data: a data set's folder or a COCO annotation file; None for that of the first run.
        split: of that folder.
        metric: by which protocol; None takes both for data in COCO's format, VOC's for others.
        iou: thresholds of VOC's protocol as text; none for that of the run's config, or 0.5.
        significance: whether to say how sure the mAP is, or the difference of two.
        resamplings: of that test.
        seed: of that test.
        json_file: for the result.
        save: where detections are written; None writes those of runs into their folders.
        on_error: what faulty entries of `data` do.
        device: see `choose_device`.
    """

    targets: Sequence[Path]
    overrides: Sequence[str] = ()
    detections: Sequence[Path] = ()
    data: Path | None = None
    split: str | None = None
    metric: Metric | None = None
    iou: Sequence[str] = ()
    significance: bool = False
    resamplings: int = 1000
    seed: int = 0
    json_file: Path | None = None
    save: Path | None = None
    on_error: OnError = "stop"
    device: str = "auto"


def run_evaluation(request: Request, console: Console) -> None:
    """Judge all that was asked for; print tables, write the report and what runs found.

    Several processes share the images of a run; the first one prints and saves.

    Raises:
        DetectError: there is nothing to judge or to judge by, or what was asked for makes no sense.
    """
    is_file = [holds_detections(path) for path in request.targets]
    runs = [path for path, of_file in zip(request.targets, is_file, strict=True) if not of_file]
    paths = [*request.targets, *request.detections]
    _check(request, runs, paths)
    thresholds = parse_thresholds(request.iou)
    models = {path: load(path, request.device, request.overrides) for path in runs}
    split = _split(request, models, console)
    if not thresholds:
        thresholds = (_threshold_of(models),)
    contestants = []
    for path in paths:
        if path in models:
            model = models.pop(path)
            contestants.append(_look(path, model, split, thresholds[0], request, console))
        else:
            contestants.append(read_contestant(path, split, console))
    if not present_processes().is_first:
        return
    metric = request.metric or ("voc" if split.coco is None else "both")
    split = split.with_classes([n for c in contestants for n in c.detections.class_names])
    judgments = [judge(contestant, split, metric, thresholds) for contestant in contestants]
    for judgment in judgments:
        if len(judgments) > 1:
            console.print(judgment.name, style="bold", highlight=False, markup=False)
        for table in judgment.tables():
            console.print(table)
    if len(judgments) > 1:
        console.print(side_by_side(judgments))
    resampled: Sequence[BootstrapReport | RunComparison] = []
    if request.significance:
        resampled = _resample(request, contestants, split, thresholds, console)
    if request.json_file is not None:
        write_json(request.json_file, _as_dict(judgments, resampled))
        console.print(f"Report: {request.json_file}", highlight=False, markup=False, soft_wrap=True)
    _save(request, paths, contestants, split, console)


def _check(request: Request, runs: Sequence[Path], paths: Sequence[Path]) -> None:
    """Refuse what makes no sense before anything is read."""
    if not paths:
        raise DetectError(
            "expected a run or checkpoint, or --detections FILE_OR_DIR, found nothing to judge"
        )
    if len(set(paths)) < len(paths):
        repeated = next(path for row, path in enumerate(paths) if path in paths[:row])
        raise DetectError(f"{repeated}: expected each run and file once, found it twice")
    if request.overrides and not runs:
        raise DetectError(
            f"{request.overrides[0]}: expected settings beside a run, found detections of files "
            "alone; leave them out"
        )
    if not runs and request.data is None:
        raise DetectError(
            f"{paths[0]}: detections need the ground truth: give --data (or --ground-truth) ROOT "
            "with --split NAME, or a COCO annotation file"
        )
    if request.significance and len(paths) > 2:
        raise DetectError(f"--significance: expected one or two, found {len(paths)}")
    if request.save is not None and len(paths) > 1:
        raise DetectError(f"--save: expected one run or file to save, found {len(paths)}")
    if request.iou and request.metric == "coco":
        raise DetectError(
            "--iou: the thresholds of COCO's protocol are fixed, 0.5 to 0.95; leave it out, or "
            "give --metric voc or both"
        )


def _split(request: Request, models: dict[Path, Model], console: Console) -> JudgedSplit:
    if not models:
        assert request.data is not None
        return split_of_files(request.data, request.split, request.on_error, console)
    first = next(iter(models.values()))
    return split_of_run(first, request.data, request.split, request.on_error, console)


def _threshold_of(models: dict[Path, Model]) -> float:
    """Of the first run's config; 0.5 without a run."""
    for model in models.values():
        return model.config.evaluation.iou_threshold
    return DEFAULT_IOU_THRESHOLD


def _look(
    path: Path,
    model: Model,
    split: JudgedSplit,
    iou_threshold: float,
    request: Request,
    console: Console,
) -> Contestant:
    """Run a model over the images of a split."""
    quiet = Console(quiet=True)
    dataset = split.dataset
    assert dataset is not None
    if tuple(model.class_names) != split.class_names or path != _first_run(request):
        # its labels are by its own classes, and its split must be the same one
        own = split_of_run(model, request.data, request.split, request.on_error, quiet)
        if own.image_ids != split.image_ids or set(own.class_names) != set(split.class_names):
            raise DetectError(
                f"{path}: its split has other images or classes than that of "
                f"{_first_run(request)}; give --data ROOT and --split NAME to judge all on the same"
            )
        assert own.dataset is not None
        dataset = own.dataset
    config = _with_threshold(model.config, iou_threshold)
    with console.status(f"Running the detector over {counted(len(dataset), 'image')}"):
        evaluation = evaluate(model.detector, dataset, config, model.device)
    return Contestant(str(path), evaluation.detections, evaluation)


def _first_run(request: Request) -> Path:
    return next(path for path in request.targets if not holds_detections(path))


def _with_threshold(config: Config, iou_threshold: float) -> Config:
    section = config.evaluation.model_copy(update={"iou_threshold": iou_threshold})
    return config.model_copy(update={"evaluation": section})


def _resample(
    request: Request,
    contestants: Sequence[Contestant],
    split: JudgedSplit,
    thresholds: Sequence[float],
    console: Console,
) -> list[BootstrapReport | RunComparison]:
    """Print how sure the mAP of one is, or the difference of two, at each threshold."""
    reports: list[BootstrapReport | RunComparison] = []
    for threshold in thresholds:
        with console.status(f"Drawing {counted(request.resamplings, 'sample')} of the images"):
            report, table = _resampled_at(threshold, request, contestants, split)
        console.print(table)
        reports.append(report)
    return reports


def _resampled_at(
    threshold: float, request: Request, contestants: Sequence[Contestant], split: JudgedSplit
) -> tuple[BootstrapReport | RunComparison, Table]:
    given = (split.class_names, split.image_ids, split.voc_truths(), threshold)
    first, *others = contestants
    if not others:
        report = bootstrap_detections(
            first.detections, *given, resamplings=request.resamplings, seed=request.seed
        )
        return report, report.table()
    (second,) = others
    comparison = compare_detections(
        first.detections,
        second.detections,
        *given,
        resamplings=request.resamplings,
        seed=request.seed,
    )
    return comparison, comparison.table((first.name, second.name))


def _as_dict(
    judgments: Sequence[Judgment], resampled: Sequence[BootstrapReport | RunComparison]
) -> dict[str, Any]:
    if len(judgments) == 1:
        values = judgments[0].as_dict()
        if resampled:
            values["confidence"] = [report.as_dict() for report in resampled]
        return values
    values = {"results": [{"name": judgment.name, **judgment.as_dict()} for judgment in judgments]}
    if resampled:
        values["comparisons"] = [report.as_dict() for report in resampled]
    return values


def _save(
    request: Request,
    paths: Sequence[Path],
    contestants: Sequence[Contestant],
    split: JudgedSplit,
    console: Console,
) -> None:
    for path, contestant in zip(paths, contestants, strict=True):
        target = request.save
        if target is None and contestant.evaluation is not None:
            folder = path if path.is_dir() else path.parent
            target = folder / f"detections-{split.name}.json"
        if target is not None:
            save_detections(target, contestant.detections, split)
            console.print(f"Detections: {target}", highlight=False, markup=False, soft_wrap=True)
