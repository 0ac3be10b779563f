"""COCO's results format: the detections of a split as one JSON list.

`[{"image_id": 42, "category_id": 18, "bbox": [258.15, 41.29, 348.26, 243.78], "score": 0.236}, …]`,
cocodataset.org/#format-results. A box is x, y, width and height in pixels, continuous and counted
from 0. Images and classes have the ids of an annotation file, without which the list says little.
Numbers stay float64, as pycocotools has them. Reading is strict: whatever is not as it should be
ends in one error that names the file and the entry.
"""

import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from detect.errors import DetectError
from detect.evaluation.files.detection_set import DetectionSet
from detect.files import read_json, write_text
from detect.structures import Detections

RESULT_KEYS = ("image_id", "category_id", "bbox", "score")
# Beyond, float32 boxes and scores are infinite.
_GREATEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, eq=False)
class COCOResults:
    """The detections of a results file, by ascending image, each one's in the order of the file.

    Attributes:
        images: `[N]` the row of the image among the image ids that were given, never falling.
        labels: `[N]` the row of the class among the category ids that were given.
        boxes_xywh: `[N, 4]` x, y, width and height in pixels, as precise as the file.
        scores: `[N]` higher is better.
        num_images: images of the split, those without detections included.
    """

    images: Int64[np.ndarray, "N"]
    labels: Int64[np.ndarray, "N"]
    boxes_xywh: Float64[np.ndarray, "N 4"]
    scores: Float64[np.ndarray, "N"]
    num_images: int

    def __len__(self) -> int:
        return len(self.scores)

    def by_image(self) -> list[dict[str, Tensor]]:
        """For each image `boxes_xywh` and `scores` (float64) and `labels`, as the file has them.

        `COCOEvaluator` takes these, and gives the numbers that pycocotools gives for the file.
        """
        sizes = np.bincount(self.images, minlength=self.num_images).tolist()
        columns = (self.boxes_xywh, self.scores, self.labels)
        parts = (torch.from_numpy(column).split(sizes) for column in columns)
        return [
            {"boxes_xywh": boxes, "scores": scores, "labels": labels}
            for boxes, scores, labels in zip(*parts, strict=True)
        ]

    def detection_set(self, class_names: Sequence[str], image_names: Sequence[str]) -> DetectionSet:
        """The same as float32 xyxy boxes, sorted by falling score within each image.

        Scores that differ as float64 keep their order where they are equal as float32.

        Args:
            class_names: of the labels.
            image_names: of the images.
        """
        ranks = np.empty(len(self), dtype=np.int64)
        ranks[np.argsort(-self.scores, kind="stable")] = np.arange(len(self))
        corners = self.boxes_xywh.copy()
        corners[:, 2:] += corners[:, :2]
        order = np.lexsort((ranks, self.images))
        sizes = np.bincount(self.images, minlength=self.num_images).tolist()
        columns = (corners.astype(np.float32), self.scores.astype(np.float32), self.labels, ranks)
        boxes, scores, labels, tie_ranks = (
            torch.from_numpy(column[order]).split(sizes) for column in columns
        )
        return DetectionSet(
            tuple(class_names),
            tuple(image_names),
            tuple(map(Detections, boxes, scores, labels)),
            tuple(tie_ranks),
        )


def read_coco_results(
    path: Path,
    image_ids: Sequence[int | str],
    category_ids: Sequence[int | str],
    content: Any = None,
) -> COCOResults:
    """Read detections in COCO's results format.

    Args:
        path: of the file.
        image_ids: of the images of the split, as the annotation file has them.
        category_ids: of the classes, likewise.
        content: of the file, where it has been read already.

    Other keys of an entry, such as `segmentation` and `area`, are ignored.

    Raises:
        DetectError: the file is missing, no JSON or not of this form; names the first such entry.
    """
    entries = read_json(path) if content is None else content
    if not isinstance(entries, list):
        found = _kind_of(entries)
        raise DetectError(
            f"{path}: expected a list of detections in COCO's results format, found {found}; "
            "the annotation file goes to --data"
        )
    rows_of_images = {key: row for row, key in enumerate(image_ids)}
    labels_of_categories = {key: label for label, key in enumerate(category_ids)}
    columns = _columns(entries, rows_of_images, labels_of_categories)
    if columns is None:
        raise DetectError(f"{path}: {_first_fault(entries, rows_of_images, labels_of_categories)}")
    images, labels, boxes, scores = columns
    order = np.argsort(images, kind="stable")
    return COCOResults(images[order], labels[order], boxes[order], scores[order], len(image_ids))


