"""The data sets that a config names, read, checked and reported."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from detect.config import Experiment
from detect.data import (
    SHAPE_CLASSES,
    DataFaults,
    DataFormat,
    Fault,
    KeypointDataset,
    VOCDataset,
    VOCSource,
    annotation_file,
    ensure_figures,
    ensure_shapes,
    image_folder,
    person_crops,
    read_coco_keypoints,
    read_data,
    read_imagenet_localization,
)
from detect.errors import DetectError
from detect.wording import counted

# data sets of any kind, with or without joints
Images = VOCDataset | KeypointDataset
SPLITS = ("train_split", "val_split", "test_split")


def sources(config: Experiment, split: str) -> list[VOCSource]:
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
        VOCSource(Path(root), name)
        for root, name in zip(roots, names, strict=True)
        if name is not None
    ]


def read_split(
    config: Experiment,
    split: str,
    console: Console,
    class_names: Sequence[str] | None = None,
) -> Images:
    """Read and check a split; the built-in set is drawn first if it is not there.

    Args:
        config: says where.
        split: `train_split`, `val_split` or `test_split`.
        console: where drawing, checking and leaving out are reported.
        class_names: that the split must keep to; None takes those of the config.

    Raises:
        DetectError: faults in the data, all of them, unless the config says to skip them.
    """
    data = config.data
    if data.kind in ("figures", "coco_keypoints"):
        return _read_keypoints(config, split, console, class_names)
    if data.kind == "imagenet_localization":
        return _read_imagenet(config, split, console, class_names)
    if data.kind == "shapes":
        _draw_shapes(config, console)
    found = sources(config, split)
    # a small set may lack some of its classes
    classes = class_names or (sorted(SHAPE_CLASSES) if data.kind == "shapes" else data.classes)
    with console.status(f"Checking {', '.join(str(source) for source in found)}"):
        dataset = read_data(found, classes, format_of_kind(data.kind), on_error=data.on_error)
    _report_data(dataset, split, console)
    return dataset


def format_of_kind(kind: str) -> DataFormat | None:
    """The format of the folders of a `data.kind`; None where it is to be found out."""
    formats: dict[str, DataFormat] = {"voc": "voc", "shapes": "voc", "coco": "coco", "yolo": "yolo"}
    return formats.get(kind)


def _read_keypoints(
    config: Experiment, split: str, console: Console, class_names: Sequence[str] | None
) -> KeypointDataset:
    data = config.data
    (source,) = _single_source(config, split)
    if data.kind == "figures":
        size = (data.image_size, data.image_size)
        with console.status(f"Drawing the stick figures into {source.root}"):
            ensure_figures(source.root, data.num_images, seed=0, image_size=size)
    file = annotation_file(source.root, source.split)
    with console.status(f"Checking {file}"):
        dataset = read_coco_keypoints(
            file, image_folder(source.root), class_names, on_error=data.on_error
        )
    crops = getattr(data, "person_crops", None)
    if crops is not None:
        dataset = person_crops(dataset, crops)
    _report_data(dataset, split, console)
    return dataset


def _read_imagenet(
    config: Experiment, split: str, console: Console, class_names: Sequence[str] | None
) -> VOCDataset:
    (source,) = _single_source(config, split)
    with console.status(f"Checking {source}"):
        dataset = read_imagenet_localization(
            source.root, source.split, class_names, on_error=config.data.on_error
        )
    _report_data(dataset, split, console)
    if dataset.num_without_box:
        console.print(f"  left out, without a box: {counted(dataset.num_without_box, 'image')}")
    return dataset


def _single_source(config: Experiment, split: str) -> list[VOCSource]:
    found = sources(config, split)
    if len(found) != 1:
        raise DetectError(
            f"data.root: data of kind {config.data.kind!r} has one folder, found {len(found)}"
        )
    return found


def read_splits(config: Experiment, console: Console) -> dict[str, Images]:
    """Read all splits of a config that are not null, with the classes of the training split.

    Raises:
        DataFaults: with the faults of all of them together.
        DetectError: there is no training split, or one of them is missing or empty.
    """
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
            datasets[split] = read_split(config, split, console, names)
        except DataFaults as error:
            faults += error.faults
    if faults:
        roots = [Path(root) for root in _roots(config)]
        raise DataFaults(list(dict.fromkeys(faults)), roots)
    return datasets


def _roots(config: Experiment) -> list[str]:
    return [config.data.root] if isinstance(config.data.root, str) else config.data.root


def _draw_shapes(config: Experiment, console: Console) -> None:
    data = config.data
    if not isinstance(data.root, str):
        raise DetectError("data.root: the built-in shapes set has one folder, found a list")
    size = (data.image_size, data.image_size)
    with console.status(f"Drawing the shapes set into {data.root}"):
        ensure_shapes(
            Path(data.root),
            data.num_images,
            seed=0,
            image_size=size,
            max_objects=data.max_objects,
            diameters=data.diameters,
        )


def _report_data(dataset: Images, split: str, console: Console) -> None:
    counts = ", ".join(f"{name} {count}" for name, count in dataset.class_counts().items())
    console.print(
        f"{split.removesuffix('_split')}: {counted(len(dataset), 'image')}; {counts}",
        highlight=False,
    )
    report_skipped(dataset, console)


def report_skipped(dataset: Images, console: Console) -> None:
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
