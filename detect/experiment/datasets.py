"""The data sets that a config names, read, checked and reported."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from detect.config import Experiment
from detect.data import (
    DATASETS,
    Augmentation,
    ClassNames,
    DataFaults,
    DatasetRequest,
    DetectionDataset,
    Fault,
    ImageFolder,
    Source,
)
from detect.data.readers import read_request
from detect.errors import DetectError
from detect.wording import counted, listed

# What a config says of data sets that were given as objects, and that it cannot read.
IN_PYTHON = "python"
SPLITS = ("train_split", "val_split", "test_split")

Images = TypeVar("Images", bound=DetectionDataset | ImageFolder)


@DATASETS.register(IN_PYTHON)
def _made_in_python(_: DatasetRequest) -> DetectionDataset:
    raise DetectError(
        "data.kind: the run was trained on data sets made in Python, which its config cannot read; "
        "name the data: detect evaluate RUN --data FOLDER, or model.evaluate(data)"
    )


def sources(config: Experiment, split: str) -> list[Source]:
    """The roots and split names that `train_split`, `val_split` or `test_split` of a config mean.

    Raises:
        DetectError: not as many names as roots.
    """
    roots = _roots(config)
    names = getattr(config.data, split)
    if not isinstance(names, list):
        names = [names] * len(roots)
    if len(names) != len(roots):
        raise DetectError(
            f"data.{split}: expected one name for each of the {len(roots)} folders of data.root, "
            f"found {names}"
        )
    return [
        Source(Path(root), name)
        for root, name in zip(roots, names, strict=True)
        if name is not None
    ]


def joint_name(found: Sequence[Source]) -> str:
    """The name of the splits that are joined: `trainval`, or `train2012+val2007`."""
    return "+".join(dict.fromkeys(source.split or "" for source in found))


def read_split(
    config: Experiment,
    split: str,
    console: Console,
    class_names: Sequence[str] | None = None,
) -> DetectionDataset:
    """Read and check a split; a built-in set is drawn first if it is not there.

    Args:
        config: says where.
        split: `train_split`, `val_split` or `test_split`.
        console: where drawing, checking and leaving out are reported.
        class_names: that the split must keep to; None takes those of the config.

    Raises:
        DetectError: faults in the data, all of them, unless the config says to skip them.
    """
    return _read_split(config, split, console, class_names, read_request)


def _read_split(
    config: Experiment,
    split: str,
    console: Console,
    class_names: Sequence[str] | None,
    read: Callable[..., Images],
) -> Images:
    classes = class_names or config.data.wanted_classes
    dataset = read_sources(config, sources(config, split), classes, console, read)
    counts = listed([f"{name} {count}" for name, count in dataset.class_counts().items()])
    console.print(
        f"{split.removesuffix('_split')}: {counted(len(dataset), 'image')}; {counts}",
        highlight=False,
    )
    report_skipped(dataset, console)
    for note in dataset.notes:
        console.print(f"  {note}", highlight=False)
    return dataset


def read_sources(
    config: Experiment,
    found: Sequence[Source],
    classes: ClassNames,
    console: Console,
    read: Callable[..., Images],
    verify_images: bool | None = None,
) -> Images:
    """Read any splits by the reader of a config's `data.kind`, with its settings."""
    data = config.data
    options = {
        name: getattr(data, name)
        for name in inspect.signature(DATASETS[data.kind]).parameters
        if name in type(data).model_fields
    }
    places = ", ".join(f"{root}, {split}" for root, split in found)
    with console.status(f"Checking {places}") as status:
        request = DatasetRequest(
            data.kind, tuple(found), classes, data.on_error, verify_images, say=status.update
        )
        return read(request, **options)


def read_splits(config: Experiment, console: Console) -> dict[str, DetectionDataset]:
    """Read all splits of a config that are not null, with the classes of the training split.

    Raises:
        DataFaults: with the faults of all of them together.
        DetectError: there is no training split, or one of them is missing or empty.
    """
    return _read_all(config, console, read_request)


def read_splits_for_classifiers(
    config: Experiment, console: Console
) -> dict[str, DetectionDataset | ImageFolder]:
    """The same, of data that may have no boxes but one class for each image."""

    def read(request: DatasetRequest, **options: Any) -> DetectionDataset | ImageFolder:
        if request.kind != "folders":
            return read_request(request, **options)
        images: ImageFolder = DATASETS[request.kind](request, **options)
        return images

    return _read_all(config, console, read)


def _read_all(
    config: Experiment, console: Console, read: Callable[..., Images]
) -> dict[str, Images]:
    if not sources(config, "train_split"):
        raise DetectError("data.train_split: expected the name of a split, found null")
    datasets: dict[str, Images] = {}
    faults: list[Fault] = []
    for split in SPLITS:
        if not sources(config, split):
            continue
        training_split = datasets.get("train_split")
        names = None if training_split is None else training_split.class_names
        try:
            datasets[split] = _read_split(config, split, console, names, read)
        except DataFaults as error:
            faults += error.faults
    if faults:
        roots = [Path(root) for root in _roots(config)]
        raise DataFaults(list(dict.fromkeys(faults)), roots)
    return datasets


def _roots(config: Experiment) -> list[str]:
    return [config.data.root] if isinstance(config.data.root, str) else config.data.root


def report_skipped(dataset: DetectionDataset | ImageFolder, console: Console) -> None:
    """Say what `on_error=skip` has left out of a data set, if anything."""
    if not dataset.num_skipped_images and not dataset.num_skipped_objects:
        return
    console.print(
        f"  left out as faulty (on_error=skip): "
        f"{counted(dataset.num_skipped_images, 'image')}, "
        f"{counted(dataset.num_skipped_objects, 'object')}:"
    )
    for fault in dataset.faults:
        if fault.severity == "error":
            console.print(f"  {fault}", highlight=False, markup=False, soft_wrap=True)


def augmentation_of(config: Experiment, dataset: DetectionDataset) -> Augmentation | None:
    """The random changes that a config makes to the training images of `dataset`."""
    options = config.data.augmentation
    return None if options is None else Augmentation(**options, joint_swaps=dataset.joint_swaps)
