"""The records that travel between the parts of the toolkit. Floor 1.

```
JPEG + XML → Sample → transform → Batch → detector → Detections → evaluator, images, files
```

Each validates itself when it is made and says which field, what was expected and what was found.
Boxes are xyxy, float32, in pixels, half-open; labels are 0 … C−1; sizes are (height, width).
Joints are points (x, y) of the same continuous frame: the center of the first pixel is (0.5, 0.5).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from detect.detection_table import DetectionTable
from detect.ops import clip_boxes, has_area


class StructureError(ValueError):
    """A field of a record has the wrong shape, type or values."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How a detector wants to be fed; the transforms are built from it.

    Attributes:
        size: (height, width) of the input in pixels.
        keep_aspect_ratio: scale both sides alike and pad the rest (letterbox) instead of
            stretching the image to `size`.
        shorter_side: scale both sides alike, the shorter one to this many pixels, unless the longer
            one became longer than that of `size`: then this one is brought to its limit. Images
            of a batch then differ in size.
    """

    size: tuple[int, int]
    keep_aspect_ratio: bool = False
    shorter_side: int | None = None

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise StructureError(f"InputSpec.size: expected positive pixels, found {self.size}")
        if self.shorter_side is not None and not 1 <= self.shorter_side <= max(self.size):
            raise StructureError(
                f"InputSpec.shorter_side: expected at least 1 and at most the {max(self.size)} "
                f"pixels of the longer one, found {self.shorter_side}"
            )


@dataclass(frozen=True, slots=True)
class ImageMeta:
    """Where an image came from, and the way from the input frame back to its own frame.

    A point `x` of the image lies at `x * scale + offset` in the input; a mirrored image is
    mirrored first, `x' = width − x`.

    Attributes:
        image_id: the name within its data set, as in VOC's split files.
        path: the file, or None for an image that came from memory.
        original_size: (height, width) of the image as displayed, EXIF orientation applied.
        input_size: (height, width) that the image fills in the batch; the rest is padding.
        scale: (vertical, horizontal) input pixels per image pixel.
        offset: (vertical, horizontal) input pixels before the image begins.
        flipped: whether the image was mirrored horizontally on its way.
    """

    image_id: str
    path: Path | None
    original_size: tuple[int, int]
    input_size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    flipped: bool = False

    def __post_init__(self) -> None:
        for name in ("original_size", "input_size"):
            if min(getattr(self, name)) < 1:
                raise StructureError(
                    f"ImageMeta.{name} of {self.image_id}: expected a positive height and width, "
                    f"found {getattr(self, name)}"
                )
        if min(self.scale) <= 0:
            raise StructureError(
                f"ImageMeta.scale of {self.image_id}: expected positive factors, found {self.scale}"
            )

    def to_input(self, boxes: Float[Tensor, "N 4"]) -> Float[Tensor, "N 4"]:
        """Boxes of the image's own frame in the input frame."""
        if self.flipped:
            boxes = _mirror(boxes, self.original_size[1])
        return boxes * boxes.new_tensor(self._scale_xyxy) + boxes.new_tensor(self._offset_xyxy)

    def to_original(self, boxes: Float[Tensor, "N 4"]) -> Float[Tensor, "N 4"]:
        """Boxes of the input frame in the image's own frame: the inverse of `to_input`."""
        boxes = (boxes - boxes.new_tensor(self._offset_xyxy)) / boxes.new_tensor(self._scale_xyxy)
        return _mirror(boxes, self.original_size[1]) if self.flipped else boxes

    def points_to_input(self, points: Float[Tensor, "... 2"]) -> Float[Tensor, "... 2"]:
        """Points (x, y) of the image's own frame in the input frame."""
        if self.flipped:
            points = _mirror_points(points, self.original_size[1])
        return points * points.new_tensor(self._scale_xyxy[:2]) + points.new_tensor(
            self._offset_xyxy[:2]
        )

    def points_to_original(self, points: Float[Tensor, "... 2"]) -> Float[Tensor, "... 2"]:
        """Points (x, y) of the input frame in the image's own: inverts `points_to_input`."""
        points = (points - points.new_tensor(self._offset_xyxy[:2])) / points.new_tensor(
            self._scale_xyxy[:2]
        )
        return _mirror_points(points, self.original_size[1]) if self.flipped else points

    @property
    def _scale_xyxy(self) -> tuple[float, float, float, float]:
        return (self.scale[1], self.scale[0], self.scale[1], self.scale[0])

    @property
    def _offset_xyxy(self) -> tuple[float, float, float, float]:
        return (self.offset[1], self.offset[0], self.offset[1], self.offset[0])


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The objects of one image.

    Attributes:
        boxes: `[N, 4]` xyxy pixels, each of positive size.
        labels: `[N]` classes 0 … C−1.
        difficult: `[N]`; VOC's flag of objects that evaluation ignores.
        joints: `[N, K, 3]` x, y in pixels and COCO's visibility: 0 not labeled, 1 labeled but
            hidden, 2 visible. Where it is 0, x and y say nothing, and are 0 by convention. None
            for data without joints.
    """

    boxes: Float[Tensor, "N 4"]
    labels: Int[Tensor, "N"]
    difficult: Bool[Tensor, "N"]
    joints: Float[Tensor, "N K 3"] | None = None

    def __post_init__(self) -> None:
        _check_boxes("GroundTruth.boxes", self.boxes)
        _check_vector("GroundTruth.labels", self.labels, len(self.boxes), torch.int64)
        _check_vector("GroundTruth.difficult", self.difficult, len(self.boxes), torch.bool)
        if self.joints is not None:
            _check_joints("GroundTruth", self.joints, len(self.boxes), 3)
            _check_visibility(self.joints)
        empty = (self.boxes[:, 2:] <= self.boxes[:, :2]).any(dim=1)
        if empty.any():
            row = int(empty.nonzero()[0])
            raise StructureError(
                f"GroundTruth.boxes: expected x1 < x2 and y1 < y2, "
                f"found {self.boxes[row].tolist()} in row {row}"
            )
        if len(self.labels) and int(self.labels.min()) < 0:
            raise StructureError(
                f"GroundTruth.labels: expected 0 or more, found {int(self.labels.min())}"
            )

    def __len__(self) -> int:
        return len(self.boxes)

    def __reduce__(self) -> tuple[Any, ...]:
        # Small records go from a loader worker to the main process as plain bytes. For a tensor,
        # torch passes a file of shared memory: 25 ms for the 48 of a batch of 16, measured.
        arrays = [self.boxes, self.labels, self.difficult]
        if self.joints is not None:
            arrays.append(self.joints)
        return _ground_truth_of, tuple(array.cpu().numpy() for array in arrays)

    @classmethod
    def empty(cls) -> "GroundTruth":
        """The truth of an image without objects."""
        return cls(
            torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
        )

    def to(self, device: torch.device) -> "GroundTruth":
        """The same record on `device`."""
        return replace(
            self,
            boxes=self.boxes.to(device),
            labels=self.labels.to(device),
            difficult=self.difficult.to(device),
            joints=None if self.joints is None else self.joints.to(device),
        )

    def without_difficult(self) -> "GroundTruth":
        """The objects that are not marked difficult."""
        kept = ~self.difficult
        return replace(
            self,
            boxes=self.boxes[kept],
            labels=self.labels[kept],
            difficult=self.difficult[kept],
            joints=None if self.joints is None else self.joints[kept],
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its objects, before or after a transform.

    Attributes:
        image: `[H, W, 3]` uint8, RGB.
        truth: the objects, in the frame of `image`.
        meta: the origin of the image; `meta.input_size` is the size of `image`.
        proposals: `[P, 4]` boxes that may hold an object, best first, in the frame of `image`; None
            for an image in which nobody has looked for any.
    """

    image: UInt8[np.ndarray, "H W 3"]
    truth: GroundTruth
    meta: ImageMeta
    proposals: Float[Tensor, "P 4"] | None = None

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise StructureError(
                f"Sample.image of {self.meta.image_id}: expected uint8 [H, W, 3], "
                f"found {self.image.dtype} {list(self.image.shape)}"
            )
        if self.image.shape[:2] != tuple(self.meta.input_size):
            raise StructureError(
                f"Sample.meta.input_size of {self.meta.image_id}: expected the size of the image "
                f"{self.image.shape[:2]}, found {self.meta.input_size}"
            )
        if self.proposals is not None:
            _check_boxes("Sample.proposals", self.proposals)

    @classmethod
    def of_image(
        cls,
        image: UInt8[np.ndarray, "H W 3"],
        image_id: str,
        path: Path | None = None,
        truth: GroundTruth | None = None,
    ) -> "Sample":
        """An image in its own frame, before any transform; without `truth`, one without objects."""
        size = (image.shape[0], image.shape[1])
        if truth is None:
            truth = GroundTruth.empty()
        return cls(image, truth, ImageMeta(image_id, path, size, size))


