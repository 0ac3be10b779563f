"""Fast and Faster R-CNN's targets and losses, one region, anchor and image at a time."""

import math

from tests.reference.boxes import iou as box_iou

# generate_anchors.py of the paper's release prints these nine for base size 16, ratios 0.5, 1, 2
# and scales 8, 16, 32; inclusive corners.
RELEASED_ANCHORS = [
    (-84, -40, 99, 55),
    (-176, -88, 191, 103),
    (-360, -184, 375, 199),
    (-56, -56, 71, 71),
    (-120, -120, 135, 135),
    (-248, -248, 263, 263),
    (-36, -80, 51, 95),
    (-80, -168, 95, 183),
    (-168, -344, 183, 359),
]


def encode(box, reference):
    """(t_x, t_y, t_w, t_h) from a reference box to a box."""
    width, height = reference[2] - reference[0], reference[3] - reference[1]
    return (
        (box[0] + box[2] - reference[0] - reference[2]) / 2 / width,
        (box[1] + box[3] - reference[1] - reference[3]) / 2 / height,
        math.log((box[2] - box[0]) / width),
        math.log((box[3] - box[1]) / height),
    )


def smooth_l1(values, targets, beta=1.0):
    """Summed over four numbers."""
    total = 0.0
    for value, target in zip(values, targets, strict=True):
        error = abs(value - target)
        total += error**2 / (2 * beta) if error < beta else error - beta / 2
    return total


def region_kind(box, objects, positive_iou, background_iou):
    """("object", number), ("background", None) or ("ignored", None) of one region."""
    overlaps = [box_iou(box, other) for other in objects]
    if not objects:
        return "background", None
    best = max(overlaps)
    if best >= positive_iou:
        return "object", overlaps.index(best)
    low, high = background_iou
    return ("background", None) if low <= best < high else ("ignored", None)


def region_losses(logits, deltas, labels, targets, num_classes, beta=1.0):
    """Mean log loss, and mean smooth L1 of the own class's deltas; background has none."""
    classification = boxes = 0.0
    for row, label, own, target in zip(logits, labels, deltas, targets, strict=True):
        greatest = max(row)
        log_sum = greatest + math.log(sum(math.exp(value - greatest) for value in row))
        classification += log_sum - row[label]
        if label < num_classes:
            boxes += smooth_l1(own[label], target, beta)
    return classification / len(logits), boxes / len(logits)


def anchor_kinds(anchors, objects, frame, positive_iou, negative_iou, crossing=False):
    """Of each anchor the number of its object, −1 for background, −2 for what takes no part."""
    inside = []
    for x1, y1, x2, y2 in anchors:
        if crossing:
            inside.append(x2 > frame[0] and x1 < frame[2] and y2 > frame[1] and y1 < frame[3])
        else:
            inside.append(x1 >= frame[0] and y1 >= frame[1] and x2 <= frame[2] and y2 <= frame[3])
    overlaps = [[box_iou(anchor, other) for other in objects] for anchor in anchors]
    best_of = [
        max((row[number] for row, own in zip(overlaps, inside, strict=True) if own), default=0.0)
        for number in range(len(objects))
    ]
    kinds = []
    for row, own in zip(overlaps, inside, strict=True):
        if not own:
            kinds.append(-2)
            continue
        best = max(row, default=0.0)
        forced = [
            (overlap, -number)
            for number, overlap in enumerate(row)
            if overlap > 0 and overlap == best_of[number]
        ]
        if forced:
            kinds.append(-max(forced)[1])
        elif best >= positive_iou and row:
            kinds.append(row.index(best))
        else:
            kinds.append(-1 if best < negative_iou else -2)
    return kinds


def decode(deltas, reference):
    """The box that deltas make of a reference box."""
    width, height = reference[2] - reference[0], reference[3] - reference[1]
    x = (reference[0] + reference[2]) / 2 + deltas[0] * width
    y = (reference[1] + reference[3]) / 2 + deltas[1] * height
    width, height = width * math.exp(deltas[2]), height * math.exp(deltas[3])
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def proposals(anchors, logits, deltas, frame, num_before, num_after, iou_threshold, min_size):
    """The proposals of one image and level, best first."""
    order = sorted(range(len(anchors)), key=lambda number: -logits[number])[:num_before]
    kept = []
    for number in order:
        box = decode(deltas[number], anchors[number])
        box = (
            min(max(box[0], frame[0]), frame[2]),
            min(max(box[1], frame[1]), frame[3]),
            min(max(box[2], frame[0]), frame[2]),
            min(max(box[3], frame[1]), frame[3]),
        )
        if box[2] - box[0] < min_size or box[3] - box[1] < min_size:
            continue
        if all(box_iou(box, other) <= iou_threshold for other in kept):
            kept.append(box)
    return kept[:num_after]
