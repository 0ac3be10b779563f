"""What a COCO annotation file demands of detections, read without its images.

Training needs images and keeps boxes within them. Judging detections needs neither: here boxes
stay as they are in the file, in float64, and `area` and `iscrowd` are those of the file, so that
COCO's numbers are those of pycocotools. Sizes of images are not looked at, a `file_name` may be
missing, and a box may be empty.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from detect.data.faults import BrokenEntry, DataFaults, Fault
from detect.data.formats.coco_fields import (
    get_flag,
    get_id,
    get_numbers,
    get_text,
    get_value,
    read_content,
    some_of,
)
from detect.errors import DetectError
from detect.structures import GroundTruth

_INSTANCES = re.compile(r"instances_(.+)")


@dataclass(frozen=True, slots=True)
class COCOTruths:
    """The objects of all images of an annotation file.

    Attributes:
        path: of the file.
        class_names: of the labels 0 … C−1, by ascending category id.
        category_ids: of each class, as the file has them.
        image_ids: of the images, ascending, numbers before texts.
        image_names: of each image, its file name without the suffix, or else its id.
        truths: of each image `boxes_xywh` (`[N, 4]` float64, x, y, width and height in pixels),
            `labels` (`[N]` int64), `iscrowd` (`[N]` bool) and `area` (`[N]` float64, square
            pixels, of the box where the file has none), in the order of the file.
        difficult: of each image `[N]` VOC's flag, which this package writes as well; COCO's
            protocol knows no such flag.
        faults: what was found wrong.
        num_skipped_images: images left out for a fault.
        num_skipped_objects: objects left out for a fault.
    """

    path: Path
    class_names: tuple[str, ...]
    category_ids: tuple[int | str, ...]
    image_ids: tuple[int | str, ...]
    image_names: tuple[str, ...]
    truths: tuple[Mapping[str, Tensor], ...]
    difficult: tuple[Bool[Tensor, "_"], ...]
    faults: tuple[Fault, ...] = ()
    num_skipped_images: int = 0
    num_skipped_objects: int = 0

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def split(self) -> str:
        """The name of the split that the file's name tells, as `val2017`; else that name."""
        match = _INSTANCES.fullmatch(self.path.stem)
        return match[1] if match else self.path.stem

    def ground_truths(self) -> tuple[GroundTruth, ...]:
        """The same objects by VOC's rules: difficult ones and crowds do not count.

        Raises:
            DetectError: a box is empty as float32 xyxy, so it has no IoU by these rules.
        """
        records = []
        for name, truth, difficult in zip(
            self.image_names, self.truths, self.difficult, strict=True
        ):
            corners = truth["boxes_xywh"].clone()
            corners[:, 2:] += corners[:, :2]
            boxes = corners.float()
            empty = (boxes[:, 2:] <= boxes[:, :2]).any(dim=1)
            if empty.any():
                row = int(empty.nonzero()[0])
                raise DetectError(
                    f"{self.path}: image {name}, its object {row + 1}: expected a box of some "
                    f"width and height, found bbox {truth['boxes_xywh'][row].tolist()}, which has "
                    "no IoU by VOC's rules; delete the annotation, or judge by --metric coco alone"
                )
            records.append(GroundTruth(boxes, truth["labels"], difficult | truth["iscrowd"]))
        return tuple(records)

    def of_images(self, image_names: Sequence[str]) -> "COCOTruths":
        """Those of some images only, by ascending id.

        Raises:
            DetectError: the file has no image of that name.
        """
        unknown = sorted(set(image_names) - set(self.image_names))
        if unknown:
            raise DetectError(
                f"{self.path}: expected all images of the split, found none named {unknown[0]!r}"
            )
        wanted = set(image_names)
        rows = [row for row, name in enumerate(self.image_names) if name in wanted]
        return replace(
            self,
            image_ids=tuple(self.image_ids[row] for row in rows),
            image_names=tuple(self.image_names[row] for row in rows),
            truths=tuple(self.truths[row] for row in rows),
            difficult=tuple(self.difficult[row] for row in rows),
        )


@dataclass(slots=True)
class _Image:
    name: str
    labels: list[int] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    crowds: list[bool] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)


def read_coco_truths(path: Path, *, on_error: Literal["stop", "skip"] = "stop") -> COCOTruths:
    """Read the objects of a COCO annotation file; its images need not be there.

    Args:
        path: of the file, such as `instances_val2017.json`.
        on_error: with `skip`, faulty entries are left out and counted.

    Raises:
        DataFaults: entries are faulty, and `on_error` is `stop`.
        DetectError: the file is missing or of another kind.
    """
    content = read_content(path, "COCO's detection format")
    faults: list[Fault] = []
    categories = _read_categories(path, content["categories"], faults)
    images = _read_images(path, content["images"], faults)
    num_faulty_images = len(content["images"]) - len(images)
    num_objects = _read_objects(path, content["annotations"], categories, images, faults)
    if faults and on_error == "stop":
        raise DataFaults(faults, [path], is_voc=False)
    if not images:
        raise DetectError(f"{path}: none of the images is left after skipping; {faults[0]}")
    image_ids = sorted(images, key=_id_key)
    return COCOTruths(
        path=path,
        class_names=tuple(categories.values()),
        category_ids=tuple(categories),
        image_ids=tuple(image_ids),
        image_names=tuple(images[key].name for key in image_ids),
        truths=tuple(_tensors(images[key]) for key in image_ids),
        difficult=tuple(torch.tensor(images[key].difficult, dtype=torch.bool) for key in image_ids),
        faults=tuple(faults),
        num_skipped_images=num_faulty_images,
        num_skipped_objects=len(content["annotations"]) - num_objects,
    )