@dataclass(frozen=True, slots=True)
class Batch:
    """Several images, padded below and to the right to one size.

    Attributes:
        images: `[B, 3, H, W]` uint8, RGB.
        truths: the objects of each image in the input frame; empty records at inference.
        metas: the origin of each image.
        proposals: of each image `[P, 4]` boxes in the input frame, best first; None where a
            detector that wants proposals has to find them itself.
    """

    images: UInt8[Tensor, "B 3 H W"]
    truths: tuple[GroundTruth, ...]
    metas: tuple[ImageMeta, ...]
    proposals: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[1] != 3:
            raise StructureError(
                f"Batch.images: expected uint8 [B, 3, H, W], "
                f"found {self.images.dtype} {list(self.images.shape)}"
            )
        for name in ("truths", "metas", "proposals"):
            records = getattr(self, name)
            if records is not None and len(records) != len(self.images):
                raise StructureError(
                    f"Batch.{name}: expected one for each of the {len(self.images)} images, "
                    f"found {len(records)}"
                )
        for boxes in self.proposals or ():
            _check_boxes("Batch.proposals", boxes)

    def __len__(self) -> int:
        return len(self.images)

    def __reduce__(self) -> tuple[Any, ...]:
        # the images go through shared memory, small tensors as bytes: see GroundTruth
        proposals = None
        if self.proposals is not None:
            proposals = [boxes.cpu().numpy() for boxes in self.proposals]
        return _batch_of, (self.images, self.truths, self.metas, proposals)

    @classmethod
    def from_samples(cls, samples: Sequence[Sample]) -> "Batch":
        """Stack samples, padding with zeros to the greatest height and width among them."""
        if not samples:
            raise StructureError("Batch.from_samples: expected at least one sample, found none")
        height = max(sample.image.shape[0] for sample in samples)
        width = max(sample.image.shape[1] for sample in samples)
        images = torch.zeros(len(samples), 3, height, width, dtype=torch.uint8)
        for row, sample in zip(images, samples, strict=True):
            image = torch.from_numpy(np.ascontiguousarray(sample.image))  # [h, w, 3]
            row[:, : image.shape[0], : image.shape[1]] = image.permute(2, 0, 1)
        return cls(
            images,
            tuple(sample.truth for sample in samples),
            tuple(sample.meta for sample in samples),
            _proposals_of(samples),
        )

    def parts(self, number: int) -> list["Batch"]:
        """The images in order, in `number` batches that differ by one image at most."""
        if number == 1:
            return [self]
        ends = [len(self) * part // number for part in range(number + 1)]
        return [
            replace(
                self,
                images=self.images[begin:end],
                truths=self.truths[begin:end],
                metas=self.metas[begin:end],
                proposals=None if self.proposals is None else self.proposals[begin:end],
            )
            for begin, end in pairwise(ends)
            if begin < end
        ]

    def unit_images(self) -> Float[Tensor, "B 3 H W"]:
        """The images as float32 in 0…1, as backbones take them."""
        return self.images.float() / 255

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`; from pinned memory the copy does not block."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            truths=tuple(truth.to(device) for truth in self.truths),
            proposals=None
            if self.proposals is None
            else tuple(boxes.to(device) for boxes in self.proposals),
        )

    def pin_memory(self) -> "Batch":
        """The same batch with its images in page-locked memory; a DataLoader calls this."""
        return replace(self, images=self.images.pin_memory())


@dataclass(frozen=True, slots=True, repr=False)
class Detections(DetectionTable):
    """What a detector found in one image, sorted by falling score.

    Attributes:
        boxes: `[N, 4]` xyxy pixels.
        scores: `[N]`; higher is better, any finite number (an SVM margin is allowed).
        labels: `[N]` classes 0 … C−1.
        joints: `[N, K, 2]` x, y in pixels of each joint, hidden ones included; it may lie outside
            the box and the image. None from a detector without joints.
        class_names: of the labels; None from a detector, which knows numbers only.
    """

    boxes: Float[Tensor, "N 4"]
    scores: Float[Tensor, "N"]
    labels: Int[Tensor, "N"]
    joints: Float[Tensor, "N K 2"] | None = None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _check_boxes("Detections.boxes", self.boxes)
        _check_vector("Detections.scores", self.scores, len(self.boxes), torch.float32)
        _check_vector("Detections.labels", self.labels, len(self.boxes), torch.int64)
        if self.joints is not None:
            _check_joints("Detections", self.joints, len(self.boxes), 2)
        if not self.scores.isfinite().all():
            row = int((~self.scores.isfinite()).nonzero()[0])
            raise StructureError(
                f"Detections.scores: expected finite numbers, "
                f"found {float(self.scores[row])} in row {row}"
            )
        if (self.scores[1:] > self.scores[:-1]).any():
            row = int((self.scores[1:] > self.scores[:-1]).nonzero()[0]) + 1
            raise StructureError(
                f"Detections.scores: expected falling scores, found {float(self.scores[row])} "
                f"in row {row} after {float(self.scores[row - 1])}; Detections.sorted() sorts"
            )
        if len(self.labels) and int(self.labels.min()) < 0:
            raise StructureError(
                f"Detections.labels: expected 0 or more, found {int(self.labels.min())}"
            )
        names = self.class_names
        if names is not None and len(self.labels) and int(self.labels.max()) >= len(names):
            raise StructureError(
                f"Detections.class_names: expected a name for label {int(self.labels.max())}, "
                f"found {len(names)} names"
            )

    @classmethod
    def empty(cls) -> "Detections":
        """No detections."""
        return cls(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))

    @classmethod
    def sorted(
        cls, boxes: Tensor, scores: Tensor, labels: Tensor, joints: Tensor | None = None
    ) -> "Detections":
        """Detections from rows in any order; rows of equal score keep theirs."""
        order = scores.argsort(descending=True, stable=True)
        return cls(
            boxes[order].float(),
            scores[order].float(),
            labels[order],
            None if joints is None else joints[order].float(),
        )

    def to(self, device: torch.device) -> "Detections":
        """The same record on `device`."""
        return replace(
            self,
            boxes=self.boxes.to(device),
            scores=self.scores.to(device),
            labels=self.labels.to(device),
            joints=None if self.joints is None else self.joints.to(device),
        )

    def with_score_at_least(self, score_threshold: float) -> "Detections":
        """The detections whose score is `score_threshold` or more."""
        return self._of_rows(self.scores >= score_threshold)

    def restored(self, meta: ImageMeta) -> "Detections":
        """The detections in the image's own frame, their boxes clipped to the image.

        A detection that lies wholly in the padding, or is empty after clipping, is left out.
        Joints are not clipped: at the border, one that was found outside would pass for a joint
        of the image.
        """
        boxes = clip_boxes(meta.to_original(self.boxes), meta.original_size)
        joints = None if self.joints is None else meta.points_to_original(self.joints)
        return replace(self, boxes=boxes, joints=joints)._of_rows(has_area(boxes))

    def _of_rows(self, kept: Tensor) -> "Detections":  # a mask or rows in rising order
        return replace(
            self,
            boxes=self.boxes[kept],
            scores=self.scores[kept],
            labels=self.labels[kept],
            joints=None if self.joints is None else self.joints[kept],
        )


def _ground_truth_of(*arrays: np.ndarray) -> GroundTruth:
    return GroundTruth(*(torch.from_numpy(array.copy()) for array in arrays))


def _batch_of(
    images: Tensor,
    truths: tuple[GroundTruth, ...],
    metas: tuple[ImageMeta, ...],
    proposals: Sequence[np.ndarray] | None,
) -> Batch:
    if proposals is None:
        return Batch(images, truths, metas)
    return Batch(images, truths, metas, tuple(torch.from_numpy(boxes) for boxes in proposals))


def _proposals_of(samples: Sequence[Sample]) -> tuple[Tensor, ...] | None:
    found = tuple(sample.proposals for sample in samples if sample.proposals is not None)
    if found and len(found) < len(samples):
        raise StructureError(
            f"Batch.from_samples: expected proposals of all {len(samples)} samples or of none, "
            f"found those of {len(found)}"
        )
    return found or None


def _mirror(boxes: Tensor, width: int) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    return torch.stack((width - x2, y1, width - x1, y2), dim=-1)


def _mirror_points(points: Tensor, width: int) -> Tensor:
    x, y = points.unbind(dim=-1)
    return torch.stack((width - x, y), dim=-1)


def _check_boxes(name: str, boxes: Tensor) -> None:
    if boxes.dtype != torch.float32 or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise StructureError(
            f"{name}: expected float32 [N, 4], found {boxes.dtype} {list(boxes.shape)}"
        )
    finite = boxes.isfinite().all(dim=1)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise StructureError(
            f"{name}: expected finite pixels, found {boxes[row].tolist()} in row {row}"
        )


def _check_vector(name: str, values: Tensor, length: int, dtype: torch.dtype) -> None:
    if values.dtype != dtype or values.shape != (length,):
        raise StructureError(
            f"{name}: expected {dtype} [{length}], found {values.dtype} {list(values.shape)}"
        )


def _check_joints(owner: str, joints: Tensor, length: int, num_columns: int) -> None:
    if (
        joints.dtype != torch.float32
        or joints.ndim != 3
        or (joints.shape[0], joints.shape[2]) != (length, num_columns)
    ):
        raise StructureError(
            f"{owner}.joints: expected float32 [{length}, K, {num_columns}], "
            f"found {joints.dtype} {list(joints.shape)}"
        )
    finite = joints.isfinite().all(dim=2)
    if not finite.all():
        row, joint = finite.logical_not().nonzero()[0].tolist()
        raise StructureError(
            f"{owner}.joints: expected finite numbers, "
            f"found {joints[row, joint].tolist()} in row {row}, joint {joint}"
        )


def _check_visibility(joints: Tensor) -> None:
    visibility = joints[:, :, 2]
    known = (visibility == 0) | (visibility == 1) | (visibility == 2)
    if not known.all():
        row, joint = known.logical_not().nonzero()[0].tolist()
        raise StructureError(
            f"GroundTruth.joints: expected a visibility of 0, 1 or 2, "
            f"found {float(visibility[row, joint])} in row {row}, joint {joint}"
        )


def whole_image_truth(size: tuple[int, int], label: int) -> GroundTruth:
    """The truth of a classification sample: one object of class `label` that fills the image.

    Args:
        size: (height, width) of the image in pixels.
        label: 0 … C−1.
    """
    height, width = size
    return GroundTruth(
        torch.tensor([[0.0, 0.0, width, height]]), torch.tensor([label]), torch.tensor([False])
    )
