"""ImageNet's localization set, CLS-LOC of ILSVRC, read strictly.

```
root/Annotations/CLS-LOC/train/n01440764/n01440764_10026.xml    one <annotation> an image, as VOC
root/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml
root/Data/CLS-LOC/train/n01440764/n01440764_10026.JPEG
root/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG
root/ImageSets/CLS-LOC/train_loc.txt, val.txt                   optional; rows `<id> <number>`
root/LOC_synset_mapping.txt                                     optional; rows `n01440764 tench, …`
```

That is the folder `ILSVRC` of the download, with the mapping in it or beside it. Of 1.28 million
training images 0.54 million have boxes; the others are left out and counted.

The annotations are VOC's and read by its rules, coordinates that count from 1 included. Everything
that is wrong is found before training and reported at once. Russakovsky et al. 2015, "ImageNet
large scale visual recognition challenge", describes the set.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from detect.data.dataset import DetectionDataset, OnError
from detect.data.faults import Fault, Progress
from detect.data.formats.voc import ImageEntry, read_entries
from detect.data.images import IMAGE_SUFFIXES
from detect.data.readers import DATASETS, DatasetRequest
from detect.errors import DetectError
from detect.files import read_rows
from detect.wording import counted

# The list of each split's images that have boxes.
SPLIT_LISTS = {"train": "train_loc.txt", "val": "val.txt"}

_MAPPING_NAME = "LOC_synset_mapping.txt"
_LAYOUT = "Annotations/CLS-LOC/<split> and Data/CLS-LOC/<split>"
_LIST_ROW = re.compile(r"(\S+)(\s+\d+)?")
_MAPPING_ROW = re.compile(r"(\S+)\s+(\S.*)")


@DATASETS.register("imagenet_localization")
def _read(request: DatasetRequest) -> DetectionDataset:
    dataset = read_imagenet_localization(
        request.source.root,
        request.split,
        request.class_names,
        request.on_error,
        verify_images=bool(request.verify_images),
        progress=request.progress,
    )
    dataset.name = request.name
    return dataset


def read_imagenet_localization(
    root: Path,
    split: str,
    class_names: Sequence[str] | None = None,
    on_error: OnError = "stop",
    *,
    verify_images: bool = False,
    progress: Progress | None = None,
) -> DetectionDataset:
    """Read one split of ImageNet's localization set.

    A list in `ImageSets/CLS-LOC` decides which images belong to the split, and each of them must
    have its annotation; without a list, all annotated images belong to it. Training images
    without a box are left out, in both cases.

    Args:
        root: the folder that holds `Annotations` and `Data`.
        split: `train` or `val`.
        class_names: the synset ids of the labels 0 … C−1; without them, the names of the folders
            in `Annotations/CLS-LOC/train`, sorted, for both splits; without such a folder the ids
            of `LOC_synset_mapping.txt`; without that the names in the annotations, sorted.
        on_error: `stop` raises all errors together; `skip` leaves faulty objects and faulty
            images out, and says so in the data set's `faults`. Warnings never stop.
        verify_images: decode every image once. Otherwise only the headers are read.
        progress: called with the number of images looked at and the number of all.

    Returns:
        The images, whose `faults` have warnings of what is left out, of objects of another class
        than their training folder, and one for all boxes that count from 0.

    Raises:
        DataFaults: there are errors in annotations or images, and `on_error` is `stop`.
        DetectError: a folder or split is missing, a list or the mapping is malformed, the classes
            make no sense, or no image is left.
    """
    _check_layout(root, split)
    folder = _annotation_folder(root, split)
    list_path = root / "ImageSets" / "CLS-LOC" / SPLIT_LISTS[split]
    image_ids, listed_in = _listed_ids(list_path), list_path
    num_unannotated = 0
    if image_ids is None:
        image_ids, listed_in = _ids_below(folder, [".xml"]), folder
        images = _ids_below(_image_folder(root, split), IMAGE_SUFFIXES)
        num_unannotated = len(set(images).difference(image_ids))
    if not image_ids:
        raise DetectError(
            f"{folder}: expected annotations, <id>.xml, found none; "
            "unpack the annotations of the split there"
        )
    words = _read_mapping(root)
    if class_names is None:
        class_names = _train_folders(root) or list(words) or "auto"
    annotated = read_entries(
        [_entry(root, image_id, split, listed_in) for image_id in image_ids],
        class_names,
        verify_images=verify_images,
        progress=progress,
    )
    annotated = replace(annotated, data_format="imagenet_localization")
    dataset = DetectionDataset.from_annotated([annotated], on_error)
    return _finished(dataset, root, split, num_unannotated)


def _finished(
    dataset: DetectionDataset, root: Path, split: str, num_unannotated: int
) -> DetectionDataset:
    """Leave training images without a box out, and say all there is to say of the set."""
    faults = _with_one_zero_based(dataset.faults, root)
    kept = list(range(len(dataset)))
    if split == "train":
        labels = [truth.labels.tolist() for truth in dataset.truths]
        faults += _class_mismatches(dataset, labels, _annotation_folder(root, split))
        kept = [number for number in kept if labels[number]]
    num_without_box = num_unannotated + len(dataset) - len(kept)
    if not kept:
        raise DetectError(
            f"{_annotation_folder(root, split)}: expected images with boxes, found none among "
            f"{num_without_box}; unpack the annotations of the split there"
        )
    if num_without_box:
        value = f"{num_without_box} of {num_without_box + len(kept)} images have no box"
        remedy = "they are left out; add annotations if that is not meant"
        folder = _image_folder(root, split)
        faults.append(_warning(folder, None, "images-without-box", value, remedy))
        dataset.notes = (f"left out, without a box: {counted(num_without_box, 'image')}",)
    dataset.faults = tuple(faults)
    return dataset.subset(kept)


# ---- folders and lists ------------------------------------------------------------------------


def _annotation_folder(root: Path, split: str) -> Path:
    return root / "Annotations" / "CLS-LOC" / split


def _image_folder(root: Path, split: str) -> Path:
    return root / "Data" / "CLS-LOC" / split


def _entry(root: Path, image_id: str, split: str, listed_in: Path) -> ImageEntry:
    return ImageEntry(
        root, image_id, listed_in, f"Annotations/CLS-LOC/{split}", f"Data/CLS-LOC/{split}"
    )


def _check_layout(root: Path, split: str) -> None:
    if split not in SPLIT_LISTS:
        raise DetectError(f"split: expected {' or '.join(SPLIT_LISTS)}, found {split!r}")
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DetectError(
            f"{root}: expected a folder with {_LAYOUT}, found {found}; "
            "data.root says where the data set is"
        )
    folders = (_annotation_folder(root, split), _image_folder(root, split))
    missing = [str(folder.relative_to(root)) for folder in folders if not folder.is_dir()]
    if not missing:
        return
    near = [root.parent, *(path for path in sorted(root.iterdir()) if path.is_dir())]
    roots = [folder for folder in near if (folder / "Annotations" / "CLS-LOC").is_dir()]
    hint = f"did you mean {roots[0]}?" if roots else "unpack the split there"
    raise DetectError(
        f"{root}: expected ImageNet's layout {_LAYOUT}, found no {' and no '.join(missing)}; {hint}"
    )


def _listed_ids(path: Path) -> list[str] | None:
    """The image ids of a split's list, or None where there is no list."""
    if not path.is_file():
        return None
    rows = [_LIST_ROW.fullmatch(row) or row for row in read_rows(path)]
    for row in rows:
        if isinstance(row, str):
            raise DetectError(
                f"{path}: expected rows `<id> <number>`, found {row[:80]!r}; correct the row"
            )
    if not rows:
        raise DetectError(
            f"{path}: expected image ids, one a line, found none; "
            "delete the file to take all annotated images"
        )
    return [row[1] for row in rows if not isinstance(row, str)]


