"""Random images under the VOC protocol, for the evaluator and for the slow oracle alike."""

from dataclasses import dataclass

import torch

from detect.structures import Detections, GroundTruth
from tests.reference import voc as reference

ONE = torch.tensor([1.0, 1, 0, 0])  # 1-based inclusive minus this is 0-based half-open


@dataclass
class Case:
    class_names: list
    detections: list
    truths: list


def random_case(seed, num_images=12, num_classes=4):
    """Boxes on a coarse grid: many equal scores, equal overlaps and overlaps of exactly 1/2."""
    generator = torch.Generator().manual_seed(seed)

    def integers(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator)

    def boxes(count):
        corners = integers(0, 6, count, 2)
        return torch.cat((corners, corners + integers(1, 6, count, 2)), dim=1).float() * 4

    detections, truths = [], []
    for image in range(num_images):
        num_objects = int(integers(0, 9, 1)) * (image % 4 != 0)  # every fourth image is empty
        # the last class has no objects, and in every second case only wrong detections
        labels = integers(0, num_classes - 1, num_objects)
        object_boxes = boxes(num_objects)
        if num_objects > 1:
            object_boxes[1] = object_boxes[0]  # a tie in IoU
        difficult = integers(0, 10, num_objects) < 3
        if seed % 3 == 0:
            difficult |= labels == 0  # a class with difficult objects only
        truths.append(GroundTruth(object_boxes, labels, difficult))
        count = int(integers(0, 30, 1)) * (image % 5 != 1)
        found = boxes(count)
        found_labels = integers(1, num_classes, count) if seed % 2 else integers(0, 3, count)
        if num_objects and count:
            copied = integers(0, num_objects, len(found[::2]))
            found[::2], found_labels[::2] = object_boxes[copied], labels[copied]
        scores = integers(-5, 6, count) / 7  # ties, and margins below 0
        detections.append(Detections.sorted(found, scores, found_labels))
    return Case([f"class {label}" for label in range(num_classes)], detections, truths)


def slow_class(case, label, iou_threshold):
    """`(true positives, false positives, objects)` of one class by the oracle."""
    rows = []
    objects = {}
    for image, (found, truth) in enumerate(zip(case.detections, case.truths, strict=True)):
        for box, score, its_label in zip(
            (found.boxes + ONE).tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
        ):
            if its_label == label:
                rows.append((image, score, box))
        objects[image] = [
            (box, difficult)
            for box, its_label, difficult in zip(
                (truth.boxes + ONE).tolist(),
                truth.labels.tolist(),
                truth.difficult.tolist(),
                strict=True,
            )
            if its_label == label
        ]
    return reference.evaluate_class(rows, objects, iou_threshold)


def slow_average_precisions(true_positives, false_positives, num_objects):
    """`(11-point, area)` by the oracle; nan without objects."""
    if num_objects == 0:
        return float("nan"), float("nan")
    curve = reference.precision_recall(true_positives, false_positives, num_objects)
    return (
        reference.average_precision_11point(*curve),
        reference.average_precision_area(*curve),
    )
