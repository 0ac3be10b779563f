"""Data sets in COCO's detection format, read strictly.

```
root/annotations/instances_train.json      images, boxes and classes of a split, in one file
root/train/000000000012.jpg                its images; or in train2017/, images/train/ or images/

root/train/_annotations.coco.json          or so, as Roboflow exports them
root/train/000000000012.jpg
```

COCO's own files are `instances_train2017.json` and `train2017/`: their split is `train2017`. A file
`instances.json` is a set without splits. Where there is no such file, any other JSON file in
`annotations` is the split of its name.

Category ids may have gaps, as COCO's 1 … 90: labels are by ascending id. `iscrowd` is a crowd;
`difficult`, which this package also writes, is VOC's flag. A box is (x, y, width, height),
continuous and counted from 0. What passes the border by up to a pixel is cut off, with a warning
if it is more than a rounding. Faults of images, categories and annotations are collected; a file
that is no such data set ends at once in a `DetectError`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detect.data.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet, sound_extras
from detect.data.classes import ClassNames, listed_class_names, unknown_class_remedy
from detect.data.faults import BrokenEntry, Fault, Progress
from detect.data.formats.coco_fields import (
    ImageRecord,
    get_box,
    get_flag,
    get_id,
    get_text,
    get_value,
    measure_images,
    read_content,
    read_image_entries,
    some_of,
)
from detect.data.images import read_image_size, verify_image
from detect.data.merging import merge_splits
from detect.data.split_names import chosen_splits
from detect.errors import DetectError

ANNOTATION_FOLDER = "annotations"
IMAGE_FOLDER = "images"
ROBOFLOW_FILE = "_annotations.coco.json"
# Of the extras of a set: the entries of `categories`, and the other keys of the file of each split.
CATEGORIES, FILES = "categories", "files"
# The split of a set that has none.
NO_SPLIT = ""

_FORMAT = "COCO's detection format"
# In square pixels, of a product of decimals.
_MAX_AREA_ROUNDING = 1e-6
_INSTANCES = re.compile(r"instances(?:_(?P<split>.+))?\.json")
# COCO's files for other tasks, which lie in the same folder.
_OTHER_TASKS = ("person_keypoints", "captions", "stuff", "panoptic", "image_info")
_OWN_IMAGE_KEYS = frozenset({"file_name", "height", "width"})
_OWN_OBJECT_KEYS = frozenset({"image_id", "category_id", "bbox", "iscrowd", "difficult"})
_SET_KEYS = frozenset({"images", "annotations", "categories"})


def coco_files(root: Path) -> dict[str, Path]:
    """The annotation file of each split; that of a set without splits stands under `NO_SPLIT`."""
    own = sorted((root / ANNOTATION_FOLDER).glob("*.json"))
    matches = {path: _INSTANCES.fullmatch(path.name) for path in own}
    files = {match["split"] or NO_SPLIT: path for path, match in matches.items() if match}
    files |= {path.parent.name: path for path in sorted(root.glob(f"*/{ROBOFLOW_FILE}"))}
    if not files:
        others = [path for path in own if not path.name.startswith(_OTHER_TASKS)]
        files = {path.stem: path for path in others}
    if len(files) > 1 and NO_SPLIT in files:
        # the whole set beside its splits, as `detect data split` leaves it
        files.pop(NO_SPLIT)
    return files


def read_annotated_coco(
    root: Path,
    splits: Sequence[str] | None = None,
    classes: ClassNames = "auto",
    *,
    verify_images: bool = False,
    with_extras: bool = True,
    progress: Progress | None = None,
) -> AnnotatedSet:
    """Read a data set in COCO's detection format with all that its files say.

    Ids, `area`, `segmentation` and other keys are kept in the extras of images and objects; the
    categories, and what each file says as a whole, in the extras of the set.

    Args:
        root: the folder that holds `annotations`, or Roboflow's folder of each split.
        splits: the splits to read; None, or an empty list, for all.
        classes: the names of the labels 0 … C−1; `voc` for the 20 of PASCAL VOC; `auto` for the
            categories by ascending id. Given, a used category of another name is an error.
        verify_images: decode every image once. Otherwise only the headers are read.
        with_extras: keep what training has no use for. Polygons take much memory.
        progress: called with the number of images of a split looked at and the number of all.

    Returns:
        The set; faulty objects and images are left out, and its `faults` say so.

    Raises:
        DetectError: there is no such file or split, a file is no such data set, or the classes
            make no sense.
    """
    files = coco_files(root)
    if not files:
        raise DetectError(
            f"{root}: expected {_FORMAT}, {ANNOTATION_FOLDER}/instances_<split>.json or "
            f"<split>/{ROBOFLOW_FILE}, found none"
        )
    wanted = listed_class_names(classes)
    measure = verify_image if verify_images else read_image_size
    contents = [
        _read_file(root, split, files[split], measure, with_extras, progress)
        for split in chosen_splits(root, splits or None, files)
    ]
    table, faults = _join_categories(contents, wanted)
    images = [_annotated(content, table.names) for content in contents]
    merged, split_faults = merge_splits(image for part in images for image in part)
    records = [record for content in contents for record in content.images]
    return AnnotatedSet(
        root,
        "coco",
        table.names,
        tuple(merged),
        (*faults, *(f for content in contents for f in content.all_faults()), *split_faults),
        num_skipped_images=sum(record.meta is None for record in records),
        num_skipped_objects=sum(
            record.num_faulty_objects + sum(item.name not in table.names for item in record.objects)
            for record in records
            if record.meta is not None
        ),
        extras=_set_extras(contents, table) if with_extras else {},
    )


# ---- one file ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Record(ImageRecord):
    extras: Mapping[str, Any] = field(default_factory=dict)
    objects: list[AnnotatedObject] = field(default_factory=list)


@dataclass(slots=True)
class _Content:
    """What a file holds; `categories` are by id, as the file has them."""

    path: Path
    split: str
    faults: list[Fault]
    categories: dict[int | str, Mapping[str, Any]] = field(default_factory=dict)
    images: list[_Record] = field(default_factory=list)
    extras: Mapping[str, Any] = field(default_factory=dict)

    def all_faults(self) -> list[Fault]:
        return [*(fault for image in self.images for fault in image.faults), *self.faults]


def _read_file(
    root: Path,
    split: str,
    path: Path,
    measure: Callable[[Path], tuple[int, int]],
    with_extras: bool,
    progress: Progress | None,
) -> _Content:
    plain = read_content(path, _FORMAT)
    content = _Content(path, split, [])
    _read_categories(content, plain["categories"])
    folders = _image_folders(root, split, path)
    content.images = read_image_entries(
        path, plain["images"], lambda name: _locate(folders, name), lambda title: _Record(title)
    )
    measure_images(content.images, measure, progress)
    if with_extras:
        for record, entry in zip(content.images, plain["images"], strict=True):
            if record.meta is not None:
                record.extras, bad = sound_extras(entry, _OWN_IMAGE_KEYS)
                record.faults += _extras_faults(path, record.title, bad)
        others = {key: value for key, value in plain.items() if key not in _SET_KEYS}
        content.extras, bad = sound_extras(others)
        content.faults += _extras_faults(path, None, bad)
    _read_annotations(content, plain["annotations"], with_extras)
    return content


def _image_folders(root: Path, split: str, path: Path) -> list[Path]:
    """Where the images of a split may lie, the likeliest first."""
    if path.name == ROBOFLOW_FILE:
        return [path.parent]
    images = root / IMAGE_FOLDER
    names = (root / split, images / split, root / f"{split}2017", images / f"{split}2017")
    folders = [*names, images, root] if split else [images, root]
    return [folder for folder in folders if folder.is_dir()]


def _locate(folders: Sequence[Path], file_name: str) -> Path:
    """The path of an image; where there is none, that in the likeliest folder."""
    for folder in folders:
        path = folder / file_name
        try:
            if path.is_file():
                return path
        except OSError:  # a name that is too long for the disk
            break
    return folders[0] / file_name


def _extras_faults(path: Path, title: str | None, bad: Sequence[str]) -> list[Fault]:
    remedy = "correct it; it is not kept"
    return [Fault(str(path), title, "bad-extras", value, remedy, "warning") for value in bad]


# ---- categories -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Classes:
    names: tuple[str, ...]
    categories: tuple[Mapping[str, Any], ...]


def _read_categories(content: _Content, entries: Sequence[Any]) -> None:
    names: dict[str, str] = {}
    for number, entry in enumerate(entries, start=1):
        title = f"category {number}"
        try:
            name, category_id = get_text(entry, "name"), get_id(entry, "id")
            title = f"category {number} ({name})"
            if name in names or category_id in content.categories:
                taken = f"the name {name!r}" if name in names else f"the id {category_id!r}"
                value = f"{taken} is taken by another category"
                raise BrokenEntry("duplicate-category", value, "give each its own")
            names[name] = title
            content.categories[category_id], bad = sound_extras(entry)
            content.faults += _extras_faults(content.path, title, bad)
        except BrokenEntry as broken:
            content.faults.append(broken.at(content.path, title))


def _join_categories(
    contents: Sequence[_Content], wanted: tuple[str, ...] | None
) -> tuple[_Classes, list[Fault]]:
    """The classes of all files, by ascending id; the ids of the first file hold."""
    categories: dict[str, Mapping[str, Any]] = {}
    paths: dict[str, Path] = {}
    faults = []
    for content in contents:
        for category_id, category in content.categories.items():
            name = category["name"]
            first = categories.setdefault(name, category)
            paths.setdefault(name, content.path)
            if first["id"] != category_id:
                value = f"category {name!r} has the id {category_id!r} here and {first['id']!r} in "
                value += str(paths[name])
                remedy = "classes are joined by their names; give them the same ids"
                file = str(content.path)
                faults.append(Fault(file, None, "different-ids", value, remedy, "warning"))
    ordered = sorted(categories.values(), key=lambda c: (isinstance(c["id"], str), c["id"]))
    used = {item.name for c in contents for record in c.images for item in record.objects}
    if wanted is not None:
        faults += [
            _unknown_class(paths[name], name, wanted)
            for name in categories
            if name in used and name not in wanted
        ]
        return _Classes(wanted, tuple(ordered)), faults
    # Roboflow puts the name of the whole set first, as the supercategory of all classes
    parents = {category.get("supercategory") for category in ordered if _is_text_parent(category)}
    names = [category["name"] for category in ordered]
    groups = [name for name in names if name in parents and name not in used]
    for name in groups:
        value = f"the category {name!r} has no object and is the supercategory of others: no class"
        remedy = "delete it, or name it in data.classes with the others"
        file = str(paths[name])
        faults.append(Fault(file, None, "group-category", value, remedy, "warning"))
    return _Classes(tuple(n for n in names if n not in groups), tuple(ordered)), faults


def _is_text_parent(category: Mapping[str, Any]) -> bool:
    parent = category.get("supercategory")
    return isinstance(parent, str) and parent != category["name"]


def _unknown_class(path: Path, name: str, wanted: Sequence[str]) -> Fault:
    remedy = unknown_class_remedy(name, wanted)
    value = f"unknown class {name!r}"
    return Fault(str(path), f"category {name}", "unknown-class", value, remedy)


def _set_extras(contents: Sequence[_Content], classes: _Classes) -> dict[str, Any]:
    """The categories, and what each file says as a whole, by its split."""
    categories = [dict(category) for category in classes.categories]
    files = {content.split: dict(content.extras) for content in contents if content.extras}
    return {CATEGORIES: categories, **({FILES: files} if files else {})}


# ---- annotations ------------------------------------------------------------------------------


def _read_annotations(content: _Content, entries: Sequence[Any], with_extras: bool) -> None:
    """Give every image its objects; faults of those of no image are the file's."""
    by_key = {image.key: image for image in content.images if image.key is not None}
    ids: dict[int | str, str] = {}
    for number, entry in enumerate(entries, start=1):
        title = f"annotation {number}"
        record = None
        try:
            own_id = get_id(entry, "id")
            title = f"annotation {number} (id {own_id!r:.20})"
            record = _image_of(entry, by_key)
            if own_id in ids:
                value = f"{ids[own_id]} has that id too"
                raise BrokenEntry("duplicate-annotation", value, "give each an id of its own")
            ids[own_id] = title
            _read_object(content, record, entry, title, with_extras)
        except BrokenEntry as broken:
            faults = content.faults if record is None else record.faults
            faults.append(broken.at(content.path, title))
            if record is not None:
                record.num_faulty_objects += 1


