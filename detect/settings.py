"""What a user sets, not yet checked: YAML and `key.sub=value`, with the place of each key."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from detect.configs import find_config, missing_config, name_of
from detect.errors import DetectError
from detect.yaml_text import BrokenYAMLError, parse_yaml

KeyPath = tuple[str, ...]

# What earlier versions called a key, which files and checkpoints may still do.
RENAMED_KEYS: dict[KeyPath, KeyPath] = {
    ("data", "picture_cache"): ("data", "image_cache"),
    ("detector", "regions_per_picture"): ("detector", "regions_per_image"),
    ("detector", "anchors_per_picture"): ("detector", "anchors_per_image"),
}

# YAML's `<<`: the keys of another mapping stand here too.
MERGE_TAG = "tag:yaml.org,2002:merge"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the user set, before it is checked: the value of each key and where it stands.

    Attributes:
        values: nested mappings.
        origins: of each key that was set, by its path: `file.yaml:12`, or `command line`.
    """

    values: dict[str, Any]
    origins: dict[KeyPath, str]

    def __post_init__(self) -> None:
        self._rename_keys()

    def _rename_keys(self) -> None:
        for (name, old), (_, new) in RENAMED_KEYS.items():
            section = self.values.get(name)
            if not isinstance(section, dict) or old not in section:
                continue
            origin = self.origins.pop((name, old), None)
            if new in section:
                raise DetectError(
                    f"{origin or name}: {name}.{old} is the earlier name of {name}.{new}, which is "
                    "set too; delete one of the two"
                )
            section[new] = section.pop(old)
            if origin is not None:
                self.origins[name, new] = origin

    def override(self, setting: str) -> None:
        """Set the value of one key: `key.sub=value`.

        Raises:
            DetectError: it is nothing of that form, or no YAML.
        """
        path, separator, text = setting.partition("=")
        keys = tuple(path.strip().split("."))
        keys = RENAMED_KEYS.get(keys, keys)
        if not separator or not all(keys):
            raise DetectError(
                "command line: expected key.sub=value, such as training.epochs=5, "
                f"found {setting!r}"
            )
        try:
            _, value = parse_yaml(text)
        except BrokenYAMLError as error:
            raise DetectError(
                f"command line: {setting!r:.200}: the value is not YAML: {error.reason}"
            ) from error
        self.set(keys, value, "command line", repr(setting))

    def set(self, keys: KeyPath, value: Any, origin: str, setting: str) -> None:
        """Set the value of one key.

        Args:
            keys: the way to it.
            value: plain data.
            origin: named where the value turns out to be at fault.
            setting: as the user wrote it.

        Raises:
            DetectError: a section on the way is a value.
        """
        section = self.values
        for depth, key in enumerate(keys[:-1], start=1):
            if section.get(key) is None:
                section[key] = {}
            if not isinstance(section[key], dict):
                raise DetectError(
                    f"{origin}: {setting}: {'.'.join(keys[:depth])} is a value, not a section"
                )
            section = section[key]
        section[keys[-1]] = value
        for known in [known for known in self.origins if known[: len(keys)] == keys]:
            del self.origins[known]
        for path_of_value in _paths(value, keys):
            self.origins[path_of_value] = origin
        self._rename_keys()


def read_settings(given: str | Path) -> Settings:
    """Parse a config, remembering the line of each key; a key that is set twice is refused."""
    path = find_config(given)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise missing_config(path) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DetectError(f"{path}: expected a YAML file in UTF-8: {error}") from error
    try:
        node, values = parse_yaml(text)
    except BrokenYAMLError as error:
        line = "" if error.line is None else f":{error.line}"
        raise DetectError(f"{path}{line}: expected YAML: {error.reason}") from error
    if node is None:
        return Settings({}, {})
    if not isinstance(values, dict):
        raise DetectError(
            f"{path}: expected sections such as 'data:' and 'training:', "
            f"found {type(values).__name__}"
        )
    return Settings(values, _collect_origins(node, (), name_of(path)))


def _paths(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, (*path, str(key)))


def _collect_origins(node: yaml.Node, path: KeyPath, file: str) -> dict[KeyPath, str]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    origins: dict[KeyPath, str] = {}
    merged: dict[KeyPath, str] = {}
    for key_node, value_node in node.value:
        if key_node.tag == MERGE_TAG:
            is_list = isinstance(value_node, yaml.SequenceNode)
            for source in value_node.value if is_list else [value_node]:  # the first one wins
                merged = {**_collect_origins(source, path, file), **merged}
            continue
        key = (*path, str(key_node.value))
        origin = f"{file}:{key_node.start_mark.line + 1}"
        if key in origins:
            raise DetectError(
                f"{origin}: {'.'.join(key)} is set twice, first in {origins[key]}; "
                "remove one of them"
            )
        origins.update({key: origin, **_collect_origins(value_node, key, file)})
    return {**merged, **origins}
