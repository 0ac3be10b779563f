"""Data sets in the layout of PASCAL VOC, read strictly.

```
root/Annotations/000012.xml      one <annotation> an image
root/JPEGImages/000012.jpg       the image, found by its id; <filename> is often wrong
root/ImageSets/Main/train.txt    the ids of a split, one a line
```

Everything that is wrong is found before training and reported at once: faults of single objects and
images are collected as `Fault` records; faults of the set as a whole (a missing folder, a split
without images) end at once in a `DetectError`.

Everingham et al. 2010, "The PASCAL Visual Object Classes (VOC) challenge", and the devkit's
documentation describe the format: coordinates count from 1 and include the last pixel.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from detect.data.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet
from detect.data.classes import ClassNames, listed_class_names, unknown_class_remedy
from detect.data.faults import Fault, Progress
from detect.data.formats.set_extras import read_set_extras
from detect.data.formats.voc_annotation import (
    Coordinates,
    VOCAnnotation,
    VOCObject,
    half_open_box,
    read_voc_annotation,
)
from detect.data.images import (
    IMAGE_SUFFIXES,
    ImageError,
    describe_size,
    read_image_header,
    read_image_size,
    verify_image,
)
from detect.data.measuring import look_at_images, unreadable
from detect.data.readers import Source
from detect.errors import DetectError
from detect.files import read_rows
from detect.registry import hint

# Rows of the devkit's files for one class, such as dog_train.txt: there is one, there is none, or
# there are only difficult ones.
_CLASS_ROW = re.compile(r"(\S+)\s+(1|-1|0)")
_LAYOUT = "Annotations/<id>.xml, JPEGImages/<id>.jpg, ImageSets/Main/<split>.txt"


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """An image that belongs to a set, by the places of its files.

    Attributes:
        root: the folder of the set.
        image_id: the name of the image, unique in the set; it may lead through subfolders.
        listed_in: the split file that names the image, or the folder that it was found in.
        annotation_folder: the folder below `root` that holds `<image_id>.xml`.
        image_folder: the folder below `root` that holds the image, `<image_id>.jpg` or so.
    """

    root: Path
    image_id: str
    listed_in: Path
    annotation_folder: str = "Annotations"
    image_folder: str = "JPEGImages"

    @property
    def annotation_path(self) -> Path:
        """The file with the objects."""
        return self.root / self.annotation_folder / f"{self.image_id}.xml"

    @property
    def image_stem(self) -> Path:
        """The file of the image without its suffix."""
        return self.root / self.image_folder / self.image_id


def read_annotated_voc(
    root: Path,
    splits: Sequence[str] | None = None,
    classes: ClassNames = "auto",
    *,
    verify_images: bool = False,
    progress: Progress | None = None,
) -> AnnotatedSet:
    """Read a VOC data set with all that its files say.

    Objects keep `truncated`, `occluded`, `pose` and any other element in their extras, as
    `detect.data.formats.voc_extras` describes.

    Args:
        root: the folder that holds `Annotations`, `JPEGImages` and `ImageSets`.
        splits: the splits to read; None for all in `ImageSets/Main`, or for every annotation where
            there is none; an empty list for every annotation, whatever the splits.
        classes: the names of the labels 0 … C−1; `voc` for the 20 of PASCAL VOC; `auto` for the
            names that occur, sorted, but the classes that `extras.json` names first, in its order.
        verify_images: decode every image once. Otherwise only the headers are read.
        progress: called with the number of images looked at and the number of all.

    Returns:
        The set; faulty objects and images are left out, and its `faults` say so.

    Raises:
        DetectError: a folder or a named split is missing, there is no image, or the classes make
            no sense.
    """
    set_extras, faults = read_set_extras(root)
    entries, listing_faults = list_entries(root, splits)
    faults += listing_faults
    once: dict[str, ImageEntry] = {}
    splits_of: dict[str, list[str]] = {}
    for entry in entries:
        once.setdefault(entry.image_id, entry)
        names = splits_of.setdefault(entry.image_id, [])
        if entry.listed_in.suffix == ".txt":
            names.append(entry.listed_in.stem)
    found = read_entries(
        list(once.values()),
        classes,
        splits_of,
        verify_images=verify_images,
        with_extras=True,
        progress=progress,
    )
    class_names = found.class_names
    if classes == "auto":
        class_names = tuple(dict.fromkeys([*set_extras.class_names, *class_names]))
    if splits is None:
        faults += _unlisted(root, once)
    return replace(
        found,
        root=root,
        class_names=class_names,
        faults=(*faults, *found.faults),
        extras=set_extras.extras,
    )


def read_joined_voc(
    sources: Sequence[Source],
    classes: ClassNames,
    *,
    verify_images: bool = True,
    progress: Progress | None = None,
) -> AnnotatedSet:
    """Read splits of VOC data sets as one, without what training has no use for.

    Args:
        sources: in the order that their images shall have; an image id may occur once in all.
        classes: as in `read_annotated_voc`, but `auto` is for the names that occur, sorted.
        verify_images: decode every image once. Otherwise only the headers are read.
        progress: called with the number of images looked at and the number of all.

    Raises:
        DetectError: a folder or split is missing, a split is empty, or the classes make no sense.
    """
    entries = [entry for source in sources for entry in _list_source(source)]
    return read_entries(entries, classes, verify_images=verify_images, progress=progress)


def read_entries(
    entries: Sequence[ImageEntry],
    classes: ClassNames,
    splits_of: Mapping[str, Sequence[str]] | None = None,
    *,
    verify_images: bool,
    with_extras: bool = False,
    progress: Progress | None = None,
) -> AnnotatedSet:
    """Look at every annotation and every image; faults come in the order of the entries.

    Args:
        entries: at least one; an image that is listed again is a fault.
        classes: as in `read_joined_voc`.
        splits_of: of each image id.
        verify_images: decode every image once. Otherwise only the headers are read.
        with_extras: keep what training has no use for, such as `<truncated>`.
        progress: called with the number of images looked at and the number of all.
    """
    class_names = listed_class_names(classes)
    unique, faults = _without_duplicates(entries)
    annotations = [read_voc_annotation(entry.annotation_path, with_extras) for entry in unique]
    if class_names is None:
        class_names, class_faults = _collect_class_names(annotations)
        faults += class_faults
    files = _measured(unique, verify_images, progress)
    labels = _ClassTable(class_names)
    images: list[AnnotatedImage] = []
    num_skipped_objects = 0
    for entry, annotation, file in zip(unique, annotations, files, strict=True):
        size, own_faults = _agreed_size(annotation, file)
        objects, object_faults = _sound_objects(annotation, size, labels)
        faults += [*annotation.faults, *file.faults, *own_faults, *object_faults]
        if file.path is not None and size is not None and annotation.is_readable:
            num_skipped_objects += len(annotation.objects) - len(objects)
            splits = tuple(sorted((splits_of or {}).get(entry.image_id, ())))
            images.append(
                AnnotatedImage(
                    entry.image_id,
                    file.path,
                    entry.annotation_path,
                    size,
                    splits,
                    objects,
                    annotation.extras,
                )
            )
    root, *others = dict.fromkeys(entry.root for entry in entries) or [Path()]
    return AnnotatedSet(
        root,
        "voc",
        class_names,
        tuple(images),
        tuple(faults),
        num_skipped_images=len(entries) - len(images),
        num_skipped_objects=num_skipped_objects,
        joined_roots=tuple(others),
    )


def _unlisted(root: Path, listed: dict[str, ImageEntry]) -> list[Fault]:
    """A warning if there are annotations that no split lists."""
    unlisted = [e.image_id for e in annotated_entries(root) if e.image_id not in listed]
    if not unlisted:
        return []
    folder = next(iter(listed.values())).listed_in.parent if listed else root
    value = f"{len(unlisted)} annotations are in no split and left out, the first {unlisted[0]}"
    remedy = "list them in a split, or delete them"
    return [Fault(str(folder), None, "unlisted-images", value, remedy, "warning")]


# ---- the set as a whole: folders and splits --------------------------------------------------


def split_file(root: Path, split: str) -> Path:
    """The file that lists the images of a split."""
    return root / "ImageSets" / "Main" / f"{split}.txt"


def list_entries(
    root: Path, splits: Sequence[str] | None = None
) -> tuple[list[ImageEntry], list[Fault]]:
    """The images of a VOC data set, one entry for each split that lists one, and what is wrong.

    Args:
        root: the folder that holds `Annotations`, `JPEGImages` and `ImageSets`.
        splits: the names of splits; None for all in `ImageSets/Main` (the devkit's files for one
            class, such as `dog_train.txt`, repeat these and are passed over), or every annotation
            where there is none; an empty list for every annotation, whatever the splits.

    Raises:
        DetectError: a folder or a named split is missing, or there is nothing.
    """
    _check_layout(root)
    names = list(splits) if splits is not None else plain_splits(root)
    entries: list[ImageEntry] = []
    faults: list[Fault] = []
    for name in names:
        path = split_file(root, name)
        listed = [ImageEntry(root, image_id, path) for image_id in _read_split(root, name)]
        if not listed:
            remedy = "list image ids in it, one a line, or delete it"
            faults.append(Fault(str(path), None, "empty-split", "no image", remedy))
        unique, repeated = _without_duplicates(listed)
        entries += unique
        faults += repeated
    if not names:
        entries = annotated_entries(root)
    if not entries and not faults:
        raise DetectError(f"{root}: expected annotations in Annotations/*.xml, found none")
    return entries, faults


def annotated_entries(root: Path) -> list[ImageEntry]:
    """Every annotation of a VOC data set as an image, whatever the splits."""
    folder = root / "Annotations"
    ids = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.xml")]
    return [ImageEntry(root, image_id, folder) for image_id in sorted(ids)]


def _check_layout(root: Path) -> None:
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DetectError(
            f"{root}: expected a folder with {_LAYOUT}, found {found}; "
            "data.root, or the argument that names the folder, says where the data set is"
        )
    missing = [name for name in ("Annotations", "JPEGImages") if not (root / name).is_dir()]
    if not missing:
        return
    near = [root.parent, *sorted(root.glob("*")), *sorted(root.glob("*/*"))]
    roots = [folder for folder in near if (folder / "Annotations").is_dir()]
    if roots:
        remedy = f"did you mean {' or '.join(str(folder) for folder in roots[:3])}?"
    else:
        names = sorted(path.name for path in root.glob("*"))
        remedy = f"there are: {', '.join(names[:10])}" if names else "the folder is empty"
    raise DetectError(
        f"{root}: expected the VOC layout {_LAYOUT}, found no {' and no '.join(missing)}; {remedy}"
    )


def _list_source(source: Source) -> list[ImageEntry]:
    """The images of a split, or of a whole set where no split is named."""
    root, split = source
    if split is None:
        return list_entries(root, [])[0]
    _check_layout(root)
    image_ids, path = _read_split(root, split), split_file(root, split)
    if not image_ids:
        raise DetectError(
            f"{path}: expected image ids, one a line, found no image; "
            f"choose another split ({', '.join(plain_splits(root)) or 'there is none'})"
        )
    return [ImageEntry(root, image_id, path) for image_id in image_ids]


def _read_split(root: Path, split: str) -> list[str]:
    """The image ids of a split.

    A row is an id, blanks within it included. When every row has the form of the devkit's files
    for one class (`000012 -1`), the first word is the id, and images without the class, the rows
    with −1, are left out.

    Raises:
        DetectError: there is no such split, or its file cannot be read.
    """
    path = split_file(root, split)
    if not path.is_file():
        raise DetectError(f"{path}: no split {split!r}; {hint(split, plain_splits(root))}")
    rows = read_rows(path)
    class_rows = [_CLASS_ROW.fullmatch(row) for row in rows]
    if all(class_rows):
        return [row[1] for row in class_rows if row is not None and row[2] != "-1"]
    return rows


def plain_splits(root: Path) -> list[str]:
    """The splits of a data set, without the devkit's files for one class."""
    return [
        path.stem
        for path in sorted(split_file(root, "*").parent.glob("*.txt"))
        if not (rows := read_rows(path)) or not all(map(_CLASS_ROW.fullmatch, rows))
    ]