def _image_of(entry: Any, by_key: Mapping[int | str, _Record]) -> _Record:
    key = get_id(entry, "image_id")
    if key not in by_key:
        value = f"there is no image with the id {key!r:.20}"
        raise BrokenEntry("unknown-image", value, "add the image, or delete the annotation")
    return by_key[key]


def _read_object(
    content: _Content, record: _Record, entry: dict[str, Any], title: str, with_extras: bool
) -> None:
    category_id = get_id(entry, "category_id")
    if category_id not in content.categories:
        known = [f"{key!r} ({c['name']})" for key, c in content.categories.items()]
        value = f"there is no category with the id {category_id!r:.20}"
        raise BrokenEntry("unknown-category", value, f"correct it; there are: {some_of(known)}")
    name = content.categories[category_id]["name"]
    title = f"{title[:-1]}, {name})"
    get_value(entry, "bbox")
    is_crowd, is_difficult = get_flag(entry, "iscrowd"), get_flag(entry, "difficult")
    box, complaints = get_box(entry, record.stated_size)
    for complaint in complaints:
        record.faults.append(Fault(str(content.path), title, *complaint, "warning"))
    extras: dict[str, Any] = {}
    if with_extras:
        extras, bad = sound_extras(entry, _OWN_OBJECT_KEYS)
        record.faults += _extras_faults(content.path, title, bad)
        _drop_plain_area(extras, entry["bbox"])
    record.objects.append(AnnotatedObject(title, name, box, is_difficult, is_crowd, extras))


def _drop_plain_area(extras: dict[str, Any], box: Sequence[float]) -> None:
    """Keep an `area` only if it is not just that of the box."""
    area = extras.get("area")
    if isinstance(area, int | float) and abs(area - box[2] * box[3]) < _MAX_AREA_ROUNDING:
        del extras["area"]


def _annotated(content: _Content, class_names: Sequence[str]) -> list[AnnotatedImage]:
    known = set(class_names)
    return [
        AnnotatedImage(
            record.image_id,
            record.path,
            content.path,
            record.stated_size,
            (content.split,) if content.split else (),
            tuple(item for item in record.objects if item.name in known),
            record.extras,
        )
        for record in content.images
        if record.meta is not None and record.path is not None and record.stated_size is not None
    ]
