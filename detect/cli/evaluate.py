"""`detect evaluate`: judge runs and files of detections, alone or side by side."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from detect.cli.judged_split import (
    Contestant,
    JudgedSplit,
    holds_detections,
    read_contestant,
    save_detections,
    split_of_files,
    split_of_run,
)
from detect.cli.judgment import Judgment, judge, parse_thresholds, side_by_side
from detect.cli.options import OnError
from detect.cli.screen import say
from detect.data import DetectionDataset
from detect.errors import DetectError
from detect.evaluation import (
    BootstrapReport,
    DetectionSet,
    Metric,
    RunComparison,
    bootstrap_detections,
    compare_detections,
    fuse_detections,
)
from detect.experiment.evaluation import evaluate
from detect.experiment.model import Model, load
from detect.files import write_json
from detect.forecast import in_turn
from detect.training import present_processes
from detect.wording import counted

DEFAULT_IOU_THRESHOLD = 0.5
FUSED = "fused"


def run_evaluation(
    targets: Sequence[Path],
    overrides: Sequence[str] = (),
    *,
    detections: Sequence[Path] = (),
    data: Path | None = None,
    split: str | None = None,
    metric: Metric | None = None,
    iou: Sequence[str] = (),
    significance: bool = False,
    resamplings: int = 1000,
    seed: int = 0,
    fuse_iou: float | None = None,
    json_file: Path | None = None,
    save: Path | None = None,
    on_error: OnError = "stop",
    device: str = "auto",
    console: Console,
) -> None:
    """Judge all that was asked for; print tables, write the report and what runs found.

    Several processes share the images of a run; the first one prints and saves.

    Args:
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
        fuse_iou: judge the fused detections of all as well, whose boxes overlap more than this;
            None does not fuse. Then `save` takes the fused ones.
        json_file: for the result.
        save: where detections are written; None writes those of runs into their folders.
        on_error: what faulty entries of `data` do.
        device: see `choose_device`.
        console: where all is printed.

    Raises:
        DetectError: there is nothing to judge or to judge by, or what was asked for makes no sense.
    """
    runs = [path for path in targets if not holds_detections(path)]
    paths = [*targets, *detections]
    _check(paths, runs, overrides, data)
    if significance and len(paths) > 2:
        raise DetectError(f"--significance: expected one or two, found {len(paths)}")
    if fuse_iou is not None and len(paths) < 2:
        raise DetectError(f"--fuse: expected two runs or files or more, found {len(paths)}")
    if save is not None and len(paths) > 1 and fuse_iou is None:
        raise DetectError(f"--save: expected one run or file to save, found {len(paths)}")
    if iou and metric == "coco":
        raise DetectError(
            "--iou: the thresholds of COCO's protocol are fixed, 0.5 to 0.95; leave it out, or "
            "give --metric voc or both"
        )
    thresholds = parse_thresholds(iou)
    models = {path: load(path, device, overrides) for path in runs}
    read = partial(split_of_run, data=data, split=split, on_error=on_error)
    if models:
        judged = read(models[runs[0]], console=console)
        thresholds = thresholds or (models[runs[0]].config.evaluation.iou_threshold,)
    else:
        assert data is not None
        judged = split_of_files(data, split, on_error, console)
        thresholds = thresholds or (DEFAULT_IOU_THRESHOLD,)
    contestants = []
    tell = partial(say, console)
    for _, path in in_turn({str(path): path for path in paths}, "runs and files to evaluate", tell):
        if path in models:
            model = models.pop(path)
            images = judged.dataset if path == runs[0] else _same_images(path, model, judged, read)
            assert images is not None
            contestants.append(_detect(path, model, images, thresholds[0], console))
        else:
            contestants.append(read_contestant(path, judged, console))
    if not present_processes().is_first:
        return
    metric = metric or ("voc" if judged.coco is None else "both")
    judged = judged.with_classes([n for c in contestants for n in c.detections.class_names])
    if fuse_iou is not None:
        contestants.append(_fused(contestants, judged, fuse_iou))
    judgments = [judge(contestant, judged, metric, thresholds) for contestant in contestants]
    for judgment in judgments:
        if len(judgments) > 1:
            console.print(judgment.name, style="bold", highlight=False, markup=False)
        for table in judgment.tables():
            console.print(table)
    if len(judgments) > 1:
        console.print(side_by_side(judgments))
    resampled: list[BootstrapReport | RunComparison] = []
    for threshold in thresholds if significance else ():
        with console.status(f"Drawing {counted(resamplings, 'sample')} of the images"):
            given = contestants[: len(paths)]  # without the fused ones
            report, table = _resample(given, judged, threshold, resamplings, seed)
        console.print(table)
        resampled.append(report)
    if json_file is not None:
        write_json(json_file, _as_dict(judgments, resampled))
        say(console, f"Report: {json_file}")
    if save is not None:
        _save(save, contestants[-1], judged, console)
        return
    for path, contestant in zip(paths, contestants, strict=False):
        if contestant.evaluation is not None:
            folder = path if path.is_dir() else path.parent
            _save(folder / f"detections-{judged.name}.json", contestant, judged, console)


def _check(
    paths: Sequence[Path], runs: Sequence[Path], overrides: Sequence[str], data: Path | None
) -> None:
    """Refuse what makes no sense before anything is read."""
    if not paths:
        raise DetectError(
            "expected a run or checkpoint, or --detections FILE_OR_DIR, found nothing to judge"
        )
    if len(set(paths)) < len(paths):
        repeated = next(path for row, path in enumerate(paths) if path in paths[:row])
        raise DetectError(f"{repeated}: expected each run and file once, found it twice")
    if overrides and not runs:
        raise DetectError(
            f"{overrides[0]}: expected settings beside a run, found only files of detections; "
            "leave them out"
        )
    if not runs and data is None:
        raise DetectError(
            f"{paths[0]}: detections need the ground truth: give --data (or --ground-truth) ROOT "
            "with --split NAME, or a COCO annotation file"
        )


def _same_images(
    path: Path, model: Model, first: JudgedSplit, read: Callable[..., JudgedSplit]
) -> DetectionDataset | None:
    """The images of the first run's split, labeled by the classes of another model.

    Raises:
        DetectError: the other's split has other images or classes.
    """
    own = read(model, console=Console(quiet=True))
    if own.image_ids != first.image_ids or set(own.class_names) != set(first.class_names):
        raise DetectError(
            f"{path}: its split has other images or classes than that of the first run; give "
            "--data ROOT and --split NAME to judge all on the same"
        )
    return own.dataset


def _detect(
    path: Path, model: Model, images: DetectionDataset, iou_threshold: float, console: Console
) -> Contestant:
    """Run a model over the images of a split."""
    section = model.config.evaluation.model_copy(update={"iou_threshold": iou_threshold})
    config = model.config.model_copy(update={"evaluation": section})
    evaluation = evaluate(model.detector, images, config, model.device, console=console)
    return Contestant(str(path), evaluation.detections, evaluation)


def _resample(
    contestants: Sequence[Contestant],
    split: JudgedSplit,
    threshold: float,
    resamplings: int,
    seed: int,
) -> tuple[BootstrapReport | RunComparison, Table]:
    """How sure the mAP of one is, or the difference of two."""
    given = (split.class_names, split.image_ids, split.voc_truths(), threshold)
    first, *others = contestants
    if not others:
        report = bootstrap_detections(first.detections, *given, resamplings=resamplings, seed=seed)
        return report, report.table()
    (second,) = others
    comparison = compare_detections(
        first.detections, second.detections, *given, resamplings=resamplings, seed=seed
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


def _fused(
    contestants: Sequence[Contestant], split: JudgedSplit, iou_threshold: float
) -> Contestant:
    names, images = split.class_names, split.image_ids
    found = {one.name: one.detections.aligned(names, images).detections for one in contestants}
    fused = fuse_detections(found, iou_threshold)
    return Contestant(FUSED, DetectionSet(tuple(names), tuple(images), tuple(fused)))


def _save(target: Path, contestant: Contestant, split: JudgedSplit, console: Console) -> None:
    save_detections(target, contestant.detections, split)
    say(console, f"Detections: {target}")