_Columns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def _columns(
    entries: Sequence[Any],
    rows_of_images: Mapping[int | str, int],
    labels_of_categories: Mapping[int | str, int],
) -> _Columns | None:
    """All entries at once, or None where one of them is faulty."""
    try:
        image_ids, category_ids, rows, scores = (
            [entry[key] for entry in entries] for key in RESULT_KEYS
        )
        kinds = {*map(type, image_ids), *map(type, category_ids)}
        if not kinds <= {int, str} or not set(map(type, rows)) <= {list}:
            return None
        if not set(map(len, rows)) <= {4}:
            return None
        values = list(chain.from_iterable(rows))
        if not {*map(type, values), *map(type, scores)} <= {int, float}:  # bool is neither
            return None
        images = np.array([rows_of_images[key] for key in image_ids], dtype=np.int64)
        labels = np.array([labels_of_categories[key] for key in category_ids], dtype=np.int64)
        boxes = np.array(values, dtype=np.float64).reshape(-1, 4)
        scores_array = np.array(scores, dtype=np.float64)
    except (TypeError, KeyError, IndexError, OverflowError):
        return None
    corners = boxes[:, :2] + boxes[:, 2:]
    sound = (np.abs(boxes) <= _GREATEST).all() and (np.abs(scores_array) <= _GREATEST).all()
    if not sound or (np.abs(corners) > _GREATEST).any() or (boxes[:, 2:] < 0).any():
        return None  # nan is no number below either
    return images, labels, boxes, scores_array


def _first_fault(
    entries: Sequence[Any],
    rows_of_images: Mapping[int | str, int],
    labels_of_categories: Mapping[int | str, int],
) -> str:
    for number, entry in enumerate(entries, start=1):
        fault = _fault_of(entry, rows_of_images, labels_of_categories)
        if fault is not None:
            return f"entry {number}: {fault}"
    raise AssertionError("a faulty list has a faulty entry")


def _fault_of(
    entry: Any,
    rows_of_images: Mapping[int | str, int],
    labels_of_categories: Mapping[int | str, int],
) -> str | None:
    keys = ", ".join(RESULT_KEYS)
    if not isinstance(entry, dict):
        return f"expected an object with {keys}, found {_shown(entry)}"
    missing = [key for key in RESULT_KEYS if key not in entry]
    if missing:
        return f"expected the keys {keys}: {', '.join(missing)} is missing; add it"
    for key, known, what in (
        ("image_id", rows_of_images, "image"),
        ("category_id", labels_of_categories, "category"),
    ):
        value = entry[key]
        if type(value) not in (int, str):
            return f"{key}: expected a whole number, found {_shown(value)}; write the {what}'s id"
        if value not in known:
            return f"{key}: {_unknown_id(value, known, what)}"
    box, score = entry["bbox"], entry["score"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return f"bbox: expected x, y, width and height, 4 finite numbers, found {_shown(box)}"
    if box[2] < 0 or box[3] < 0:
        return (
            f"bbox: expected a width and height of 0 or more, found {_shown(box)}; "
            "COCO's boxes are x, y, width and height"
        )
    if not _is_number(box[0] + box[2]) or not _is_number(box[1] + box[3]):
        return f"bbox: expected coordinates below 3e38, found {_shown(box)}; correct it"
    if not _is_number(score):
        return f"score: expected a finite number, found {_shown(score)}; correct it"
    return None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -_GREATEST <= value <= _GREATEST


def _unknown_id(value: int | str, known: Mapping[int | str, int], what: str) -> str:
    twin = int(value) if isinstance(value, str) and value.isdecimal() else str(value)
    if twin in known:
        kind = "the number" if isinstance(twin, int) else "the text"
        return f"expected {kind} {twin!r}, as the ground truth has it, found {value!r}"
    some = ", ".join(map(repr, list(known)[:10])) + (", …" if len(known) > 10 else "")
    return (
        f"expected the id of one of the {len(known)} of the ground truth, found {_shown(value)}, "
        f"an unknown {what}; judge by the annotation file that the detections were made for; "
        f"there are: {some}"
    )


def write_coco_results(
    path: Path,
    detections: DetectionSet,
    image_ids: Sequence[int | str],
    category_ids: Sequence[int | str],
) -> None:
    """Write detections in COCO's results format, whole or not at all.

    The numbers are the shortest decimals of the float32 corners and of their differences in
    float64: x and y come back as the same float32 numbers, x + width and y + height to within a
    rounding.

    Args:
        path: of the file.
        detections: of the images, in their order.
        image_ids: the id of each of these images.
        category_ids: the id of each class of the detections.
    """
    lines = [
        json.dumps(entry)
        for image_id, found in zip(image_ids, detections.detections, strict=True)
        for entry in found.as_coco(image_id, category_ids)
    ]
    # a detection a line: a diff or a text editor can cope with it
    write_text(path, "[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n")


def _kind_of(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with the keys {', '.join(list(map(str, value))[:6]) or 'none'}"
    return _shown(value)


def _shown(value: Any) -> str:
    return reprlib.repr(value)  # shortened: a fault may be as long as the file
