"""A slow oracle for the PASCAL VOC metrics: VOCevaldet.m and VOCap.m, loop by loop.

Boxes are VOC's own: 1-based inclusive integers, IoU with "+1".
"""

from tests.reference.boxes import iou_devkit


def evaluate_class(detections, objects, iou_threshold):
    """Judge the detections of one class.

    `detections`: `(image, score, box)` in file order. `objects`: `{image: [(box, difficult)]}`.
    Returns `(true positives, false positives)`, 0 or 1 for each detection by falling score, and
    the number of objects that are not difficult.
    """
    num_objects = sum(not difficult for rows in objects.values() for _, difficult in rows)
    claimed = {image: [False] * len(rows) for image, rows in objects.items()}
    true_positives, false_positives = [], []
    for image, _, box in sorted(detections, key=lambda row: -row[1]):  # sorted() is stable
        best_overlap, best = float("-inf"), None
        for row, (object_box, _) in enumerate(objects.get(image, [])):
            overlap = iou_devkit(box, object_box)
            if overlap > 0 and overlap > best_overlap:
                best_overlap, best = overlap, row
        is_true = is_false = 0
        if best_overlap >= iou_threshold:
            if not objects[image][best][1]:
                if claimed[image][best]:
                    is_false = 1
                else:
                    is_true = 1
                    claimed[image][best] = True
        else:
            is_false = 1
        true_positives.append(is_true)
        false_positives.append(is_false)
    return true_positives, false_positives, num_objects


def precision_recall(true_positives, false_positives, num_objects):
    precision, recall = [], []
    found = wrong = 0
    for is_true, is_false in zip(true_positives, false_positives, strict=True):
        found += is_true
        wrong += is_false
        precision.append(found / (found + wrong) if found + wrong else 0.0)
        recall.append(found / num_objects if num_objects else float("nan"))
    return precision, recall


def average_precision_11point(precision, recall):
    total = 0.0
    for step in range(11):
        threshold = step * 0.1
        best = 0.0
        for one_precision, one_recall in zip(precision, recall, strict=True):
            if one_recall >= threshold:
                best = max(best, one_precision)
        total += best / 11
    return total


def average_precision_area(precision, recall):
    recall = [0.0, *recall, 1.0]
    precision = [0.0, *precision, 0.0]
    for row in range(len(precision) - 2, -1, -1):
        precision[row] = max(precision[row], precision[row + 1])
    total = 0.0
    for row in range(1, len(recall)):
        if recall[row] != recall[row - 1]:
            total += (recall[row] - recall[row - 1]) * precision[row]
    return total
