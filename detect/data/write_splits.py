"""Giving a data set other splits, in its own folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from detect.data.annotated import AnnotatedImage, AnnotatedSet
from detect.data.formats.coco import ANNOTATION_FOLDER, IMAGE_FOLDER, ROBOFLOW_FILE, coco_files
from detect.data.formats.set_files import lines
from detect.data.formats.voc import split_file
from detect.data.formats.write_coco import coco_texts
from detect.data.formats.write_yolo import yaml_text
from detect.data.formats.yolo_layout import DARKNET_NAMES, find_yolo_file
from detect.data.reading import splits_of
from detect.errors import DetectError
from detect.files import replacing, write_text


@dataclass(frozen=True, slots=True)
class SplitsWritten:
    """What was written.

    Attributes:
        files: that hold the new splits.
        notes: what else the user should know.
    """

    files: tuple[Path, ...]
    notes: tuple[str, ...]


def with_splits(annotated: AnnotatedSet, splits: Sequence[str]) -> AnnotatedSet:
    """The set with each image in one split.

    Args:
        annotated: the set.
        splits: of each image.
    """
    images = tuple(
        replace(image, splits=(split,))
        for image, split in zip(annotated.images, splits, strict=True)
    )
    return replace(annotated, images=images)


def write_splits(annotated: AnnotatedSet, *, force: bool = False) -> SplitsWritten:
    """Write the splits of a set into its folder; images and labels stay where they are.

    Of VOC's layout these are lists in `ImageSets/Main`, of COCO's `annotations/instances_*.json`,
    of YOLO's lists beside the YAML file, which names them.

    Args:
        annotated: the set, each image in one split.
        force: replace the files of splits that are there.

    Raises:
        DetectError: such a file is there and `force` is false, or the layout has no place for
            other splits.
    """
    write = {"voc": _write_voc, "coco": _write_coco, "yolo": _write_yolo}[annotated.data_format]
    by_split: dict[str, list[AnnotatedImage]] = {}
    for image in annotated.images:
        by_split.setdefault(image.splits[0], []).append(image)
    return write(annotated, by_split, force)


def _refuse_present(files: Sequence[Path], force: bool) -> None:
    present = [path for path in files if path.exists()]
    if present and not force:
        raise DetectError(
            f"{present[0].parent}: expected no {', '.join(path.name for path in present)}, found "
            "them; give --force to replace them, or --out for a set of its own"
        )


def _old_splits(annotated: AnnotatedSet, new: Mapping[str, object]) -> tuple[str, ...]:
    old = [name for name in splits_of(annotated.root, annotated.data_format) if name not in new]
    if not old:
        return ()
    return (
        f"the splits {', '.join(old)} stay as they were; they have images of the new ones, so "
        "don't train on one and judge on the other",
    )


def _write_voc(
    annotated: AnnotatedSet, by_split: Mapping[str, Sequence[AnnotatedImage]], force: bool
) -> SplitsWritten:
    files = {split_file(annotated.root, name): own for name, own in by_split.items()}
    _refuse_present(list(files), force)
    notes = _old_splits(annotated, by_split)
    for path, own in files.items():
        write_text(path, lines(sorted(image.image_id for image in own)))
    return SplitsWritten(tuple(files), notes)


def _write_coco(
    annotated: AnnotatedSet, by_split: Mapping[str, Sequence[AnnotatedImage]], force: bool
) -> SplitsWritten:
    root = annotated.root
    if any(path.name == ROBOFLOW_FILE for path in coco_files(root).values()):
        raise DetectError(
            f"{root}: in Roboflow's layout the images lie in the folders of their splits; "
            "give --out for a set of its own"
        )
    folder = root / ANNOTATION_FOLDER
    files = [folder / f"instances_{name}.json" for name in by_split]
    _refuse_present(files, force)
    texts, losses = coco_texts(annotated, _coco_file_names(annotated))
    contents = {root / place: text for place, text in texts}
    notes = _old_splits(annotated, by_split)
    # the old files may hold what the new ones are made of: no name changes before all are written
    _write_together(contents)
    return SplitsWritten(tuple(contents), (*losses, *notes))


def _coco_file_names(annotated: AnnotatedSet) -> list[str]:
    """Paths below `images`, if all images are there, else below the root."""
    paths = [image.image_path for image in annotated.images]
    images = annotated.root / IMAGE_FOLDER
    for folder in (images, annotated.root):
        if all(path.is_relative_to(folder) for path in paths):
            return [path.relative_to(folder).as_posix() for path in paths]
    return [path.absolute().as_posix() for path in paths]


def _write_together(contents: Mapping[Path, str]) -> None:
    (path, text), *others = contents.items()
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        if others:
            _write_together(dict(others))


def _write_yolo(
    annotated: AnnotatedSet, by_split: Mapping[str, Sequence[AnnotatedImage]], force: bool
) -> SplitsWritten:
    root = annotated.root
    file = find_yolo_file(root)
    if file is None or file.name == DARKNET_NAMES:
        raise DetectError(
            f"{root}: expected a YAML file to name the splits in, found none; give --out for a "
            "set of its own"
        )
    old = splits_of(root, "yolo")
    if old and not force:
        raise DetectError(
            f"{file}: expected no splits, found {', '.join(old)}; give --force to replace them, "
            "or --out for a set of its own"
        )
    files = {root / f"{name}.txt": own for name, own in by_split.items()}
    _refuse_present(list(files), force)
    for path, own in files.items():
        rows = sorted(_listed_path(image.image_path, root) for image in own)
        write_text(path, lines(rows))
    # last: until it is there, the old splits hold
    places = {name: PurePosixPath(f"{name}.txt").as_posix() for name in by_split}
    write_text(file, yaml_text(annotated, places))
    notes = (f"{file} was rewritten without its comments",) if old else ()
    return SplitsWritten((*files, file), notes)


def _listed_path(path: Path, root: Path) -> str:
    # a path that begins with ./ counts from the list, for YOLO's own programs too
    if path.is_relative_to(root):
        return f"./{path.relative_to(root).as_posix()}"
    return path.resolve().as_posix()
