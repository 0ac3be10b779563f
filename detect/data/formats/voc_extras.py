"""What VOC's XML says of images and objects beyond classes and boxes, as plain data.

`<truncated>0</truncated>` is `{"truncated": 0}`, nested elements are mappings, repeated ones lists.
Whole numbers are int, any other text is str. What XML cannot hold so that it comes back the same,
such as polygons, decimals and null, stands as JSON in one element `<extras>`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from detect.data.annotated import MAX_DEPTH, sound_extras

# Read and written by themselves; the file name is that of the image.
IMAGE_TAGS = frozenset({"object", "size", "filename"})
OBJECT_TAGS = frozenset({"name", "bndbox", "difficult", "crowd", "iscrowd"})

_JSON_TAG = "extras"
_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_TAG = re.compile(r"[A-Za-z_][\w.\-]*", re.ASCII)
# Text that a parser gives back as it is: no blanks at the ends, no characters foreign to XML.
_PLAIN_TEXT = re.compile(r"(?!\s)[ -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*(?<!\s)")


class ExtrasError(ValueError):
    """What an annotation says beyond its boxes cannot be read."""


def read_image_extras(root: Element) -> dict[str, Any]:
    """What an `<annotation>` says beyond its objects and size; `depth` is that of `<size>`.

    Raises:
        ExtrasError: elements are nested too deeply, or `<extras>` holds no JSON object.
    """
    extras = _read_children(root, IMAGE_TAGS)
    depth = root.find("size/depth")
    return extras if depth is None else {"depth": _as_plain(depth), **extras}


def read_object_extras(element: Element) -> dict[str, Any]:
    """What an `<object>` says beyond its class, box and flags.

    Raises:
        ExtrasError: as in `read_image_extras`.
    """
    return _read_children(element, OBJECT_TAGS)


def write_extras(parent: Element, extras: Mapping[str, Any], reserved: Iterable[str]) -> None:
    """Add extras to an element, so that reading gives them back.

    Args:
        parent: an `<annotation>` or `<object>`.
        extras: plain data.
        reserved: tags that have another meaning in `parent`.
    """
    others = {}
    for key, value in extras.items():
        if key == _JSON_TAG or key in reserved or not _is_tag(key) or not _fits_xml(value):
            others[key] = value
        else:
            _add(parent, key, value)
    if others:
        text = json.dumps(others, allow_nan=False)  # ASCII: no character that XML forbids
        SubElement(parent, _JSON_TAG).text = text


def is_plain_text(text: str) -> bool:
    """Whether XML gives the text back as it is."""
    return _PLAIN_TEXT.fullmatch(text) is not None


def _read_children(element: Element, without: Iterable[str]) -> dict[str, Any]:
    content = _children_of(element, MAX_DEPTH, {*without, _JSON_TAG})
    texts = [child.text or "" for child in element.findall(_JSON_TAG)]
    for text in texts:
        try:
            others = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ExtrasError(f"<{_JSON_TAG}> is no JSON: {text[:40]!r}") from error
        if not isinstance(others, dict):
            raise ExtrasError(f"<{_JSON_TAG}> is no JSON object: {text[:40]!r}")
        sound, bad = sound_extras(others)
        if bad:
            raise ExtrasError(f"<{_JSON_TAG}>: {bad[0]}")
        content.update(sound)
    return content


def _children_of(element: Element, depth: int, without: Iterable[str] = ()) -> dict[str, Any]:
    if depth == 0:
        raise ExtrasError(f"elements are nested more than {MAX_DEPTH} deep")
    content: dict[str, Any] = {}
    lists: dict[str, list[Any]] = {}
    for child in element:
        if child.tag in without:
            continue
        value = _as_plain(child, depth - 1)
        lists.setdefault(child.tag, []).append(value)
        content[child.tag] = value if len(lists[child.tag]) == 1 else lists[child.tag]
    return content


def _as_plain(element: Element, depth: int = MAX_DEPTH) -> Any:
    attributes = {f"@{name}": value for name, value in element.attrib.items()}
    text = (element.text or "").strip()
    if not len(element) and not attributes:
        return int(text) if _WHOLE_NUMBER.fullmatch(text) else text
    content = {**attributes, **_children_of(element, depth)}
    return {**content, "#text": text} if text else content


def _is_tag(key: str) -> bool:
    return _TAG.fullmatch(key) is not None


def _fits_xml(value: Any) -> bool:
    """Whether reading the element of a value gives the value back."""
    if isinstance(value, str):
        return is_plain_text(value) and not _WHOLE_NUMBER.fullmatch(value)
    if isinstance(value, Mapping):
        # an empty mapping would come back as empty text
        return bool(value) and all(_is_tag(k) and _fits_xml(v) for k, v in value.items())
    if isinstance(value, list):
        # a list of one would come back as its element
        return len(value) > 1 and all(not isinstance(v, list) and _fits_xml(v) for v in value)
    return type(value) is int and _WHOLE_NUMBER.fullmatch(str(value)) is not None


def _add(parent: Element, key: str, value: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _add(parent, key, item)
        return
    element = SubElement(parent, key)
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _add(element, name, inner)
    else:
        element.text = str(value)
