"""The detections of a whole split in memory, and their judgment against ground truth."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from detect.errors import DetectError
from detect.evaluation.flat import FlatDetections, FlatObjects
from detect.evaluation.report import VOCReport
from detect.evaluation.voc import VOCEvaluator
from detect.registry import hint
from detect.structures import Detections, GroundTruth, StructureError


@dataclass(frozen=True, slots=True)
class DetectionSet:
    """The detections of the images of a split.

    Attributes:
        class_names: the name of each label 0 … C−1.
        image_ids: the name of each image, as in VOC's split files.
        detections: one record for each image, in the image's own frame; no box is inverted.
        tie_ranks: for each image the ranks `[N]` of its detections among those of its class with
            an equal score, lower first; None where the order of images and rows decides.
    """

    class_names: tuple[str, ...]
    image_ids: tuple[str, ...]
    detections: tuple[Detections, ...]
    tie_ranks: tuple[Int[Tensor, "_"], ...] | None = None

    def __post_init__(self) -> None:
        for name in ("class_names", "image_ids"):
            repeated = first_repeated(getattr(self, name))
            if repeated is not None:
                raise StructureError(
                    f"DetectionSet.{name}: expected each name once, found {repeated!r} twice"
                )
        for name, records in (("detections", self.detections), ("tie_ranks", self.tie_ranks)):
            if records is not None and len(records) != len(self.image_ids):
                raise StructureError(
                    f"DetectionSet.{name}: expected one record for each of the "
                    f"{len(self.image_ids)} images, found {len(records)}"
                )
        for image_id, found in zip(self.image_ids, self.detections, strict=True):
            self._check_record(image_id, found)
        for found, ranks in zip(self.detections, self.tie_ranks or (), strict=False):
            if ranks.shape != found.labels.shape:
                raise StructureError(
                    f"DetectionSet.tie_ranks: expected {list(found.labels.shape)}, "
                    f"found {list(ranks.shape)}"
                )

    def __len__(self) -> int:
        return len(self.image_ids)

    def _check_record(self, image_id: str, found: Detections) -> None:
        if len(found) and int(found.labels.max()) >= len(self.class_names):
            raise StructureError(
                f"DetectionSet.detections of {image_id}: expected labels below "
                f"{len(self.class_names)}, found {int(found.labels.max())}"
            )
        inverted = (found.boxes[:, 2:] < found.boxes[:, :2]).any(dim=1)
        if inverted.any():
            row = int(inverted.nonzero()[0])
            raise StructureError(
                f"DetectionSet.detections of {image_id}: expected x1 ≤ x2 and y1 ≤ y2, "
                f"found {found.boxes[row].tolist()} in row {row}"
            )

    def aligned(self, class_names: Sequence[str], image_ids: Sequence[str]) -> "DetectionSet":
        """The same detections for these classes and images, in their order.

        Classes are mapped by name. An image of `image_ids` without an entry here has no
        detections.

        Raises:
            DetectError: a class or an image here is not among the given ones.
        """
        for name in self.class_names:
            check_class(name, class_names, "the detections")
        known = set(image_ids)
        for image_id in self.image_ids:
            if image_id not in known:
                raise DetectError(
                    f"the detections: unknown image {image_id!r}: expected images of the split"
                    f"; {hint(image_id, image_ids)}"
                )
        new_labels = torch.tensor(
            [list(class_names).index(name) for name in self.class_names], dtype=torch.int64
        )
        rows = {image_id: row for row, image_id in enumerate(self.image_ids)}
        detections, ranks = [], []
        for image_id in image_ids:
            row = rows.get(image_id)
            found = Detections.empty() if row is None else self.detections[row]
            detections.append(Detections(found.boxes, found.scores, new_labels[found.labels]))
            if self.tie_ranks is not None:
                no_ranks = torch.zeros(0, dtype=torch.int64)
                ranks.append(no_ranks if row is None else self.tie_ranks[row])
        return DetectionSet(
            tuple(class_names),
            tuple(image_ids),
            tuple(detections),
            None if self.tie_ranks is None else tuple(ranks),
        )


def evaluate_detection_set(
    detections: DetectionSet,
    class_names: Sequence[str],
    image_ids: Sequence[str],
    truths: Sequence[GroundTruth],
    iou_threshold: float | Sequence[float] = 0.5,
) -> VOCReport:
    """Judge detections from anywhere by the PASCAL VOC protocol.

    Args:
        detections: what was found; an image of the split without an entry has no detections.
        class_names: the classes of the truths.
        image_ids: the images of the split.
        truths: the objects of each of these images, difficult ones included.
        iou_threshold: the least IoU of a true positive, more than 0 and at most 1, or several.

    Raises:
        DetectError: a class or an image of the detections is not among the given ones, or a
            threshold is out of its range.
    """
    return _evaluator(detections, class_names, image_ids, truths, iou_threshold).compute()


def flat_detections(
    detections: DetectionSet,
    class_names: Sequence[str],
    image_ids: Sequence[str],
    truths: Sequence[GroundTruth],
) -> tuple[FlatDetections, FlatObjects]:
    """The same as flat tensors, which the analyses, bootstrap and tests of significance take.

    Raises:
        DetectError: a class or an image of the detections is not among the given ones.
    """
    return _evaluator(detections, class_names, image_ids, truths).flat()


def _evaluator(
    detections: DetectionSet,
    class_names: Sequence[str],
    image_ids: Sequence[str],
    truths: Sequence[GroundTruth],
    iou_threshold: float | Sequence[float] = 0.5,
) -> VOCEvaluator:
    evaluator = VOCEvaluator(class_names, iou_threshold)
    aligned = detections.aligned(class_names, image_ids)
    evaluator.update(aligned.detections, truths, aligned.tie_ranks)
    return evaluator


def check_class(name: str, class_names: Sequence[str], place: str) -> None:
    """Raise a DetectError that begins with `place` unless `name` is one of `class_names`."""
    if name not in class_names:
        raise DetectError(
            f"{place}: unknown class {name!r}: expected a class of the ground truth; "
            f"{hint(name, class_names)}"
        )


def first_repeated(names: Sequence[str]) -> str | None:
    """The first name that occurs twice."""
    if len(set(names)) == len(names):
        return None
    return next(name for row, name in enumerate(names) if name in names[:row])
