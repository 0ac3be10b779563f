"""Data sets of any of the three formats: which one it is, and reading it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from detect.data.annotated import AnnotatedImage, AnnotatedSet, DataFormat
from detect.data.faults import DataFaults, Fault
from detect.data.formats.annotated_voc import read_annotated_voc
from detect.data.formats.coco import NO_SPLIT, coco_files, read_annotated_coco
from detect.data.formats.voc import (
    ClassNames,
    Progress,
    VOCDataset,
    VOCSource,
    plain_splits,
    read_voc,
)
from detect.data.formats.yolo import read_annotated_yolo
from detect.data.formats.yolo_layout import find_yolo_file, read_yolo_layout
from detect.errors import DetectError
from detect.structures import GroundTruth, ImageMeta

# What each format is known by.
SIGNS: dict[DataFormat, str] = {
    "voc": "Annotations/<id>.xml and JPEGImages/<id>.jpg",
    "coco": "annotations/instances_<split>.json or <split>/_annotations.coco.json",
    "yolo": "data.yaml with the names of the classes, or obj.names",
}


def formats_of(root: Path) -> list[DataFormat]:
    """Every format that a folder has the files of."""
    if root.is_file():
        return ["yolo"] if find_yolo_file(root) is not None else []
    found: list[DataFormat] = []
    # by their exact names: on some disks Annotations and annotations are the same
    names = {path.name for path in root.iterdir()} if root.is_dir() else set()
    if names & {"Annotations", "JPEGImages"}:
        found.append("voc")
    if coco_files(root):
        found.append("coco")
    if find_yolo_file(root) is not None:
        found.append("yolo")
    return found


def detect_format(root: Path) -> DataFormat:
    """The format of the data set in a folder.

    Raises:
        DetectError: there is no such folder, or it is of none of the formats, or of several.
    """
    found = formats_of(root)
    if len(found) == 1:
        return found[0]
    if found:
        signs = "; ".join(f"{name}: {SIGNS[name]}" for name in found)
        raise DetectError(
            f"{root}: expected a data set of one format, found the files of "
            f"{' and '.join(found)} ({signs}); say which one is meant with data.kind, or --from on "
            "the command line, or move the others elsewhere"
        )
    signs = "; ".join(f"{name}: {sign}" for name, sign in SIGNS.items())
    raise DetectError(f"{root}: expected a data set ({signs}), found {_what_is_there(root)}")


def _what_is_there(root: Path) -> str:
    if not root.is_dir():
        return "another file" if root.exists() else "nothing"
    near = [path for path in sorted([*root.glob("*"), *root.glob("*/*")]) if path.is_dir()]
    alike = [path for path in (root.parent, *near[:100]) if _is_data_set(path)]
    if alike:
        return f"none of them; did you mean {' or '.join(str(path) for path in alike[:3])}?"
    names = sorted(path.name for path in root.iterdir())
    return f"{', '.join(names[:10])}" if names else "an empty folder"


def _is_data_set(folder: Path) -> bool:
    try:
        return bool(formats_of(folder))
    except (DetectError, OSError):  # a folder that cannot be looked into is no hint
        return False


def splits_of(root: Path, data_format: DataFormat | None = None) -> list[str]:
    """The names of the splits of a data set; none where it has no splits.

    Raises:
        DetectError: there is no such set.
    """
    data_format = data_format or detect_format(root)
    if data_format == "voc":
        return plain_splits(root)
    if data_format == "coco":
        return [split for split in coco_files(root) if split != NO_SPLIT]
    return list(read_yolo_layout(root)[0].splits)


def read_annotated(
    root: Path,
    splits: Sequence[str] | None = None,
    classes: ClassNames = "auto",
    data_format: DataFormat | None = None,
    *,
    verify_images: bool = False,
    with_extras: bool = True,
    progress: Progress | None = None,
) -> AnnotatedSet:
    """Read a data set of any format with all that its files say.

    Args:
        root: its folder; of YOLO's format also the YAML file.
        splits: the splits to read; None for all, an empty list for all images of any split or
            none.
        classes: the names of the labels 0 … C−1, `voc`, or `auto` for those of the set.
        data_format: None finds out.
        verify_images: decode every image once. Otherwise only the headers are read.
        with_extras: keep what training has no use for, as far as that takes memory.
        progress: called with the number of images looked at and the number of all.

    Returns:
        The set; faulty objects and images are left out, and its `faults` say so.

    Raises:
        DetectError: there is no such set or split, a file of the set as a whole is broken, or the
            classes make no sense.
    """
    data_format = data_format or detect_format(root)
    if data_format == "voc":
        return read_annotated_voc(
            root, splits, classes, verify_images=verify_images, progress=progress
        )
    read = read_annotated_coco if data_format == "coco" else read_annotated_yolo
    return read(
        root,
        splits,
        classes,
        verify_images=verify_images,
        with_extras=with_extras,
        progress=progress,
    )


# ---- for training and evaluation --------------------------------------------------------------


def read_data(
    sources: Sequence[VOCSource],
    classes: ClassNames,
    data_format: DataFormat | None = None,
    *,
    on_error: Literal["stop", "skip"] = "stop",
    verify_images: bool = True,
    progress: Progress | None = None,
) -> VOCDataset:
    """Read splits of data sets of any format, joined in the order of `sources`.

    Args:
        sources: at least one; an image id may occur once in all of them.
        classes: the names of the labels 0 … C−1; `voc` for the 20 of PASCAL VOC; `auto` for those
            of the sets, of VOC's format sorted, of the others in their order.
        data_format: of all sources; None finds out for each.
        on_error: as in `read_voc`.
        verify_images: as in `read_voc`.
        progress: as in `read_voc`.

    Returns:
        The images. Both difficult objects and crowds count as difficult in their `GroundTruth`:
        training leaves them out, and evaluation neither demands nor punishes them.

    Raises:
        DataFaults: there are errors, and `on_error` is `stop`.
        DetectError: as `read_annotated`, or skipping leaves no image.
    """
    formats = [data_format or detect_format(source.root) for source in sources]
    for source, name in zip(sources, formats, strict=True):
        _refuse_other_format(source.root, name)
    if set(formats) <= {"voc"}:
        return read_voc(
            sources, classes, on_error=on_error, verify_images=verify_images, progress=progress
        )
    parts = [
        read_annotated(
            source.root,
            [source.split],
            classes,
            name,
            verify_images=verify_images,
            with_extras=False,
            progress=progress,
        )
        for source, name in zip(sources, formats, strict=True)
    ]
    return as_dataset(parts, on_error)


def _refuse_other_format(root: Path, data_format: DataFormat) -> None:
    """Tell which kind to set when the files are of another format than the one that was named."""
    found = formats_of(root)
    if found and data_format not in found:
        raise DetectError(
            f"{root}: expected a data set of kind {data_format} ({SIGNS[data_format]}), found one "
            f"of kind {found[0]} ({SIGNS[found[0]]}); set data.kind={found[0]}"
        )


def as_dataset(parts: Sequence[AnnotatedSet], on_error: Literal["stop", "skip"]) -> VOCDataset:
    """Join annotated sets into the one that training and evaluation use.

    Raises:
        DataFaults: they have errors, and `on_error` is `stop`.
        DetectError: no image or no class is left.
    """
    images, joined_faults = _with_ids_once(parts)
    faults = [*(fault for part in parts for fault in part.faults), *joined_faults]
    errors = [fault for fault in faults if fault.severity == "error"]
    roots = [part.root for part in parts]
    if errors and on_error == "stop":
        raise DataFaults(faults, roots, is_voc=all(part.data_format == "voc" for part in parts))
    places = ", ".join(dict.fromkeys(str(root) for root in roots))
    if not images:
        first = f"; the first fault: {errors[0]}" if errors else ""
        raise DetectError(f"{places}: none of the images is left after skipping{first}")
    class_names = tuple(dict.fromkeys(name for part in parts for name in part.class_names))
    if not class_names:
        raise DetectError(f"{places}: expected classes, found none; name them in the data set")
    labels = {name: label for label, name in enumerate(class_names)}
    return VOCDataset(
        class_names,
        [ImageMeta(p.image_id, p.image_path, p.size, p.size) for p in images],
        [_truth(image, labels) for image in images],
        faults=faults,
        num_skipped_images=sum(part.num_skipped_images for part in parts) + len(joined_faults),
        num_skipped_objects=sum(part.num_skipped_objects for part in parts),
    )


def _with_ids_once(parts: Sequence[AnnotatedSet]) -> tuple[list[AnnotatedImage], list[Fault]]:
    first: dict[str, AnnotatedImage] = {}
    faults = []
    for image in (image for part in parts for image in part.images):
        earlier = first.setdefault(image.image_id, image)
        if earlier is not image:
            value = f"the image {image.image_id} is there too: {earlier.image_path}"
            remedy = "the ids of joined sets must differ: rename the image in one"
            file = str(image.image_path)
            faults.append(Fault(file, None, "duplicate-image", value, remedy))
    return list(first.values()), faults


def _truth(image: AnnotatedImage, labels: dict[str, int]) -> GroundTruth:
    objects = image.objects
    return GroundTruth(
        torch.tensor([item.box for item in objects], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([labels[item.name] for item in objects], dtype=torch.int64),
        torch.tensor([item.difficult or item.crowd for item in objects], dtype=torch.bool),
    )
