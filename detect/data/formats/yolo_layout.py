"""Where the images of a YOLO data set are, and its classes: `data.yaml`, or darknet's files."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detect.data.annotated import sound_extras
from detect.data.faults import Fault
from detect.data.images import IMAGE_SUFFIXES
from detect.errors import DetectError
from detect.files import read_rows
from detect.yaml_text import BrokenYAMLError, parse_yaml

DARKNET_NAMES = "obj.names"
# Of the extras of a set: what else its YAML file says.
YAML_EXTRAS = "yaml"
_SPLITS = ("train", "val", "test")
# Keys of the YAML file that are read by themselves.
KNOWN_KEYS = ("path", "names", "nc")


@dataclass(frozen=True, slots=True)
class YOLOLayout:
    """Where the parts of a set are.

    Attributes:
        file: the YAML file, or darknet's `obj.names`.
        class_names: of the labels 0 … C−1.
        splits: for each split the folders of images, lists of images, or single images.
        extras: what else the YAML file says.
    """

    file: Path
    class_names: tuple[str, ...]
    splits: Mapping[str, tuple[Path, ...]]
    extras: Mapping[str, Any] = field(default_factory=dict)


def find_yolo_file(root: Path) -> Path | None:
    """The YAML file of a set, or its `obj.names`; None where there is neither.

    Raises:
        DetectError: there are several.
    """
    if root.is_file():
        return root if root.suffix in (".yaml", ".yml") else None
    candidates = [path for path in sorted(root.glob("*.y*ml")) if path.suffix in (".yaml", ".yml")]
    for path in candidates:
        if path.stem == "data":
            return path
    named = [path for path in candidates if _names_classes(path)]
    if len(named) > 1:
        raise DetectError(
            f"{root}: expected one YAML file that names the classes, found "
            f"{', '.join(path.name for path in named)}; give the path of the one that is meant"
        )
    darknet = root / DARKNET_NAMES
    return named[0] if named else darknet if darknet.is_file() else None


def read_yolo_layout(root: Path) -> tuple[YOLOLayout, list[Fault]]:
    """Read the YAML file, or darknet's files, of a set.

    Args:
        root: the folder, or the YAML file itself.

    Raises:
        DetectError: there is none, it is broken, or a split leads nowhere.
    """
    file = find_yolo_file(root)
    if file is None:
        raise DetectError(
            f"{root}: expected YOLO's format, a data.yaml with the names of the classes or "
            f"{DARKNET_NAMES}, found neither"
        )
    return _read_darknet(file) if file.name == DARKNET_NAMES else _read_yaml(file)


def _names_classes(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return re.search(r"^names\s*:", text, re.MULTILINE) is not None


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DetectError(f"{path}: expected a YAML file in UTF-8: {error}") from error


def _read_yaml(file: Path) -> tuple[YOLOLayout, list[Fault]]:
    try:
        _, content = parse_yaml(_text_of(file))
    except BrokenYAMLError as error:
        line = "" if error.line is None else f":{error.line}"
        raise DetectError(f"{file}{line}: expected YAML: {error.reason}") from error
    if not isinstance(content, dict):
        raise DetectError(
            f"{file}: expected the keys train, val and names, found {type(content).__name__}"
        )
    names = _names_of(file, content)
    folder, faults = _base_folder(file, content.get("path"))
    splits, others = {}, {}
    for key, value in content.items():
        if key in KNOWN_KEYS or value is None:
            continue
        paths = _split_paths(folder, value)
        if key not in _SPLITS and (paths is None or not all(path.exists() for path in paths)):
            others[str(key)] = value  # a key of some tool, no split
        elif paths is None:
            raise DetectError(
                f"{file}: {key}: expected a folder, a list of images (.txt) or several of them, "
                f"found {value!r:.60}"
            )
        else:
            splits[str(key)] = paths
    extras, bad = sound_extras(others)
    remedy = "correct it; it is not kept"
    faults += [Fault(str(file), None, "bad-extras", value, remedy, "warning") for value in bad]
    return YOLOLayout(file, names, splits, extras), faults


def _split_paths(folder: Path, value: Any) -> tuple[Path, ...] | None:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(text, str) and text.strip() for text in values):
        return None
    return tuple(_resolve(folder, text) for text in values)


def _names_of(file: Path, content: Mapping[Any, Any]) -> tuple[str, ...]:
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise DetectError(
                f"{file}: names: expected the numbers 0 … {len(names) - 1} of {len(names)} "
                f"classes, found {', '.join(str(key) for key in list(names)[:10])}; "
                "number the classes without gaps from 0"
            )
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DetectError(
            f"{file}: names: expected a list of class names, or numbers with names, found "
            f"{names!r:.60}"
        )
    # YAML takes some names for something else: no, 1
    listed = [name if isinstance(name, str) else str(name) for name in names]
    if any(name is None or isinstance(name, list | dict) for name in names):
        raise DetectError(f"{file}: names: expected a name for each class, found {names!r:.60}")
    _check_names(file, listed)
    num_classes = content.get("nc", len(listed))
    if num_classes != len(listed):
        raise DetectError(
            f"{file}: nc is {num_classes!r:.20}, and names lists {len(listed)}; correct one of them"
        )
    return tuple(listed)


def _check_names(file: Path, names: Sequence[str]) -> None:
    repeated = [name for name in names if names.count(name) > 1 or not name.strip()]
    if repeated or not names:
        found = f"{repeated[0]!r} {names.count(repeated[0])} times" if repeated else "none"
        raise DetectError(f"{file}: expected each class name once, found {found}; name each class")


def _base_folder(file: Path, stated: Any) -> tuple[Path, list[Fault]]:
    """The folder that paths count from: `path` of the YAML file, by itself or from the file's."""
    if stated is None or (isinstance(stated, str) and stated.strip() in ("", ".")):
        return file.parent, []
    folder = file.parent / str(stated)
    if folder.is_dir():
        return folder, []
    value = f"path: there is no folder {str(stated)!r:.60}; {file.parent} is taken"
    remedy = "delete the key, or name the folder of the set"
    return file.parent, [Fault(str(file), None, "missing-path", value, remedy, "warning")]


def _resolve(folder: Path, text: str) -> Path:
    """A path of the YAML file; Roboflow's exports lead one folder too far up."""
    path = folder / text
    if not path.exists() and text.startswith("../") and (folder / text[3:]).exists():
        return folder / text[3:]
    return path


def _read_darknet(file: Path) -> tuple[YOLOLayout, list[Fault]]:
    names = read_rows(file)
    _check_names(file, names)
    root = file.parent
    lists = [
        path
        for path in sorted(root.glob("*.txt"))
        if any(Path(row).suffix.lower() in IMAGE_SUFFIXES for row in read_rows(path)[:1])
    ]
    return YOLOLayout(file, tuple(names), {path.stem: (path,) for path in lists}), []