def _without_duplicates(entries: Sequence[ImageEntry]) -> tuple[list[ImageEntry], list[Fault]]:
    first: dict[str, ImageEntry] = {}
    faults = []
    for entry in entries:
        earlier = first.setdefault(entry.image_id, entry)
        if earlier is entry:
            continue
        where = "twice" if earlier.listed_in == entry.listed_in else f"in {earlier.listed_in} too"
        remedy = (
            "delete one of the rows"
            if earlier.root == entry.root
            else "the ids of joined sets must differ: rename the image and its annotation in one"
        )
        value = f"the image {entry.image_id} is listed {where}"
        faults.append(Fault(str(entry.listed_in), None, "duplicate-image", value, remedy))
    return list(first.values()), faults


# ---- an annotation and its image --------------------------------------------------------------


@dataclass(slots=True)
class _ImageFile:
    """The file of an image; `size` is None while unknown, and stays so when it is faulty."""

    path: Path | None
    faults: list[Fault]
    size: tuple[int, int] | None = None


def _agreed_size(
    annotation: VOCAnnotation, file: _ImageFile
) -> tuple[tuple[int, int] | None, list[Fault]]:
    """The size of an image; None, and a fault, if its annotation says another."""
    if file.size is None or annotation.size in (None, file.size):
        return file.size, []
    return None, [_size_mismatch(annotation, file)]  # boxes cannot be judged, nor the image used


