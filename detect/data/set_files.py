"""What a data set becomes on the disk: the place of each picture, the text files, the losses."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from detect.data.annotated import AnnotatedPicture, AnnotatedSet
from detect.data.voc import IMAGE_SUFFIXES

# What stands in a list of pictures, one a line, as it is.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


@dataclass(slots=True)
class SetFiles:
    """The files of a data set that is to be written.

    Attributes:
        pictures: the file of each picture, and its path below the root of the new set.
        texts: path and content of each other file, made when it is written.
        num_objects: that they hold.
        losses: what the format cannot hold or has changed, in words, with counts.
        notes: what else the user should know.
    """

    pictures: list[tuple[Path, PurePosixPath]] = field(default_factory=list)
    texts: Iterable[tuple[PurePosixPath, str]] = ()
    num_objects: int = 0
    losses: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


SetWriter = Callable[[AnnotatedSet], SetFiles]


def count_of(number: int, noun: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def split_names(annotated: AnnotatedSet) -> list[str]:
    """The splits of a set, in alphabetic order."""
    return sorted({split for picture in annotated.pictures for split in picture.splits})


def with_writable_ids(annotated: AnnotatedSet) -> tuple[AnnotatedSet, list[str]]:
    """The set with ids that are paths below its root, each once, and what had to be changed.

    Pictures that no list could name, or no reader would find, are left out.
    """
    has_splits = any(picture.splits for picture in annotated.pictures)
    pictures: list[AnnotatedPicture] = []
    taken: set[str] = set()
    renamed, nameless, foreign, unlisted = [], [], [], []
    for picture in annotated.pictures:
        image_id = _path_below(picture.image_id)
        if not image_id or _CONTROL.search(image_id) or image_id != image_id.strip():
            nameless.append(picture.image_id)
        elif picture.image_path.suffix.lower() not in IMAGE_SUFFIXES:
            foreign.append(picture.image_path.name)
        elif has_splits and not picture.splits:
            unlisted.append(picture.image_id)
        else:
            # a disk may take names for the same that differ in case only
            free, number = image_id, 2
            while free.lower() in taken:
                free, number = f"{image_id}_{number}", number + 1
            taken.add(free.lower())
            renamed += [picture.image_id] * (free != picture.image_id)
            pictures.append(replace(picture, image_id=free))
    losses = [
        f"{count_of(len(names), 'picture')} {what}, such as {names[0]!r}"
        for names, what in (
            (renamed, "renamed, since their ids are no plain paths or differ in case only"),
            (nameless, "left out, since no list can hold their names"),
            (foreign, f"left out, since their suffix is none of {', '.join(IMAGE_SUFFIXES)}"),
            (unlisted, "left out, since they are in no split"),
        )
        if names
    ]
    return replace(annotated, pictures=tuple(pictures)), losses


def _path_below(image_id: str) -> str:
    parts = re.split(r"[/\\]", image_id)
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def picture_name(picture: AnnotatedPicture) -> str:
    """The path of a picture below the folder of pictures."""
    return f"{picture.image_id}{picture.image_path.suffix}"


def lines(rows: Sequence[str]) -> str:
    """Rows as the content of a text file."""
    return "".join(f"{row}\n" for row in rows)
