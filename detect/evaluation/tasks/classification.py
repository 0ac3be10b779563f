"""The accuracy of a classifier: top-1, top-5, by class, and what is taken for what.

An image is a hit of top-k when its class is among the k of greatest logit: Russakovsky et al.
2015, "ImageNet large scale visual recognition challenge", section 4.1, which judges by top-5.
Classes of equal logit rank by their number, the lower one first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from rich.table import Table
from rich.text import Text
from torch import Tensor

from detect.errors import DetectError
from detect.evaluation.numbers import as_text, mean_of_defined, none_for_nan, ratio
from detect.evaluation.tables import report_table
from detect.wording import counted

METRICS = {
    "top1": "share of the images whose class has the greatest logit",
    "top5": "share of the images whose class is among the five of greatest logit",
    "mean_class_accuracy": "mean over the classes with images of the top-1 accuracy",
}
TIE_RULE = "classes of equal logit rank by their number, the lower one first"


@dataclass(frozen=True, slots=True, eq=False)
class ClassificationReport:
    """The accuracy of a classifier; every number of it follows from these fields.

    Attributes:
        class_names: the name of each label.
        confusion_matrix: `[C][C]`, the number of images of a class (row) that were taken for a
            class (column).
        num_top5_hits: images whose class is among the five best, or among all where there are
            fewer than five classes.
    """

    class_names: tuple[str, ...]
    confusion_matrix: list[list[int]]
    num_top5_hits: int

    def __repr__(self) -> str:
        return (
            f"ClassificationReport: top-1 {as_text(self.top1)}, top-5 {as_text(self.top5)}, "
            f"{counted(self.num_images, 'image')}, {counted(len(self.class_names), 'class')}"
        )

    def scores(self) -> dict[str, float]:
        """The numbers that are followed during a training."""
        return {"top1": self.top1, "top5": self.top5}

    @property
    def num_images(self) -> int:
        """The images judged."""
        return sum(self.class_counts.values())

    @property
    def top1(self) -> float:
        """Share of the images whose class is the best, in 0…1; nan without images."""
        hits = sum(row[label] for label, row in enumerate(self.confusion_matrix))
        return ratio(hits, self.num_images)

    @property
    def top5(self) -> float:
        """Share of the images whose class is among the five best, in 0…1; nan without images.

        With five classes or fewer it is 1, whatever the classifier does.
        """
        return ratio(self.num_top5_hits, self.num_images)

    @property
    def class_counts(self) -> dict[str, int]:
        """The number of images of each class."""
        sums = map(sum, self.confusion_matrix)
        return dict(zip(self.class_names, sums, strict=True))

    @property
    def class_accuracies(self) -> dict[str, float]:
        """The top-1 accuracy of each class, in 0…1; nan without images of it."""
        return {
            name: ratio(row[label], sum(row))
            for label, (name, row) in enumerate(
                zip(self.class_names, self.confusion_matrix, strict=True)
            )
        }

    @property
    def mean_class_accuracy(self) -> float:
        """Mean accuracy of the classes with images, in 0…1; nan without any."""
        return mean_of_defined(self.class_accuracies.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON.

        The keys are stable: `protocol`, `top1`, `top5`, `mean_class_accuracy`, `num_images`,
        `classes`, which maps the name of each class to `accuracy` and `num_images`, and
        `confusion_matrix`, one row for each class. An accuracy that is not defined is None.
        """
        accuracies, counts = self.class_accuracies, self.class_counts
        return {
            "protocol": {"name": "classification", "metrics": dict(METRICS), "ties": TIE_RULE},
            "top1": none_for_nan(self.top1),
            "top5": none_for_nan(self.top5),
            "mean_class_accuracy": none_for_nan(self.mean_class_accuracy),
            "num_images": self.num_images,
            "classes": {
                name: {"accuracy": none_for_nan(accuracies[name]), "num_images": counts[name]}
                for name in self.class_names
            },
            "confusion_matrix": [list(row) for row in self.confusion_matrix],
        }

    def in_words(self) -> str:
        """Both accuracies and the protocol as one paragraph."""
        num_classes = len(self.class_names)
        # whatever the classifier does: the number says nothing of it
        only = f" (of only {counted(num_classes, 'class')})"
        top5_note = only if num_classes <= 5 else ""
        return (
            f"Top-1 accuracy {as_text(self.top1)}, top-5 {as_text(self.top5)}{top5_note}, of "
            f"{counted(self.num_images, 'image')}. The accuracy of a class is its top-1; a class "
            f"without images has none and is left out of the mean. Ties: {TIE_RULE}."
        )

    def tables(self) -> list[Table]:
        """The one table, in a list as every report has it."""
        return [self.table()]

    def table(self) -> Table:
        """A table for the terminal: one row for each class, the mean, and the protocol."""
        table = report_table(
            "class",
            ("accuracy", "images", "most often taken for"),
            footer=("mean / total", as_text(self.mean_class_accuracy), str(self.num_images)),
            caption=self.in_words(),
        )
        table.columns[-1].justify = "left"
        accuracies, counts = self.class_accuracies, self.class_counts
        for label, name in enumerate(self.class_names):
            # a name is no markup, whatever brackets it has
            table.add_row(
                Text(name),
                as_text(accuracies[name]),
                str(counts[name]),
                Text(self._most_frequent_error(label)),
            )
        return table

    def _most_frequent_error(self, label: int) -> str:
        """The wrong class that images of a class are taken for most, with their number."""
        row = self.confusion_matrix[label]
        wrong = [number for number in range(len(row)) if number != label and row[number]]
        if not wrong:
            return ""
        first = max(wrong, key=lambda number: row[number])
        return f"{self.class_names[first]} ({row[first]})"


