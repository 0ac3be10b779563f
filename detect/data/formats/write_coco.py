"""The files of a data set in COCO's detection format."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from detect.data.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet, plain_decimal
from detect.data.formats.coco import ANNOTATION_FOLDER, CATEGORIES, FILES, IMAGE_FOLDER, NO_SPLIT
from detect.data.formats.set_files import (
    SetFiles,
    image_name,
    split_names,
    with_writable_ids,
)
from detect.data.formats.yolo_layout import YAML_EXTRAS
from detect.data.identifiers import assign_ids, ids_of_names
from detect.wording import counted

_IMAGES = PurePosixPath(IMAGE_FOLDER)
_ANNOTATIONS = PurePosixPath(ANNOTATION_FOLDER)


def coco_files(annotated: AnnotatedSet) -> SetFiles:
    """Lay a set out as COCO's: `annotations/instances_<split>.json` and all images in `images/`.

    Ids of images, annotations and categories are those that the extras hold, where these are
    unique in each split. Otherwise they are made: of an image of the digits in its name, as
    `2007_000027`, if all names are such, else counted from 1 by name; of annotations counted from 1
    in the order of images; of categories in the order of labels.
    """
    sound, losses = with_writable_ids(annotated)
    files, changes = coco_texts(sound, [image_name(image) for image in sound.images])
    losses += changes
    if YAML_EXTRAS in annotated.extras:
        losses.append(f"keys of the YAML file: {', '.join(annotated.extras[YAML_EXTRAS])}")
    return SetFiles(
        [(p.image_path, _IMAGES / image_name(p)) for p in sound.images],
        files,
        sum(len(image.objects) for image in sound.images),
        losses,
    )


def coco_texts(
    annotated: AnnotatedSet, file_names: Sequence[str]
) -> tuple[Iterator[tuple[PurePosixPath, str]], list[str]]:
    """The annotation file of each split, and what is not as it was.

    Args:
        annotated: the set.
        file_names: the `file_name` of each image.
    """
    category_ids, categories, losses = _categories(annotated)
    image_ids, changed = _image_ids(annotated.images)
    object_ids, changed_objects = _object_ids(annotated.images)
    for number, what in ((changed, "image"), (changed_objects, "annotation")):
        if number:
            losses.append(f"new ids for {counted(number, what)}: theirs were taken in a split")
    entries: list[tuple[tuple[str, ...], str, list[str]]] = []
    ids = iter(object_ids)
    for image, file_name, image_id in zip(annotated.images, file_names, image_ids, strict=True):
        height, width = image.size
        own = {"id": image_id, "file_name": file_name, "height": height, "width": width}
        rows = [
            _to_json(_annotation(item, next(ids), image_id, category_ids[item.name]))
            for item in image.objects
        ]
        entries.append((image.splits or (NO_SPLIT,), _to_json({**image.extras, **own}), rows))
    return _texts(annotated, categories, entries), losses


def _texts(
    annotated: AnnotatedSet,
    categories: Sequence[Mapping[str, Any]],
    entries: Sequence[tuple[tuple[str, ...], str, list[str]]],
) -> Iterator[tuple[PurePosixPath, str]]:
    for split in split_names(annotated) or [NO_SPLIT]:
        own = [(image, rows) for splits, image, rows in entries if split in splits]
        parts = {
            **{key: _to_json(value) for key, value in _top_level(annotated, split).items()},
            "images": _list([image for image, _ in own]),
            "annotations": _list([row for _, rows in own for row in rows]),
            "categories": _list([_to_json(category) for category in categories]),
        }
        text = ",\n".join(f"{_to_json(key)}: {value}" for key, value in parts.items())
        name = f"instances_{split}.json" if split else "instances.json"
        yield _ANNOTATIONS / name, f"{{\n{text}\n}}\n"


def _to_json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _list(rows: Sequence[str]) -> str:
    # an entry a line: a change of one object is a change of one line
    return "[\n" + ",\n".join(rows) + "\n]"


def _top_level(annotated: AnnotatedSet, split: str) -> Mapping[str, Any]:
    """What a file says as a whole, such as `info`; new splits say what all old ones said alike."""
    files = annotated.extras.get(FILES, {})
    if split in files:
        found: Mapping[str, Any] = files[split]
        return found
    contents = list(files.values())
    return contents[0] if contents and all(c == contents[0] for c in contents) else {}


def _annotation(
    item: AnnotatedObject, own_id: int | str, image_id: int | str, category_id: int | str
) -> dict[str, Any]:
    x1, y1, x2, y2 = item.box
    width, height = plain_decimal(x2 - x1), plain_decimal(y2 - y1)
    return {
        "area": plain_decimal(width * height),
        **item.extras,
        "id": own_id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [plain_decimal(x1), plain_decimal(y1), width, height],
        "iscrowd": int(item.crowd),
        "difficult": int(item.difficult),
    }


# ---- ids --------------------------------------------------------------------------------------


def _categories(
    annotated: AnnotatedSet,
) -> tuple[dict[str, int | str], list[dict[str, Any]], list[str]]:
    """The id of each class, the entries of `categories`, and what is not as it was."""
    known = {entry["name"]: dict(entry) for entry in annotated.extras.get(CATEGORIES, [])}
    numbers = [entry["id"] for entry in known.values() if isinstance(entry["id"], int)]
    free = max(numbers, default=0) + 1
    for name in annotated.class_names:
        if name not in known:
            known[name] = {"id": free, "name": name}
            free += 1
    entries = sorted(known.values(), key=lambda entry: (isinstance(entry["id"], str), entry["id"]))
    losses = []
    if [e["name"] for e in entries if e["name"] in annotated.class_names] != list(
        annotated.class_names
    ):
        # labels are by ascending id
        losses.append("the ids of the categories, which are renumbered in the order of the classes")
        entries = [
            {**known[name], "id": number} for number, name in enumerate(annotated.class_names, 1)
        ]
    return {entry["name"]: entry["id"] for entry in entries}, entries, losses


def _image_ids(images: Sequence[AnnotatedImage]) -> tuple[list[int | str], int]:
    splits = [image.splits for image in images]
    stated = [image.extras.get("id") for image in images]
    if all(value is None for value in stated):
        return ids_of_names([image.image_id for image in images]), 0
    return assign_ids(stated, splits)


def _object_ids(images: Sequence[AnnotatedImage]) -> tuple[list[int | str], int]:
    stated = [item.extras.get("id") for image in images for item in image.objects]
    splits = [image.splits for image in images for _ in image.objects]
    return assign_ids(stated, splits)
