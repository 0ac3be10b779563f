"""What `detect evaluate` judges, and by what: detections and the ground truth of a split."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from detect.cli.options import OnError
from detect.cli.screen import say
from detect.data import (
    NO_SPLIT,
    ClassNames,
    COCOTruths,
    DetectionDataset,
    Source,
    coco_files,
    detect_format,
    read_coco_truths,
    read_dataset,
    splits_of,
)
from detect.data.identifiers import numbers_of_names
from detect.data.readers import read_request
from detect.data.split_names import chosen_splits
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
from detect.experiment.datasets import joint_name, read_sources, read_split, report_skipped, sources
from detect.experiment.evaluation import Evaluation
from detect.experiment.model import Model
from detect.files import read_json
from detect.registry import hint
from detect.structures import GroundTruth
from detect.wording import counted

DETECTION_SUFFIXES = (".json", ".csv", ".txt")
COCO_RESULTS_SUFFIX = ".coco.json"
_VOC_FILE = re.compile(r"comp\d+_det_.+\.txt")


@dataclass(frozen=True)
class JudgedSplit:
    """What detections are judged by.

    Attributes:
        name: of the split.
        class_names: of the labels of the truths; the last ones may be those of detections alone.
        image_ids: of the images.
        truths: of each image, by VOC's rules; None where those of `coco` are to be taken.
        coco: what a COCO annotation file says of the same images.
        dataset: the images themselves, for a detector to look at; None for files alone.
    """

    name: str
    class_names: tuple[str, ...]
    image_ids: tuple[str, ...]
    truths: tuple[GroundTruth, ...] | None = None
    coco: COCOTruths | None = None
    dataset: DetectionDataset | None = None

    def voc_truths(self) -> tuple[GroundTruth, ...]:
        """The objects by VOC's rules.

        Raises:
            DetectError: as `COCOTruths.ground_truths`.
        """
        if self.truths is not None:
            return self.truths
        assert self.coco is not None
        return self.coco.ground_truths()

    def coco_truths(self) -> tuple[Sequence[str], Sequence[GroundTruth | Mapping[str, Any]]]:
        """The names of the images and their objects by COCO's rules, with areas if there are."""
        if self.coco is not None:
            return self.coco.image_names, self.coco.truths
        return self.image_ids, self.voc_truths()

    def with_classes(self, names: Sequence[str]) -> "JudgedSplit":
        """The same with further classes, of which there are no objects."""
        further = [name for name in names if name not in self.class_names]
        return replace(self, class_names=(*self.class_names, *dict.fromkeys(further)))


def split_of_run(
    model: Model, data: Path | None, split: str | None, on_error: OnError, console: Console
) -> JudgedSplit:
    """The split that a run is to be judged on, with its images.

    Args:
        model: whose class names the split must keep to.
        data: the folder of a data set; None for that of the run's config.
        split: its name; None for `test`, or with neither, the test split of the config.
        on_error: for `data`; the config says it for its own.
        console: where reading is reported.
    """
    config = model.config
    if data is None and split is None:
        kind = "test_split" if sources(config, "test_split") else "val_split"
        found = sources(config, kind)
        dataset = read_split(config, kind, console, model.class_names)
        name = joint_name(found)
        on_error = config.data.on_error
    else:
        if data is None and not isinstance(config.data.root, str):
            raise DetectError("--split: the run has several data folders; name one with --data")
        if data is not None and data.suffix.lower() == ".json":
            raise DetectError(
                f"{data}: expected the folder of a data set, since a model needs the images, "
                "found a file; give the folder that holds annotations/ and the images"
            )
        name = split or "test"
        found = [Source(data or Path(str(config.data.root)), name)]
        if data is not None:
            dataset = _read(data, name, model.class_names, on_error, console)
        else:
            on_error = config.data.on_error
            names = model.class_names
            dataset = read_sources(config, found, names, console, read_request, False)
            report_skipped(dataset, console)
    coco = None
    if _are_coco(found, None if data is not None else config.data.kind):
        coco = _coco_of_source(found[0], on_error).of_images(dataset.image_ids)
    names, ids = tuple(dataset.class_names), tuple(dataset.image_ids)
    return JudgedSplit(name, names, ids, tuple(dataset.truths), coco, dataset)


def _are_coco(found: Sequence[Source], kind: str | None) -> bool:
    """Whether a run's images have one annotation file with boxes."""
    if kind not in (None, "auto"):
        return kind == "coco" and len(found) == 1
    return len(found) == 1 and detect_format(found[0].root) == "coco"


def split_of_files(
    data: Path, split: str | None, on_error: OnError, console: Console
) -> JudgedSplit:
    """The split that files of detections are to be judged by; COCO's needs no images.

    Args:
        data: a data set's folder, or a COCO annotation file.
        split: of the folder; a set that has no splits needs none.
        on_error: what faulty entries do.
        console: where reading is reported.
    """
    if data.suffix.lower() == ".json" and not data.is_dir():
        if split is not None:
            raise DetectError(
                f"--split: {data} is a file, which is one split as a whole; leave --split out, or "
                "give the folder of the data set"
            )
        return _split_of_coco(read_coco_truths(data, on_error=on_error), None, console)
    data_format = detect_format(data)
    if split is None and (data_format != "coco" or NO_SPLIT not in coco_files(data)):
        there = ", ".join(splits_of(data, data_format)) or "none"
        raise DetectError(f"{data}: expected --split NAME beside the folder; there are: {there}")
    if data_format == "coco":
        source = Source(data, split or NO_SPLIT)
        return _split_of_coco(_coco_of_source(source, on_error), split, console)
    assert split is not None
    dataset = _read(data, split, "auto", on_error, console)
    return JudgedSplit(split, dataset.class_names, dataset.image_ids, tuple(dataset.truths))


def _split_of_coco(truths: COCOTruths, name: str | None, console: Console) -> JudgedSplit:
    _report_faults(truths, console)
    return JudgedSplit(name or truths.split, truths.class_names, truths.image_names, coco=truths)


def _coco_of_source(source: Source, on_error: OnError) -> COCOTruths:
    files = coco_files(source.root)
    splits = [source.split] if source.split else None
    (name,) = chosen_splits(source.root, splits, files)
    return read_coco_truths(files[name], on_error=on_error)


def _read(
    root: Path, split: str, classes: ClassNames, on_error: OnError, console: Console
) -> DetectionDataset:
    with console.status(f"Reading {root}, {split}"):
        dataset = read_dataset(root, split, classes=classes, on_error=on_error, verify_images=False)
    report_skipped(dataset, console)
    return dataset


def _report_faults(truths: COCOTruths, console: Console) -> None:
    if truths.faults:
        console.print(
            f"  left out as faulty (--on-error skip): "
            f"{counted(truths.num_skipped_images, 'image')}, "
            f"{counted(truths.num_skipped_objects, 'object')}:"
        )
        say(console, *(f"  {fault}" for fault in truths.faults))


# ---- detections --------------------------------------------------------------------------------


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
                say(console, f"note: there is no file for the class '{name}': it has no detections")
    for name in detections.class_names:
        if name not in split.class_names:
            say(
                console,
                f"note: {split.name} has no object of the class '{name}' of the detections; "
                f"{hint(name, split.class_names)}",
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
                f"named '{unknown[0]}'; save them as .json or .csv, which have names"
            )
        return (
            [of_images[name] for name in detections.image_ids],
            [of_classes[name] for name in detections.class_names],
        )
    numbers = numbers_of_names(detections.image_ids)
    image_ids = detections.image_ids if numbers is None else numbers
    return list(image_ids), list(range(1, len(detections.class_names) + 1))
