"""Images as an evaluator collects them, and as it judges them: flat tensors of all images."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

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
    """The detections of all images, sorted by class and within a class by falling score.

    Attributes:
        images: `[D]` the number of the image.
        boxes: `[D, 4]` xyxy pixels, or x, y, width and height where the caller asked for these.
        scores: `[D]` higher is better.
        labels: `[D]` classes 0 … C−1.
    """

    images: Int[Tensor, "D"]
    boxes: Float[Tensor, "D 4"]
    scores: Float[Tensor, "D"]
    labels: Int[Tensor, "D"]


class FlatObjects(NamedTuple):
    """The objects of all images, sorted by image, within an image in their own order.

    Attributes:
        images: `[T]` the number of the image.
        boxes: `[T, 4]` as those of the detections.
        labels: `[T]` classes 0 … C−1.
        difficult: `[T]` whether the object is ignored, as a crowd is.
    """

    images: Int[Tensor, "T"]
    boxes: Float[Tensor, "T 4"]
    labels: Int[Tensor, "T"]
    difficult: Bool[Tensor, "T"]


class _Found(NamedTuple):
    """The detections of an image; boxes are xyxy or, with `is_xywh`, corner and size."""

    num_rows: int
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    is_xywh: bool
    tie_ranks: Tensor | None = None


class _Truth(NamedTuple):
    """The objects of an image; no areas stand for those of the boxes."""

    num_rows: int
    boxes: Tensor
    labels: Tensor
    difficult: Tensor
    is_xywh: bool
    areas: Tensor | None = None


class CollectedImages:
    """What an evaluator was given so far: tensors as they came, on the device they came on.

    Adding images is an append, plus one comparison of the labels for each call on a CPU. What
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
        """Add images, all of them or none.

        Raises:
            ValueError: what the evaluators' `update` says.
        """
        counts = [len(detections), len(truths)]
        if tie_ranks is not None:
            counts.append(len(tie_ranks))
        if len(set(counts)) > 1:
            listed = " and ".join(map(str, counts))
            raise ValueError(
                f"expected detections, truths and tie ranks of as many images, found {listed}"
            )
        start = len(self)
        found = [_found_of(record, start + row) for row, record in enumerate(detections)]
        objects = [_truth_of(record, start + row) for row, record in enumerate(truths)]
        for row, ranks in enumerate(tie_ranks or ()):
            if len(ranks) != found[row].num_rows:
                raise ValueError(f"expected {found[row].num_rows} tie ranks, found {len(ranks)}")
            found[row] = found[row]._replace(tie_ranks=ranks)
        self._check_labels("detections", [one.labels for one in found if not one.labels.is_cuda])
        self._check_labels("truths", [one.labels for one in objects if not one.labels.is_cuda])
        self._found.extend(found)
        self._truths.extend(objects)

    def extend(self, other: "CollectedImages") -> None:
        """Add the images of `other` behind those that are here; `other` stays as it is."""
        # list() lets images be added to themselves
        self._found.extend(list(other._found))
        self._truths.extend(list(other._truths))

    def gather(self) -> None:
        """Give every process of `torch.distributed` the images of all, by rank; no-op alone."""
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
    def num_detections(self) -> int:
        """Of all images."""
        return sum(found.num_rows for found in self._found)

    @property
    def num_pairs(self) -> int:
        """Pairs of a detection and an object of one image, whatever their classes."""
        return sum(
            found.num_rows * truth.num_rows
            for found, truth in zip(self._found, self._truths, strict=True)
        )

    def detections(self, *, as_xywh: bool = False) -> FlatDetections:
        """All detections, sorted by class, falling score, tie rank, image and row.

        Boxes are float64; scores float32, or float64 if some were.

        Raises:
            ValueError: a score or a box is not finite, a box is inverted, or a label is not a
                class; names the image.
        """
        device = self.device
        images = _image_numbers([one.num_rows for one in self._found], device)
        boxes = _boxes_of(self._found, as_xywh, device)
        scores = _joined([one.scores for one in self._found], torch.zeros(0), device)
        labels = _joined([one.labels for one in self._found], _NO_LABELS, device).long()
        _check_values("detections", images, boxes, labels, self.num_classes, as_xywh)
        if not bool(scores.isfinite().all()):
            _refuse("detections", images, ~scores.isfinite(), "finite scores", scores)
        order = self._order(scores, labels)
        # several times as fast as indexing with brackets
        return FlatDetections(
            *(column.index_select(0, order) for column in (images, boxes, scores, labels))
        )

    def objects(self, *, as_xywh: bool = False) -> FlatObjects:
        """All objects, by image.

        Raises:
            ValueError: a box is not finite or inverted, or a label is not a class.
        """
        device = self.device
        images = _image_numbers([one.num_rows for one in self._truths], device)
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
        parts = of_boxes.split([one.num_rows for one in self._truths])
        given = [
            part if one.areas is None else one.areas.to(part)
            for one, part in zip(self._truths, parts, strict=True)
        ]
        return torch.cat(given)

    def _order(self, scores: Tensor, labels: Tensor) -> Tensor:
        if all(one.tie_ranks is None for one in self._found):
            return order_by_group_and_score(labels, scores)
        ranks = [
            torch.zeros(one.num_rows, dtype=torch.int64) if one.tie_ranks is None else one.tie_ranks
            for one in self._found
        ]
        order = stable_order(_joined(ranks, _NO_LABELS, scores.device))
        return order[order_by_group_and_score(labels[order], scores[order])]

    def _check_labels(self, owner: str, labels: Sequence[Tensor]) -> None:
        if not labels:
            return
        joined = _joined(labels, _NO_LABELS, torch.device("cpu"))
        greatest = int(joined.max()) if len(joined) else -1
        if greatest >= self.num_classes:
            raise ValueError(
                f"{owner}: expected labels below {self.num_classes}, the number of classes, "
                f"found {greatest}"
            )


