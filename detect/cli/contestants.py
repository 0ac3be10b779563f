"""Whose detections `detect evaluate` judges: a run's, or those of a file; and writing them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from torch import Tensor

from detect.cli.judged_split import JudgedSplit
from detect.data.identifiers import numbers_of_names
from detect.errors import DetectError
from detect.evaluation import (
    COCOResults,
    DetectionSet,
    read_coco_results,
    read_detections,
    read_detections_json,
    write_coco_results,
    write_detections_csv,
    write_detections_json,
    write_voc_detections,
)
from detect.experiment.evaluation import Evaluation
from detect.files import read_json
from detect.registry import hint

DETECTION_SUFFIXES = (".json", ".csv", ".txt")
COCO_RESULTS_SUFFIX = ".coco.json"
_VOC_FILE = re.compile(r"comp\d+_det_.+\.txt")


@dataclass(frozen=True)
class Contestant:
    """Detections under their name.

    Attributes:
        name: the path that was given.
        detections: of the images.
        evaluation: of a run, how `experiment.evaluate` judged them; None for a file.
        results: of a file in COCO's results format, as precise as it is there.
    """

    name: str
    detections: DetectionSet
    evaluation: Evaluation | None = None
    results: COCOResults | None = None

    def coco_records(
        self, class_names: Sequence[str], image_names: Sequence[str]
    ) -> list[dict[str, Tensor]]:
        """For each image its boxes, scores and labels as the COCO evaluator takes them."""
        if self.results is not None:
            return self.results.by_image()
        aligned = self.detections.aligned(class_names, image_names)
        return [
            {"boxes": found.boxes, "scores": found.scores, "labels": found.labels}
            for found in aligned.detections
        ]


def holds_detections(path: Path) -> bool:
    """Whether a path is meant as detections and not as a run: by its name, or what is in it."""
    if path.is_dir():
        is_run = (path / "checkpoints").is_dir()
        return not is_run and any(_VOC_FILE.fullmatch(entry.name) for entry in path.iterdir())
    return path.suffix.lower() in DETECTION_SUFFIXES


def read_contestant(path: Path, split: JudgedSplit, console: Console) -> Contestant:
    """Read a file or folder of detections; says what has no counterpart in the split.

    Raises:
        DetectError: as the readers in `detect.evaluation`, or COCO's results format has no
            annotation file beside it.
    """
    results = None
    if path.suffix.lower() == ".json" and not path.is_dir():
        content = read_json(path)
        if isinstance(content, list):
            coco = split.coco
            if coco is None:
                raise DetectError(
                    f"{path}: COCO's results name images and classes by the ids of an annotation "
                    "file, found a data set without one; give that file with --data, such as "
                    "annotations/instances_val.json"
                )
            results = read_coco_results(path, coco.image_ids, coco.category_ids, content)
            detections = results.detection_set(coco.class_names, coco.image_names)
        else:
            detections = read_detections_json(path, content)
    else:
        read = read_detections(path, split.name, split.image_ids)
        detections = read.detections
        for name in split.class_names:
            if path.is_dir() and name not in detections.class_names:
                console.print(
                    f"note: there is no file for the class {name!r}: it has no detections",
                    markup=False,
                )
    for name in detections.class_names:
        if name not in split.class_names:
            console.print(
                f"note: {split.name} has no object of the class {name!r} of the detections; "
                f"{hint(name, split.class_names)}",
                markup=False,
            )
    return Contestant(str(path), detections, results=results)


def save_detections(path: Path, detections: DetectionSet, split: JudgedSplit) -> None:
    """Write detections in the form that the ending of `path` says.

    `.coco.json` is COCO's results format, `.json` ours, `.csv` a table; anything else is a folder
    for the text files of VOC.
    """
    if path.name.lower().endswith(COCO_RESULTS_SUFFIX):
        image_ids, category_ids = coco_ids(detections, split)
        write_coco_results(path, detections, image_ids, category_ids)
    elif path.suffix.lower() == ".json":
        write_detections_json(path, detections)
    elif path.suffix.lower() == ".csv":
        write_detections_csv(path, detections)
    else:
        write_voc_detections(path, split.name, detections)


def coco_ids(
    detections: DetectionSet, split: JudgedSplit | None = None
) -> tuple[list[int | str], list[int | str]]:
    """The ids of images and classes in COCO's results: the annotation file's where there is one.

    Without one, the id of an image is the number that its name is, where all names are numbers,
    as in COCO's and VOC's own sets, else the name; classes are counted from 1.
    """
    if split is not None and split.coco is not None:
        coco = split.coco
        of_images = dict(zip(coco.image_names, coco.image_ids, strict=True))
        of_classes = dict(zip(coco.class_names, coco.category_ids, strict=True))
        unknown = [name for name in detections.class_names if name not in of_classes]
        if unknown:
            raise DetectError(
                f"{coco.path}: expected a category for each class of the detections, found none "
                f"named {unknown[0]!r}; save them as .json or .csv, which have names"
            )
        return (
            [of_images[name] for name in detections.image_ids],
            [of_classes[name] for name in detections.class_names],
        )
    numbers = numbers_of_names(detections.image_ids)
    image_ids = detections.image_ids if numbers is None else numbers
    return list(image_ids), list(range(1, len(detections.class_names) + 1))
