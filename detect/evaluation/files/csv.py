"""Detections as comma-separated values: a table for spreadsheets and for other programs.

```
image_id,class,score,x1,y1,x2,y2
000001,dog,0.98,8.0,11.0,352.0,498.0
```

A row is a detection; boxes are pixels, counted from 0 and half-open, as in our JSON. The columns
may stand in any order, and a column `file` with the path of the image may stand beside them. An
image without a row has no detections. Reading is strict: whatever is not as it should be ends in
one error that names the file and the line.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from detect.detection_table import shortest_numbers
from detect.errors import DetectError
from detect.evaluation.files.detection_set import DetectionSet, check_class
from detect.files import write_text
from detect.registry import hint
from detect.structures import Detections

CSV_COLUMNS = ("image_id", "class", "score", "x1", "y1", "x2", "y2")
FILE_COLUMN = "file"  # of `detect infer`; says nothing to who judges
_NUMBER_COLUMNS = CSV_COLUMNS[2:]
# What a decimal number is made of; Python's float() takes `nan`, `1_0` and Arabic digits as well.
_NUMBER_CHARACTERS = frozenset("0123456789+-.eE ")


def write_detections_csv(
    path: Path, detections: DetectionSet, files: Sequence[Path] | None = None
) -> None:
    """Write all detections to one CSV file, whole or not at all.

    Numbers have as many digits as bring the same float32 back. The names of classes and of images
    without detections are not in the file: JSON keeps them.

    Args:
        path: of the file.
        detections: of the images, in their order.
        files: of each image, for the column `file`; None writes no such column.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(CSV_COLUMNS if files is None else (*CSV_COLUMNS, FILE_COLUMN))
    for number, (image_id, found) in enumerate(
        zip(detections.image_ids, detections.detections, strict=True)
    ):
        numbers = np.column_stack((shortest_numbers(found.scores), shortest_numbers(found.boxes)))
        rest = [] if files is None else [str(files[number])]
        for label, values in zip(found.labels.tolist(), numbers.tolist(), strict=True):
            rows.writerow([image_id, detections.class_names[label], *values, *rest])
    write_text(path, text.getvalue())