def _sound_objects(
    annotation: VOCAnnotation, size: tuple[int, int] | None, classes: "_ClassTable"
) -> tuple[tuple[AnnotatedObject, ...], list[Fault]]:
    """The objects of an image that are in order, and what is wrong with all."""
    objects: list[AnnotatedObject] = []
    faults: list[Fault] = []
    seen: dict[tuple[str | None, Coordinates | None], str] = {}
    for item in annotation.objects:
        box, box_faults = half_open_box(item, size)
        own = [*item.faults, *classes.faults_of(item), *box_faults]
        if item.coordinates is not None:
            earlier = seen.setdefault((item.name, item.coordinates), item.title)
            if earlier != item.title:
                value, remedy = f"the same class and box as {earlier}", "delete one of the two"
                own.append(item.fault("duplicate-object", value, remedy, "warning"))
        faults += own
        if box is not None and all(fault.severity == "warning" for fault in own):
            objects.append(
                AnnotatedObject(
                    item.title, item.name, box, item.is_difficult, item.is_crowd, item.extras
                )
            )
    return tuple(objects), faults


def _size_mismatch(annotation: VOCAnnotation, image: _ImageFile) -> Fault:
    assert annotation.size is not None
    assert image.size is not None
    assert image.path is not None
    value = f"<size> is {describe_size(annotation.size)}, the image {describe_size(image.size)}"
    remedy = f"see whether {image.path.name} is the image that was annotated, then correct <size>"
    stored_size = read_image_header(image.path).stored_size
    if annotation.size == stored_size != image.size:
        value += "; <size> is the one before the EXIF rotation"
        remedy = (
            "boxes count on the image as displayed: if they fit it, exchange width and height "
            "in <size>, else remove the orientation from the image's EXIF data"
        )
    return Fault(str(annotation.path), None, "size-mismatch", value, remedy)


