"""The text files in which detections are submitted to the PASCAL VOC challenge.

The format is described at `write_voc_detections`. Reading is strict: whatever is not as it should
be ends in one error that names the file and the line.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor

from detect.detection_table import shortest_numbers
from detect.errors import DetectError
from detect.evaluation.files.detection_set import DetectionSet, check_class
from detect.files import write_text
from detect.registry import hint
from detect.structures import Detections

_NUMBER = r"([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)"
_VOC_ROW = re.compile(r"\s*(\S+)" + rf"\s+{_NUMBER}" * 5 + r"\s*", re.ASCII)
_VOC_FIELDS = ("image id", "score", "xmin", "ymin", "xmax", "ymax")


class ReadDetections(NamedTuple):
    """What was read from disk.

    Attributes:
        detections: one record for each image that the file, or for VOC's files the split, names.
        classes_without_file: the expected classes for which a folder has no file, and which
            therefore have no detections. Worth telling the user.
    """

    detections: DetectionSet
    classes_without_file: tuple[str, ...]


def write_voc_detections(folder: Path, split: str, detections: DetectionSet) -> None:
    """Write the text files of the VOC challenge, one for each class, empty ones included.

    The file `comp4_det_<split>_<class>.txt` has rows `<image id> <score> <xmin> <ymin> <xmax>
    <ymax>` with 1-based inclusive corners, that is `x1 + 1, y1 + 1, x2, y2` of our boxes, in the
    order of the images. Reading gives the same float32 numbers back; a coordinate other than 0
    that is nearer to 0 than 1e-8 pixels comes back to within 1e-15 pixels.

    Raises:
        DetectError: an image id or a class name cannot be expressed in this format.
    """
    for image_id in detections.image_ids:
        if image_id.split() != [image_id]:
            raise DetectError(
                f"image id {image_id!r}: the text files of VOC cannot express an id that is empty "
                f"or has spaces; rename the image or write JSON"
            )
    for name in detections.class_names:
        if not name or re.search(r"[/\\\0\n\r]", name):
            raise DetectError(
                f"class {name!r}: it cannot be part of a file name; rename it or write JSON"
            )
    rows: list[list[str]] = [[] for _ in detections.class_names]
    for image_id, found in zip(detections.image_ids, detections.detections, strict=True):
        numbers = np.column_stack(
            (shortest_numbers(found.scores), _one_based(found.boxes))
        ).tolist()
        for label, values in zip(found.labels.tolist(), numbers, strict=True):
            rows[label].append(f"{image_id} {' '.join(map(repr, values))}\n")
    for name, lines in zip(detections.class_names, rows, strict=True):
        write_text(folder / f"comp4_det_{split}_{name}.txt", "".join(lines))


def read_voc_detections(
    folder: Path, split: str, image_ids: Sequence[str], class_names: Sequence[str] | None = None
) -> ReadDetections:
    """Read the text files `comp<n>_det_<split>_<class>.txt` of a folder.

    Args:
        folder: where the files are; files of other names are ignored.
        split: the name of the split within the names of the files.
        image_ids: the images of the split. The result has a record for each, in this order.
        class_names: the classes of the result; by default those that have a file, sorted.

    Detections of one class with equal scores keep the order of their file, over all images: see
    `DetectionSet.tie_ranks`. Scores are compared as the float64 numbers of the file.

    Raises:
        DetectError: there is no file for this split, a file is for an unknown class or two are for
            one class, or a row is malformed or names an image that is not in the split.
    """
    files = _voc_files(folder, split)
    names = tuple(sorted(files)) if class_names is None else tuple(class_names)
    rows_of_images: dict[str, int] = {image_id: row for row, image_id in enumerate(image_ids)}
    tables = []
    for name, path in sorted(files.items()):
        check_class(name, names, str(path))
        table = _read_voc_file(path, rows_of_images)
        tables.append(table._replace(labels=np.full(len(table.images), names.index(name))))
    joined = _VOCTable(*(np.concatenate(column) for column in zip(*tables, strict=True)))
    detections, tie_ranks = _by_image(joined, len(image_ids))
    return ReadDetections(
        DetectionSet(names, tuple(image_ids), detections, tie_ranks),
        tuple(name for name in names if name not in files),
    )


class _VOCTable(NamedTuple):
    images: NDArray[np.int64]  # [N]
    scores: NDArray[np.float64]  # [N]
    boxes: NDArray[np.float32]  # [N, 4] xyxy, 0-based, half-open
    ranks: NDArray[np.int64]  # [N], by falling score in the order of the file
    labels: NDArray[np.int64]  # [N]


def _voc_files(folder: Path, split: str) -> dict[str, Path]:
    """The file of each class."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise DetectError(f"{folder}: cannot be read: {error.strerror or error}") from error
    files: dict[str, Path] = {}
    for name in names:
        match = re.fullmatch(rf"comp\d+_det_{re.escape(split)}_(.+)\.txt", name)
        if match is None:
            continue
        if match[1] in files:
            raise DetectError(
                f"{folder}: expected one file for the class {match[1]!r}, "
                f"found {files[match[1]].name} and {name}; move one away"
            )
        files[match[1]] = folder / name
    if not files:
        others = [name for name in names if re.fullmatch(r"comp\d+_det_.+\.txt", name)]
        found = f"found {', '.join(others[:3])}" if others else "found none of this kind"
        raise DetectError(
            f"{folder}: expected files named comp4_det_{split}_<class>.txt, {found}; "
            f"check the folder and the name of the split"
        )
    return files


