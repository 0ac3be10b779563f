"""One annotation file of VOC's layout: the objects of an image, in XML.

Coordinates count from 1 and include the last pixel (Everingham et al. 2010, "The PASCAL Visual
Object Classes (VOC) challenge", and the devkit's documentation).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from detect.data.faults import BrokenEntry, Fault
from detect.data.formats.voc_extras import ExtrasError, read_image_extras, read_object_extras
from detect.data.images import describe_size

Coordinates = tuple[float, float, float, float]  # xmin, ymin, xmax, ymax

_COORDINATE_NAMES = ("xmin", "ymin", "xmax", "ymax")
_ADD_OR_DELETE = "add it, or delete the object"


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
    coordinates: Coordinates | None
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
class VOCAnnotation:
    """An annotation file; `faults` are those of the file as a whole."""

    path: Path
    is_readable: bool
    faults: list[Fault]
    size: tuple[float, float] | None = None  # (height, width) in pixels
    objects: tuple[VOCObject, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)


def read_voc_objects(path: Path) -> tuple[VOCObject, ...]:
    """The objects of an annotation as the file has them, faulty ones included.

    There are none where the file cannot be read.
    """
    return read_voc_annotation(path, with_extras=False).objects


def read_voc_annotation(path: Path, with_extras: bool) -> VOCAnnotation:
    """Read an annotation; what is wrong with it stands in its faults and those of its objects."""
    try:
        root = _parse(path)
    except BrokenEntry as broken:
        return VOCAnnotation(path, False, [broken.at(path)])
    objects = tuple(
        _read_object(path, element, number, with_extras)
        for number, element in enumerate(root.findall("object"), start=1)
    )
    try:
        size = _read_size(root)
    except BrokenEntry as broken:
        return VOCAnnotation(path, False, [broken.at(path)], None, objects)
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
    return VOCAnnotation(path, True, faults, size, objects, extras)


def _bad_extras(path: Path, title: str | None, error: ExtrasError) -> Fault:
    remedy = "correct it; without it, whatever else the file says is not kept"
    return Fault(str(path), title, "bad-extras", str(error), remedy, "warning")


def _parse(path: Path) -> Element:
    try:
        root: Element = fromstring(path.read_bytes(), forbid_dtd=True)
    except FileNotFoundError as error:
        remedy = "add the annotation, or delete the image's row in the split file"
        raise BrokenEntry("missing-annotation", "there is no such file", remedy) from error
    except OSError as error:
        value = f"the file cannot be read: {error.strerror or error}"
        raise BrokenEntry("unreadable-annotation", value, "check it and its permissions") from error
    except DefusedXmlException as error:
        value = "the file has a document type or entity declaration, which can hide harmful content"
        raise BrokenEntry("forbidden-xml", value, "delete the declaration") from error
    except ParseError as error:
        line, column = error.position
        reason = str(error).partition(":")[0]
        value = f"malformed XML in line {line}, column {column + 1}: {reason}"
        remedy = "correct the file, or write it again with the annotation tool"
        raise BrokenEntry("malformed-xml", value, remedy) from error
    # an encoding that the parser doesn't know, or a path that cannot be
    except (ValueError, LookupError) as error:
        value = f"the file cannot be parsed: {error}"
        raise BrokenEntry("malformed-xml", value, "save it as UTF-8") from error
    if root.tag != "annotation":
        value = f"expected <annotation>, found <{root.tag}>"
        remedy = "put a VOC annotation there; other formats must be converted"
        raise BrokenEntry("not-an-annotation", value, remedy)
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
    except BrokenEntry as broken:
        faults.append(broken.at(path, title))
    try:
        is_difficult = _read_flag(element, "difficult")
        is_crowd = _read_flag(element, "crowd") or _read_flag(element, "iscrowd")
    except BrokenEntry as broken:
        faults.append(broken.at(path, title))
    try:
        box = _child(element, "bndbox")
        if box is None:
            raise BrokenEntry("missing-field", "there is no <bndbox>", _ADD_OR_DELETE)
        xmin, ymin, xmax, ymax = (_read_number(box, tag) for tag in _COORDINATE_NAMES)
        coordinates = (xmin, ymin, xmax, ymax)
    except BrokenEntry as broken:
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
        raise BrokenEntry("repeated-field", value, "leave the one that holds")
    return children[0] if children else None


def _read_text(element: Element, tag: str, *, strip: bool = True) -> str:
    child = _child(element, tag)
    if child is None:
        raise BrokenEntry(
            "missing-field", f"there is no <{tag}> in <{element.tag}>", _ADD_OR_DELETE
        )
    text = child.text or ""
    if not text.strip():
        raise BrokenEntry("missing-field", f"<{tag}> is empty", _ADD_OR_DELETE)
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
        raise BrokenEntry("not-a-number", f"{tag} is {text[:40]!r}", remedy)
    return number


def _read_flag(element: Element, tag: str) -> bool:
    child = _child(element, tag)
    if child is None:
        return False
    text = (child.text or "").strip()
    if text not in ("0", "1"):
        raise BrokenEntry(f"bad-{tag}", f"{tag} is {text[:40]!r}", "write 0 or 1")
    return text == "1"


def half_open_box(
    item: VOCObject, size: tuple[int, int] | None
) -> tuple[Coordinates | None, list[Fault]]:
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
        return None, [item.fault("box-outside-image", found + describe_size(size), remedy)]
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
