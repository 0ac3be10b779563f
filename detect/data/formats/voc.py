"""Data sets in the layout of PASCAL VOC, read strictly.

```
root/Annotations/000012.xml      one <annotation> an image
root/JPEGImages/000012.jpg       the image, found by its id; <filename> is often wrong
root/ImageSets/Main/train.txt    the ids of a split, one a line
```

Everything that is wrong is found before training and told together: faults of single objects and
images are collected as `Fault` records; faults of the set as a whole (a missing folder, a split
without images) end at once in a `DetectError`.

Everingham et al. 2010, "The PASCAL Visual Object Classes (VOC) challenge", and the devkit's
documentation describe the format: coordinates count from 1 and include the last pixel.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, overload
from xml.etree.ElementTree import Element, ParseError

import numpy as np
import torch
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from detect.data.faults import DataFaults, Fault
from detect.data.formats.voc_extras import ExtrasError, read_image_extras, read_object_extras
from detect.data.images import (
    ImageError,
    read_image,
    read_image_header,
    read_image_size,
    verify_image,
)
from detect.errors import DetectError
from detect.registry import hint
from detect.structures import GroundTruth, ImageMeta, Sample

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

# Rows of the devkit's files for one class, such as dog_train.txt: there is one, there is none, or
# there are only difficult ones.
_CLASS_ROW = re.compile(r"(\S+)\s+(1|-1|0)")
_COORDINATE_NAMES = ("xmin", "ymin", "xmax", "ymax")
_ADD_OR_DELETE = "add it, or delete the object"
_LAYOUT = "Annotations/<id>.xml, JPEGImages/<id>.jpg, ImageSets/Main/<split>.txt"
# More threads than this wait for the disk and for each other.
_MAX_THREADS = 8

ClassNames = Sequence[str] | Literal["voc", "auto"]
Progress = Callable[[int, int], None]
_Coordinates = tuple[float, float, float, float]  # xmin, ymin, xmax, ymax


@dataclass(frozen=True, slots=True)
class VOCSource:
    """One split of one data set.

    Attributes:
        root: the folder that holds `Annotations`, `JPEGImages` and `ImageSets`.
        split: the name of a file in `ImageSets/Main`, without `.txt`.
    """

    root: Path
    split: str

    @property
    def split_path(self) -> Path:
        """The file that lists the images."""
        return _split_folder(self.root) / f"{self.split}.txt"


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


class VOCDataset(Dataset[Sample]):
    """Images with their objects, as `Sample`s in the image's own frame.

    Objects and sizes are in memory; an image is decoded when its sample is asked for.

    Attributes:
        class_names: the name of each label.
        metas: the origin and size of each image.
        truths: the objects of each image.
        faults: all that was found wrong, warnings included.
        num_skipped_images: images left out for a fault.
        num_skipped_objects: objects left out for a fault, in images that stayed.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        metas: Sequence[ImageMeta],
        truths: Sequence[GroundTruth],
        *,
        faults: Sequence[Fault] = (),
        num_skipped_images: int = 0,
        num_skipped_objects: int = 0,
    ) -> None:
        if len(metas) != len(truths):
            raise ValueError(f"{len(metas)} metas for {len(truths)} truths")
        self.class_names = tuple(class_names)
        self.metas = tuple(metas)
        self.truths: Sequence[GroundTruth] = _PackedTruths(truths)
        self.faults = tuple(faults)
        self.num_skipped_images = num_skipped_images
        self.num_skipped_objects = num_skipped_objects

    def __len__(self) -> int:
        return len(self.metas)

    def __getitem__(self, index: int) -> Sample:
        """Read the image.

        Raises:
            DetectError: the image cannot be read any more, or is another one by now.
        """
        meta = self.metas[index]
        if meta.path is None:
            raise ValueError(f"image {meta.image_id} has no file")
        image = read_image(meta.path)
        if image.shape[:2] != meta.original_size:
            raise DetectError(
                f"{meta.path}: expected (height, width) {meta.original_size} as when the data set "
                f"was read, found {image.shape[:2]}; the file was replaced meanwhile: start again"
            )
        return Sample(image, self.truths[index], meta)

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The id of each image, unique in the set."""
        return tuple(meta.image_id for meta in self.metas)

    def class_counts(self) -> dict[str, int]:
        """The number of objects of each class, in the order of the labels."""
        counts = Counter(label for truth in self.truths for label in truth.labels.tolist())
        return {name: counts[label] for label, name in enumerate(self.class_names)}

    def without_difficult(self) -> "VOCDataset":
        """The same images without the objects that are marked difficult, as training has it."""
        return self._with(self.metas, [truth.without_difficult() for truth in self.truths])

    def subset(self, indices: Iterable[int]) -> "VOCDataset":
        """Some of the images, in the order of `indices`; `faults` stay those of the whole set."""
        chosen = list(indices)
        return self._with(
            [self.metas[index] for index in chosen], [self.truths[index] for index in chosen]
        )

    def _with(self, metas: Sequence[ImageMeta], truths: Sequence[GroundTruth]) -> "VOCDataset":
        return VOCDataset(
            self.class_names,
            metas,
            truths,
            faults=self.faults,
            num_skipped_images=self.num_skipped_images,
            num_skipped_objects=self.num_skipped_objects,
        )


class _PackedTruths(Sequence[GroundTruth]):
    """The objects of all images in three tensors.

    A data loader's worker process receives the data set with every tensor as an open file; one
    set of tensors for each image would exhaust the system's limit.
    """

    def __init__(self, truths: Sequence[GroundTruth]) -> None:
        parts = (GroundTruth.empty(), *truths)  # torch.cat needs at least one
        self.boxes: Float[Tensor, "N 4"] = torch.cat([truth.boxes for truth in parts])
        self.labels: Int[Tensor, "N"] = torch.cat([truth.labels for truth in parts])
        self.difficult: Bool[Tensor, "N"] = torch.cat([truth.difficult for truth in parts])
        self.ends = np.cumsum([len(truth) for truth in parts])  # [number of images + 1]

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> GroundTruth: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[GroundTruth]: ...
    def __getitem__(self, index: int | slice) -> GroundTruth | Sequence[GroundTruth]:
        if isinstance(index, slice):
            return [self[position] for position in range(len(self))[index]]
        position = range(len(self))[index]
        rows = slice(int(self.ends[position]), int(self.ends[position + 1]))
        # copies, so that nobody writes into the set
        return GroundTruth(
            self.boxes[rows].clone(), self.labels[rows].clone(), self.difficult[rows].clone()
        )


@dataclass(frozen=True, slots=True)
class VOCReport:
    """What `check_voc` found.

    Attributes:
        num_images: the images that are listed, each counted once.
        num_objects: the objects in their annotations, faulty ones included.
        class_names: the classes that were expected, or found with `auto`.
        faults: errors and warnings.
    """

    num_images: int
    num_objects: int
    class_names: tuple[str, ...]
    faults: tuple[Fault, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data with the keys num_images, num_objects and faults."""
        return {
            "num_images": self.num_images,
            "num_objects": self.num_objects,
            "faults": [fault.as_dict() for fault in self.faults],
        }