def read_detections_csv(
    path: Path, image_ids: Sequence[str], class_names: Sequence[str] | None = None
) -> DetectionSet:
    """Read what `write_detections_csv` wrote, or another program's file of this form.

    Args:
        path: of the file.
        image_ids: the images of the split. The result has a record for each, in this order.
        class_names: the classes of the result; by default those of the rows, sorted.

    Rows of one image with equal scores keep the order of the file.

    Raises:
        DetectError: the file is missing, is no text, has another header, or a row is malformed or
            names an unknown class, or an image that is not in the split.
    """
    lines, names_of_images, names_of_classes, texts = _read_rows(path)
    rows_of_images = {image_id: row for row, image_id in enumerate(image_ids)}
    names = tuple(sorted(set(names_of_classes)) if class_names is None else class_names)
    labels_of_classes = {name: label for label, name in enumerate(names)}
    for line, image_id, name in zip(lines, names_of_images, names_of_classes, strict=True):
        if image_id not in rows_of_images:
            raise DetectError(
                f"{path}, line {line}: unknown image {image_id!r}: expected images of the "
                f"split; {hint(image_id, rows_of_images)}"
            )
        if name not in labels_of_classes:
            check_class(name, names, f"{path}, line {line}")
    numbers = _numbers(path, lines, texts)
    images = np.array([rows_of_images[name] for name in names_of_images], dtype=np.int64)
    labels = np.array([labels_of_classes[name] for name in names_of_classes], dtype=np.int64)
    with np.errstate(over="ignore"):
        scores, boxes = numbers[:, 0].astype(np.float32), numbers[:, 1:].astype(np.float32)
    faulty = ~(np.isfinite(scores) & np.isfinite(boxes).all(axis=1))
    faulty |= (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if faulty.any():
        row = int(faulty.argmax())
        raise DetectError(
            f"{path}, line {lines[row]}: expected score, x1, y1, x2, y2 with x1 ≤ x2 and y1 ≤ y2, "
            f"all below 3e38, found {' '.join(f'{value:g}' for value in numbers[row])}; is it x, "
            "y, width and height?"
        )
    order = np.lexsort((-scores, images))  # stable: the order of the file
    sizes = np.bincount(images, minlength=len(image_ids)).tolist()
    parts = (torch.from_numpy(column[order]).split(sizes) for column in (boxes, scores, labels))
    return DetectionSet(names, tuple(image_ids), tuple(map(Detections, *parts)))


def _read_rows(path: Path) -> tuple[list[int], list[str], list[str], list[list[str]]]:
    """The number of the line, the image, the class and the numbers, as text, of each row."""
    lines: list[int] = []
    images: list[str] = []
    classes: list[str] = []
    texts: list[list[str]] = []
    rows = _rows_of_file(path)
    first_line, header = next(rows, (1, []))
    places = _places(path, first_line, header)
    image_place, class_place, *number_places = places
    for line, row in rows:
        if len(row) != len(header):
            raise DetectError(
                f"{path}, line {line}: expected {len(header)} fields as in the header, found "
                f"{len(row)}: {','.join(row)!r:.100}; quote a field that has a comma"
            )
        lines.append(line)
        images.append(row[image_place])
        classes.append(row[class_place])
        texts.append([row[place] for place in number_places])
    return lines, images, classes, texts


def _rows_of_file(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its last line from 1."""
    try:
        # newline="": line ends within quotation marks are the field's
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            try:
                for row in reader:
                    if row:
                        yield reader.line_num, row
            except csv.Error as error:
                raise DetectError(
                    f"{path}, line {reader.line_num}: expected comma-separated values: {error}; "
                    "correct the line, or write the file again"
                ) from error
    except OSError as error:
        raise DetectError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DetectError(f"{path}: expected text in UTF-8: {error}") from error


def _places(path: Path, line: int, header: Sequence[str]) -> list[int]:
    """Where each of our columns stands."""
    expected = ",".join(CSV_COLUMNS)
    names = [name.strip() for name in header]
    missing = [name for name in CSV_COLUMNS if name not in names]
    repeated = [name for row, name in enumerate(names) if name in names[:row]]
    unknown = [name for name in names if name not in (*CSV_COLUMNS, FILE_COLUMN)]
    if not missing and not repeated and not unknown:
        return [names.index(name) for name in CSV_COLUMNS]
    if not header:
        fault = "found an empty file"
    elif missing:
        fault = f"{', '.join(missing)} is missing in {','.join(header)!r:.100}"
    elif repeated:
        fault = f"found {repeated[0]!r} twice"
    else:
        fault = f"found the unknown {unknown[0]!r:.40}"
    raise DetectError(f"{path}, line {line}: expected the header {expected}: {fault}; correct it")


def _numbers(
    path: Path, lines: Sequence[int], texts: Sequence[Sequence[str]]
) -> NDArray[np.float64]:
    """`[N, 5]` the numbers of all rows."""
    flat = [text for row in texts for text in row]
    try:
        if not _NUMBER_CHARACTERS.issuperset("".join(flat)):
            raise ValueError
        return np.array(list(map(float, flat)), dtype=np.float64).reshape(-1, len(_NUMBER_COLUMNS))
    except ValueError:
        pass  # which one it is takes a closer look
    for line, row in zip(lines, texts, strict=True):
        for name, text in zip(_NUMBER_COLUMNS, row, strict=True):
            if not _is_number(text):
                raise DetectError(
                    f"{path}, line {line}: {name}: expected a finite number, found {text!r:.40}; "
                    "correct it"
                )
    raise AssertionError("a faulty table has a faulty number")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return _NUMBER_CHARACTERS.issuperset(text)
