"""Annotated images as their files have them: what readers, writers and the checker share.

A `GroundTruth` holds what a detector learns from. These records hold what a file says besides, so
that a data set can be written in another format without loss, and a fault can name its place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from detect.data.faults import Fault

DataFormat = Literal["voc", "coco", "yolo"]


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
            such as VOC's trainval besides.
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
        data_format: in which it was found.
        class_names: of the labels 0 … C−1.
        images: those that are in order, with the objects that are in order.
        faults: what was found wrong while reading, warnings included.
        num_skipped_images: images left out for a fault.
        num_skipped_objects: objects left out for a fault, in images that stayed.
        extras: what else the files say of the set as a whole, such as COCO's licenses.
    """

    root: Path
    data_format: DataFormat
    class_names: tuple[str, ...]
    images: tuple[AnnotatedImage, ...]
    faults: tuple[Fault, ...] = ()
    num_skipped_images: int = 0
    num_skipped_objects: int = 0
    extras: Mapping[str, Any] = field(default_factory=dict)