class ClassificationEvaluator:
    """Collects the logits of images and computes the accuracy.

    Args:
        class_names: the name of each label 0 … C−1.

    Raises:
        ValueError: there is no class name, or one is given twice.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        if not class_names:
            raise ValueError("class_names: expected at least one name, found none")
        if len(set(class_names)) < len(class_names):
            raise ValueError(f"class_names: expected each name once, found {list(class_names)}")
        self.class_names = tuple(class_names)
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    def update(self, logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"]) -> None:
        """Add images.

        The tensors are kept where they are and not read, so nothing waits for a GPU; don't
        write into them before `compute`.

        Args:
            logits: of each class; any order-preserving scores will do, infinite ones included.
            labels: the right classes 0 … C−1.

        Raises:
            ValueError: there is not one logit for each class, or not one label for each row.
        """
        if logits.shape[1] != len(self.class_names):
            raise ValueError(
                f"logits: expected one for each of the {len(self.class_names)} classes, "
                f"found {logits.shape[1]}"
            )
        if len(labels) != len(logits):
            raise ValueError(
                f"labels: expected one for each of {len(logits)} rows of logits, "
                f"found {len(labels)}"
            )
        self._logits.append(logits.detach())
        self._labels.append(labels)

    def compute(self) -> ClassificationReport:
        """Judge all images so far. Without images every accuracy is nan.

        Raises:
            DetectError: logits are nan.
            ValueError: a label has no class name.
        """
        num_classes = len(self.class_names)
        verdicts = [_judge(*pair) for pair in zip(self._logits, self._labels, strict=True)]
        nothing = torch.zeros(4, 0, dtype=torch.int64)
        labels, predicted, ranks, is_nan = torch.cat([nothing, *(v.cpu() for v in verdicts)], dim=1)
        _check_labels(labels, num_classes)
        if is_nan.any():
            row = int(is_nan.nonzero()[0])
            raise DetectError(
                f"logits: expected numbers, found nan in row {row} of {len(labels)} (counted from "
                "0 over all updates); the network has diverged: lower training.learning_rate"
            )
        pairs = (labels * num_classes + predicted).bincount(minlength=num_classes**2)
        confusion_matrix = pairs.reshape(num_classes, num_classes).tolist()  # [C][C]
        return ClassificationReport(self.class_names, confusion_matrix, int((ranks < 5).sum()))


def _judge(logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"]) -> Int[Tensor, "4 B"]:
    """Label, predicted class, rank of the label (from 0) and whether there is a nan, by image."""
    labels = labels.to(logits.device, torch.int64)
    num_classes = logits.shape[1]
    # a label without a class is an error later, not an illegal address on the GPU now
    rows = labels.clamp(0, num_classes - 1)[:, None]  # [B, 1]
    own = logits.gather(1, rows)
    numbers = torch.arange(num_classes, device=logits.device)
    goes_first = (logits > own) | ((logits == own) & (numbers < rows))  # [B, C]
    # argmax gives the first of equal ones
    predicted = logits.argmax(dim=1)
    is_nan = logits.isnan().any(dim=1)
    return torch.stack((labels, predicted, goes_first.sum(dim=1), is_nan.long()))


def _check_labels(labels: Int[Tensor, "N"], num_classes: int) -> None:
    strange = ((labels < 0) | (labels >= num_classes)).nonzero()
    if len(strange):
        row = int(strange[0])
        raise ValueError(
            f"labels: expected 0 to {num_classes - 1}, the number of the last class, "
            f"found {int(labels[row])} in row {row}"
        )
