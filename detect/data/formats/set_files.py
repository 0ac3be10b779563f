"""What a data set becomes on the disk: the place of each image, the text files, the losses."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from detect.data.annotated import AnnotatedImage, AnnotatedSet
from detect.data.images import IMAGE_SUFFIXES
from detect.wording import counted

# What stands in a list of images, one a line, as it is.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


@dataclass(slots=True)
class SetFiles:
    """The files of a data set that is to be written.

    Attributes:
        images: the file of each image, and its path below the root of the new set.
        texts: path and content of each other file, made when it is written.
        num_objects: that they hold.
        losses: what the format cannot hold or has changed, in words, with counts.
        notes: what else the user should know.
    """

    images: list[tuple[Path, PurePosixPath]] = field(default_factory=list)
    texts: Iterable[tuple[PurePosixPath, str]] = ()
    num_objects: int = 0
    losses: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


SetWriter = Callable[[AnnotatedSet], SetFiles]


def split_names(annotated: AnnotatedSet) -> list[str]:
    """The splits of a set, in alphabetic order."""
    return sorted({split for image in annotated.images for split in image.splits})


def with_writable_ids(annotated: AnnotatedSet) -> tuple[AnnotatedSet, list[str]]:
    """The set with ids that are paths below its root, each once, and what had to be changed.

    Images that no list could name, or no reader would find, are left out.
    """
    has_splits = any(image.splits for image in annotated.images)
    images: list[AnnotatedImage] = []
    taken: set[str] = set()
    renamed, nameless, foreign, unlisted = [], [], [], []
    for image in annotated.images:
        image_id = _path_below(image.image_id)
        if not image_id or _CONTROL.search(image_id) or image_id != image_id.strip():
            nameless.append(image.image_id)
        elif image.image_path.suffix.lower() not in IMAGE_SUFFIXES:
            foreign.append(image.image_path.name)
        elif has_splits and not image.splits:
            unlisted.append(image.image_id)
        else:
            # a disk may take names for the same that differ in case only
            free, number = image_id, 2
            while free.lower() in taken:
                free, number = f"{image_id}_{number}", number + 1
            taken.add(free.lower())
            renamed += [image.image_id] * (free != image.image_id)
            images.append(replace(image, image_id=free))
    losses = [
        f"{counted(len(names), 'image')} {what}, such as {names[0]!r}"
        for names, what in (
            (renamed, "renamed, since their ids are no plain paths or differ in case only"),
            (nameless, "left out, since no list can hold their names"),
            (foreign, f"left out, since their suffix is none of {', '.join(IMAGE_SUFFIXES)}"),
            (unlisted, "left out, since they are in no split"),
        )
        if names
    ]
    return replace(annotated, images=tuple(images)), losses


def _path_below(image_id: str) -> str:
    parts = re.split(r"[/\\]", image_id)
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def image_name(image: AnnotatedImage) -> str:
    """The path of an image below the folder of images."""
    return f"{image.image_id}{image.image_path.suffix}"


def lines(rows: Sequence[str]) -> str:
    """Rows as the content of a text file."""
    return "".join(f"{row}\n" for row in rows)
