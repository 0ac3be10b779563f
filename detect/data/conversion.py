"""Writing a data set in any of the three formats."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from detect.data.annotated import AnnotatedSet, DataFormat
from detect.data.faults import Progress
from detect.data.formats.set_files import SetFiles, SetWriter
from detect.data.formats.write_coco import coco_files
from detect.data.formats.write_voc import voc_files
from detect.data.formats.write_yolo import yolo_files
from detect.errors import DetectError
from detect.files import replacing, write_text

WRITERS: dict[DataFormat, SetWriter] = {"voc": voc_files, "coco": coco_files, "yolo": yolo_files}

# Of text: of an image and of an object, rather too many.
_BYTES_A_IMAGE, _BYTES_AN_OBJECT = 1024, 512
_GIGABYTE = 1e9


@dataclass(frozen=True, slots=True)
class Written:
    """What a conversion left on the disk.

    Attributes:
        root: of the new set.
        data_format: of it.
        num_images: images.
        num_objects: objects.
        losses: what the format cannot hold or has changed, in words, with counts.
        notes: what else the user should know.
    """

    root: Path
    data_format: DataFormat
    num_images: int
    num_objects: int
    losses: tuple[str, ...]
    notes: tuple[str, ...]


def write_annotated(
    annotated: AnnotatedSet,
    out: Path,
    data_format: DataFormat,
    *,
    link: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Write a data set into a new folder.

    Args:
        annotated: the set, as `read_annotated` gives it.
        out: a folder that is empty or not there yet.
        data_format: of the new set.
        link: make links to the images, hard ones on the same disk, instead of copies.
        progress: called with the number of images written and the number of all.

    Raises:
        DetectError: the folder is not empty or cannot be written, the disk is too full, or a name
            cannot be held by the format.
    """
    _check_target(out)
    if not annotated.images:
        raise DetectError(f"{annotated.root}: expected images to write, found none")
    files = WRITERS[data_format](annotated)
    _check_space(out, annotated, files, link)
    for done, (source, place) in enumerate(files.images, start=1):
        _place_image(source, out / place, link)
        if progress is not None:
            progress(done, len(files.images))
    for place, text in files.texts:
        write_text(out / place, text)
    return Written(
        out,
        data_format,
        len(files.images),
        files.num_objects,
        tuple(files.losses),
        tuple(files.notes),
    )


def _check_target(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        found = "a folder that is not empty" if out.is_dir() else "a file"
        raise DetectError(
            f"{out}: expected a folder that is empty or not there yet, found {found}; "
            "name another, or delete it"
        )


def _check_space(out: Path, annotated: AnnotatedSet, files: SetFiles, link: bool) -> None:
    """Refuse before the first byte what would fill the disk."""
    needed = _BYTES_A_IMAGE * len(files.images) + _BYTES_AN_OBJECT * files.num_objects
    if not link:
        needed += sum(source.stat().st_size for source, _ in files.images)
    folder = next(path for path in (out.absolute(), *out.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    if needed > free:
        hint = "" if link else ", or give --link for links instead of copies"
        raise DetectError(
            f"{out}: {needed / _GIGABYTE:.2f} GB are needed for the {len(annotated.images)} "
            f"images, and {free / _GIGABYTE:.2f} GB are free; choose another disk{hint}"
        )


def _place_image(source: Path, target: Path, link: bool) -> None:
    try:
        if link:
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(source, target)
        else:
            with replacing(target) as temporary:
                shutil.copyfile(source, temporary)
    except OSError as error:
        raise DetectError(
            f"{target}: the image {source} cannot be written there: {error.strerror or error}"
        ) from error


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or one that has no hard links
        target.symlink_to(source.resolve())
