"""Detections as a table: rows, filters, and the forms that other programs take. Floor 1.

`Detections` of detect/structures.py inherits these methods, so that the record itself holds no more
than its fields and their checks.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor

from detect.actions import ACTIONS
from detect.errors import DetectError
from detect.registry import hint

if TYPE_CHECKING:
    from PIL.Image import Image

# How many rows a `repr` shows.
NUM_SHOWN = 3

# A type checker that runs does not know `Self`.
Table = TypeVar("Table", bound="DetectionTable")
Rows = slice | Sequence[int] | Sequence[bool] | np.ndarray | Tensor


class Detection(NamedTuple):
    """One detection.

    Attributes:
        box: (x1, y1, x2, y2) in pixels.
        score: higher is better.
        label: the class, 0 … C−1.
        name: of the class; None where the detections carry no names.
        joints: (x, y) in pixels of each joint; None from a detector without joints.
    """

    box: tuple[float, float, float, float]
    score: float
    label: int
    name: str | None = None
    joints: tuple[tuple[float, float], ...] | None = None


class DetectionTable:
    """What users do with the detections of an image, by falling score."""

    __slots__ = ()

    # the fields of Detections
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    joints: Tensor | None
    class_names: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.boxes)

    @overload
    def __getitem__(self, rows: int) -> Detection: ...
    @overload
    def __getitem__(self: Table, rows: Rows) -> Table: ...
    def __getitem__(self, rows: Any) -> Any:
        """One detection by its number, or those of a slice, a boolean mask or several numbers.

        They stay sorted by falling score, in whatever order the numbers are given.
        """
        if isinstance(rows, int | np.integer) and not isinstance(rows, bool):
            row = int(rows)
            if not -len(self) <= row < len(self):
                raise IndexError(f"detection {row}: there are {len(self)}")
            return self._row(row % len(self))
        return self._of_rows(_as_index(rows, len(self)).to(self.boxes.device))

    def __iter__(self) -> Iterator[Detection]:
        """One `Detection` after another."""
        return map(self._row, range(len(self)))

    def __repr__(self) -> str:
        rows = [f"{self._name(row)} {float(self.scores[row]):.2f}" for row in self._shown_rows()]
        more = ["…"] if len(self) > NUM_SHOWN else []
        head = f"{type(self).__name__}({len(self)}"
        return f"{head}: {', '.join(rows + more)})" if rows else f"{head})"

    def filter(
        self: Table,
        *,
        score: float | None = None,
        classes: str | int | Sequence[str | int] | None = None,
    ) -> Table:
        """The detections of some classes, or of a least score, or both.

        Args:
            score: the least score that is kept.
            classes: names or labels, one or several.

        Raises:
            DetectError: a class that the detector does not know, or names where there are none.
        """
        kept = torch.ones(len(self), dtype=torch.bool, device=self.boxes.device)
        if score is not None:
            kept &= self.scores >= score
        if classes is not None:
            given = [classes] if isinstance(classes, str | int) else classes
            labels = [self._label_of(name) for name in given]
            kept &= torch.isin(self.labels, torch.tensor(labels, device=kept.device).long())
        return self._of_rows(kept)

    def as_coco(
        self, image_id: int | str, category_ids: Sequence[int | str] | None = None
    ) -> list[dict[str, Any]]:
        """Entries of COCO's results format: `image_id`, `category_id`, `bbox`, `score`.

        `bbox` is (x, y, width, height) in pixels. The numbers are the shortest decimals of the
        float32 corners, and of their differences in float64.

        Args:
            image_id: of the image.
            category_ids: the id of each class; None counts the classes from 1.
        """
        corners = shortest_numbers(self.boxes)
        # the digits of a difference of decimals that are no rounding
        sizes = np.round(corners[:, 2:] - corners[:, :2], 10)
        boxes = np.concatenate((corners[:, :2], sizes), axis=1).tolist()
        scores = shortest_numbers(self.scores).tolist()
        return [
            {
                "image_id": image_id,
                "category_id": label + 1 if category_ids is None else category_ids[label],
                "bbox": box,
                "score": score,
            }
            for box, score, label in zip(boxes, scores, self.labels.tolist(), strict=True)
        ]

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`: `x1 y1 x2 y2 score label`, and `name` where there are names.

        Raises:
            DetectError: pandas is not installed.
        """
        pandas = _optional("pandas", "to_pandas")
        columns = dict(zip(("x1", "y1", "x2", "y2"), self.boxes.cpu().numpy().T, strict=True))
        columns |= {"score": self.scores.cpu().numpy(), "label": self.labels.cpu().numpy()}
        if self.class_names is not None:
            columns["name"] = [self.class_names[label] for label in self.labels.tolist()]
        return pandas.DataFrame(columns)

    def to_supervision(self) -> Any:
        """`supervision.Detections`, the names of the classes as `data["class_name"]`.

        Raises:
            DetectError: supervision is not installed.
        """
        supervision = _optional("supervision", "to_supervision")
        names = {}
        if self.class_names is not None:
            found = [self.class_names[label] for label in self.labels.tolist()]
            names = {"class_name": np.array(found, dtype=str)}
        return supervision.Detections(
            xyxy=self.boxes.cpu().numpy(),
            confidence=self.scores.cpu().numpy(),
            class_id=self.labels.cpu().numpy(),
            data=names,
        )

    def plot(self, image: Any, *, score_threshold: float = 0.0) -> "Image":
        """Draw the detections on their image.

        Args:
            image: anything that `Model.predict` takes as one image.
            score_threshold: detections of a lower score are left out.

        Returns:
            A Pillow image: a notebook shows it, `numpy.asarray` makes an array `[H, W, 3]` of it.

        Raises:
            DetectError: no readable image.
        """
        drawn: Image = ACTIONS["plot"](self, image, score_threshold)
        return drawn

    def save(self, path: str | Path, image_id: str | None = None) -> None:
        """Write a JSON or CSV file, as its suffix says, that `detect evaluate` can read.

        Args:
            path: ends in .json or .csv.
            image_id: the name of the image in the file; None takes that of the file.

        Raises:
            DetectError: another suffix, or the detections carry no class names.
        """
        ACTIONS["save"](self, Path(path), image_id)

    def names(self) -> tuple[str, ...]:
        """The names of all classes that the detector knows.

        Raises:
            DetectError: the detections carry none.
        """
        if self.class_names is None:
            raise DetectError(
                "these detections carry no class names: those of Model.predict do; for others, "
                "dataclasses.replace(detections, class_names=(…)) adds them"
            )
        return self.class_names

    def _of_rows(self: Table, kept: Tensor) -> Table:
        raise NotImplementedError

    def _row(self, row: int) -> Detection:
        x1, y1, x2, y2 = self.boxes[row].tolist()
        label = int(self.labels[row])
        joints = None
        if self.joints is not None:
            joints = tuple((x, y) for x, y in self.joints[row].tolist())
        name = None if self.class_names is None else self.class_names[label]
        return Detection((x1, y1, x2, y2), float(self.scores[row]), label, name, joints)

    def _shown_rows(self) -> range:
        return range(min(len(self), NUM_SHOWN))

    def _name(self, row: int) -> str:
        label = int(self.labels[row])
        return f"class {label}" if self.class_names is None else self.class_names[label]

    def _label_of(self, name: str | int) -> int:
        if not isinstance(name, str):
            if name < 0 or (self.class_names is not None and name >= len(self.class_names)):
                last = "" if self.class_names is None else f" to {len(self.class_names) - 1}"
                raise DetectError(f"classes: expected a label from 0{last}, found {name}")
            return int(name)
        names = self.names()
        if name not in names:
            raise DetectError(f"classes: unknown class {name!r}; {hint(name, names)}")
        return names.index(name)