def _read_voc_file(path: Path, rows_of_images: dict[str, int]) -> _VOCTable:
    images, numbers = [], []
    for line_number, line in _lines(path):
        match = _VOC_ROW.fullmatch(line)
        if match is None:
            raise DetectError(f"{path}, line {line_number}: {_fault_of_row(line)}")
        if match[1] not in rows_of_images:
            raise DetectError(
                f"{path}, line {line_number}: unknown image {match[1]!r}: expected images of the "
                f"split; {hint(match[1], rows_of_images)}"
            )
        images.append(rows_of_images[match[1]])
        numbers.append([line_number, *map(float, match.groups()[1:])])
    table = np.array(numbers, dtype=np.float64).reshape(-1, 6)
    scores = table[:, 1]
    with np.errstate(over="ignore"):
        boxes = (table[:, 2:] - np.array((1, 1, 0, 0))).astype(np.float32)
        faulty = ~(np.isfinite(boxes).all(axis=1) & np.isfinite(scores.astype(np.float32)))
    faulty |= (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if faulty.any():
        row = int(faulty.argmax())
        raise DetectError(
            f"{path}, line {int(table[row, 0])}: expected <score> <xmin> <ymin> <xmax> <ymax> with "
            f"xmin ≤ xmax and ymin ≤ ymax, all below 3e38, found "
            f"{' '.join(f'{value:g}' for value in table[row, 1:])}; "
            f"is it x, y, width and height?"
        )
    ranks = np.empty(len(images), dtype=np.int64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(len(images))
    return _VOCTable(
        np.array(images, dtype=np.int64), scores, boxes, ranks, np.empty(0, dtype=np.int64)
    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DetectError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DetectError(f"{path}: expected text in UTF-8: {error}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line


def _fault_of_row(line: str) -> str:
    fields = line.split()
    if len(fields) != len(_VOC_FIELDS):
        wanted = " ".join(f"<{name}>" for name in _VOC_FIELDS)
        return (
            f"expected {len(_VOC_FIELDS)} fields, {wanted}, found {len(fields)}: {line.strip()!r}"
        )
    for name, field in zip(_VOC_FIELDS[1:], fields[1:], strict=True):
        if re.fullmatch(_NUMBER, field, re.ASCII) is None:
            return f"{name}: expected a finite number, found {field!r}"
    return f"expected fields with plain spaces in between, found {line!r}"


def _by_image(
    table: _VOCTable, num_images: int
) -> tuple[tuple[Detections, ...], tuple[Tensor, ...]]:
    scores = table.scores.astype(np.float32)
    order = np.lexsort((table.ranks, -scores, table.images))
    sizes = np.bincount(table.images, minlength=num_images).tolist()
    columns = (table.boxes, scores, table.labels, table.ranks)
    boxes, scores_of, labels, ranks = (
        torch.from_numpy(column[order]).split(sizes) for column in columns
    )
    return tuple(map(Detections, boxes, scores_of, labels)), tuple(ranks)


def _one_based(boxes: Float32[Tensor, "N 4"]) -> NDArray[np.float64]:
    shift = np.array((1, 1, 0, 0))
    corners: NDArray[np.float64] = shortest_numbers(boxes) + shift
    exact = boxes.detach().cpu().numpy()
    wrong = (corners - shift).astype(np.float32) != exact
    corners[wrong] = (exact.astype(np.float64) + shift)[wrong]
    return corners
