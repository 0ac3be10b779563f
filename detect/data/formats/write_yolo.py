"""The files of a data set in YOLO's text format, in Ultralytics' layout."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from detect.data.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet
from detect.data.formats.set_extras import EXTRAS_FILE, SetExtras, set_extras_text
from detect.data.formats.set_files import (
    SetFiles,
    image_name,
    lines,
    split_names,
    with_writable_ids,
)
from detect.data.formats.yolo import IMAGES, LABELS, label_checksum
from detect.data.formats.yolo_layout import KNOWN_KEYS, YAML_EXTRAS
from detect.errors import DetectError

YAML_FILE = "data.yaml"
# Digits of a share: a billionth of a pixel of the largest image.
_DIGITS = 14


def yolo_files(annotated: AnnotatedSet) -> SetFiles:
    """Lay a set out as YOLO's text: `images/<split>`, `labels/<split>` and `data.yaml`.

    An image of several splits lies in the folder of the smallest of them. A split that is not the
    images of whole folders becomes a list of images, `<split>.txt`. Flags and extras, which
    rows cannot hold, go to `extras.json`.

    Raises:
        DetectError: a split has the name of a key of `data.yaml`.
    """
    splits = split_names(annotated)
    reserved = [split for split in splits if split in KNOWN_KEYS]
    if reserved:
        raise DetectError(
            f"{annotated.root}: the split {reserved[0]!r} has the name of a key of {YAML_FILE}; "
            "rename it"
        )
    sound, losses = with_writable_ids(annotated)
    homes = _homes(sound.images, splits)
    notes = []
    if splits and not {"train", "val"} <= set(splits):
        notes.append(
            f"{YAML_FILE} has the splits {', '.join(splits)}; YOLO's own programs look for train "
            "and val"
        )
    return SetFiles(
        [
            (p.image_path, PurePosixPath(IMAGES) / home / image_name(p))
            for p, home in zip(sound.images, homes, strict=True)
        ],
        _texts(sound, homes),
        sum(len(image.objects) for image in sound.images),
        losses,
        notes,
    )


def _homes(images: Sequence[AnnotatedImage], splits: Sequence[str]) -> list[str]:
    """The split whose folder each image lies in; `` where there are no splits."""
    sizes = {split: sum(split in image.splits for image in images) for split in splits}
    return [min(p.splits, key=lambda s: (sizes[s], s)) if p.splits else "" for p in images]


def _texts(annotated: AnnotatedSet, homes: Sequence[str]) -> Iterator[tuple[PurePosixPath, str]]:
    labels = {name: label for label, name in enumerate(annotated.class_names)}
    kept: dict[str, Any] = {}
    for image, home in zip(annotated.images, homes, strict=True):
        text = lines([label_row(item, labels[item.name], image.size) for item in image.objects])
        place = PurePosixPath(LABELS) / home / f"{image.image_id}.txt"
        yield place, text
        entry = _kept_beside(image, text)
        if entry is not None:
            kept[str(place)] = entry
    others = {key: value for key, value in annotated.extras.items() if key != YAML_EXTRAS}
    if kept or others:
        yield PurePosixPath(EXTRAS_FILE), set_extras_text(SetExtras((), others, kept))
    places: dict[str, str | list[str]] = {}
    for split in split_names(annotated):
        own = {p.image_id for p in annotated.images if split in p.splits}
        paths = [
            (p.image_id, home, f"./{IMAGES}/{home}/{image_name(p)}")
            for p, home in zip(annotated.images, homes, strict=True)
        ]
        folders = sorted({home for image_id, home, _ in paths if image_id in own})
        if own == {image_id for image_id, home, _ in paths if home in folders}:
            named = [f"{IMAGES}/{folder}" for folder in folders]
            places[split] = named[0] if len(named) == 1 else named
        else:
            yield PurePosixPath(f"{split}.txt"), lines([p for i, _, p in paths if i in own])
            places[split] = f"{split}.txt"
    yield PurePosixPath(YAML_FILE), yaml_text(annotated, places)


def yaml_text(annotated: AnnotatedSet, places: Mapping[str, str | Sequence[str]]) -> str:
    """The YAML file, the splits in the order that people expect."""
    first = [split for split in ("train", "val", "test") if split in places]
    content = {
        **{split: places[split] for split in dict.fromkeys([*first, *places])},
        **annotated.extras.get(YAML_EXTRAS, {}),
        "names": dict(enumerate(annotated.class_names)),
    }
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return text


def label_row(item: AnnotatedObject, label: int, size: tuple[int, int]) -> str:
    """`class cx cy w h` of an object in an image of (height, width)."""
    x1, y1, x2, y2 = item.box
    height, width = size
    shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return " ".join([str(label), *(_decimal(share) for share in shares)])


def _decimal(share: float) -> str:
    """Without an exponent, which some readers do not know."""
    return f"{share:.{_DIGITS}f}".rstrip("0").rstrip(".")


def _kept_beside(image: AnnotatedImage, text: str) -> dict[str, Any] | None:
    """The entry of an image in `extras.json`; None if its rows say all."""
    objects = {}
    for row, item in enumerate(image.objects, start=1):
        entry: dict[str, Any] = {}
        entry |= {"difficult": True} if item.difficult else {}
        entry |= {"crowd": True} if item.crowd else {}
        entry |= {"extras": dict(item.extras)} if item.extras else {}
        if entry:
            objects[str(row)] = entry
    if not objects and not image.extras:
        return None
    return {
        "extras": dict(image.extras),
        "checksum": label_checksum(text),
        "objects": objects,
    }
