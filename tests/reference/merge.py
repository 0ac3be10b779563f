"""A slow oracle for OverFeat's merging: group by group, pair by pair, in plain Python."""

import math

from tests.reference.boxes import area, iou


def match_score(a, b):
    if area(a) == 0 or area(b) == 0:
        return math.inf
    offset_x = (a[0] + a[2]) / 2 - (b[0] + b[2]) / 2
    offset_y = (a[1] + a[3]) / 2 - (b[1] + b[3]) / 2
    side = math.sqrt(math.sqrt(area(a)) * math.sqrt(area(b)))
    return math.sqrt(offset_x**2 + offset_y**2) / side + (1 - iou(a, b))


def merge_group(boxes, scores, max_match, max_candidates, weights):
    """`(box, score)` by falling score of what the boxes of one group become."""
    order = sorted(range(len(boxes)), key=lambda index: -scores[index])[:max_candidates]
    entries = {
        rank: (boxes[index], scores[index], scores[index] if weights == "score" else 1.0)
        for rank, index in enumerate(order)
    }
    badness = {
        (i, j): match_score(entries[i][0], entries[j][0]) for i in entries for j in entries if i < j
    }
    while badness:
        least, (i, j) = min((value, pair) for pair, value in badness.items())
        if least > max_match or least == math.inf:
            break
        box_i, score_i, weight_i = entries.pop(i)
        box_j, score_j, weight_j = entries.pop(j)
        badness = {pair: value for pair, value in badness.items() if not {i, j} & set(pair)}
        total = weight_i + weight_j
        part_i, part_j = (weight_i / total, weight_j / total) if total > 0 else (0.5, 0.5)
        box = [x * part_i + y * part_j for x, y in zip(box_i, box_j, strict=True)]
        for other in entries:
            badness[min(i, other), max(i, other)] = match_score(box, entries[other][0])
        entries[i] = (box, score_i + score_j, 1.0 if weights == "plain" else total)
    by_rank = [entries[rank][:2] for rank in sorted(entries)]
    return sorted(by_rank, key=lambda entry: -entry[1])


def merge(boxes, scores, groups, max_match, max_candidates, weights):
    """`(group, box, score)` by rising group, within it by falling score."""
    result = []
    for group in sorted(set(groups)):
        rows = [row for row, other in enumerate(groups) if other == group]
        merged = merge_group(
            [boxes[row] for row in rows],
            [scores[row] for row in rows],
            max_match,
            max_candidates,
            weights,
        )
        result.extend((group, box, score) for box, score in merged)
    return result
