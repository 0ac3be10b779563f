"""A file beside a data set for what its format has no place for: `extras.json`.

VOC's XML has no place for what concerns the set as a whole: the order of the classes, COCO's
licenses. The rows of YOLO's text have none for flags, ids or polygons either. The writers leave it
here and the readers take it back.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detect.data.annotated import sound_extras
from detect.data.faults import Fault
from detect.errors import DetectError
from detect.files import read_json

EXTRAS_FILE = "extras.json"
_VERSION = 1
_WRITTEN_BY = "detect data convert"


@dataclass(frozen=True, slots=True)
class SetExtras:
    """The content of `extras.json`.

    Attributes:
        class_names: in the order of the labels; empty where the set itself says it.
        extras: of the set as a whole.
        images: by a name that is the format's to say, as is what is in them.
    """

    class_names: tuple[str, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)


def set_extras_text(extras: SetExtras) -> str:
    """The content of `extras.json`."""
    content = {
        "written_by": _WRITTEN_BY,
        "version": _VERSION,
        "class_names": list(extras.class_names),
        "extras": dict(extras.extras),
        "images": dict(extras.images),
    }
    return json.dumps(content, allow_nan=False) + "\n"


def read_set_extras(root: Path) -> tuple[SetExtras, list[Fault]]:
    """Read `extras.json` of a set, if there is one of this package's; a broken one is a warning."""
    path = root / EXTRAS_FILE
    if not path.is_file():
        return SetExtras(), []
    try:
        content = read_json(path)
        if not isinstance(content, dict) or content.get("written_by") != _WRITTEN_BY:
            return SetExtras(), []  # someone else's file of that name
        names, extras, images = (content[key] for key in ("class_names", "extras", "images"))
        is_sound = (
            content["version"] == _VERSION
            and isinstance(names, list)
            and all(isinstance(name, str) and name.strip() for name in names)
            and len(set(names)) == len(names)
            and isinstance(extras, dict)
            and isinstance(images, dict)
            and _are_sound(extras)
        )
    except (DetectError, KeyError, RecursionError) as error:
        return SetExtras(), [_unreadable(path, f"{error}".removeprefix(f"{path}: "))]
    if not is_sound:
        return SetExtras(), [_unreadable(path, "its content is not as it was written")]
    extras, bad = sound_extras(extras)
    return SetExtras(tuple(names), extras, images), [_unreadable(path, text) for text in bad]


def _are_sound(extras: Mapping[str, Any]) -> bool:
    """Whether what the writers look into is as they left it."""
    categories, others = (
        extras.get("categories", []),
        [extras.get(k, {}) for k in ("files", "yaml")],
    )
    return (
        isinstance(categories, list)
        and all(
            isinstance(entry, dict)
            and isinstance(entry.get("name"), str)
            and isinstance(entry.get("id"), int | str)
            for entry in categories
        )
        and all(isinstance(other, dict) for other in others)
        and all(isinstance(content, dict) for content in others[0].values())
    )


def _unreadable(path: Path, value: str) -> Fault:
    remedy = "write the set again, or delete the file; what it holds is not taken"
    return Fault(str(path), None, "bad-extras", value, remedy, "warning")