_NO_LABELS = torch.zeros(0, dtype=torch.int64)
_NO_FLAGS = torch.zeros(0, dtype=torch.bool)


def _found_of(record: DetectionsLike, number: int) -> _Found:
    if isinstance(record, Detections):
        boxes, scores = record.boxes.detach(), record.scores.detach()
        return _Found(boxes.shape[0], boxes, scores, record.labels, False)
    place = ("detections", number)
    boxes, count, is_xywh = _boxes_of_mapping(record, DETECTION_KEYS, place)
    scores = _column(record, "scores", count, place)
    if not scores.is_floating_point():
        scores = scores.float()
    return _Found(count, boxes, scores, _labels(record, count, place), is_xywh)


def _truth_of(record: TruthLike, number: int) -> _Truth:
    if isinstance(record, GroundTruth):
        boxes = record.boxes.detach()
        return _Truth(boxes.shape[0], boxes, record.labels, record.difficult, False)
    place = ("truths", number)
    boxes, count, is_xywh = _boxes_of_mapping(record, TRUTH_KEYS, place)
    flags = [
        _column(record, name, count, place).bool()
        for name in ("difficult", "iscrowd")
        if name in record
    ]
    difficult = (
        torch.stack(flags).any(dim=0)
        if flags
        else torch.zeros(count, dtype=torch.bool, device=boxes.device)
    )
    areas = _column(record, "area", count, place).double() if "area" in record else None
    return _Truth(count, boxes, _labels(record, count, place), difficult, is_xywh, areas)


def _boxes_of_mapping(
    record: Mapping[str, Any], known: frozenset[str], place: tuple[str, int]
) -> tuple[Tensor, int, bool]:
    """The boxes, their number, and whether they are x, y, width and height."""
    is_xywh = "boxes_xywh" in record
    if is_xywh == ("boxes" in record):
        raise ValueError(
            f"{_at(place)}: expected 'boxes' (x1, y1, x2, y2) or 'boxes_xywh' (x, y, width, "
            f"height), found the keys {sorted(record)}"
        )
    if not known.issuperset(record):
        raise ValueError(
            f"{_at(place)}: unknown key {min(set(record) - known)!r}: expected some of "
            f"{', '.join(sorted(known))}"
        )
    name = "boxes_xywh" if is_xywh else "boxes"
    boxes = torch.as_tensor(record[name]).detach()
    shape = boxes.shape
    if len(shape) == 2 and shape[1] == 4:
        return boxes, shape[0], is_xywh
    if shape.numel() == 0:
        return boxes.reshape(-1, 4), 0, is_xywh
    raise ValueError(f"{_at(place)}: {name}: expected [N, 4], found {list(shape)}")


def _column(record: Mapping[str, Any], name: str, count: int, place: tuple[str, int]) -> Tensor:
    if name not in record:
        raise ValueError(f"{_at(place)}: expected the key {name!r}, found {sorted(record)}")
    values = torch.as_tensor(record[name]).detach()
    if values.shape != (count,):
        raise ValueError(
            f"{_at(place)}: {name}: expected {count}, one for each box, found {list(values.shape)}"
        )
    return values


def _labels(record: Mapping[str, Any], count: int, place: tuple[str, int]) -> Tensor:
    labels = _column(record, "labels", count, place)
    if labels.dtype == torch.int64 or count == 0:
        return labels
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"{_at(place)}: labels: expected whole numbers, found {labels.dtype}")
    return labels.long()


def _at(place: tuple[str, int]) -> str:
    owner, number = place
    return f"{owner} of image {number}"


def _moved(records: Sequence[Any]) -> list[Any]:
    """Records of an image with all their tensors on the CPU."""
    return [
        type(one)(*(field.cpu() if isinstance(field, Tensor) else field for field in one))
        for one in records
    ]


def _joined(parts: Sequence[Tensor], nothing: Tensor, device: torch.device) -> Tensor:
    # an image without rows may have lost its type, as `torch.tensor([])` has
    own = [part for part in parts if part.shape[0]]
    if any(part.device != device for part in own):
        own = [part.to(device) for part in own]
    return torch.cat(own) if own else nothing.to(device)


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
    if not bool(boxes.isfinite().all()):
        faulty = ~boxes.isfinite().all(dim=1)
        _refuse(owner, images, faulty, "finite boxes", boxes)
    inverted = boxes[:, 2:] < (0 if as_xywh else boxes[:, :2])
    if bool(inverted.any()):
        _refuse(owner, images, inverted.any(dim=1), "x1 ≤ x2 and y1 ≤ y2", boxes)
    outside = (labels < 0) | (labels >= num_classes)
    if bool(outside.any()):
        _refuse(owner, images, outside, f"labels from 0 to {num_classes - 1}", labels)


def _refuse(owner: str, images: Tensor, faulty: Tensor, expected: str, values: Tensor) -> NoReturn:
    row = int(faulty.nonzero()[0])
    raise ValueError(
        f"{owner} of image {int(images[row])}: expected {expected}, found {values[row].tolist()}"
    )
