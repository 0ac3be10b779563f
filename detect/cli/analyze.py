"""`detect analyze`: what is wrong with detections, in tables, figures and a JSON file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from detect.cli.judged_split import JudgedSplit, read_contestant, split_of_files
from detect.cli.options import OnError
from detect.cli.screen import say
from detect.config import load_config
from detect.errors import DetectError
from detect.evaluation import Analysis, DetectionSet, analyze_detections, read_detections_json
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

    The arguments are the options of the command: `run`, or `detections` with `data`.

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
    say(
        console,
        f"{title}: {counted(analysis.num_images, 'image')}, "
        f"{counted(analysis.num_objects, 'object')} and "
        f"{counted(analysis.num_difficult, 'difficult one')}, "
        f"{counted(analysis.num_detections, 'detection')}",
    )
    for table in analysis.tables():
        console.print(table)
    say(console, *(f"note: {note}" for note in analysis.notes))
    with console.status("Drawing"):
        # a dollar sign in the name of a file would begin a formula
        names = _draw(analysis, out, title.replace("$", r"\$"))
    write_json(out / "analysis.json", analysis.as_dict())
    say(console, f"In {out}: {', '.join(['analysis.json', *names])}")


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
    figures: dict[str, tuple[Callable[..., None], Any]] = {
        "tide.png": (draw_tide, analysis.tide),
        "hoiem.png": (draw_hoiem, analysis.hoiem),
        "precision_recall.png": (draw_precision_recall, analysis.score_curves),
        "score_curves.png": (draw_score_curves, analysis.score_curves),
        "confusion_matrix.png": (draw_confusion, analysis.confusion),
        "recall.png": (draw_recall, analysis.recall),
    }
    if analysis.calibration is not None:
        figures["reliability.png"] = (draw_reliability, analysis.calibration)
    for name, (draw, content) in figures.items():
        draw(content, out / name, title)
    return list(figures)