def shortest_numbers(values: Float32[Tensor, "*shape"]) -> NDArray[np.float64]:
    """Float64 numbers with few decimal digits that are the same float32 numbers."""
    exact: NDArray[np.float32] = values.detach().cpu().numpy()
    numbers = exact.astype(np.float64)
    result = numbers.copy()
    with np.errstate(all="ignore"):  # 0 has no logarithm; it stays as it is
        exponents = np.floor(np.log10(np.abs(numbers)))
        for digits in (9, 8, 7):  # 9 tell any two float32 apart, 7 are most often enough
            scale = 10.0 ** (digits - 1 - exponents)
            rounded = np.round(numbers * scale) / scale
            same = rounded.astype(np.float32) == exact
            result[same] = rounded[same]
    return result


def _as_index(rows: Any, length: int) -> Tensor:
    """The chosen rows in rising order."""
    if isinstance(rows, slice):
        return torch.tensor(sorted(range(length)[rows]), dtype=torch.int64)
    index = torch.as_tensor(rows)
    if index.numel() == 0:
        index = index.long()
    if index.dtype == torch.bool:
        if index.shape != (length,):
            raise IndexError(f"mask: expected {length} truth values, found {list(index.shape)}")
        return index.nonzero()[:, 0]
    if index.ndim != 1 or index.is_floating_point():
        raise IndexError(
            "detections: expected a number, a slice, a mask or a list of numbers, found "
            f"{rows!r:.100}"
        )
    outside = (index < -length) | (index >= length)
    if outside.any():
        raise IndexError(f"detection {int(index[outside][0])}: there are {length}")
    return torch.where(index < 0, index + length, index).sort().values


def _optional(name: str, method: str) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name  # it may be something that the package itself needs
        raise DetectError(f"{method}: {missing} is not installed; pip install {name}") from error