def read_voc(
    sources: Sequence[VOCSource],
    classes: ClassNames,
    *,
    on_error: Literal["stop", "skip"] = "stop",
    verify_images: bool = True,
    progress: Progress | None = None,
) -> VOCDataset:
    """Read splits of VOC data sets, joined in the order of `sources`.

    Args:
        sources: at least one; an image id may occur once in all of them.
        classes: the names of the labels 0 … C−1; `voc` for the 20 of PASCAL VOC; `auto` for the
            names that occur in the sources, sorted.
        on_error: `stop` raises all errors together; `skip` leaves faulty objects and faulty
            images out, and says so in the data set's `faults`. Warnings never stop.
        verify_images: decode every image once. Otherwise only the headers are read.
        progress: called with the number of images looked at and the number of all.

    Raises:
        DataFaults: there are errors in annotations or images, and `on_error` is `stop`.
        DetectError: a folder or split is missing, a split is empty, the classes make no sense, or
            skipping leaves no image.
    """
    if not sources:
        raise DetectError("expected at least one VOC root and split, found none")
    return read_images(
        [entry for source in sources for entry in _read_source(source)],
        classes,
        on_error=on_error,
        verify_images=verify_images,
        progress=progress,
    )


def read_images(
    entries: Sequence[ImageEntry],
    classes: ClassNames,
    *,
    on_error: Literal["stop", "skip"] = "stop",
    verify_images: bool = True,
    progress: Progress | None = None,
    is_voc: bool = True,
) -> VOCDataset:
    """Read images whose objects are described by VOC's XML, whatever the layout of their folders.

    Args:
        entries: at least one.
        classes: as in `read_voc`.
        on_error: as in `read_voc`.
        verify_images: as in `read_voc`.
        progress: as in `read_voc`.
        is_voc: whether the folders are laid out as VOC's, so that `detect data check` reads them.

    Raises:
        DataFaults: there are errors in annotations or images, and `on_error` is `stop`.
        DetectError: the classes make no sense, or skipping leaves no image.
    """
    survey = survey_images(entries, classes, verify_images, progress)
    errors = [fault for fault in survey.faults if fault.severity == "error"]
    if errors and on_error == "stop":
        raise DataFaults(survey.faults, [entry.root for entry in entries], is_voc=is_voc)
    good = [image for image in survey.images if image.meta is not None]
    if not good:
        raise DetectError(
            f"none of the {len(entries)} images is left after skipping the faulty ones; "
            f"the first fault: {errors[0]}"
        )
    if not survey.class_names:
        places = ", ".join(dict.fromkeys(str(entry.listed_in) for entry in entries))
        raise DetectError(
            f"data.classes=auto found no object in the images of {places}; "
            "name the classes in data.classes, or add objects"
        )
    return VOCDataset(
        survey.class_names,
        [image.meta for image in good if image.meta is not None],
        [image.truth() for image in good],
        faults=survey.faults,
        num_skipped_images=len(entries) - len(good),
        num_skipped_objects=sum(image.num_faulty_objects for image in good),
    )


