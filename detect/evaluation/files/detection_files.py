"""Detections of a whole split on disk: one JSON file, described at `write_detections_json`.

`read_detections` reads CSV and the text files of the VOC challenge as well. These formats give back
the float32 numbers that were written. Reading is strict: whatever is not as it should be ends in
one error that names the file, the image and the row.
"""

import json
import reprlib
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detect.detection_table import shortest_numbers
from detect.errors import DetectError
from detect.evaluation.files.comp4 import ReadDetections, read_voc_detections
from detect.evaluation.files.csv import read_detections_csv, write_detections_csv
from detect.evaluation.files.detection_set import DetectionSet, first_repeated
from detect.files import read_json, write_text
from detect.structures import Detections

JSON_FORMAT = "detect-detections-1"
JSON_BOXES = "xyxy pixels, 0-based, half-open"
JSON_KEYS = ("format", "class_names", "boxes", "images")
IMAGE_KEYS = ("image_id", "boxes", "scores", "labels")
JOINTS_KEY = "joints"  # of images whose detections have joints


def read_detections(
    path: Path, split: str, image_ids: Sequence[str], class_names: Sequence[str] | None = None
) -> ReadDetections:
    """Read a folder of VOC's text files, a CSV file or our JSON file, whichever `path` is.

    COCO's results format needs the ids of an annotation file: see `read_coco_results`.

    Raises:
        DetectError: as `read_voc_detections`, `read_detections_csv` and `read_detections_json`.
    """
    if path.is_dir():
        return read_voc_detections(path, split, image_ids, class_names)
    if path.suffix == ".txt":
        raise DetectError(
            f"{path}: expected a JSON or CSV file or a folder; "
            f"for the text files of VOC give the folder: {path.parent}"
        )
    if path.suffix.lower() == ".csv":
        return ReadDetections(read_detections_csv(path, image_ids, class_names), ())
    return ReadDetections(read_detections_json(path), ())


def write_detections_json(path: Path, detections: DetectionSet) -> None:
    """Write all detections to one JSON file, whole or not at all.

    The file holds `{"format": "detect-detections-1", "class_names": […], "boxes": "xyxy pixels,
    0-based, half-open", "images": […]}` with one `{"image_id": …, "boxes": [[x1, y1, x2, y2], …],
    "scores": […], "labels": […]}` for each image; labels count from 0 in `class_names`. From
    detectors with joints, an image has `"joints": [[[x, y], …], …]` too, in pixels. Numbers have
    as many digits as bring the same float32 back.
    """
    head = {"format": JSON_FORMAT, "class_names": detections.class_names, "boxes": JSON_BOXES}
    images = ",\n".join(
        json.dumps(
            {
                "image_id": image_id,
                "boxes": shortest_numbers(found.boxes).tolist(),
                "scores": shortest_numbers(found.scores).tolist(),
                "labels": found.labels.tolist(),
                **_joints_entry(found),
            }
        )
        for image_id, found in zip(detections.image_ids, detections.detections, strict=True)
    )
    # one image a line: a diff or a text editor can cope with it
    write_text(path, f'{json.dumps(head)[:-1]}, "images": [\n{images}\n]}}\n')


def save_detections(detections: Detections, path: Path, image_id: str | None) -> None:
    """Write what was found in one image as JSON or CSV: `Detections.save`."""
    writers = {".json": write_detections_json, ".csv": write_detections_csv}
    write = writers.get(path.suffix.lower())
    if write is None:
        raise DetectError(f"{path}: expected a name that ends in {' or '.join(writers)}")
    write(path, DetectionSet(detections.names(), (image_id or path.stem,), (detections,)))


def read_detections_json(path: Path, content: Any = None) -> DetectionSet:
    """Read what `write_detections_json` wrote; the rows of an image may be in any order.

    Args:
        path: of the file.
        content: of the file, where it has been read already.

    Raises:
        DetectError: the file is missing, no JSON or not of this form; names the image and row.
    """
    content = read_json(path) if content is None else content
    if isinstance(content, list) and content and isinstance(content[0], dict):
        raise DetectError(
            f"{path}: found a list, as COCO's results format has it: its ids mean something only "
            "beside the annotation file they refer to; give that with --data"
        )
    _check_keys(content, JSON_KEYS, f"{path}")
    for key, expected in (("format", JSON_FORMAT), ("boxes", JSON_BOXES)):
        if content[key] != expected:
            raise DetectError(f"{path}: {key}: expected {expected!r}, found {_shown(content[key])}")
    class_names = content["class_names"]
    if not isinstance(class_names, list) or not all(type(name) is str for name in class_names):
        raise DetectError(
            f"{path}: class_names: expected a list of names, found {_shown(class_names)}"
        )
    if not isinstance(content["images"], list):
        raise DetectError(f"{path}: images: expected a list, found {_shown(content['images'])}")
    image_ids, detections = [], []
    for number, entry in enumerate(content["images"], start=1):
        place = f"{path}: image {number}"
        has_joints = isinstance(entry, dict) and JOINTS_KEY in entry
        _check_keys(entry, (*IMAGE_KEYS, JOINTS_KEY) if has_joints else IMAGE_KEYS, place)
        if type(entry["image_id"]) is not str:
            raise DetectError(
                f"{place}: image_id: expected a name, found {_shown(entry['image_id'])}"
            )
        image_ids.append(entry["image_id"])
        place = f"{place} ({entry['image_id']})"
        detections.append(_detections_of_entry(entry, len(class_names), place))
    for name, values in (("class_names", class_names), ("images", image_ids)):
        repeated = first_repeated(values)
        if repeated is not None:
            raise DetectError(f"{path}: {name}: expected each once, found {repeated!r} twice")
    return DetectionSet(tuple(class_names), tuple(image_ids), tuple(detections))


