"""Slow oracles on boxes: plain Python loops over tuples of floats, float64, no tensor code."""

import math


def area(box):
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def intersection(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def iou(a, b):
    union = area(a) + area(b) - intersection(a, b)
    return intersection(a, b) / union if union > 0 else 0.0


def iou_devkit(a, b):
    """IoU of 1-based inclusive integer boxes as VOCevaldet.m writes it."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    union = (
        (a[2] - a[0] + 1) * (a[3] - a[1] + 1)
        + (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
        - width * height
    )
    return width * height / union


def generalized_iou(a, b):
    union = area(a) + area(b) - intersection(a, b)
    enclosing = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return iou(a, b) - (enclosing - union) / enclosing


def distance_iou(a, b):
    width = max(a[2], b[2]) - min(a[0], b[0])
    height = max(a[3], b[3]) - min(a[1], b[1])
    offset_x = (a[0] + a[2]) / 2 - (b[0] + b[2]) / 2
    offset_y = (a[1] + a[3]) / 2 - (b[1] + b[3]) / 2
    return iou(a, b) - (offset_x**2 + offset_y**2) / (width**2 + height**2)


def complete_iou(a, b):
    angle_a = math.atan((a[2] - a[0]) / (a[3] - a[1]))
    angle_b = math.atan((b[2] - b[0]) / (b[3] - b[1]))
    disparity = 4 / math.pi**2 * (angle_a - angle_b) ** 2
    weight = disparity / (1 - iou(a, b) + disparity) if disparity > 0 else 0.0
    return distance_iou(a, b) - weight * disparity


def greedy_nms(boxes, scores, groups, iou_threshold):
    """Indices kept, by falling score, ties to the lower index; groups never touch."""
    order = sorted(range(len(boxes)), key=lambda index: (-scores[index], index))
    kept = []
    for index in order:
        if not any(
            groups[other] == groups[index] and iou(boxes[other], boxes[index]) > iou_threshold
            for other in kept
        ):
            kept.append(index)
    return kept


def match(overlaps, num_objects, positive_threshold, negative_threshold, keep_best):
    """For each row of a table of IoU the object, −1 (background) or −2 (ignored)."""
    best_of_objects = [
        max((row[column] for row in overlaps), default=0.0) for column in range(num_objects)
    ]
    result = []
    for row in overlaps:
        best, best_overlap = -1, 0.0
        for column, overlap in enumerate(row):
            if best == -1 or overlap > best_overlap:
                best, best_overlap = column, overlap
        if best == -1 or best_overlap < negative_threshold:
            index = -1
        elif best_overlap >= positive_threshold:
            index = best
        else:
            index = -2
        if keep_best:
            forced, forced_overlap = None, 0.0
            for column, overlap in enumerate(row):
                is_best = overlap == best_of_objects[column] and overlap > 0
                if is_best and overlap > forced_overlap:
                    forced, forced_overlap = column, overlap
            index = index if forced is None else forced
        result.append((index, best_overlap))
    return result
