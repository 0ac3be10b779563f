"""`detect analyze`: what is wrong with detections, in tables, figures and a JSON file."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from detect.cli.judged_split import JudgedSplit, read_contestant, split_of_files
from detect.cli.options import OnError
from detect.config import load_config
from detect.errors import DetectError
from detect.evaluation import (
    Analysis,
    DetectionSet,
    analyze_detections,
    read_detections_json,
)
from detect.experiment.datasets import joint_name, read_split, sources
from detect.files import write_json
from detect.visualization import (
    draw_confusion,
    draw_hoiem,
    draw_precision_recall,
    draw_recall,
    draw_reliability,
    draw_score_curves,
    draw_tide,
)
from detect.wording import counted


def run_analysis(
    run: Path | None = None,
    *,
    detections: Path | None = None,
    data: Path | None = None,
    split: str | None = None,
    out: Path | None = None,
    iou_threshold: float = 0.5,
    score_threshold: float | None = None,
    similar: Sequence[str] = (),
    on_error: OnError = "stop",
    console: Console,
) -> None:
    """Read detections and truth, print the tables, write the figures and `analysis.json`.

    Args:
        run: folder of a run, whose detections of its test split are analyzed; or
        detections: from anywhere, in any form that `detect evaluate` reads,
        data: with the folder of the data set that they are of, or a COCO annotation file,
        split: and the split of the folder.
        out: folder of the results; None takes `analysis` in the run's.
        iou_threshold: the least IoU of a true positive.
        score_threshold: of the confusion matrix; None takes that of the best F1.
        similar: sets of similar classes, names with commas; none takes VOC's.
        on_error: what faulty objects and images of `data` do.
        console: where the tables are printed.

    Raises:
        DetectError: detections or data are missing or faulty, or do not belong together.
    """
    if run is not None:
        found, judged, title = _of_run(run, console)
        out = out or run / "analysis"
    elif detections is not None and data is not None:
        judged = split_of_files(data, split, on_error, console)
        found = read_contestant(detections, judged, console).detections
        judged = judged.with_classes(found.class_names)
        title = f"{detections.name}, {judged.name}"
        out = out or Path("analysis")
    else:
        raise DetectError("expected a run, or --detections and --data")
    with console.status("Analyzing"):
        analysis = analyze_detections(
            found,
            judged.class_names,
            judged.image_ids,
            judged.voc_truths(),
            iou_threshold=iou_threshold,
            score_threshold=score_threshold,
            similar_classes=_sets(similar),
        )
    console.print(
        f"{title}: {counted(analysis.num_images, 'image')}, "
        f"{counted(analysis.num_objects, 'object')} and "
        f"{counted(analysis.num_difficult, 'difficult one')}, "
        f"{counted(analysis.num_detections, 'detection')}",
        highlight=False,
        markup=False,
    )
    for table in analysis.tables():
        console.print(table)
    for note in analysis.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    with console.status("Drawing"):
        # a dollar sign in the name of a file would begin a formula
        names = _draw(analysis, out, title.replace("$", r"\$"))
    write_json(out / "analysis.json", analysis.as_dict())
    listed = ", ".join(["analysis.json", *names])
    console.print(f"In {out}: {listed}", highlight=False, markup=False, soft_wrap=True)


def _of_run(run: Path, console: Console) -> tuple[DetectionSet, JudgedSplit, str]:
    """What the run found in its test split, or in its validation split if it has no other."""
    file = run / "detections.json"
    if not file.is_file():
        raise DetectError(
            f"{run}: expected the folder of a run with a detections.json, as a training leaves it "
            f"at its end; for other detections give --detections FILE --data ROOT --split NAME "
            f"(detect evaluate writes detections-<split>.json)"
        )
    config, _ = load_config(run / "config.yaml")
    kind = "test_split" if sources(config, "test_split") else "val_split"
    split = joint_name(sources(config, kind))
    found = read_detections_json(file)
    images = read_split(config, kind, console, found.class_names)
    judged = JudgedSplit(
        split, tuple(images.class_names), tuple(images.image_ids), tuple(images.truths)
    )
    return found, judged, f"{run.resolve().name}, {split}"


def _sets(similar: Sequence[str]) -> list[list[str]] | None:
    if not similar:
        return None
    return [[name.strip() for name in names.split(",") if name.strip()] for names in similar]


def _draw(analysis: Analysis, out: Path, title: str) -> list[str]:
    """Draw all that there is, and return the names of the files."""
    draw_tide(analysis.tide, out / "tide.png", title)
    draw_hoiem(analysis.hoiem, out / "hoiem.png", title)
    draw_precision_recall(analysis.score_curves, out / "precision_recall.png", title)
    draw_score_curves(analysis.score_curves, out / "score_curves.png", title)
    draw_confusion(analysis.confusion, out / "confusion_matrix.png", title)
    draw_recall(analysis.recall, out / "recall.png", title)
    names = [
        "tide.png",
        "hoiem.png",
        "precision_recall.png",
        "score_curves.png",
        "confusion_matrix.png",
        "recall.png",
    ]
    if analysis.calibration is None:
        return names
    draw_reliability(analysis.calibration, out / "reliability.png", title)
    return [*names, "reliability.png"]
