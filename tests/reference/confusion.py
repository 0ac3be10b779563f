"""A slow oracle for the confusion matrix: one loop over all pairs, the best first."""

from tests.reference.boxes import iou


def confusion(detections, objects, num_classes, score_threshold, iou_threshold):
    """`(counts, number of ignored detections)`; records as those of the oracle for TIDE."""
    kept = [one for one in detections if one["score"] >= score_threshold]
    pairs = []
    for row, one in enumerate(kept):
        for column, thing in enumerate(objects):
            overlap = iou(one["box"], thing["box"]) if one["image"] == thing["image"] else 0.0
            if overlap >= iou_threshold:
                is_confused = one["label"] != thing["label"]
                pairs.append((is_confused, -overlap, row, column))
    counts = [[0] * (num_classes + 1) for _ in range(num_classes + 1)]
    taken_rows, taken_columns = set(), set()
    for _, _, row, column in sorted(pairs):
        if objects[column]["difficult"] or row in taken_rows or column in taken_columns:
            continue
        taken_rows.add(row)
        taken_columns.add(column)
        counts[objects[column]["label"]][kept[row]["label"]] += 1
    at_difficult = {row for _, _, row, column in pairs if objects[column]["difficult"]}
    num_ignored = 0
    for row, one in enumerate(kept):
        if row not in taken_rows:
            if row in at_difficult:
                num_ignored += 1
            else:
                counts[num_classes][one["label"]] += 1
    for column, thing in enumerate(objects):
        if column not in taken_columns and not thing["difficult"]:
            counts[thing["label"]][num_classes] += 1
    return counts, num_ignored