def _measured(
    entries: Sequence[ImageEntry], verify_images: bool, progress: Progress | None
) -> list[_ImageFile]:
    """The file of each image with its size, or what is wrong with it."""
    finder = _ImageFinder()
    files = [finder.find(entry) for entry in entries]
    paths = [file.path for file in files if file.path is not None]
    look = verify_image if verify_images else read_image_size
    found = iter(look_at_images(paths, look, progress))
    for file in files:
        if file.path is None:
            continue
        size = next(found)
        if isinstance(size, ImageError):
            file.faults.append(unreadable(file.path, size))
        else:
            file.size = size
    return files


class _ImageFinder:
    """Finds images by id, whatever the suffix and its case; each folder is listed once."""

    def __init__(self) -> None:
        self._names: dict[Path, dict[str, list[str]]] = {}

    def find(self, entry: ImageEntry) -> _ImageFile:
        # an id may name a subfolder, as in camera1/000012
        path = entry.image_stem
        names = self._names_in(path.parent).get(path.name, [])
        if not names:
            return _ImageFile(None, [self._missing(entry, path)])
        faults = []
        if len(names) > 1:
            value = f"there are {' and '.join(names)} for one id; {names[0]} is taken"
            remedy = "delete the others"
            faults.append(Fault(str(path.parent), None, "several-images", value, remedy, "warning"))
        return _ImageFile(path.parent / names[0], faults)

    def _names_in(self, folder: Path) -> dict[str, list[str]]:
        """File names by id, those of the earlier suffix first."""
        if folder not in self._names:
            by_id: dict[str, list[str]] = {}
            try:
                names = [path.name for path in folder.iterdir()]
            except (OSError, ValueError):  # no such folder, or no possible name
                names = []
            suffixes = {name: Path(name).suffix for name in names}
            ranks = {suffix: rank for rank, suffix in enumerate(IMAGE_SUFFIXES)}
            images = [name for name in names if suffixes[name].lower() in ranks]
            for name in sorted(images, key=lambda name: (ranks[suffixes[name].lower()], name)):
                by_id.setdefault(name.removesuffix(suffixes[name]), []).append(name)
            self._names[folder] = by_id
        return self._names[folder]

    def _missing(self, entry: ImageEntry, path: Path) -> Fault:
        suffixes = ", ".join(IMAGE_SUFFIXES)
        value = f"there is no image {path.name} with one of the suffixes {suffixes}"
        remedy = f"put the image there, or delete the row {entry.image_id} of {entry.listed_in}"
        known = self._names_in(path.parent)
        if path.suffix.lower() in IMAGE_SUFFIXES and path.stem in known:
            remedy = f"write the id without a suffix in {entry.listed_in}: {path.stem}"
        else:
            alike = [name for name in known if name.lower() == path.name.lower()]
            if alike:
                remedy = f"upper and lower case count: rename {known[alike[0]][0]}, or {remedy}"
        return Fault(str(path), None, "missing-image", value, remedy)


