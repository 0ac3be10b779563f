"""A slow oracle for Hoiem's groups: section 2.1 of the paper, one detection after another."""

from tests.reference.boxes import iou
from tests.reference.tide import by_score, match_voc


def groups(detections, objects, num_classes, is_similar):
    """For each class group → number; records as those of the oracle for TIDE.

    `is_similar(a, b)`: of two classes.
    """
    detections = [dict(one) for one in detections]
    objects = [dict(thing, found=False) for thing in objects]
    by_image = {record["image"]: [] for record in (*detections, *objects)}
    for thing in objects:
        by_image[thing["image"]].append(thing)
    match_voc(detections, by_image, 0.5)
    result = []
    for label in range(num_classes):
        number = sum(thing["label"] == label and not thing["difficult"] for thing in objects)
        mine = [one for one in by_score(detections) if one["label"] == label]
        counts = dict.fromkeys(("correct", "localization", "similar", "other", "background"), 0)
        for one in [one for one in mine if one["state"] != "ignored"][:number]:
            here = by_image[one["image"]]
            overlaps = {
                other: max(
                    (iou(one["box"], t["box"]) for t in here if t["label"] == other), default=0.0
                )
                for other in range(num_classes)
            }
            own = overlaps.pop(label)
            rival = max(overlaps, key=lambda other: overlaps[other])  # the first of equal ones
            if one["state"] == "right":
                counts["correct"] += 1
            elif own >= 0.1:
                counts["localization"] += 1
            elif overlaps[rival] >= 0.1:
                counts["similar" if is_similar(label, rival) else "other"] += 1
            else:
                counts["background"] += 1
        result.append(counts)
    return result
