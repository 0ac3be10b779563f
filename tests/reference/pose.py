"""A slow oracle for PCK and PCP, person by person and joint by joint, in plain Python."""

import math

from tests.reference.boxes import iou


def distance(a, b):
    return math.sqrt((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2)


def size_of(joints, box, joint_names, normalizer):
    """The size of a person, or None. `joints`: `(x, y, visibility)`."""
    if normalizer == "box":
        return max(box[2] - box[0], box[3] - box[1])
    pairs = {
        "torso": [("left_hip", "right_shoulder"), ("right_hip", "left_shoulder")],
        "head": [("neck", "head_top")],
    }[normalizer]
    for pair in pairs:
        if not all(name in joint_names for name in pair):
            continue
        first, second = (joints[joint_names.index(name)] for name in pair)
        if first[2] > 0 and second[2] > 0 and distance(first, second) > 0:
            return distance(first, second)
    return None


def joints_found(box, num_persons, found):
    """The joints found for a person, or None. `found`: `(box, joints)` by falling score."""
    if num_persons == 1:
        return found[0][1] if found else None
    best, best_joints = 0.0, None
    for its_box, joints in found:
        if iou(box, its_box) > best:
            best, best_joints = iou(box, its_box), joints
    return best_joints


def evaluate(images, joint_names, limbs, normalizer, alphas):
    """Counts over all images, named as the fields of the report.

    `images`: `(found, persons)` of each; `persons`: `(box, joints, difficult)`.
    """
    num_joints = len(joint_names)
    labeled = [0] * num_joints
    correct = {alpha: [0] * num_joints for alpha in alphas}
    labeled_limbs, correct_limbs = [0] * len(limbs), [0] * len(limbs)
    persons_judged = left_out = without_detection = without_size = 0
    for found, persons in images:
        for box, joints, difficult in persons:
            if difficult or all(visibility == 0 for _, _, visibility in joints):
                left_out += 1
                continue
            persons_judged += 1
            points = joints_found(box, len(persons), found)
            without_detection += points is None
            size = size_of(joints, box, joint_names, normalizer)
            without_size += size is None
            for joint in range(num_joints):
                if joints[joint][2] == 0 or size is None:
                    continue
                labeled[joint] += 1
                for alpha in alphas:
                    if points and distance(points[joint], joints[joint]) <= alpha * size:
                        correct[alpha][joint] += 1
            for number, (first, second) in enumerate(limbs):
                if joints[first][2] == 0 or joints[second][2] == 0:
                    continue
                labeled_limbs[number] += 1
                length = distance(joints[first], joints[second])
                if points and all(
                    distance(points[joint], joints[joint]) <= length / 2
                    for joint in (first, second)
                ):
                    correct_limbs[number] += 1
    return {
        "num_labeled": tuple(labeled),
        "num_correct": {alpha: tuple(row) for alpha, row in correct.items()},
        "num_limbs": tuple(labeled_limbs),
        "num_correct_limbs": tuple(correct_limbs),
        "num_images": len(images),
        "num_persons": persons_judged,
        "num_left_out": left_out,
        "num_without_detection": without_detection,
        "num_without_size": without_size,
    }
