"""Files in the folders of a set that nothing lists."""

import re
from collections.abc import Iterator
from pathlib import Path

from detect.data.annotated import AnnotatedSet
from detect.data.checking.finding import Finding, warning
from detect.data.formats.voc import list_entries
from detect.data.images import IMAGE_SUFFIXES
from detect.errors import DetectError
from detect.files import read_rows

_REMEDY = "list it in a split, or delete it"
_NAMED_IMAGE = re.compile(r"image \d+ \((.+)\)", re.DOTALL)  # as COCO's reader titles an image


def check_listing(annotated: AnnotatedSet) -> Iterator[Finding]:
    """Images and annotations of a whole set that belong to no split."""
    if annotated.data_format == "voc":
        yield from _check_voc(annotated.root)
    else:
        yield from _check_image_folders(annotated)


def _check_voc(root: Path) -> Iterator[Finding]:
    entries, _ = list_entries(root)
    listed = {entry.image_id for entry in entries} | _listed_elsewhere(root)
    annotations, images = root / "Annotations", root / "JPEGImages"
    annotated = {_id_of(path, annotations): path for path in _files(annotations, (".xml",))}
    for image_id, path in annotated.items():
        if image_id not in listed:
            yield warning(path, None, "unlisted-annotation", "no split lists it", _REMEDY)
    for path in _files(images, IMAGE_SUFFIXES):
        image_id = _id_of(path, images)
        if image_id not in listed and image_id not in annotated:
            value = "no split lists the image, and it has no annotation"
            yield warning(path, None, "unlisted-image", value, _REMEDY, images=(path,))


def _listed_elsewhere(root: Path) -> set[str]:
    """Ids of VOC's other tasks, such as Segmentation: two thirds of VOC 2012 are listed by some."""
    listed = set()
    for path in sorted((root / "ImageSets").glob("*/*.txt")):
        try:
            rows = read_rows(path)
        except DetectError:
            continue  # a fault of that task
        listed.update(rows)
        listed.update(row.split()[0] for row in rows)
    return listed


def _check_image_folders(annotated: AnnotatedSet) -> Iterator[Finding]:
    """Images beside those of the set; folders that are not the set's own are not looked into.

    What a fault keeps out of the set is listed too, and said already.
    """
    if any(fault.rule == "no-labels" for fault in annotated.faults):
        return  # a whole split is out
    known = {image.image_path for image in annotated.images}
    faulty = {Path(fault.file).stem for fault in annotated.faults}
    titles = [_NAMED_IMAGE.fullmatch(fault.object or "") for fault in annotated.faults]
    faulty |= {Path(title[1]).stem for title in titles if title is not None}
    for folder in sorted({path.parent for path in known}):
        for path in _files(folder, IMAGE_SUFFIXES, deep=False):
            if path not in known and path.stem not in faulty:
                value = "the image lies beside those of the set, and nothing lists it"
                yield warning(path, None, "unlisted-image", value, _REMEDY, images=(path,))


def _files(folder: Path, suffixes: tuple[str, ...], *, deep: bool = True) -> list[Path]:
    found = folder.rglob("*") if deep else folder.glob("*")
    # hidden files are those of systems and tools, such as the Mac's ._000012.jpg
    return sorted(
        path for path in found if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )


def _id_of(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()
