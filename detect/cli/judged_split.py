"""The ground truth that `detect evaluate` judges by: of a run's config, a folder or a COCO file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from detect.data import (
    NO_SPLIT,
    ClassNames,
    COCOTruths,
    DetectionDataset,
    Fault,
    Source,
    coco_files,
    detect_format,
    read_coco_truths,
    read_dataset,
    splits_of,
)
from detect.data.readers import read_request
from detect.data.split_names import chosen_splits
from detect.errors import DetectError
from detect.experiment.datasets import joint_name, read_sources, read_split, report_skipped, sources
from detect.experiment.model import Model
from detect.structures import GroundTruth
from detect.wording import counted

OnError = Literal["stop", "skip"]


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
    return JudgedSplit(
        name,
        tuple(dataset.class_names),
        tuple(dataset.image_ids),
        tuple(dataset.truths),
        coco,
        dataset,
    )


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
    if not truths.faults:
        return
    console.print(
        f"  left out as faulty (--on-error skip): "
        f"{counted(truths.num_skipped_images, 'image')}, "
        f"{counted(truths.num_skipped_objects, 'object')}:"
    )
    for fault in truths.faults:
        _print_fault(fault, console)


def _print_fault(fault: Fault, console: Console) -> None:
    console.print(f"  {fault}", highlight=False, markup=False, soft_wrap=True)
