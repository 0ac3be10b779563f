"""VOC's mean average precision as programs have it that follow the development kit line by line.

A loop over classes and detections, as in VOCevaldet.m and in the `voc_eval` of many detectors:
a rival for the evaluator of this package, and a check that shares no line with it.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from detect.benchmarks.scene import Scene


def devkit_map(scene: Scene, iou_threshold: float = 0.5) -> tuple[float, float]:
    """`(11-point, area)`, each the mean over the classes with objects."""
    found = [_judge_class(scene, label, iou_threshold) for label in range(scene.num_classes)]
    numbers = np.array([values for values in found if values is not None])
    at_11_points, area = numbers.mean(axis=0).tolist()
    return at_11_points, area


def _judge_class(scene: Scene, label: int, iou_threshold: float) -> tuple[float, float] | None:
    objects = _objects_by_image(scene, label)
    num_objects = sum(int((~difficult).sum()) for _, difficult in objects.values())
    if num_objects == 0:
        return None
    rows = np.flatnonzero(scene.found_labels == label)
    rows = rows[np.argsort(-scene.scores[rows], kind="stable")]
    true, false = np.zeros(len(rows)), np.zeros(len(rows))
    claimed: set[tuple[int, int]] = set()
    for place, row in enumerate(rows):
        image = int(scene.found_images[row])
        best = -1
        if image in objects:
            boxes, difficult = objects[image]
            overlaps = _overlaps(scene.found_boxes[row], boxes)
            best = int(overlaps.argmax())
        if best < 0 or overlaps[best] < iou_threshold:
            false[place] = 1
        elif not difficult[best]:
            if (image, best) in claimed:
                false[place] = 1
            else:
                true[place] = 1
                claimed.add((image, best))
    return _average_precisions(true.cumsum(), false.cumsum(), num_objects)


def _objects_by_image(
    scene: Scene, label: int
) -> Mapping[int, tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    own = np.flatnonzero(scene.truth_labels == label)
    images = scene.truth_images[own]
    return {
        int(image): (scene.truth_boxes[own[images == image]], scene.crowds[own[images == image]])
        for image in np.unique(images)
    }


def _overlaps(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of one box with others, all x, y, width and height."""
    width = np.minimum(box[0] + box[2], boxes[:, 0] + boxes[:, 2]) - np.maximum(box[0], boxes[:, 0])
    height = np.minimum(box[1] + box[3], boxes[:, 1] + boxes[:, 3]) - np.maximum(
        box[1], boxes[:, 1]
    )
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    iou: NDArray[np.float64] = shared / (box[2] * box[3] + boxes[:, 2] * boxes[:, 3] - shared)
    return iou


def _average_precisions(
    true: NDArray[np.float64], false: NDArray[np.float64], num_objects: int
) -> tuple[float, float]:
    recall = true / num_objects
    precision = true / np.maximum(true + false, 1)
    at_11_points = 0.0
    for threshold in np.arange(0.0, 1.1, 0.1):
        reached = precision[recall >= threshold]
        at_11_points += float(reached.max()) / 11 if len(reached) else 0.0
    recall = np.concatenate(([0.0], recall, [1.0]))
    precision = np.concatenate(([0.0], precision, [0.0]))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    area = float(((recall[steps + 1] - recall[steps]) * precision[steps + 1]).sum())
    return at_11_points, area
