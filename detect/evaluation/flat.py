"""Pictures as an evaluator collects them, and as it judges them: flat tensors of all pictures."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detect.evaluation.ordering import order_by_group_and_score, stable_order
from detect.structures import Detections, GroundTruth

DetectionsLike = Detections | Mapping[str, Any]
TruthLike = GroundTruth | Mapping[str, Any]

DETECTION_KEYS = frozenset({"boxes", "boxes_xywh", "scores", "labels"})
TRUTH_KEYS = frozenset({"boxes", "boxes_xywh", "labels", "difficult", "iscrowd", "area"})


class FlatDetections(NamedTuple):
    """The detections of all pictures, sorted by class and within a class by falling score.

    Attributes:
        images: `[D]` the number of the picture.
        boxes: `[D, 4]` xyxy pixels, or x, y, width and height where the caller asked for these.
        scores: `[D]` higher is better.
        labels: `[D]` classes 0 … C−1.
    """

    images: Int[Tensor, "D"]
    boxes: Float[Tensor, "D 4"]
    scores: Float[Tensor, "D"]
    labels: Int[Tensor, "D"]


class FlatObjects(NamedTuple):
    """The objects of all pictures, sorted by picture, within a picture in their own order.

    Attributes:
        images: `[T]` the number of the picture.
        boxes: `[T, 4]` as those of the detections.
        labels: `[T]` classes 0 … C−1.
        difficult: `[T]` whether the object is neither demanded nor punished; a crowd is not.
    """

    images: Int[Tensor, "T"]
    boxes: Float[Tensor, "T 4"]
    labels: Int[Tensor, "T"]
    difficult: Bool[Tensor, "T"]


class _Found(NamedTuple):
    """The detections of a picture; boxes are xyxy or, with `is_xywh`, corner and size."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    is_xywh: bool
    tie_ranks: Tensor | None = None


class _Truth(NamedTuple):
    """The objects of a picture; no areas stand for those of the boxes."""

    boxes: Tensor
    labels: Tensor
    difficult: Tensor
    is_xywh: bool
    areas: Tensor | None = None


