"""Data sets for classification: one folder for each class, as ImageNet is unpacked, read strictly.

```
root/train/cat/000012.jpg         an image of the class cat
root/train/cat/camera1/7.png      what lies in subfolders of a class belongs to it too
root/val/cat/000345.jpg           a folder for each split
```

An image is a `Sample` whose only object fills it, so that everything that works on detection
samples works on these. Everything that is wrong is found before training and reported together, as
for VOC data sets. Names that begin with a dot (`.ipynb_checkpoints`, `._000012.jpg`) are those of
the system's and other programs' files and are passed over.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int
from torch.utils.data import Dataset

from detect.data.classes import listed_class_names, unknown_class_remedy
from detect.data.dataset import OnError
from detect.data.faults import DataFaults, Fault, Progress
from detect.data.images import (
    IMAGE_SUFFIXES,
    ImageError,
    read_image_size,
    read_unchanged_image,
    verify_image,
)
from detect.data.measuring import look_at_images, unreadable
from detect.data.readers import DATASETS, DatasetRequest
from detect.errors import DetectError
from detect.registry import hint
from detect.structures import Sample, whole_image_truth
from detect.wording import counted

FILE_SUFFIXES = (*IMAGE_SUFFIXES, ".tif", ".tiff")

_LAYOUT = "<split>/<class>/<image>.jpg"


class ImageFolder(Dataset[Sample]):
    """Images of one class each, as `Sample`s with one object that fills the image.

    An image is decoded when its sample is asked for.

    Attributes:
        class_names: the name of each label.
        folder: the folder of the split, which holds the class folders.
        labels: `[N]` int64, the class of each image, rising.
        sizes: `[N, 2]` int32, (height, width) of each image as displayed.
        faults: all that was found wrong, warnings included.
        num_skipped_images: images left out for a fault.
    """

    num_skipped_objects = 0
    notes = ()

    def __init__(
        self,
        class_names: Sequence[str],
        folder: Path,
        image_ids: Sequence[str],
        labels: Int[np.ndarray, "N"],
        sizes: Int[np.ndarray, "N 2"],
        *,
        faults: Sequence[Fault] = (),
        num_skipped_images: int = 0,
    ) -> None:
        if not len(image_ids) == len(labels) == len(sizes):
            raise ValueError(f"{len(image_ids)} ids, {len(labels)} labels and {len(sizes)} sizes")
        self.class_names = tuple(class_names)
        self.folder = folder
        self.labels = labels.astype(np.int64)
        self.sizes = sizes.astype(np.int32)
        self.faults = tuple(faults)
        self.num_skipped_images = num_skipped_images
        self._image_ids = _PackedNames(image_ids)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """Read the image.

        Raises:
            DetectError: the image cannot be read any more, or is another one by now.
        """
        number = range(len(self))[index]
        image_id = self._image_ids[number]
        path = self.folder / image_id
        size = (int(self.sizes[number, 0]), int(self.sizes[number, 1]))
        image = read_unchanged_image(path, size)
        truth = whole_image_truth(size, int(self.labels[number]))
        return Sample.of_image(image, image_id, path, truth)

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The path of each image below `folder`, with `/` between its parts."""
        return tuple(self._image_ids[number] for number in range(len(self)))

    def class_counts(self) -> dict[str, int]:
        """The number of images of each class, in the order of the labels."""
        counts = np.bincount(self.labels, minlength=len(self.class_names)).tolist()
        return dict(zip(self.class_names, counts, strict=True))


class _PackedNames:
    """Names by number, in one piece of memory.

    A million strings of Python would be copied page by page into every worker process of a data
    loader, since reading one changes its reference count.
    """

    def __init__(self, names: Sequence[str]) -> None:
        encoded = [os.fsencode(name) for name in names]  # whatever bytes a file's name has
        self._text = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)])  # [number of names + 1]

    def __getitem__(self, number: int) -> str:
        return os.fsdecode(self._text[self._ends[number] : self._ends[number + 1]])