# ---- classes ----------------------------------------------------------------------------------


def _collect_class_names(
    annotations: Sequence[VOCAnnotation],
) -> tuple[tuple[str, ...], list[Fault]]:
    """The sorted names of all objects; a warning for names that differ in case only."""
    items = [item for annotation in annotations for item in annotation.objects if item.name.strip()]
    counts = Counter(item.name.strip() for item in items)
    by_lower_case: dict[str, list[str]] = {}
    for name in sorted(counts):
        by_lower_case.setdefault(name.lower(), []).append(name)
    faults = []
    for twins in (names for names in by_lower_case.values() if len(names) > 1):
        # the rarer name is the likelier slip: show where it stands
        rarest = min(twins, key=lambda name: counts[name])
        item = next(item for item in items if item.name.strip() == rarest)
        found = " and ".join(f"{name!r} (count {counts[name]})" for name in twins)
        value, remedy = f"{found} are different classes", "write the name alike if one is meant"
        faults.append(item.fault("similar-classes", value, remedy, "warning"))
    return tuple(sorted(counts)), faults


class _ClassTable:
    """The known classes, with help for the names that are not among them."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self._names = dict.fromkeys(class_names)
        self._remedies: dict[str, str] = {}  # a misspelled name comes many times

    def faults_of(self, item: VOCObject) -> list[Fault]:
        """The fault of an object of no known class; a name that is missing is one already."""
        if item.name in self._names or not item.name.strip():
            return []
        if item.name not in self._remedies:
            self._remedies[item.name] = unknown_class_remedy(item.name, self._names)
        value = f"unknown class {item.name!r}"
        return [item.fault("unknown-class", value, self._remedies[item.name])]