class CollectedPictures:
    """What an evaluator was given so far: tensors as they came, on the device they came on.

    Adding pictures is an append, plus one comparison of the labels for each call on a CPU. What
    would make a GPU wait is checked when the tensors are made flat.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._found: list[_Found] = []
        self._truths: list[_Truth] = []

    def __len__(self) -> int:
        return len(self._truths)

    def append(
        self,
        detections: Sequence[DetectionsLike],
        truths: Sequence[TruthLike],
        tie_ranks: Sequence[Int[Tensor, "_"]] | None = None,
    ) -> None:
        """Add pictures, all of them or none.

        Raises:
            ValueError: what the evaluators' `update` says.
        """
        counts = [len(detections), len(truths)]
        if tie_ranks is not None:
            counts.append(len(tie_ranks))
        if len(set(counts)) > 1:
            listed = " and ".join(map(str, counts))
            raise ValueError(
                f"expected detections, truths and tie ranks of as many pictures, found {listed}"
            )
        found = [
            _found_of(record, f"detections of picture {len(self) + row}")
            for row, record in enumerate(detections)
        ]
        objects = [
            _truth_of(record, f"truths of picture {len(self) + row}")
            for row, record in enumerate(truths)
        ]
        for row, ranks in enumerate(tie_ranks or ()):
            if len(ranks) != len(found[row].labels):
                raise ValueError(f"expected {len(found[row].labels)} tie ranks, found {len(ranks)}")
            found[row] = found[row]._replace(tie_ranks=ranks)
        self._check_labels("detections", [one.labels for one in found if not one.labels.is_cuda])
        self._check_labels("truths", [one.labels for one in objects if not one.labels.is_cuda])
        self._found.extend(found)
        self._truths.extend(objects)

    def extend(self, other: "CollectedPictures") -> None:
        """Add the pictures of `other` behind those that are here; `other` stays as it is."""
        # list() lets pictures be added to themselves
        self._found.extend(list(other._found))
        self._truths.extend(list(other._truths))

    def gather(self) -> None:
        """Give every process of `torch.distributed` the pictures of all, by rank; no-op alone."""
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return
        parts: list[Any] = [None] * distributed.get_world_size()
        on_cpu = _moved(self._found), _moved(self._truths)
        distributed.all_gather_object(parts, on_cpu)
        self._found = [one for found, _ in parts for one in found]
        self._truths = [one for _, truths in parts for one in truths]

    @property
    def device(self) -> torch.device:
        """Of the detections, or of the first ones where they differ: all are judged there."""
        return self._found[0].scores.device if self._found else torch.device("cpu")

    @property
    def num_pairs(self) -> int:
        """Pairs of a detection and an object of one picture, whatever their classes."""
        return sum(
            len(found.labels) * len(truth.labels)
            for found, truth in zip(self._found, self._truths, strict=True)
        )

    def detections(self, *, as_xywh: bool = False) -> FlatDetections:
        """All detections, sorted by class, falling score, tie rank, picture and row.

        Boxes are float64; scores float32, or float64 if some were.

        Raises:
            ValueError: a score or a box is not finite, a box is inverted, or a label is not a
                class; names the picture.
        """
        device = self.device
        images = _image_numbers([len(one.labels) for one in self._found], device)
        boxes = _boxes_of(self._found, as_xywh, device)
        scores = _joined([one.scores for one in self._found], torch.zeros(0), device)
        labels = _joined([one.labels for one in self._found], _NO_LABELS, device).long()
        _check_values("detections", images, boxes, labels, self.num_classes, as_xywh)
        _check("detections", images, ~scores.isfinite(), "finite scores", scores)
        order = self._order(scores, labels)
        return FlatDetections(images[order], boxes[order], scores[order], labels[order])

    def objects(self, *, as_xywh: bool = False) -> FlatObjects:
        """All objects, by picture.

        Raises:
            ValueError: a box is not finite or inverted, or a label is not a class.
        """
        device = self.device
        images = _image_numbers([len(one.labels) for one in self._truths], device)
        boxes = _boxes_of(self._truths, as_xywh, device)
        labels = _joined([one.labels for one in self._truths], _NO_LABELS, device).long()
        difficult = _joined([one.difficult for one in self._truths], _NO_FLAGS, device).bool()
        _check_values("truths", images, boxes, labels, self.num_classes, as_xywh)
        return FlatObjects(images, boxes, labels, difficult)

    def areas(self, objects: FlatObjects) -> Float[Tensor, "T"]:
        """The areas of all objects in square pixels, float64, of the box where none was given.

        Args:
            objects: all of them, boxes as x, y, width and height.
        """
        of_boxes = objects.boxes[:, 2] * objects.boxes[:, 3]
        if all(one.areas is None for one in self._truths):
            return of_boxes
        parts = of_boxes.split([len(one.labels) for one in self._truths])
        given = [
            part if one.areas is None else one.areas.to(part)
            for one, part in zip(self._truths, parts, strict=True)
        ]
        return torch.cat(given)

    def _order(self, scores: Tensor, labels: Tensor) -> Tensor:
        if all(one.tie_ranks is None for one in self._found):
            return order_by_group_and_score(labels, scores)
        ranks = [
            torch.zeros(len(one.labels), dtype=torch.int64)
            if one.tie_ranks is None
            else one.tie_ranks
            for one in self._found
        ]
        order = stable_order(_joined(ranks, _NO_LABELS, scores.device))
        return order[order_by_group_and_score(labels[order], scores[order])]

    def _check_labels(self, owner: str, labels: Sequence[Tensor]) -> None:
        if not labels:
            return
        joined = torch.cat([row.flatten() for row in labels])
        greatest = int(joined.max()) if len(joined) else -1
        if greatest >= self.num_classes:
            raise ValueError(
                f"{owner}: expected labels below {self.num_classes}, the number of classes, "
                f"found {greatest}"
            )


_NO_LABELS = torch.zeros(0, dtype=torch.int64)
_NO_FLAGS = torch.zeros(0, dtype=torch.bool)


def _found_of(record: DetectionsLike, place: str) -> _Found:
    if isinstance(record, Detections):
        return _Found(record.boxes.detach(), record.scores.detach(), record.labels, False)
    boxes, is_xywh = _boxes_of_mapping(record, DETECTION_KEYS, place)
    scores, labels = (_column(record, name, len(boxes), place) for name in ("scores", "labels"))
    assert scores is not None
    assert labels is not None
    if not scores.is_floating_point():
        scores = scores.float()
    return _Found(boxes, scores, _whole(labels, place), is_xywh)


def _truth_of(record: TruthLike, place: str) -> _Truth:
    if isinstance(record, GroundTruth):
        return _Truth(record.boxes.detach(), record.labels, record.difficult, False)
    boxes, is_xywh = _boxes_of_mapping(record, TRUTH_KEYS, place)
    labels = _column(record, "labels", len(boxes), place)
    assert labels is not None
    flags = [
        column.bool()
        for name in ("difficult", "iscrowd")
        if (column := _column(record, name, len(boxes), place, required=False)) is not None
    ]
    difficult = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for flag in flags:
        difficult = difficult | flag
    areas = _column(record, "area", len(boxes), place, required=False)
    return _Truth(
        boxes, _whole(labels, place), difficult, is_xywh, None if areas is None else areas.double()
    )


def _boxes_of_mapping(
    record: Mapping[str, Any], known: frozenset[str], place: str
) -> tuple[Tensor, bool]:
    names = [name for name in ("boxes", "boxes_xywh") if name in record]
    if len(names) != 1:
        raise ValueError(
            f"{place}: expected 'boxes' (x1, y1, x2, y2) or 'boxes_xywh' (x, y, width, height), "
            f"found the keys {sorted(record)}"
        )
    boxes = torch.as_tensor(record[names[0]]).detach()
    if boxes.numel() == 0:
        boxes = boxes.reshape(-1, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{place}: {names[0]}: expected [N, 4], found {list(boxes.shape)}")
    unknown = sorted(set(record) - known - {"masks"})
    if unknown:
        raise ValueError(
            f"{place}: unknown key {unknown[0]!r}: expected some of {', '.join(sorted(known))}"
        )
    return boxes, names[0] == "boxes_xywh"


def _column(
    record: Mapping[str, Any], name: str, length: int, place: str, *, required: bool = True
) -> Tensor | None:
    if name not in record:
        if required:
            raise ValueError(f"{place}: expected the key {name!r}, found {sorted(record)}")
        return None
    values = torch.as_tensor(record[name]).detach()
    if values.shape != (length,):
        raise ValueError(
            f"{place}: {name}: expected {length}, one for each box, found {list(values.shape)}"
        )
    return values


def _whole(labels: Tensor, place: str) -> Tensor:
    if len(labels) and (labels.is_floating_point() or labels.dtype == torch.bool):
        raise ValueError(f"{place}: labels: expected whole numbers, found {labels.dtype}")
    return labels.long()


def _moved(records: Sequence[Any]) -> list[Any]:
    """Records of a picture with all their tensors on the CPU."""
    return [
        type(one)(*(field.cpu() if isinstance(field, Tensor) else field for field in one))
        for one in records
    ]


def _joined(parts: Sequence[Tensor], nothing: Tensor, device: torch.device) -> Tensor:
    if any(part.device != device for part in parts):
        parts = [part.to(device) for part in parts]
    # a picture without rows may have lost its type, as `torch.tensor([])` has
    parts = [part for part in parts if len(part)]
    return torch.cat(list(parts)) if parts else nothing.to(device)


def _boxes_of(
    records: Sequence[_Found] | Sequence[_Truth], as_xywh: bool, device: torch.device
) -> Float[Tensor, "N 4"]:
    """All boxes as float64; what is not in the wanted form is brought into it at once."""
    if len({one.is_xywh for one in records}) < 2:
        boxes = _joined([one.boxes for one in records], torch.zeros(0, 4), device).double()
        is_xywh = bool(records) and records[0].is_xywh
        return boxes if is_xywh == as_xywh else _converted(boxes, as_xywh)
    parts: list[Tensor] = [
        one.boxes.double() if one.is_xywh == as_xywh else _converted(one.boxes.double(), as_xywh)
        for one in records
    ]
    return _joined(parts, torch.zeros(0, 4), device)


def _converted(boxes: Tensor, as_xywh: bool) -> Tensor:
    first, second = boxes[:, :2], boxes[:, 2:]
    return torch.cat((first, second - first if as_xywh else first + second), dim=1)


def _image_numbers(lengths: Sequence[int], device: torch.device) -> Int[Tensor, "N"]:
    counts = torch.tensor(lengths, dtype=torch.int64)
    # numbered on the CPU, so that the copy is all that a GPU has to do
    return torch.repeat_interleave(torch.arange(len(counts)), counts).to(device, non_blocking=True)


def _check_values(
    owner: str, images: Tensor, boxes: Tensor, labels: Tensor, num_classes: int, as_xywh: bool
) -> None:
    _check(owner, images, ~boxes.isfinite().all(dim=1), "finite boxes", boxes)
    inverted = boxes[:, 2:] < (0 if as_xywh else boxes[:, :2])
    _check(owner, images, inverted.any(dim=1), "x1 ≤ x2 and y1 ≤ y2", boxes)
    outside = (labels < 0) | (labels >= num_classes)
    _check(owner, images, outside, f"labels from 0 to {num_classes - 1}", labels)


def _check(owner: str, images: Tensor, faulty: Tensor, expected: str, values: Tensor) -> None:
    if bool(faulty.any()):
        row = int(faulty.nonzero()[0])
        raise ValueError(
            f"{owner} of picture {int(images[row])}: expected {expected}, "
            f"found {values[row].tolist()}"
        )