def _ids_below(folder: Path, suffixes: Sequence[str]) -> list[str]:
    """The files in a folder and below with one of the suffixes, which are cut off; sorted.

    Names that begin with a dot are other programs' files. Links are followed.
    """
    ids = []
    seen: set[Path] = set()
    for place, subfolders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        real = Path(place).resolve()
        if real in seen:  # a link to a folder above would lead round and round
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        prefix = "" if Path(place) == folder else f"{Path(place).relative_to(folder).as_posix()}/"
        for name in files:
            stem, suffix = os.path.splitext(name)  # noqa: PTH122 — a million of Path objects is slow
            if suffix.lower() in suffixes and not name.startswith("."):
                ids.append(prefix + stem)
    return sorted(ids)


def _refuse(error: OSError) -> None:
    raise DetectError(
        f"{error.filename}: the folder cannot be read: {error.strerror or error}; "
        "check it and its permissions"
    ) from error


# ---- classes ----------------------------------------------------------------------------------


def _train_folders(root: Path) -> list[str]:
    """The names of the synset folders, sorted; none where there is no training split."""
    folder = _annotation_folder(root, "train")
    if not folder.is_dir():
        return []
    paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return sorted(path.name for path in paths if path.is_dir())


def _read_mapping(root: Path) -> dict[str, str]:
    """The words of each synset id, in the order of the file; empty without a file."""
    paths = [folder / _MAPPING_NAME for folder in (root, root.parent)]
    path = next((path for path in paths if path.is_file()), None)
    words: dict[str, str] = {}
    for row in read_rows(path) if path is not None else []:
        match = _MAPPING_ROW.fullmatch(row)
        if match is None:
            raise DetectError(
                f"{path}: expected rows `<synset id> <words>`, found {row[:80]!r}; correct the row"
            )
        if match[1] in words:
            raise DetectError(
                f"{path}: expected every synset once, found {match[1]} twice; delete one row"
            )
        words[match[1]] = match[2]
    return words


