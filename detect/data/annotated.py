"""Annotated images as their files have them: what readers, writers and the checker share.

A `GroundTruth` holds what a detector learns from. These records hold what else a file says, so
that a data set can be written in another format without loss, and a fault can name its place.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from detect.data.faults import Fault

DataFormat = Literal["voc", "coco", "yolo"]

# Sums and differences of decimals carry roundings, as 0.1 + 0.2: beyond these there is only that.
NUM_DECIMALS = 10
# No annotation tool nests deeper, and the interpreter's stack bears it.
MAX_DEPTH = 20


@dataclass(frozen=True, slots=True)
class AnnotatedObject:
    """One object of an image.

    Attributes:
        title: names it in a fault: the number from 1 and the class, as in `object 3 (dog)`.
        name: of its class.
        box: x1, y1, x2, y2 in pixels, half-open, as precise as the file.
        difficult: VOC's flag.
        crowd: COCO's flag of a box around many objects.
        extras: what else the file says, by the keys of its format, such as `truncated` or
            `segmentation`.
    """

    title: str
    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False
    crowd: bool = False
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image and its objects.

    Attributes:
        image_id: the name within the set, unique, such as `000012` or `camera1/000012`.
        image_path: the file of the image.
        annotation_path: the file that holds the objects; one for many images in COCO's format.
        size: (height, width) in pixels as displayed.
        splits: the splits that list it, in alphabetic order; a sound set has one, or a joint one
            such as VOC's trainval as well.
        objects: in the order of the file.
        extras: what else the file says of the image, by the keys of its format.
    """

    image_id: str
    image_path: Path
    annotation_path: Path
    size: tuple[int, int]
    splits: tuple[str, ...]
    objects: tuple[AnnotatedObject, ...]
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AnnotatedSet:
    """A data set of any format.

    Attributes:
        root: its folder.
        data_format: in which it was found: voc, coco, yolo, or one that is only read.
        class_names: of the labels 0 … C−1.
        images: those that are in order, with the objects that are in order.
        faults: what was found wrong while reading, warnings included.
        num_skipped_images: images left out for a fault.
        num_skipped_objects: objects left out for a fault, in images that stayed.
        extras: what else the files say of the set as a whole, such as COCO's licenses.
        joined_roots: the folders of the sets that were joined to it.
    """

    root: Path
    data_format: str
    class_names: tuple[str, ...]
    images: tuple[AnnotatedImage, ...]
    faults: tuple[Fault, ...] = ()
    num_skipped_images: int = 0
    num_skipped_objects: int = 0
    extras: Mapping[str, Any] = field(default_factory=dict)
    joined_roots: tuple[Path, ...] = ()

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders of all sets that are in it."""
        return (self.root, *self.joined_roots)


# ---- what of others' files can be written again -----------------------------------------------


def sound_extras(
    entry: Mapping[str, Any], without: Iterable[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """The keys of an entry that can be kept, and what is wrong with the others.

    >>> sound_extras({"area": float("inf"), "license": 1, "bbox": [1]}, {"bbox"})
    ({'license': 1}, ["'area' holds a number that is not finite"])
    """
    extras, bad = {}, []
    for key, value in entry.items():
        if key in without:
            continue
        fault = _fault_of(value)
        if fault is None:
            extras[key] = value
        else:
            bad.append(f"{key!r:.40} holds {fault}")
    return extras, bad


def _fault_of(value: Any) -> str | None:
    waiting = [(value, 0)]  # no recursion: the depth is what is to be found out
    while waiting:
        inner, depth = waiting.pop()
        if isinstance(inner, float) and not math.isfinite(inner):
            return "a number that is not finite"
        if isinstance(inner, list | dict):
            if depth == MAX_DEPTH:
                return f"lists nested more than {MAX_DEPTH} deep"
            values = inner if isinstance(inner, list) else inner.values()
            waiting += [(part, depth + 1) for part in values]
    return None


def plain_decimal(value: float) -> float | int:
    """The number without the roundings of sums, a whole one without a point.

    >>> plain_decimal(0.1 + 0.2), plain_decimal(7.0)
    (0.3, 7)
    """
    rounded = round(value, NUM_DECIMALS)
    return int(rounded) if rounded == int(rounded) else rounded