def check_voc(
    root: Path,
    splits: Sequence[str] | None = None,
    classes: ClassNames = "auto",
    *,
    verify_images: bool = True,
    progress: Progress | None = None,
) -> VOCReport:
    """Find everything that is wrong with a VOC data set.

    Args:
        root: the folder that holds `Annotations`, `JPEGImages` and `ImageSets`.
        splits: the splits to check; without them, all in `ImageSets/Main` (the devkit's files for
            one class, such as `dog_train.txt`, repeat these and are passed over), or every
            annotation where there is no split. An image in several splits is checked once.
        classes: as in `read_voc`.
        verify_images: as in `read_voc`.
        progress: as in `read_voc`.

    Raises:
        DetectError: a folder or a named split is missing, there is nothing to check, or the
            classes make no sense.
    """
    entries, faults = list_entries(root, splits)
    once: dict[str, ImageEntry] = {}
    for entry in entries:
        once.setdefault(entry.image_id, entry)
    survey = survey_images(list(once.values()), classes, verify_images, progress)
    return VOCReport(
        num_images=len(once),
        num_objects=survey.num_objects,
        class_names=survey.class_names,
        faults=(*faults, *survey.faults),
    )


# ---- the set as a whole: folders and splits --------------------------------------------------


def _split_folder(root: Path) -> Path:
    return root / "ImageSets" / "Main"


