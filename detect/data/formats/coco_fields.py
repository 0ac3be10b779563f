"""Reading the entries of COCO's JSON, strictly: images, boxes and single values.

Shared by the readers of COCO's detection and keypoint formats. Lin et al. 2014, "Microsoft COCO:
Common objects in context", and cocodataset.org/#format-data describe them: `images`, `annotations`
and `categories` are lists of objects; a box is (x, y, width, height), continuous and counted from
0.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from detect.data.annotated import NUM_DECIMALS
from detect.data.faults import BrokenEntry, Complaint, Fault, Progress
from detect.data.images import ImageError, describe_size
from detect.data.measuring import look_at_images, unreadable
from detect.errors import DetectError
from detect.files import read_json
from detect.structures import ImageMeta

# Coordinates are rounded to hundredths, and some tools count the last pixel differently: a box
# that passes the border by no more than this is cut off there, in pixels.
MAX_BOX_OVERHANG = 1.0
# What rounding x and the width to hundredths can make of a box that ends at the border.
MAX_ROUNDING = 0.0101
# Pixels of a side; more than any image that is read, and exact as a float.
_MAX_SIDE = 2**31

Box = tuple[float, float, float, float]


def read_content(path: Path, format_name: str) -> dict[str, Any]:
    """The content of a COCO file, with its lists images, annotations and categories.

    Args:
        path: of the file.
        format_name: for the error, as in `COCO's keypoint format`.

    Raises:
        DetectError: there is no such file, or its content is something else.
    """
    content = read_json(path)
    expected = f"{format_name}, an object with the lists images, annotations and categories"
    if not isinstance(content, dict):
        raise DetectError(f"{path}: expected {expected}, found {kind_of(content)}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            found = kind_of(content[key]) if key in content else f"only {some_of(content)}"
            raise DetectError(f"{path}: expected {expected}, found no list {key!r} but {found}")
    if not content["images"]:
        raise DetectError(f"{path}: expected images in 'images', found none; take another file")
    return content


def kind_of(value: Any) -> str:
    """What a value of JSON is, for people."""
    names = {dict: "an object", list: "a list", str: "text", type(None): "null"}
    return names.get(type(value), f"{value!s:.40}")


def some_of(names: Iterable[str]) -> str:
    """The first of many names."""
    listed = list(names)
    if not listed:
        return "nothing"
    return ", ".join(listed[:10]) + (f", … ({len(listed)} in all)" if len(listed) > 10 else "")


# ---- single values ----------------------------------------------------------------------------


def get_value(entry: Any, key: str) -> Any:
    """The value of a key that must be there."""
    if not isinstance(entry, dict):
        raise BrokenEntry(
            "wrong-type", f"expected an object, found {kind_of(entry)}", "see COCO's format"
        )
    if key not in entry:
        raise BrokenEntry("missing-field", f"there is no {key!r}", "add it, or delete the entry")
    return entry[key]


def get_text(entry: Any, key: str) -> str:
    """A text that is not blank."""
    value = get_value(entry, key)
    if not isinstance(value, str) or not value.strip():
        raise BrokenEntry(
            "wrong-type", f"{key} is {value!r:.40}", "write a name in quotation marks"
        )
    return value


def get_id(entry: Any, key: str) -> int | str:
    """A whole number, or a text as some tools write it."""
    value = get_value(entry, key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise BrokenEntry("wrong-type", f"{key} is {value!r:.40}", "write a whole number")
    return value


def get_flag(entry: dict[str, Any], key: str) -> bool:
    """0, 1, or nothing, which is 0."""
    value = entry.get(key, 0)
    if value not in (0, 1):
        raise BrokenEntry(f"bad-{key}", f"{key} is {value!r:.40}", "write 0 or 1")
    return bool(value)


def get_numbers(entry: Any, key: str, count: int, meaning: str) -> list[float]:
    """A list of so many finite numbers."""
    values = get_value(entry, key)
    if not isinstance(values, list) or len(values) != count:
        found = f"{len(values)} numbers" if isinstance(values, list) else kind_of(values)
        raise BrokenEntry(
            "wrong-length", f"{key} is {found}, not the {count} of {meaning}", "correct it"
        )
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BrokenEntry(
                "not-a-number", f"{key} holds {value!r:.40}", "write a number of pixels"
            )
        if not abs(value) < 1e9:  # nan and the infinite included; beyond any image
            raise BrokenEntry(
                "not-a-number", f"{key} holds {value!s:.40}", "write a finite number of pixels"
            )
    return [float(value) for value in values]


def get_box(entry: Any, size: tuple[int, int] | None) -> tuple[Box, list[Complaint]]:
    """The `bbox` as xyxy, cut off at the border, and a complaint if more than rounding was cut.

    Args:
        entry: an annotation.
        size: (height, width) of its image; None when it is not known.
    """
    x, y, width, height = get_numbers(entry, "bbox", 4, "x, y, width and height")
    found = f"bbox {x:g}, {y:g}, {width:g}, {height:g}"
    if width <= 0 or height <= 0:
        value = f"{found}: a box of no area"
        raise BrokenEntry("zero-size-box", value, "redraw the box or delete the annotation")
    box = (x, y, round(x + width, NUM_DECIMALS), round(y + height, NUM_DECIMALS))
    if size is None:
        return box, []  # the image is left out anyway
    limits = (size[1], size[0])
    overhang = max(-x, -y, box[2] - limits[0], box[3] - limits[1])
    value = f"{found} in an image {describe_size(size)}"
    if overhang > MAX_BOX_OVERHANG:
        remedy = f"keep x + width in 0 … {limits[0]} and y + height in 0 … {limits[1]}"
        raise BrokenEntry("box-outside-image", value, remedy)
    box = (max(x, 0.0), max(y, 0.0), min(box[2], limits[0]), min(box[3], limits[1]))
    if np.float32(box[0]) >= np.float32(box[2]) or np.float32(box[1]) >= np.float32(box[3]):
        value = f"{found}: nothing of the box is in the image, {describe_size(size)}"
        raise BrokenEntry("zero-size-box", value, "redraw the box or delete the annotation")
    if overhang <= MAX_ROUNDING:
        return box, []
    return box, [("box-past-border", f"{value} is cut off at the border", "see whether it fits")]


# ---- images ---------------------------------------------------------------------------------


@dataclass(slots=True)
class ImageRecord:
    """An entry of `images`.

    Attributes:
        title: names it in a fault.
        faults: of the entry, its image and its annotations.
        key: its `id`; None when it has none that can be used.
        path: of the image; None when the entry is faulty.
        image_id: the file name without its suffix.
        stated_size: (height, width) as the entry says.
        meta: None when the image cannot be used.
        num_faulty_objects: annotations that are left out.
    """

    title: str
    faults: list[Fault] = field(default_factory=list)
    key: int | str | None = None
    path: Path | None = None
    image_id: str = ""
    stated_size: tuple[int, int] | None = None
    meta: ImageMeta | None = None
    num_faulty_objects: int = 0


Record = TypeVar("Record", bound=ImageRecord)


def read_image_entries(
    path: Path,
    entries: Sequence[Any],
    locate: Callable[[str], Path],
    new_record: Callable[[str], Record],
) -> list[Record]:
    """The entries of `images`; each id and each file may stand once.

    Args:
        path: of the JSON file.
        entries: of its `images`.
        locate: gives the path of a `file_name`.
        new_record: makes a record from its title.
    """
    images = []
    keys: dict[int | str, str] = {}
    names: dict[str, str] = {}
    for number, entry in enumerate(entries, start=1):
        image = new_record(f"image {number}")
        images.append(image)
        try:
            key = get_id(entry, "id")
            image.title = f"image {number} (id {key!r:.20})"
            if key in keys:
                value = f"{keys[key]} has that id too"
                raise BrokenEntry("duplicate-image", value, "give each image an id of its own")
            keys[key] = image.title
            image.key = key
            file_name = get_text(entry, "file_name")
            image.title = f"image {number} ({file_name})"
            if not Path(file_name).name or "\0" in file_name:
                value = f"file_name is {file_name!r:.40}"
                raise BrokenEntry("bad-file-name", value, "name an image")
            image_id = Path(file_name).with_suffix("").as_posix()
            if image_id in names:
                value = f"{names[image_id]} has that file name too, suffixes apart"
                raise BrokenEntry("duplicate-image", value, "delete one, or rename its file")
            names[image_id] = image.title
            sides = (get_value(entry, "height"), get_value(entry, "width"))
            if not all(type(side) is int and 0 < side <= _MAX_SIDE for side in sides):
                value = f"height and width are {sides[0]!r:.20} and {sides[1]!r:.20}"
                raise BrokenEntry("bad-size", value, "write whole numbers of pixels")
            image.stated_size, image.image_id = sides, image_id
            image.path = locate(file_name)
        except BrokenEntry as broken:
            image.faults.append(broken.at(path, image.title))
    return images


def measure_images(
    images: Sequence[ImageRecord],
    measure: Callable[[Path], tuple[int, int]],
    progress: Progress | None,
) -> None:
    """Look at the file of every image."""
    located = [image for image in images if image.path is not None]
    sizes = look_at_images([image.path for image in located if image.path], measure, progress)
    for image, size in zip(located, sizes, strict=True):
        assert image.path is not None
        if isinstance(size, ImageError):
            rule = "unreadable-image" if _exists(image.path) else "missing-image"
            image.faults.append(replace(unreadable(image.path, size), rule=rule))
        elif size != image.stated_size:
            assert image.stated_size is not None
            value = f"the image is {describe_size(size)}, its entry says "
            remedy = "see whether it is the image that was annotated, then correct the entry"
            value += describe_size(image.stated_size)
            fault = Fault(str(image.path), image.title, "size-mismatch", value, remedy)
            image.faults.append(fault)
        else:
            image.meta = ImageMeta(image.image_id, image.path, size, size)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long for the disk
        return False