def _detections_of_entry(entry: dict[str, Any], num_classes: int, place: str) -> Detections:
    boxes = _numbers(entry["boxes"], "boxes", place, width=4)
    scores = _numbers(entry["scores"], "scores", place)
    labels = _numbers(entry["labels"], "labels", place, whole=True)
    for name, values in (("scores", scores), ("labels", labels)):
        if len(values) != len(boxes):
            raise DetectError(
                f"{place}: {name}: expected one for each of the {len(boxes)} boxes, "
                f"found {len(values)}"
            )
    for name, faulty, expected in (
        ("labels", (labels < 0) | (labels >= num_classes), f"0 … {num_classes - 1}"),
        ("boxes", (boxes[:, 2:] < boxes[:, :2]).any(axis=1), "x1 ≤ x2 and y1 ≤ y2"),
    ):
        if faulty.any():
            row = int(faulty.argmax())
            raise DetectError(
                f"{place}: {name}, row {row + 1}: expected {expected}, found {entry[name][row]}"
            )
    joints = None
    if JOINTS_KEY in entry:
        joints = torch.from_numpy(_joints_of_entry(entry[JOINTS_KEY], len(boxes), place))
    return Detections.sorted(
        torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels).long(), joints
    )


def _joints_entry(found: Detections) -> dict[str, Any]:
    if found.joints is None:
        return {}
    return {JOINTS_KEY: shortest_numbers(found.joints).tolist()}


def _joints_of_entry(values: Any, num_boxes: int, place: str) -> NDArray[Any]:
    if not isinstance(values, list) or len(values) != num_boxes:
        found = len(values) if isinstance(values, list) else _shown(values)
        raise DetectError(
            f"{place}: joints: expected a list for each of the {num_boxes} boxes, found {found}"
        )
    rows = [
        _numbers(points, f"joints, row {row}", place, width=2)
        for row, points in enumerate(values, start=1)
    ]
    counts = {len(row) for row in rows}
    if len(counts) > 1:
        raise DetectError(f"{place}: joints: expected as many in each row, found {sorted(counts)}")
    return np.stack(rows) if rows else np.zeros((0, 0, 2), np.float32)


def _numbers(
    values: Any, name: str, place: str, *, width: int | None = None, whole: bool = False
) -> NDArray[Any]:
    """A list of numbers, or of rows of `width` numbers, as float32, or int64 when `whole`."""
    if not isinstance(values, list):
        raise DetectError(f"{place}: {name}: expected a list, found {_shown(values)}")
    if not _are_numbers(values, width, whole):
        row = next(
            row for row, entry in enumerate(values) if not _are_numbers([entry], width, whole)
        )
        kind = "a whole number" if whole else "a finite number"
        expected = f"{width} finite numbers" if width else kind
        raise DetectError(
            f"{place}: {name}, row {row + 1}: expected {expected}, found {_shown(values[row])}"
        )
    array = np.array(values, dtype=np.int64 if whole else np.float32)
    return array.reshape(-1, width) if width else array


def _are_numbers(values: list[Any], width: int | None, whole: bool) -> bool:
    if width is not None:
        if not all(type(row) is list and len(row) == width for row in values):
            return False
        values = list(chain.from_iterable(values))
    allowed = {int} if whole else {int, float}  # bool is neither: it would pass for a number
    if not allowed.issuperset(map(type, values)):
        return False
    greatest = 2**31 if whole else float(np.finfo(np.float32).max)
    return all(-greatest <= value <= greatest for value in values)  # false for nan


def _check_keys(content: Any, keys: Sequence[str], place: str) -> None:
    if not isinstance(content, dict):
        raise DetectError(
            f"{place}: expected an object with {', '.join(keys)}, found {_shown(content)}"
        )
    missing = [key for key in keys if key not in content]
    unknown = [key for key in content if key not in keys]
    if missing or unknown:
        found = f"{', '.join(missing)} is missing" if missing else f"unknown {', '.join(unknown)}"
        raise DetectError(f"{place}: expected the keys {', '.join(keys)}: {found}")


def _shown(value: Any) -> str:
    return reprlib.repr(value)  # shortened: a fault may be as long as the file