def list_entries(
    root: Path, splits: Sequence[str] | None = None
) -> tuple[list[ImageEntry], list[Fault]]:
    """The images of a VOC data set, one entry for each split that lists one, and what is wrong.

    Args:
        root: the folder that holds `Annotations`, `JPEGImages` and `ImageSets`.
        splits: as in `check_voc`; with no name in it, every annotation, whatever the splits.

    Raises:
        DetectError: a folder or a named split is missing, or there is nothing.
    """
    _check_layout(root)
    names = list(splits) if splits is not None else plain_splits(root)
    entries: list[ImageEntry] = []
    faults: list[Fault] = []
    for source in (VOCSource(root, name) for name in names):
        listed = [ImageEntry(root, image_id, source.split_path) for image_id in _read_split(source)]
        if not listed:
            remedy = "list image ids in it, one a line, or delete it"
            faults.append(_fault(source.split_path, None, "empty-split", "no image", remedy))
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


def _read_source(source: VOCSource) -> list[ImageEntry]:
    _check_layout(source.root)
    image_ids = _read_split(source)
    if not image_ids:
        raise DetectError(
            f"{source.split_path}: expected image ids, one a line, found no image; "
            f"choose another split ({', '.join(plain_splits(source.root)) or 'there is none'})"
        )
    return [ImageEntry(source.root, image_id, source.split_path) for image_id in image_ids]


def _read_split(source: VOCSource) -> list[str]:
    """The image ids of a split.

    A row is an id, blanks within it included. When every row has the form of the devkit's files
    for one class (`000012 -1`), the first word is the id, and images without the class, the rows
    with −1, are left out.

    Raises:
        DetectError: there is no such split, or its file cannot be read.
    """
    path = source.split_path
    if not path.is_file():
        known = plain_splits(source.root)
        raise DetectError(f"{path}: no split {source.split!r}; {hint(source.split, known)}")
    rows = read_rows(path)
    class_rows = [_CLASS_ROW.fullmatch(row) for row in rows]
    if all(class_rows):
        return [row[1] for row in class_rows if row is not None and row[2] != "-1"]
    return rows


