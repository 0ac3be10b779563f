"""Data sets of any of the three formats: which one it is, and reading it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detect.data.annotated import AnnotatedSet, DataFormat
from detect.data.classes import ClassNames
from detect.data.dataset import DetectionDataset, OnError
from detect.data.faults import Progress
from detect.data.formats.coco import NO_SPLIT, coco_files, read_annotated_coco
from detect.data.formats.voc import plain_splits, read_annotated_voc, read_joined_voc
from detect.data.formats.yolo import read_annotated_yolo
from detect.data.formats.yolo_layout import find_yolo_file, read_yolo_layout
from detect.data.readers import DATASETS, DatasetRequest, Source, read_request
from detect.errors import DetectError

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


def splits_of(root: Path, data_format: str | None = None) -> list[str]:
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
        data_format: None detects it.
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


def read_dataset(
    root: str | Path,
    split: str | None = None,
    kind: str = "auto",
    classes: ClassNames = "auto",
    *,
    on_error: OnError = "stop",
    verify_images: bool | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> DetectionDataset:
    """Read a split of a data set of any kind, for training, evaluation or a look at it.

    Args:
        root: its folder; of YOLO's format also the YAML file.
        split: its name; None for all images of a set in VOC's, COCO's or YOLO's format.
        kind: any name in `DATASETS`; `auto` detects whether it is voc, coco or yolo.
        classes: the names of the labels 0 … C−1, in this order; `voc` for the 20 of PASCAL VOC;
            `auto` for those of the set.
        on_error: `stop` raises all errors together; `skip` leaves faulty objects and faulty
            images out, and says so in the data set's `faults`. Warnings never stop.
        verify_images: whether every image is decoded once, which finds damage behind the header;
            None for what is usual, which is yes but for ImageNet.
        progress: called with the number of images looked at and the number of all.
        options: the reader's own, such as `num_images` of the kind `shapes`.

    Raises:
        DataFaults: there are errors, and `on_error` is `stop`.
        DetectError: there is no such kind, set or split, the classes make no sense, or skipping
            leaves no image.
    """
    source = Source(Path(root), split)
    request = DatasetRequest(kind, (source,), classes, on_error, verify_images, progress=progress)
    return read_request(request, **options)


@DATASETS.register("auto")
def _read_auto(request: DatasetRequest) -> DetectionDataset:
    return _read(request, [detect_format(source.root) for source in request.sources])


@DATASETS.register("voc")
def _read_voc(request: DatasetRequest) -> DetectionDataset:
    return _read(request, ["voc"] * len(request.sources))


@DATASETS.register("coco")
def _read_coco(request: DatasetRequest) -> DetectionDataset:
    return _read(request, ["coco"] * len(request.sources))


@DATASETS.register("yolo")
def _read_yolo(request: DatasetRequest) -> DetectionDataset:
    return _read(request, ["yolo"] * len(request.sources))


def _read(request: DatasetRequest, formats: Sequence[DataFormat]) -> DetectionDataset:
    """Join the sources, each in its format; of `auto`, the classes of VOC sets alone are sorted."""
    for source, name in zip(request.sources, formats, strict=True):
        _refuse_other_format(source.root, name)
    verify_images = request.verify_images is not False
    if set(formats) <= {"voc"}:
        parts = [
            read_joined_voc(
                request.sources,
                request.classes,
                verify_images=verify_images,
                progress=request.progress,
            )
        ]
    else:
        parts = [
            read_annotated(
                source.root,
                [] if source.split is None else [source.split],
                request.classes,
                name,
                verify_images=verify_images,
                with_extras=False,
                progress=request.progress,
            )
            for source, name in zip(request.sources, formats, strict=True)
        ]
    return DetectionDataset.from_annotated(parts, request.on_error, name=request.name)


def _refuse_other_format(root: Path, data_format: DataFormat) -> None:
    """Tell which kind to set when the files are of another format than the one that was named."""
    found = formats_of(root)
    if found and data_format not in found:
        raise DetectError(
            f"{root}: expected a data set of kind {data_format} ({SIGNS[data_format]}), found one "
            f"of kind {found[0]} ({SIGNS[found[0]]}); set data.kind={found[0]}"
        )