def _id_key(value: int | str) -> tuple[bool, int | str]:
    return isinstance(value, str), value


def _tensors(image: _Image) -> dict[str, Tensor]:
    return {
        "boxes_xywh": torch.tensor(image.boxes, dtype=torch.float64).reshape(-1, 4),
        "labels": torch.tensor(image.labels, dtype=torch.int64),
        "iscrowd": torch.tensor(image.crowds, dtype=torch.bool),
        "area": torch.tensor(image.areas, dtype=torch.float64),
    }


def _read_categories(
    path: Path, entries: Sequence[Any], faults: list[Fault]
) -> dict[int | str, str]:
    """The name of each category, by ascending id."""
    names: dict[int | str, str] = {}
    for number, entry in enumerate(entries, start=1):
        try:
            name, key = get_text(entry, "name"), get_id(entry, "id")
            if key in names or name in names.values():
                taken = f"the id {key!r:.20}" if key in names else f"the name {name!r:.40}"
                value = f"{taken} is taken by another category"
                raise BrokenEntry("duplicate-category", value, "give each its own")
            names[key] = name
        except BrokenEntry as broken:
            faults.append(broken.at(path, f"category {number}"))
    return dict(sorted(names.items(), key=lambda pair: _id_key(pair[0])))


def _read_images(
    path: Path, entries: Sequence[Any], faults: list[Fault]
) -> dict[int | str, _Image]:
    images: dict[int | str, _Image] = {}
    names: set[str] = set()
    for number, entry in enumerate(entries, start=1):
        try:
            key = get_id(entry, "id")
            name = str(key)
            if "file_name" in entry:
                name = Path(get_text(entry, "file_name")).with_suffix("").as_posix()
            if key in images or name in names:
                taken = f"the id {key!r:.20}" if key in images else f"the file name {name!r:.60}"
                value = f"{taken} is taken by another image"
                raise BrokenEntry("duplicate-image", value, "give each image its own entry")
            names.add(name)
            images[key] = _Image(name)
        except (BrokenEntry, ValueError) as error:
            broken = (
                error
                if isinstance(error, BrokenEntry)
                else BrokenEntry("bad-file-name", "file_name names no file", "name an image")
            )
            faults.append(broken.at(path, f"image {number}"))
    return images


def _read_objects(
    path: Path,
    entries: Sequence[Any],
    categories: Mapping[int | str, str],
    images: Mapping[int | str, _Image],
    faults: list[Fault],
) -> int:
    """Give every image its objects; returns the number of those that are in order."""
    labels = {key: label for label, key in enumerate(categories)}
    ids: set[int | str] = set()
    num_objects = 0
    for number, entry in enumerate(entries, start=1):
        try:
            own_id = get_id(entry, "id")
            if own_id in ids:
                value = f"the id {own_id!r:.20} is taken by another annotation"
                raise BrokenEntry("duplicate-annotation", value, "give each an id of its own")
            ids.add(own_id)
            _read_object(entry, labels, categories, images)
            num_objects += 1
        except BrokenEntry as broken:
            faults.append(broken.at(path, f"annotation {number}"))
    return num_objects


def _read_object(
    entry: Any,
    labels: Mapping[int | str, int],
    categories: Mapping[int | str, str],
    images: Mapping[int | str, _Image],
) -> None:
    image_id, category_id = get_id(entry, "image_id"), get_id(entry, "category_id")
    if image_id not in images:
        value = f"there is no image with the id {image_id!r:.20}"
        raise BrokenEntry("unknown-image", value, "add the image, or delete the annotation")
    if category_id not in labels:
        known = some_of(f"{key!r} ({name})" for key, name in categories.items())
        value = f"there is no category with the id {category_id!r:.20}"
        raise BrokenEntry("unknown-category", value, f"correct it; there are: {known}")
    get_value(entry, "bbox")
    box = get_numbers(entry, "bbox", 4, "x, y, width and height")
    if box[2] < 0 or box[3] < 0:
        value = f"bbox {', '.join(f'{value:g}' for value in box)}: a negative width or height"
        raise BrokenEntry("negative-size", value, "write x, y, width and height")
    area = entry.get("area", box[2] * box[3])
    if isinstance(area, bool) or not isinstance(area, int | float) or not 0 <= area < 1e18:
        value = f"area is {area!r:.40}"
        raise BrokenEntry("bad-area", value, "write square pixels, or leave it out")
    is_crowd, is_difficult = get_flag(entry, "iscrowd"), get_flag(entry, "difficult")
    image = images[image_id]
    image.labels.append(labels[category_id])
    image.boxes.append(box)
    image.areas.append(float(area))
    image.crowds.append(is_crowd)
    image.difficult.append(is_difficult)