def _class_mismatches(
    dataset: DetectionDataset, labels: Sequence[Sequence[int]], folder: Path
) -> list[Fault]:
    """A warning for each image in whose synset folder an object has another class.

    Args:
        dataset: the training images.
        labels: the labels of each image's objects.
        folder: of the annotations.
    """
    faults = []
    for image_id, own in zip(dataset.image_ids, labels, strict=True):
        synset, has_folder, _ = image_id.partition("/")
        names = [dataset.class_names[label] for label in own]
        strange = [name for name in names if name != synset]
        if has_folder and strange:
            value = f"an object of class {strange[0]} in the folder of {synset}"
            remedy = "correct <name>, or move the image and its annotation"
            path = folder / f"{image_id}.xml"
            faults.append(_warning(path, None, "class-mismatch", value, remedy))
    return faults


# ---- warnings ---------------------------------------------------------------------------------


def _warning(path: Path, title: str | None, rule: str, value: str, remedy: str) -> Fault:
    return Fault(str(path), title, rule, value, remedy, "warning")


def _with_one_zero_based(faults: Sequence[Fault], root: Path) -> list[Fault]:
    """The faults with one warning instead of that of each box that counts from 0.

    Many of ImageNet's boxes do, so that the others would drown.
    """
    zero_based = [fault for fault in faults if fault.rule == "zero-based-box"]
    if len(zero_based) < 2:
        return list(faults)
    value = (
        f"{len(zero_based)} boxes begin at 0, where VOC counts from 1, and are cut off at the "
        f"edge; the first: {zero_based[0].file}, {zero_based[0].object}"
    )
    warning = _warning(root, None, "zero-based-box", value, zero_based[0].remedy)
    return [*(fault for fault in faults if fault.rule != "zero-based-box"), warning]
