"""A slow oracle for TIDE, from sections 2.2 and 2.3 of Bolya et al. 2020: loops over images.

Detections are dicts with `image`, `box`, `score`, `label`, in any order; objects are dicts with
`image`, `box`, `label`, `difficult`. Boxes are half-open (x1, y1, x2, y2).
"""

from tests.reference.boxes import area, intersection, iou

TYPES = ("classification", "localization", "both", "duplicate", "background", "missed")


def by_score(detections):
    """Falling score, then class, then as they came."""
    return sorted(detections, key=lambda one: (-one["score"], one["label"]))


def best(box, objects):
    """The first object of greatest IoU, and this IoU; `(0, None)` where none overlaps."""
    greatest, chosen = 0.0, None
    for candidate in objects:
        overlap = iou(box, candidate["box"])
        if overlap > greatest:
            greatest, chosen = overlap, candidate
    return greatest, chosen


def match_voc(detections, objects, t_f):
    """`objects`: image → objects."""
    for one in by_score(detections):
        alike = [thing for thing in objects[one["image"]] if thing["label"] == one["label"]]
        overlap, thing = best(one["box"], alike)
        if overlap >= t_f and thing["difficult"]:
            one["state"] = "ignored"
        elif overlap >= t_f and not thing["found"]:
            one["state"] = "right"
            thing["found"] = True
        else:
            one["state"] = "wrong"


def match_release(detections, objects, t_f):
    for one in by_score(detections):
        alike = [thing for thing in objects[one["image"]] if thing["label"] == one["label"]]
        free = [thing for thing in alike if not thing["difficult"] and not thing["found"]]
        overlap, thing = best(one["box"], free)
        if overlap >= t_f:
            one["state"] = "right"
            thing["found"] = True
        elif any(
            thing["difficult"]
            and area(one["box"]) > 0
            and intersection(one["box"], thing["box"]) / area(one["box"]) > t_f
            for thing in alike
        ):
            one["state"] = "ignored"
        else:
            one["state"] = "wrong"


def classify(one, objects, t_f, t_b):
    """The type of a wrong detection and the object that it is an error of."""
    here = [thing for thing in objects[one["image"]] if not thing["difficult"]]
    alike = [thing for thing in here if thing["label"] == one["label"]]
    others = [thing for thing in here if thing["label"] != one["label"]]
    overlap, thing = best(one["box"], alike)
    if t_b <= overlap <= t_f:
        return "localization", thing
    other_overlap, other = best(one["box"], others)
    if other_overlap >= t_f:
        return "classification", other
    if best(one["box"], [thing for thing in alike if thing["found"]])[0] >= t_f:
        return "duplicate", None
    if max(overlap, other_overlap) <= t_b:
        return "background", None
    return "both", None


def average_precision(rows, num_objects, metric):
    """`rows`: whether each detection is right, by falling score."""
    if num_objects == 0:
        return 0.0
    points, right = [], 0
    for number, is_right in enumerate(rows, start=1):
        right += is_right
        points.append((right / num_objects, right / number))
    if metric == "area":
        total, highest = 0.0, 0.0
        before = [0.0, *(recall for recall, _ in points)]
        for (recall, precision), last in reversed(list(zip(points, before, strict=False))):
            highest = max(highest, precision)
            total += (recall - last) * highest
        return total
    return (
        sum(
            max((precision for reached, precision in points if reached >= step / 100), default=0.0)
            for step in range(101)
        )
        / 101
    )


def mean_average_precision(detections, demanded, classes, metric):
    """`demanded`: class → number of objects."""
    values = [
        average_precision(
            [one["state"] == "right" for one in by_score(detections) if one["label"] == label],
            demanded[label],
            metric,
        )
        for label in classes
    ]
    return sum(values) / len(values)


def tide(detections, objects, *, release, t_f=0.5, t_b=0.1):
    """`(mAP, {type or special error: dAP}, {type: {class: number}})`."""
    detections = [dict(one) for one in detections]
    objects = [dict(thing, found=False, explained=False) for thing in objects]
    by_image = {record["image"]: [] for record in (*detections, *objects)}
    for thing in objects:
        by_image[thing["image"]].append(thing)
    (match_release if release else match_voc)(detections, by_image, t_f)
    metric = "101 points" if release else "area"
    counted = [one for one in detections if one["state"] != "ignored"]
    wanted = [thing for thing in objects if not thing["difficult"]]
    labels = {record["label"] for record in (*detections, *objects)}
    demanded = {label: sum(thing["label"] == label for thing in wanted) for label in labels}
    classes = sorted(label for label in labels if demanded[label])

    numbers = {name: dict.fromkeys(labels, 0) for name in TYPES}
    for one in by_score(counted):
        one["fixed"] = None
        if one["state"] != "wrong":
            continue
        one["type"], thing = classify(one, by_image, t_f, t_b)
        numbers[one["type"]][one["label"]] += 1
        if thing is not None and not thing["found"] and not thing["explained"]:
            thing["explained"] = True  # by the best of all errors of both types
            one["fixed"] = dict(one, state="right", label=thing["label"])
    for thing in wanted:
        if not thing["found"] and not thing["explained"]:
            numbers["missed"][thing["label"]] += 1

    before = mean_average_precision(counted, demanded, classes, metric)
    delta = {}
    for name in TYPES[:-1]:
        fixed = []
        for one in counted:
            if one["state"] == "wrong" and one["type"] == name:
                fixed += [one["fixed"]] if one["fixed"] is not None else []
            else:
                fixed.append(one)
        delta[name] = max(mean_average_precision(fixed, demanded, classes, metric) - before, 0)
    fewer = {label: demanded[label] - numbers["missed"][label] for label in labels}
    delta["missed"] = max(mean_average_precision(counted, fewer, classes, metric) - before, 0)
    right = [one for one in counted if one["state"] == "right"]
    delta["false positives"] = mean_average_precision(right, demanded, classes, metric) - before
    found = {label: sum(one["label"] == label for one in right) for label in labels}
    delta["false negatives"] = mean_average_precision(counted, found, classes, metric) - before
    return before, delta, numbers
