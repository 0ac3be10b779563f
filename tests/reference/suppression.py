"""Slow oracles for rescoring and fusing boxes: one group, one box after another, plain Python."""

import math

from tests.reference.boxes import iou


def soft_nms(boxes, scores, decay, iou_threshold, sigma, score_threshold):
    """`[(index, new score)]` by falling new score, as figure 2 of Bodla et al. writes it."""
    scores, remaining, taken = list(scores), list(range(len(boxes))), []
    while remaining:
        best = max(remaining, key=lambda index: (scores[index], -index))
        remaining.remove(best)
        taken.append((best, scores[best]))
        for other in remaining:
            overlap = iou(boxes[best], boxes[other])
            if decay == "gaussian":
                scores[other] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= iou_threshold:
                scores[other] *= 1 - overlap
    kept = [(index, score) for index, score in taken if score >= score_threshold]
    return sorted(kept, key=lambda entry: (-entry[1], entry[0]))


def matrix_nms(boxes, scores, decay, sigma):
    """The new score of each box, by equations 4 and 5 of Wang et al."""

    def f(overlap):
        return 1 - overlap if decay == "linear" else math.exp(-(overlap**2) / sigma)

    order = sorted(range(len(boxes)), key=lambda index: (-scores[index], index))
    result = list(scores)
    for place, j in enumerate(order):
        factors = [1.0]
        for before, i in enumerate(order[:place]):
            highest = max((iou(boxes[k], boxes[i]) for k in order[:before]), default=0.0)
            decay_of_pair, decay_of_i = f(iou(boxes[i], boxes[j])), f(highest)
            if decay_of_i > 0:
                factors.append(decay_of_pair / decay_of_i)
        result[j] *= min(factors)
    return result


def weighted_boxes_fusion(
    boxes, scores, models, weights, iou_threshold, skip_threshold, fused_score, allow_overflow
):
    """`[(box, score, count)]` by falling score, step by step as in section 3 of Solovyev et al."""
    entries = [
        (score * weights[model], index)
        for index, (score, model) in enumerate(zip(scores, models, strict=True))
        if score >= skip_threshold and score > 0
    ]
    clusters, fused = [], []
    for score, index in sorted(entries, key=lambda entry: (-entry[0], entry[1])):
        overlaps = [iou(box, boxes[index]) for box in fused]
        best = max(range(len(fused)), key=lambda place: (overlaps[place], -place), default=None)
        if best is None or overlaps[best] <= iou_threshold:
            clusters.append([])
            fused.append(None)
            best = len(clusters) - 1
        clusters[best].append((score, index))
        total = sum(score for score, _ in clusters[best])
        fused[best] = [
            sum(score * boxes[index][side] for score, index in clusters[best]) / total
            for side in range(4)
        ]
    result = []
    for cluster, box in zip(clusters, fused, strict=True):
        members = [score for score, _ in cluster]
        of_boxes = sum(weights[models[index]] for _, index in cluster)
        present = {models[index] for _, index in cluster}
        if fused_score == "average":
            count = len(cluster) if allow_overflow else min(len(cluster), len(weights))
            score = sum(members) / len(members) * count / sum(weights)
        elif fused_score == "max":
            score = max(members) / max(weights)
        elif fused_score == "box_and_model_average":
            score = sum(members) / of_boxes * sum(weights[m] for m in present) / sum(weights)
        else:
            absent = sum(weight for m, weight in enumerate(weights) if m not in present)
            score = sum(members) / (of_boxes + absent)
        result.append((box, score, len(cluster)))
    return sorted(result, key=lambda entry: -entry[1])