def read_image_folder(
    root: Path,
    split: str,
    class_names: Sequence[str] | None = None,
    on_error: OnError = "stop",
    *,
    verify_images: bool = False,
    progress: Progress | None = None,
) -> ImageFolder:
    """Read one split of a data set with a folder for each class.

    Args:
        root: the folder that holds one folder for each split.
        split: the name of the split's folder.
        class_names: the names of the labels 0 … C−1, for a validation split those of the training
            split; without them, the names of the class folders, sorted. Given, a folder of
            another name is an error and a class without images a warning; not given, a class
            folder without images is an error, and skipping leaves the class out.
        on_error: `stop` raises all errors together; `skip` leaves faulty images and folders out,
            and says so in the data set's `faults`. Warnings never stop.
        verify_images: decode every image once. Otherwise only the headers are read, which takes
            ImageNet's million two minutes.
        progress: called with the number of images looked at and the number of all.

    Raises:
        DataFaults: there are errors in images or folders, and `on_error` is `stop`.
        DetectError: root or split is missing, there is no class folder, the class names make no
            sense, or no image is left.
    """
    if class_names is not None:
        class_names = listed_class_names(class_names)
    folder = _find_split(root, split)
    listing = _list_split(folder)
    names, faults = _match_classes(folder, listing, class_names)
    faults = [*listing.faults, *faults]
    measure = verify_image if verify_images else read_image_size
    survey = _survey(folder, listing, names, class_names is not None, measure, progress)
    faults += survey.faults
    errors = [fault for fault in faults if fault.severity == "error"]
    if errors and on_error == "stop":
        raise DataFaults(faults, [root], is_voc=False)
    if not survey.image_ids:
        raise DetectError(
            f"{folder}: expected images in class folders, found {listing.num_images} and none "
            f"that can be used; the first fault: {[*errors, *faults][0]}"
        )
    return ImageFolder(
        survey.class_names,
        folder,
        survey.image_ids,
        np.array(survey.labels, np.int64),
        np.array(survey.sizes, np.int32),
        faults=faults,
        num_skipped_images=listing.num_images - len(survey.image_ids),
    )


@DATASETS.register("folders")
def _read(request: DatasetRequest) -> ImageFolder:
    """Images of one class each, for classifiers; they have no boxes."""
    return read_image_folder(
        request.source.root,
        request.split,
        request.class_names,
        request.on_error,
        verify_images=bool(request.verify_images),
        progress=request.progress,
    )


# ---- folders ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Listing:
    """The files of a split, read by name alone.

    Attributes:
        image_ids: the images of each class folder; folders and images are sorted.
        faults: files and folders that are out of place.
        num_strays: images that lie beside the class folders.
    """

    image_ids: dict[str, list[str]]
    faults: list[Fault]
    num_strays: int

    @property
    def num_images(self) -> int:
        return sum(map(len, self.image_ids.values())) + self.num_strays


def _find_split(root: Path, split: str) -> Path:
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DetectError(
            f"{root}: expected a folder with {_LAYOUT}, found {found}; "
            "data.root says where the data set is"
        )
    folder = root / split
    if folder.is_dir():
        return folder
    known = [path.name for path in _visible(root) if path.is_dir()]
    raise DetectError(
        f"{root}: expected {_LAYOUT}, found no folder of the split {split!r}; {hint(split, known)}"
    )


def _list_split(folder: Path) -> _Listing:
    """List the images of each class folder, and what is out of place.

    Raises:
        DetectError: there is no class folder, or a folder cannot be read.
    """
    entries = _visible(folder)
    class_folders = [path for path in entries if path.is_dir()]
    files = [path for path in entries if not path.is_dir()]
    if not class_folders:
        found = f"only files: {_some([path.name for path in files])}" if files else "nothing"
        raise DetectError(
            f"{folder}: expected a folder for each class, {_LAYOUT}, found {found}; "
            "put the images of each class into a folder that has its name"
        )
    listing = _Listing({}, [], 0)
    for path in files:
        if _is_image(path.name):
            value, remedy = "an image beside the class folders", "move it into that of its class"
            listing.faults.append(Fault(str(path), None, "image-without-class", value, remedy))
            listing.num_strays += 1
        else:
            value, remedy = (
                "a file beside the class folders",
                "delete it, or leave it: it is unused",
            )
            listing.faults.append(Fault(str(path), None, "stray-file", value, remedy, "warning"))
    for path in class_folders:
        listing.image_ids[path.name] = _list_class(folder, path.name, listing.faults)
    return listing


