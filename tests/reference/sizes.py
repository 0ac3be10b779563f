"""A slow oracle for AP by size: the rules of the module, one detection after another."""

from tests.reference.boxes import area
from tests.reference.tide import average_precision, best, by_score


def group_average_precision(detections, objects, label, limits, iou_threshold):
    """`(AP, number of objects)` of a class and a group; nan without objects.

    `limits`: the area from which the group begins, and the one at which it ends; records as
    those of the oracle for TIDE.
    """

    def is_inside(size):
        return limits[0] <= size < limits[1]

    mine = [dict(thing, found=False) for thing in objects if thing["label"] == label]
    rows = []
    for one in by_score([one for one in detections if one["label"] == label]):
        here = [thing for thing in mine if thing["image"] == one["image"]]
        overlap, thing = best(one["box"], here)
        claims = overlap >= iou_threshold
        if claims and (thing["difficult"] or not is_inside(area(thing["box"]))):
            continue
        if claims and not thing["found"]:
            thing["found"] = True
            rows.append(True)
        elif is_inside(area(one["box"])):
            rows.append(False)
    number = sum(not thing["difficult"] and is_inside(area(thing["box"])) for thing in mine)
    return average_precision(rows, number, "area") if number else float("nan"), number