def read_rows(path: Path) -> list[str]:
    """The lines of a text file that are not blank, without the blanks around them.

    Raises:
        DetectError: the file cannot be read, or is no text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DetectError(f"{path}: cannot be read: {error.strerror or error}") from error
    # Windows' shell writes UTF-16 when output is redirected into a file.
    is_utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if "\0" in text:
        raise DetectError(f"{path}: expected a text file, found binary data")
    return [row.strip() for row in text.splitlines() if row.strip()]


def plain_splits(root: Path) -> list[str]:
    """The splits of a data set, without the devkit's files for one class."""
    return [
        path.stem
        for path in sorted(_split_folder(root).glob("*.txt"))
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
        faults.append(_fault(entry.listed_in, None, "duplicate-image", value, remedy))
    return list(first.values()), faults


# ---- the survey: every annotation and every image of a set ---------------------------------


@dataclass(slots=True)
class _ImageFile:
    """The file of an image; `size` is None while unknown, and stays so when it is faulty."""

    path: Path | None
    faults: list[Fault]
    size: tuple[int, int] | None = None


@dataclass(slots=True)
class SurveyedImage:
    """An image with the objects that are in order, each with its box and label.

    Attributes:
        faults: of the image, its annotation and its objects.
        meta: None when the image cannot be used.
        boxes: half-open.
        labels: 0 … C−1.
        objects: as the file has them.
        extras: what else the file says of the image, if that was asked for.
        num_faulty_objects: those that are left out.
    """

    faults: list[Fault]
    meta: ImageMeta | None = None
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    objects: list["VOCObject"] = field(default_factory=list)
    extras: Mapping[str, Any] = field(default_factory=dict)
    num_faulty_objects: int = 0

    def truth(self) -> GroundTruth:
        """The objects; what is difficult or a crowd is not to be demanded from a detector."""
        return GroundTruth(
            torch.tensor(self.boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor(self.labels, dtype=torch.int64),
            torch.tensor([item.is_difficult or item.is_crowd for item in self.objects]).bool(),
        )


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found in the annotations and images of a set."""

    class_names: tuple[str, ...]
    images: list[SurveyedImage]
    num_objects: int
    faults: tuple[Fault, ...]


def survey_images(
    entries: Sequence[ImageEntry],
    classes: ClassNames,
    verify_images: bool,
    progress: Progress | None,
    *,
    with_extras: bool = False,
) -> Survey:
    """Look at every annotation and every image; faults come in the order of the entries.

    Args:
        entries: an image that is listed again is a fault.
        classes: as in `read_voc`.
        verify_images: as in `read_voc`.
        progress: as in `read_voc`.
        with_extras: keep what training has no use for, such as `<truncated>`.
    """
    class_names = listed_class_names(classes)
    entries, faults = _without_duplicates(entries)
    annotations = [_read_annotation(entry.annotation_path, with_extras) for entry in entries]
    if class_names is None:
        class_names, class_faults = _collect_class_names(annotations)
        faults += class_faults
    finder = _ImageFinder()
    files = [finder.find(entry) for entry in entries]
    _measure(files, verify_image if verify_images else read_image_size, progress)
    table = _ClassTable(class_names)
    images = [
        _join(entry.image_id, annotation, file, table)
        for entry, annotation, file in zip(entries, annotations, files, strict=True)
    ]
    faults += [fault for image in images for fault in image.faults]
    num_objects = sum(annotation.num_objects for annotation in annotations)
    return Survey(class_names, images, num_objects, tuple(faults))


def _join(
    image_id: str, annotation: "_Annotation", file: _ImageFile, table: "_ClassTable"
) -> SurveyedImage:
    """Bring an annotation and its image together."""
    image = SurveyedImage([*annotation.faults, *file.faults], extras=annotation.extras)
    size = file.size
    if size is not None and annotation.size not in (None, size):
        image.faults.append(_size_mismatch(annotation, file))
        size = None  # boxes cannot be judged, nor the image used
    seen: dict[tuple[str | None, _Coordinates | None], str] = {}
    for item in annotation.objects:
        label, faults = table.label_of(item)
        box, box_faults = _to_box(item, size)
        faults = [*item.faults, *faults, *box_faults]
        if item.coordinates is not None:
            earlier = seen.setdefault((item.name, item.coordinates), item.title)
            if earlier != item.title:
                value, remedy = f"the same class and box as {earlier}", "delete one of the two"
                faults.append(item.fault("duplicate-object", value, remedy, "warning"))
        image.faults += faults
        if any(fault.severity == "error" for fault in faults):
            image.num_faulty_objects += 1
        elif label is not None and box is not None:
            image.boxes.append(box)
            image.labels.append(label)
            image.objects.append(item)
    if size is not None and annotation.is_readable:
        image.meta = ImageMeta(image_id, file.path, size, size)
    return image


def _size_mismatch(annotation: "_Annotation", image: _ImageFile) -> Fault:
    assert annotation.size is not None
    assert image.size is not None
    assert image.path is not None
    value = f"<size> is {_describe(annotation.size)}, the image {_describe(image.size)}"
    remedy = f"see whether {image.path.name} is the image that was annotated, then correct <size>"
    stored_size = read_image_header(image.path).stored_size
    if annotation.size == stored_size != image.size:
        value += "; <size> is the one before the EXIF rotation"
        remedy = (
            "boxes count on the image as displayed: if they fit it, exchange width and height "
            "in <size>, else remove the orientation from the image's EXIF data"
        )
    return _fault(annotation.path, None, "size-mismatch", value, remedy)


def _describe(size: tuple[int, int] | tuple[float, float]) -> str:
    height, width = size
    return f"{width:g} wide and {height:g} high"


def _measure(
    images: Sequence[_ImageFile],
    measure: Callable[[Path], tuple[int, int]],
    progress: Progress | None,
) -> None:
    """Give every image its size, in a few threads: decoders work without Python's lock."""

    def measure_one(image: _ImageFile) -> None:
        if image.path is None:
            return
        try:
            image.size = measure(image.path)
        except ImageError as error:
            fault = _fault(image.path, None, "unreadable-image", error.value, error.remedy)
            image.faults.append(fault)

    # On Ctrl-C the iterator that map returned goes, and with it the images still in the queue.
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.map(measure_one, images), start=1):
            if progress is not None:
                progress(done, len(images))


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
            warning = _fault(path.parent, None, "several-images", value, "delete the others")
            faults.append(replace(warning, severity="warning"))
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
        return _fault(path, None, "missing-image", value, remedy)


# ---- classes ----------------------------------------------------------------------------------


def listed_class_names(classes: ClassNames) -> tuple[str, ...] | None:
    """The class names that the user gave, or None when they are to be collected."""
    if classes == "auto":
        return None
    if classes == "voc":
        return VOC_CLASSES
    if isinstance(classes, str):
        raise DetectError(
            f"data.classes: expected voc, auto or a list of names, found {classes!r}; "
            f"for a single class, write [{classes}]"
        )
    names = tuple(classes)
    if not names or not all(name.strip() for name in names):
        raise DetectError(f"data.classes: expected names, found {list(names)}; name each class")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DetectError(
            f"data.classes: expected every name once, found {repeated[0]!r} "
            f"{names.count(repeated[0])} times; delete the others"
        )
    return names


def _collect_class_names(
    annotations: Sequence["_Annotation"],
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
    """Labels by class name, with help for the names that are not there."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self._labels = {name: label for label, name in enumerate(class_names)}
        self._remedies: dict[str, str] = {}  # a misspelled name comes many times

    def label_of(self, item: "VOCObject") -> tuple[int | None, list[Fault]]:
        if item.name in self._labels:
            return self._labels[item.name], []
        if not item.name.strip():
            return None, []  # a fault of the object already
        if item.name not in self._remedies:
            self._remedies[item.name] = self._remedy(item.name)
        value = f"unknown class {item.name!r}"
        return None, [item.fault("unknown-class", value, self._remedies[item.name])]

    def _remedy(self, name: str) -> str:
        if name.strip() in self._labels:
            return f"remove the blanks around the name: {name.strip()!r}"
        same = [known for known in self._labels if known.lower() == name.strip().lower()]
        if same:
            return f"upper and lower case count: write {same[0]!r}"
        return f"{hint(name.strip(), self._labels)}; correct the name, or add it to data.classes"


# ---- one annotation ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VOCObject:
    """An <object> as the file has it.

    Attributes:
        path: of the file.
        title: names the object in a fault.
        name: of its class.
        coordinates: None when they cannot be read.
        is_difficult: VOC's flag.
        is_crowd: COCO's flag, which this package writes as <crowd>.
        faults: of the object.
        extras: what else the file says of it, if that was asked for.
    """

    path: Path
    title: str
    name: str
    coordinates: _Coordinates | None
    is_difficult: bool
    is_crowd: bool
    faults: list[Fault]
    extras: Mapping[str, Any] = field(default_factory=dict)

    def fault(
        self, rule: str, value: str, remedy: str, severity: Literal["error", "warning"] = "error"
    ) -> Fault:
        """A fault of this object."""
        return Fault(str(self.path), self.title, rule, value, remedy, severity)


@dataclass(frozen=True, slots=True)
class _Annotation:
    """An annotation file; `faults` are those of the file as a whole."""

    path: Path
    is_readable: bool
    faults: list[Fault]
    size: tuple[float, float] | None = None  # (height, width) in pixels
    objects: tuple[VOCObject, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_objects(self) -> int:
        return len(self.objects)


class _Broken(Exception):  # noqa: N818 — it carries a fault from where it is found to its record
    def __init__(self, rule: str, value: str, remedy: str) -> None:
        super().__init__(value)
        self.rule, self.value, self.remedy = rule, value, remedy

    def at(self, path: Path, title: str | None = None) -> Fault:
        return _fault(path, title, self.rule, self.value, self.remedy)


def _fault(path: Path, title: str | None, rule: str, value: str, remedy: str) -> Fault:
    return Fault(str(path), title, rule, value, remedy)


def read_voc_objects(path: Path) -> tuple[VOCObject, ...]:
    """The objects of an annotation as the file has them, faulty ones included.

    There are none where the file cannot be read.
    """
    return _read_annotation(path, with_extras=False).objects


def _read_annotation(path: Path, with_extras: bool) -> _Annotation:
    try:
        root = _parse(path)
    except _Broken as broken:
        return _Annotation(path, False, [broken.at(path)])
    objects = tuple(
        _read_object(path, element, number, with_extras)
        for number, element in enumerate(root.findall("object"), start=1)
    )
    try:
        size = _read_size(root)
    except _Broken as broken:
        return _Annotation(path, False, [broken.at(path)], None, objects)
    faults = []
    if size is None:
        value, remedy = "there is no <size>", "add <size> with the image's <width> and <height>"
        faults.append(Fault(str(path), None, "missing-size", value, remedy, "warning"))
    extras: Mapping[str, Any] = {}
    if with_extras:
        try:
            extras = read_image_extras(root)
        except ExtrasError as error:
            faults.append(_bad_extras(path, None, error))
    return _Annotation(path, True, faults, size, objects, extras)


def _bad_extras(path: Path, title: str | None, error: ExtrasError) -> Fault:
    remedy = "correct it; without it, what the file says besides the boxes is not kept"
    return Fault(str(path), title, "bad-extras", str(error), remedy, "warning")


def _parse(path: Path) -> Element:
    try:
        root: Element = fromstring(path.read_bytes(), forbid_dtd=True)
    except FileNotFoundError as error:
        remedy = "add the annotation, or delete the image's row in the split file"
        raise _Broken("missing-annotation", "there is no such file", remedy) from error
    except OSError as error:
        value = f"the file cannot be read: {error.strerror or error}"
        raise _Broken("unreadable-annotation", value, "check it and its permissions") from error
    except DefusedXmlException as error:
        value = "the file has a document type or entity declaration, which can hide harmful content"
        raise _Broken("forbidden-xml", value, "delete the declaration") from error
    except ParseError as error:
        line, column = error.position
        reason = str(error).partition(":")[0]
        value = f"malformed XML in line {line}, column {column + 1}: {reason}"
        remedy = "correct the file, or write it again with the annotation tool"
        raise _Broken("malformed-xml", value, remedy) from error
    # an encoding that the parser doesn't know, or a path that cannot be
    except (ValueError, LookupError) as error:
        value = f"the file cannot be parsed: {error}"
        raise _Broken("malformed-xml", value, "save it as UTF-8") from error
    if root.tag != "annotation":
        value = f"expected <annotation>, found <{root.tag}>"
        remedy = "put a VOC annotation there; other formats must be converted"
        raise _Broken("not-an-annotation", value, remedy)
    return root


def _read_size(root: Element) -> tuple[float, float] | None:
    """(height, width) in pixels, or None where the file doesn't say."""
    size = _child(root, "size")
    if size is None or (_child(size, "width") is None and _child(size, "height") is None):
        return None
    return _read_number(size, "height"), _read_number(size, "width")


def _read_object(path: Path, element: Element, number: int, with_extras: bool) -> VOCObject:
    """Read the direct children of an <object>: its <part>s have names and boxes of their own."""
    faults = []
    title, name, coordinates = f"object {number}", "", None
    is_difficult = is_crowd = False
    extras: Mapping[str, Any] = {}
    try:
        name = _read_text(element, "name", strip=False)
        title = f"object {number} ({name.strip()})"
    except _Broken as broken:
        faults.append(broken.at(path, title))
    try:
        is_difficult = _read_flag(element, "difficult")
        is_crowd = _read_flag(element, "crowd") or _read_flag(element, "iscrowd")
    except _Broken as broken:
        faults.append(broken.at(path, title))
    try:
        box = _child(element, "bndbox")
        if box is None:
            raise _Broken("missing-field", "there is no <bndbox>", _ADD_OR_DELETE)
        xmin, ymin, xmax, ymax = (_read_number(box, tag) for tag in _COORDINATE_NAMES)
        coordinates = (xmin, ymin, xmax, ymax)
    except _Broken as broken:
        faults.append(broken.at(path, title))
    if with_extras:
        try:
            extras = read_object_extras(element)
        except ExtrasError as error:
            faults.append(_bad_extras(path, title, error))
    return VOCObject(path, title, name, coordinates, is_difficult, is_crowd, faults, extras)


def _child(element: Element, tag: str) -> Element | None:
    children = element.findall(tag)
    if len(children) > 1:
        value = f"there are {len(children)} <{tag}> in one <{element.tag}>"
        raise _Broken("repeated-field", value, "leave the one that holds")
    return children[0] if children else None


def _read_text(element: Element, tag: str, *, strip: bool = True) -> str:
    child = _child(element, tag)
    if child is None:
        raise _Broken("missing-field", f"there is no <{tag}> in <{element.tag}>", _ADD_OR_DELETE)
    text = child.text or ""
    if not text.strip():
        raise _Broken("missing-field", f"<{tag}> is empty", _ADD_OR_DELETE)
    return text.strip() if strip else text


def _read_number(element: Element, tag: str) -> float:
    text = _read_text(element, tag)
    remedy = "write a finite number of pixels, with a point before decimals"
    try:
        # Python's float also takes 1_000, which nobody means
        number = float("nan") if "_" in text else float(text)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise _Broken("not-a-number", f"{tag} is {text[:40]!r}", remedy)
    return number


def _read_flag(element: Element, tag: str) -> bool:
    child = _child(element, tag)
    if child is None:
        return False
    text = (child.text or "").strip()
    if text not in ("0", "1"):
        raise _Broken(f"bad-{tag}", f"{tag} is {text[:40]!r}", "write 0 or 1")
    return text == "1"


def _to_box(
    item: VOCObject, size: tuple[int, int] | None
) -> tuple[_Coordinates | None, list[Fault]]:
    """The half-open box of 1-based, inclusive coordinates, and what is wrong with them.

    Args:
        item: the object.
        size: (height, width) of the image; None when it is not known, so that boxes outside
            cannot be told.
    """
    if item.coordinates is None:
        return None, []
    xmin, ymin, xmax, ymax = item.coordinates
    for low, high, value, other in (("xmin", "xmax", xmin, xmax), ("ymin", "ymax", ymin, ymax)):
        if value > other:
            found = f"{low} = {value:g} is greater than {high} = {other:g}"
            return None, [item.fault("inverted-box", found, "exchange the two")]
        if value == other:
            found = f"{low} = {high} = {value:g}: a box of no size, as a stray click leaves it"
            return None, [item.fault("zero-size-box", found, "redraw the box or delete the object")]
    if size is None:
        return None, []
    height, width = size
    if min(xmin, ymin) < 0 or xmax > width or ymax > height:
        pairs = zip(_COORDINATE_NAMES, item.coordinates, strict=True)
        found = f"{', '.join(f'{name} = {value:g}' for name, value in pairs)} in an image of "
        remedy = f"keep x in 1 … {width} and y in 1 … {height}"
        return None, [item.fault("box-outside-image", found + _describe(size), remedy)]
    box = (max(xmin - 1, 0.0), max(ymin - 1, 0.0), xmax, ymax)
    if np.float32(box[0]) >= np.float32(xmax) or np.float32(box[1]) >= np.float32(ymax):
        found = f"the box {box} has no size in single precision"
        return None, [item.fault("zero-size-box", found, "redraw the box or delete the object")]
    if min(xmin, ymin) >= 1:
        return box, []
    name, value = ("xmin", xmin) if xmin < 1 else ("ymin", ymin)
    found = f"{name} = {value:g}, where VOC counts from 1; the box is cut off at the edge"
    remedy = "if the whole file counts from 0, add 1 to all coordinates"
    return box, [item.fault("zero-based-box", found, remedy, "warning")]
