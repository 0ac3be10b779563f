"""A seeded set of detections and objects as large as a benchmark wants it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from detect.wording import counted

WIDTH, HEIGHT = 500, 375  # pixels of every image, those of most of VOC's
OBJECTS_PER_IMAGE = 3.03  # of VOC 2007 test: 14,976 objects in 4,952 images
CROWD_SHARE = 0.01
# Of an object, how often a detector finds it, and how often with the right class.
FOUND_SHARE, RIGHT_SHARE = 0.85, 0.9
# Of one object, on average; more than one, as where suppression is weak.
FINDS_PER_OBJECT = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Detections and objects of all images, each sorted by image.

    Attributes:
        num_images: images.
        num_classes: labels are less.
        truth_images: `[T]` the image of each object.
        truth_boxes: `[T, 4]` x, y, width and height in whole pixels.
        truth_labels: `[T]`.
        crowds: `[T]` whether the object is a crowd; VOC's evaluator takes it as difficult.
        found_images: `[D]` the image of each detection.
        found_boxes: `[D, 4]` x, y, width and height in quarter pixels, exact as float32.
        found_labels: `[D]`.
        scores: `[D]` in 0…1, no two equal.
    """

    num_images: int
    num_classes: int
    truth_images: Int64[np.ndarray, "T"]
    truth_boxes: Float64[np.ndarray, "T 4"]
    truth_labels: Int64[np.ndarray, "T"]
    crowds: Bool[np.ndarray, "T"]
    found_images: Int64[np.ndarray, "D"]
    found_boxes: Float64[np.ndarray, "D 4"]
    found_labels: Int64[np.ndarray, "D"]
    scores: Float32[np.ndarray, "D"]

    @property
    def class_names(self) -> list[str]:
        """A name for each label."""
        return [f"class {label}" for label in range(self.num_classes)]

    def in_words(self) -> str:
        """The sizes."""
        return (
            f"{counted(self.num_images, 'image')}, {counted(len(self.truth_labels), 'object')}, "
            f"{counted(len(self.scores), 'detection')}, {counted(self.num_classes, 'class')}"
        )

    def first_images(self, count: int) -> "Scene":
        """Of the first images alone."""
        truths, found = self.truth_images < count, self.found_images < count
        return Scene(
            min(count, self.num_images),
            self.num_classes,
            self.truth_images[truths],
            self.truth_boxes[truths],
            self.truth_labels[truths],
            self.crowds[truths],
            self.found_images[found],
            self.found_boxes[found],
            self.found_labels[found],
            self.scores[found],
        )

    def records(
        self, device: torch.device, *, as_corners: bool
    ) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
        """Detections and objects of each image as tensors on a device.

        Args:
            device: of the tensors.
            as_corners: `boxes` as float32 xyxy with `difficult`, else `boxes_xywh` as float64 with
                `area` and `iscrowd`.
        """
        areas = self.truth_boxes[:, 2] * self.truth_boxes[:, 3]
        if as_corners:
            found = {"boxes": _corners(self.found_boxes), "scores": self.scores}
            truths: dict[str, Any] = {"boxes": _corners(self.truth_boxes), "difficult": self.crowds}
        else:
            found = {"boxes_xywh": self.found_boxes, "scores": self.scores.astype(np.float64)}
            truths = {"boxes_xywh": self.truth_boxes, "iscrowd": self.crowds, "area": areas}
        return (
            _by_image(found | {"labels": self.found_labels}, self.found_images, self, device),
            _by_image(truths | {"labels": self.truth_labels}, self.truth_images, self, device),
        )

    def coco_lists(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The content of an annotation file, and that of a results file, as COCO has them."""
        truths = zip(
            self.truth_images.tolist(),
            self.truth_labels.tolist(),
            self.truth_boxes.tolist(),
            (self.truth_boxes[:, 2] * self.truth_boxes[:, 3]).tolist(),
            self.crowds.astype(int).tolist(),
            strict=True,
        )
        annotations = [
            {
                "id": number,  # from 1: pycocotools takes 0 for "unmatched"
                "image_id": image,
                "category_id": label,
                "bbox": box,
                "area": area,
                "iscrowd": crowd,
            }
            for number, (image, label, box, area, crowd) in enumerate(truths, start=1)
        ]
        found = zip(
            self.found_images.tolist(),
            self.found_labels.tolist(),
            self.found_boxes.tolist(),
            self.scores.astype(np.float64).tolist(),
            strict=True,
        )
        results = [
            {"image_id": image, "category_id": label, "bbox": box, "score": score}
            for image, label, box, score in found
        ]
        content = {
            "images": [{"id": image} for image in range(self.num_images)],
            "categories": [{"id": n, "name": name} for n, name in enumerate(self.class_names)],
            "annotations": annotations,
        }
        return content, results


def draw_scene(
    num_images: int, detections_per_image: int, num_classes: int, seed: int = 0
) -> Scene:
    """Draw objects, and detections some of which are objects that moved a little.

    Args:
        num_images: images.
        detections_per_image: in every image.
        num_classes: labels are drawn evenly.
        seed: same seed, same scene.
    """
    draw = np.random.default_rng(seed)
    counts = draw.poisson(OBJECTS_PER_IMAGE, num_images)
    truth_images = np.repeat(np.arange(num_images), counts)
    num_objects = len(truth_images)
    truth_boxes = np.round(_draw_boxes(draw, num_objects))
    truth_labels = draw.integers(0, num_classes, num_objects)
    crowds = draw.random(num_objects) < CROWD_SHARE

    num_found = num_images * detections_per_image
    found_images = np.repeat(np.arange(num_images), detections_per_image)
    boxes = _draw_boxes(draw, num_found)
    labels = draw.integers(0, num_classes, num_found)
    raw_scores = draw.beta(1, 4, num_found)
    owners, rows = _finds(draw, truth_images, num_images, detections_per_image)
    sides = np.tile(truth_boxes[owners, 2:], 2)
    # of a side: moves of the corner, and of the size
    moved = truth_boxes[owners] + draw.normal(0, 0.08, (len(owners), 4)) * sides
    boxes[rows] = np.concatenate((moved[:, :2], np.maximum(moved[:, 2:], 1)), axis=1)
    right = draw.random(len(owners)) < RIGHT_SHARE
    labels[rows] = np.where(right, truth_labels[owners], labels[rows])
    raw_scores[rows] = draw.beta(3, 2, len(owners))
    ranks = np.empty(num_found, dtype=np.int64)
    ranks[np.argsort(raw_scores, kind="stable")] = np.arange(num_found)
    return Scene(
        num_images,
        num_classes,
        truth_images,
        truth_boxes,
        truth_labels,
        crowds,
        found_images,
        np.round(boxes * 4) / 4,
        labels,
        ((ranks + 1) / (num_found + 1)).astype(np.float32),  # distinct up to 8 million
    )


def _draw_boxes(draw: np.random.Generator, count: int) -> Float64[np.ndarray, "N 4"]:
    # of all three of COCO's sizes, within the image
    sides = np.clip(np.exp(draw.normal(4.2, 0.9, (count, 2))), 4, (WIDTH - 1, HEIGHT - 1))
    corners = draw.random((count, 2)) * ((WIDTH, HEIGHT) - sides)
    boxes: Float64[np.ndarray, "N 4"] = np.concatenate((corners, sides), axis=1)
    return boxes


def _finds(
    draw: np.random.Generator,
    truth_images: Int64[np.ndarray, "T"],
    num_images: int,
    detections_per_image: int,
) -> tuple[Int64[np.ndarray, "F"], Int64[np.ndarray, "F"]]:
    """Objects that are found, some more than once, and the rows of the detections that do."""
    num_objects = len(truth_images)
    is_found = draw.random(num_objects) < FOUND_SHARE
    times = np.where(is_found, 1 + draw.poisson(FINDS_PER_OBJECT - 1, num_objects), 0)
    owners = np.repeat(np.arange(num_objects), times)
    images = truth_images[owners]
    starts = np.searchsorted(images, np.arange(num_images))
    place = np.arange(len(owners)) - starts[images]  # within the image
    kept = place < detections_per_image
    return owners[kept], (images * detections_per_image + place)[kept]


def _corners(boxes: Float64[np.ndarray, "N 4"]) -> Float32[np.ndarray, "N 4"]:
    corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)
    return corners.astype(np.float32)


def _by_image(
    columns: dict[str, Any], images: Int64[np.ndarray, "N"], scene: Scene, device: torch.device
) -> list[dict[str, Tensor]]:
    sizes = np.bincount(images, minlength=scene.num_images).tolist()
    parts = [torch.from_numpy(column).to(device).split(sizes) for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*parts, strict=True)]
