"""Data sets in YOLO's text format, read strictly.

```
root/data.yaml                 path, train, val, test, and the names of the classes
root/images/train/0012.jpg     the images of a split
root/labels/train/0012.txt     its objects, rows `class cx cy w h`, as shares of the image's sides
```

`train`, `val` and any other split of the YAML file (Ultralytics' layout) are a folder of images,
a text file that lists images, or a list of those. The labels of `…/images/….jpg` are
`…/labels/….txt`, or lie beside the image. Darknet's `obj.names` with lists `train.txt` is read
as well.

An image without a label file has no objects: that is how background is written. A split without
any label file is a fault. `extras.json`, which this package writes beside the YAML file, holds the
flags and extras that a row has no place for.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from detect.data.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet, sound_extras
from detect.data.classes import ClassNames, listed_class_names, unknown_class_remedy
from detect.data.faults import BrokenEntry, Fault, Progress
from detect.data.formats.set_extras import EXTRAS_FILE, read_set_extras
from detect.data.formats.yolo_layout import YAML_EXTRAS, YOLOLayout, read_yolo_layout
from detect.data.formats.yolo_rows import read_box, read_class
from detect.data.images import IMAGE_SUFFIXES, ImageError, read_image_size, verify_image
from detect.data.measuring import look_at_images, unreadable
from detect.data.merging import merge_splits
from detect.data.split_names import chosen_splits
from detect.errors import DetectError
from detect.files import read_rows
from detect.wording import counted

IMAGES, LABELS = "images", "labels"
# What LabelImg leaves among the labels.
_NO_LABELS = frozenset({"classes.txt"})


def read_annotated_yolo(
    root: Path,
    splits: Sequence[str] | None = None,
    classes: ClassNames = "auto",
    *,
    verify_images: bool = False,
    with_extras: bool = True,
    progress: Progress | None = None,
) -> AnnotatedSet:
    """Read a data set in YOLO's text format with all that its files say.

    Args:
        root: the folder with `data.yaml` or `obj.names`; or the YAML file itself.
        splits: the splits to read; None, or an empty list, for all.
        classes: the names of the labels 0 … C−1; `voc` for the 20 of PASCAL VOC; `auto` for those
            of the YAML file. Given, a used class of another name is an error.
        verify_images: decode every image once. Otherwise only the headers are read.
        with_extras: keep what training has no use for; the flags are kept anyway.
        progress: called with the number of images looked at and the number of all.

    Returns:
        The set; faulty objects and images are left out, and its `faults` say so.

    Raises:
        DetectError: there is no such file or split, the YAML file is broken, or the classes make
            no sense.
    """
    layout, faults = read_yolo_layout(root)
    wanted = listed_class_names(classes)
    set_extras, extras_faults = read_set_extras(layout.file.parent)
    faults += extras_faults
    records = []
    for split in chosen_splits(root, splits or None, layout.splits):
        own, listing_faults = _list_images(layout, split)
        records += own
        faults += listing_faults
    if not layout.splits:
        records, faults = _list_all(layout, faults)
    if not records:
        raise DetectError(
            f"{layout.file}: expected images in its splits, found none; "
            f"put images with one of the suffixes {', '.join(IMAGE_SUFFIXES)} there"
        )
    _measure(records, verify_image if verify_images else read_image_size, progress)
    for record in records:
        record.read_labels(layout.class_names)
    faults += _without_labels(records)
    images, split_faults = merge_splits(r.annotated() for r in records if r.is_sound)
    images, sidecar_faults = _with_extras(
        images, set_extras.images, layout.file.parent, with_extras
    )
    names, class_faults = _class_names(layout, images, wanted)
    kept = set(names)
    sifted = [_of_classes(image, kept) for image in images]
    return AnnotatedSet(
        layout.file.parent,
        "yolo",
        names,
        tuple(sifted),
        (
            *faults,
            *class_faults,
            *(fault for record in records for fault in record.faults),
            *split_faults,
            *sidecar_faults,
        ),
        num_skipped_images=sum(not record.is_sound for record in records),
        num_skipped_objects=sum(r.num_faulty_objects for r in records if r.is_sound)
        + sum(len(p.objects) for p in images)
        - sum(len(p.objects) for p in sifted),
        extras={**set_extras.extras, **({YAML_EXTRAS: layout.extras} if layout.extras else {})},
    )


# ---- classes ---------------------------------------------------------------------------------


def _class_names(
    layout: YOLOLayout, images: Sequence[AnnotatedImage], wanted: tuple[str, ...] | None
) -> tuple[tuple[str, ...], list[Fault]]:
    if wanted is None:
        return layout.class_names, []
    used = {item.name for image in images for item in image.objects}
    faults = []
    for name in (name for name in layout.class_names if name in used and name not in wanted):
        remedy = unknown_class_remedy(name, wanted)
        title, value = f"class {name}", f"unknown class {name!r}"
        faults.append(Fault(str(layout.file), title, "unknown-class", value, remedy))
    return wanted, faults


def _of_classes(image: AnnotatedImage, names: set[str]) -> AnnotatedImage:
    if all(item.name in names for item in image.objects):
        return image
    kept = tuple(item for item in image.objects if item.name in names)
    return replace(image, objects=kept)


# ---- images of a split ----------------------------------------------------------------------


@dataclass(slots=True)
class _Record:
    """An image of one split, and the rows of its label file."""

    image_id: str
    image_path: Path
    label_path: Path
    split: str
    faults: list[Fault] = field(default_factory=list)
    size: tuple[int, int] | None = None
    has_labels: bool = False
    is_readable: bool = True
    objects: list[AnnotatedObject] = field(default_factory=list)
    num_faulty_objects: int = 0

    @property
    def is_sound(self) -> bool:
        return self.size is not None and self.is_readable

    def fault(self, title: str | None, rule: str, value: str, remedy: str) -> None:
        self.faults.append(Fault(str(self.label_path), title, rule, value, remedy))

    def read_labels(self, class_names: Sequence[str]) -> None:
        """Read the rows; each that is faulty is counted and left out."""
        try:
            text = self.label_path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            remedy = "check it and its permissions"
            self.fault(None, "unreadable-labels", f"the file cannot be read: {reason}", remedy)
            self.is_readable = False
            return
        self.has_labels = True
        seen: dict[str, str] = {}
        for number, row in enumerate(text.splitlines(), start=1):
            if not row.strip():
                continue
            title = f"line {number}"
            columns = row.split()
            place = title
            try:
                name = read_class(columns[0], class_names)
                title = f"{place} ({name})"
                box, warnings = read_box(columns, self.size)
            except BrokenEntry as broken:
                self.faults.append(broken.at(self.label_path, title))
                self.num_faulty_objects += 1
                continue
            item = AnnotatedObject(title, name, box)
            earlier = seen.setdefault(" ".join(columns), place)
            if earlier != place:
                value, remedy = f"the same row as {earlier}", "delete one of the two"
                warnings.append(("duplicate-object", value, remedy))
            for warning in warnings:
                self.faults.append(Fault(str(self.label_path), item.title, *warning, "warning"))
            self.objects.append(item)

    def annotated(self) -> AnnotatedImage:
        assert self.size is not None
        return AnnotatedImage(
            self.image_id,
            self.image_path,
            self.label_path,
            self.size,
            (self.split,) if self.split else (),
            tuple(self.objects),
        )


def _list_images(layout: YOLOLayout, split: str) -> tuple[list[_Record], list[Fault]]:
    """The images of a split; label files in its folders that have no image are faults."""
    records: dict[Path, _Record] = {}
    faults = []
    for source in layout.splits[split]:
        if source.is_dir():
            paths = _images_below(source)
            ids = [path.relative_to(source).with_suffix("").as_posix() for path in paths]
            faults += _stray_labels(source, paths)
        elif source.suffix == ".txt" and source.is_file():
            paths, list_faults = _listed_images(layout.file.parent, source)
            faults += list_faults
            ids = [_id_of_listed(layout, path) for path in paths]
        else:
            raise DetectError(
                f"{layout.file}: {split}: expected a folder of images or a list of them (.txt), "
                f"found {'a file' if source.exists() else 'nothing'} at {source}"
            )
        for path, image_id in zip(paths, ids, strict=True):
            if path in records:
                value, remedy = f"the image {path} is listed twice", "delete one of the rows"
                faults.append(Fault(str(source), None, "duplicate-image", value, remedy))
            else:
                records[path] = _Record(image_id, path, _label_path(path), split)
    if not records:
        value, remedy = f"the split {split!r} has no image", "add images, or delete the split"
        place = ", ".join(str(source) for source in layout.splits[split])
        faults.append(Fault(place, None, "empty-split", value, remedy))
    return list(records.values()), faults


def _list_all(layout: YOLOLayout, faults: list[Fault]) -> tuple[list[_Record], list[Fault]]:
    """All images in `images`, of a set that has no splits."""
    folder = layout.file.parent / IMAGES
    if not folder.is_dir():
        raise DetectError(
            f"{layout.file}: expected the keys train and val, folders or lists of images, found "
            "neither, nor a folder images"
        )
    paths = _images_below(folder)
    records = [
        _Record(path.relative_to(folder).with_suffix("").as_posix(), path, _label_path(path), "")
        for path in paths
    ]
    return records, [*faults, *_stray_labels(folder, paths)]


def _images_below(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def _listed_images(root: Path, source: Path) -> tuple[list[Path], list[Fault]]:
    paths, faults = [], []
    for number, row in enumerate(read_rows(source), start=1):
        # darknet's lists count from its own folder, such as data/obj_train_data/0012.jpg
        tail = PurePosixPath(row.replace("\\", "/"))
        candidates = [source.parent / tail, root / tail]
        candidates += [root.joinpath(*tail.parts[1:])] if len(tail.parts) > 1 else []
        found = [path for path in candidates if _is_file(path)]
        if found:
            paths.append(found[0])
            continue
        value = f"there is no image {row[:80]!r}"
        remedy = "put the image there, or delete the row"
        faults.append(Fault(str(source), f"line {number}", "missing-image", value, remedy))
    return paths, faults


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no possible name, or too long for the disk
        return False


def _id_of_listed(layout: YOLOLayout, path: Path) -> str:
    """The path below the last folder `images`, and below that of a split, without the suffix."""
    parts = path.with_suffix("").parts
    if IMAGES not in parts[:-1]:
        return path.stem
    tail = parts[len(parts) - parts[::-1].index(IMAGES, 1) :]
    return "/".join(tail[1:] if len(tail) > 1 and tail[0] in layout.splits else tail)


def _label_path(image_path: Path) -> Path:
    """`…/labels/….txt` of `…/images/….jpg`; where there is none, beside the image."""
    beside = image_path.with_suffix(".txt")
    parts = list(image_path.parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == IMAGES:
            parts[position] = LABELS
            path = Path(*parts).with_suffix(".txt")
            return path if path.is_file() or not beside.is_file() else beside
    return beside


def _stray_labels(folder: Path, images: Sequence[Path]) -> list[Fault]:
    """Label files without an image."""
    parts = list(folder.parts)
    if IMAGES not in parts:
        return []
    parts[len(parts) - 1 - parts[::-1].index(IMAGES)] = LABELS
    labels = Path(*parts)
    known = {_label_path(path) for path in images}
    remedy = f"put the image into {folder}, or delete the file"
    return [
        Fault(str(path), None, "missing-image", "there is no image of these labels", remedy)
        for path in sorted(labels.rglob("*.txt"))
        if path not in known and path.name not in _NO_LABELS
    ]


def _measure(
    records: Sequence[_Record],
    measure: Callable[[Path], tuple[int, int]],
    progress: Progress | None,
) -> None:
    """Give every image its size."""
    sizes = look_at_images([record.image_path for record in records], measure, progress)
    for record, size in zip(records, sizes, strict=True):
        if isinstance(size, ImageError):
            record.faults.append(unreadable(record.image_path, size))
        else:
            record.size = size


def _without_labels(records: Sequence[_Record]) -> list[Fault]:
    """Faults of splits without any label file, warnings of those where most are missing."""
    faults = []
    for split in dict.fromkeys(record.split for record in records):
        own = [record for record in records if record.split == split]
        missing = [record for record in own if not record.has_labels and record.is_readable]
        where = missing[0].label_path if missing else None
        if len(missing) == len(own):
            value = f"none of {counted(len(own), 'image')} of the split {split!r} has a label file"
            remedy = "put labels there; for a split of background alone, empty files"
            faults.append(Fault(str(where), None, "no-labels", value, remedy))
            for record in own:
                record.is_readable = False
        elif 2 * len(missing) > len(own):
            value = f"{len(missing)} of the {len(own)} images of the split {split!r} have no "
            value += "label file and are taken for background; this is the first"
            remedy = "see whether labels are missing"
            faults.append(Fault(str(where), None, "few-labels", value, remedy, "warning"))
    return faults


# ---- what rows cannot hold --------------------------------------------------------------------


def label_key(label_path: Path, root: Path) -> str:
    """The name of a label file in `extras.json`."""
    is_below = label_path.is_relative_to(root)
    return (label_path.relative_to(root) if is_below else label_path).as_posix()


def label_checksum(text: str) -> int:
    """Of a label file, so that flags are not given to the rows of another one."""
    return zlib.crc32("\n".join(text.split()).encode())


def _with_extras(
    images: Sequence[AnnotatedImage],
    entries: Mapping[str, Any],
    root: Path,
    with_extras: bool,
) -> tuple[list[AnnotatedImage], list[Fault]]:
    """Give images and objects the flags and extras of `extras.json`."""
    if not entries:
        return list(images), []
    joined, faults = [], []
    for image in images:
        entry = entries.get(label_key(image.annotation_path, root))
        if entry is None:
            joined.append(image)
            continue
        try:
            joined.append(_join(image, entry, with_extras))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OSError) as error:
            joined.append(image)
            reason = str(error) if isinstance(error, _StaleError) else "its entry is malformed"
            value = f"the flags and extras of {image.image_id} are not taken: {reason}"
            remedy = "convert the set again, or delete the entry"
            file = str(root / EXTRAS_FILE)
            faults.append(Fault(file, image.image_id, "stale-extras", value, remedy, "warning"))
    return joined, faults


class _StaleError(ValueError):
    pass


def _join(image: AnnotatedImage, entry: Any, with_extras: bool) -> AnnotatedImage:
    own = sound_extras(entry["extras"])[0] if with_extras else {}
    objects = list(image.objects)
    if entry["objects"]:
        text = image.annotation_path.read_text(encoding="utf-8-sig")
        if entry["checksum"] != label_checksum(text):
            raise _StaleError("its label file was changed since")
        rows = {int(item.title.split()[1]): place for place, item in enumerate(objects)}
        for row, said in entry["objects"].items():
            place = rows.get(int(row))
            if place is None:
                continue  # the row is faulty, and that was said
            item = objects[place]
            objects[place] = AnnotatedObject(
                item.title,
                item.name,
                item.box,
                bool(said.get("difficult", False)),
                bool(said.get("crowd", False)),
                sound_extras(said.get("extras", {}))[0] if with_extras else {},
            )
    return replace(image, objects=tuple(objects), extras=own)