def _list_class(folder: Path, name: str, faults: list[Fault]) -> list[str]:
    """The ids of the images in one class folder and below, sorted; links are followed."""
    image_ids: list[str] = []
    others: list[Path] = []
    seen: set[Path] = set()

    def note(error: OSError) -> None:
        value = f"the folder cannot be read: {error.strerror or error}"
        remedy = "check it and its permissions"
        faults.append(Fault(str(error.filename), None, "unreadable-folder", value, remedy))

    for place, subfolders, files in os.walk(folder / name, onerror=note, followlinks=True):
        real = Path(place).resolve()
        if real in seen:  # a link to a folder above would lead round and round
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(sub for sub in subfolders if not sub.startswith("."))
        prefix = Path(place).relative_to(folder).as_posix()
        for file in (file for file in files if not file.startswith(".")):
            if _is_image(file):
                image_ids.append(f"{prefix}/{file}")
            else:
                others.append(Path(place, file))
    if others:
        value = f"no suffix of an image ({', '.join(FILE_SUFFIXES)})"
        if len(others) > 1:
            value += f"; {len(others)} such files are in the folder of the class"
        remedy = "rename it if it is an image, or leave it: it is unused"
        first = str(min(others))
        faults.append(Fault(first, f"class {name}", "stray-file", value, remedy, "warning"))
    return sorted(image_ids)


def _visible(folder: Path) -> list[Path]:
    """What lies in a folder, hidden names left out, sorted."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DetectError(f"{folder}: cannot be read: {error.strerror or error}") from error


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in FILE_SUFFIXES


def _some(names: Sequence[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:10]) + (f", … ({len(names)} in all)" if len(names) > 10 else "")


# ---- classes ----------------------------------------------------------------------------------


def _match_classes(
    folder: Path, listing: _Listing, class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], list[Fault]]:
    """The classes to be read, and what the folders and the class names do not share."""
    if class_names is None:
        return tuple(listing.image_ids), []
    faults = []
    for name in (name for name in listing.image_ids if name not in class_names):
        value = (
            f"unknown class {name!r}, a folder of {counted(len(listing.image_ids[name]), 'image')}"
        )
        remedy = unknown_class_remedy(name, class_names, "rename the folder, or delete it")
        faults.append(Fault(str(folder / name), None, "unknown-class", value, remedy))
    for name in (name for name in class_names if name not in listing.image_ids):
        value = f"there is no folder of the class {name!r}"
        remedy = "its accuracy will be unknown; add the folder if that is not meant"
        faults.append(Fault(str(folder / name), None, "missing-class", value, remedy, "warning"))
    return tuple(class_names), faults


# ---- images ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Survey:
    """The images that are in order, with what is wrong with the others."""

    class_names: tuple[str, ...]
    image_ids: list[str]
    labels: list[int]
    sizes: list[tuple[int, int]]
    faults: list[Fault]


def _survey(
    folder: Path,
    listing: _Listing,
    names: Sequence[str],
    names_are_given: bool,
    measure: Callable[[Path], tuple[int, int]],
    progress: Progress | None,
) -> _Survey:
    """Look at every image of the classes `names`; faults come in the order of the images.

    Args:
        folder: of the split.
        listing: what is in it.
        names: the classes to be read.
        names_are_given: keep the classes without a usable image, since the user named them.
        measure: gives (height, width) of an image, or raises an ImageError.
        progress: as in `read_image_folder`.
    """
    listed = {name: listing.image_ids[name] for name in names if name in listing.image_ids}
    paths = [folder / key for keys in listed.values() for key in keys]
    measured = iter(look_at_images(paths, measure, progress))
    survey = _Survey((), [], [], [], [])
    for name in names:
        num_before = len(survey.image_ids)
        label = len(survey.class_names)
        for image_id in listed.get(name, []):
            found = next(measured)
            if isinstance(found, ImageError):
                survey.faults.append(unreadable(folder / image_id, found))
            else:
                survey.image_ids.append(image_id)
                survey.labels.append(label)
                survey.sizes.append(found)
        is_empty = len(survey.image_ids) == num_before
        if is_empty and name in listed:
            survey.faults.append(
                _empty_class(
                    folder / name, len(listed[name]), "warning" if names_are_given else "error"
                )
            )
        if names_are_given or not is_empty:
            survey.class_names = (*survey.class_names, name)
    return survey


def _empty_class(folder: Path, num_faulty: int, severity: Literal["error", "warning"]) -> Fault:
    suffixes = ", ".join(FILE_SUFFIXES)
    value = f"no image ({suffixes}) in the class folder or below"
    if num_faulty:
        value = f"none of the class's {counted(num_faulty, 'image')} can be read"
    remedy = "add images, or delete the folder"
    return Fault(str(folder), None, "empty-class", value, remedy, severity)
