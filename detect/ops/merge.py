"""OverFeat's merging: average the predictions of many windows instead of suppressing them.

Sermanet et al. 2014, "OverFeat", section 4.3. Of each group (image × class), repeatedly: take the
two boxes that match best; stop if even they are too far apart; else replace them by their average
and add their scores. So a box that many windows agree on outranks that of one confident window.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detect.ops.boxes import at_least_float32
from detect.ops.groups import by_group_and_score

MergeWeights = Literal["count", "score", "plain"]

# Pairs held at a time: with the temporaries of the measure, 230 MB in float32, measured.
MAX_PAIRS = 2**22


def merge_predictions(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, "N"],
    groups: Int[Tensor, "N"],
    *,
    max_match: float = 0.75,
    max_candidates: int = 128,
    weights: MergeWeights = "count",
) -> tuple[Float[Tensor, "K 4"], Float[Tensor, "K"], Int[Tensor, "K"]]:
    """Merge the boxes of each group that match, pair by pair, the best match first.

    Equal matches are taken in the order of their boxes by falling score, ties to the lower index; a
    merged box takes the place of the first of its two.

    Args:
        boxes: in pixels, finite; half precision is computed and returned in float32.
        scores: finite; a merged box has the sum of its boxes' scores, which may exceed 1. A
            negative margin or logit lowers the box that it joins.
        groups: any integers; boxes of different groups never merge.
        max_match: pairs whose `match_score` is greater stay apart; 0 merges equal boxes only. The
            paper's t, whose value it does not give. At 0.75, boxes of one size merge if shifted by
            up to 0.29 of their side (IoU 0.54).
        max_candidates: boxes of a group that take part, by falling score; the others are dropped,
            since the work grows with the cube of their number.
        weights: of a box in the average. `count`: the windows it stands for, so the result is
            the mean of all of them in any order; `score`: its accumulated score; `plain`: one half.

    Returns:
        Boxes, scores and groups, by rising group and within it by falling score.

    Raises:
        ValueError: `max_candidates` is less than 1, or a score is negative with `weights="score"`.

    Deviations from the paper: see `match_score`; its `box_merge`, the average of the coordinates,
    is over all windows that two boxes stand for, since that of the two alone (`plain`) gives the
    last window as much weight as all before it; and boxes of different classes stay apart, of which
    the paper says nothing.
    """
    if max_candidates < 1:
        raise ValueError(f"max_candidates: expected 1 or more, found {max_candidates}")
    if weights == "score" and bool((scores < 0).any()):
        raise ValueError(
            f"scores: expected 0 or more with weights='score', found {float(scores.min())}"
        )
    boxes, scores = at_least_float32(boxes.detach()), at_least_float32(scores.detach())
    # a weight of 0 would make a share of 0/0
    shares = scores.clamp(min=1e-30) if weights == "score" else torch.ones_like(scores)
    entries = torch.stack((*boxes.unbind(dim=1), scores, shares))  # [6, N]
    order = by_group_and_score(groups, scores)
    names, sizes = groups[order].unique_consecutive(return_counts=True)
    starts = sizes.cumsum(dim=0) - sizes
    sizes = sizes.clamp(max=max_candidates)
    merged, merged_groups = [entries[:, :0]], [groups[:0]]
    for members in _of_similar_size(sizes):
        ranks = torch.arange(int(sizes[members].max()), device=boxes.device)
        alive = ranks < sizes[members, None]  # [G, M]
        slots = order[torch.where(alive, starts[members, None] + ranks, 0)]  # [G, M]
        part = torch.where(alive, entries[:, slots], 0)  # [6, G, M]
        _merge_padded(part, alive, max_match, weights == "plain")
        merged.append(part[:, alive])
        merged_groups.append(names[members, None].expand_as(alive)[alive])
    entries, groups = torch.cat(merged, dim=1), torch.cat(merged_groups)
    order = by_group_and_score(groups, entries[4])
    entries = entries[:, order]
    return entries[:4].T.contiguous().to(boxes.dtype), entries[4].to(scores.dtype), groups[order]


def match_score(
    a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"]
) -> Float[Tensor, "*batch"]:
    """How badly each box of `a` fits its counterpart in `b`: 0 for equal boxes, lower is better.

    The distance of the centers over the geometric mean of the sides (a side is the square root of
    the area), plus 1 − IoU: symmetric and scale-invariant. A box without area matches nothing, not
    even its equal: infinity. Half precision is measured in float32.

    Deviation: OverFeat, section 4.3, merges the pair with the least sum of center distance and
    intersection area. Taken literally, overlap would keep boxes apart and pixels would be added to
    square pixels; here the intersection counts as 1 − IoU, and the distance in box sides.
    """
    # coordinate by coordinate: on a CPU, twice as fast as in pairs, and merging does little else
    a_x1, a_y1, a_x2, a_y2 = at_least_float32(a).unbind(dim=-1)
    b_x1, b_y1, b_x2, b_y2 = at_least_float32(b).unbind(dim=-1)
    a_area = (a_x2 - a_x1).clamp(min=0) * (a_y2 - a_y1).clamp(min=0)
    b_area = (b_x2 - b_x1).clamp(min=0) * (b_y2 - b_y1).clamp(min=0)
    width = torch.minimum(a_x2, b_x2) - torch.maximum(a_x1, b_x1)
    height = torch.minimum(a_y2, b_y2) - torch.maximum(a_y1, b_y1)
    intersection = width.clamp(min=0) * height.clamp(min=0)
    union = a_area + b_area - intersection
    # sums before the difference: equal boxes have no distance, to the last bit
    offset_x = ((a_x1 + a_x2) - (b_x1 + b_x2)) / 2
    offset_y = ((a_y1 + a_y2) - (b_y1 + b_y2)) / 2
    # roots before the product, which would overflow for the areas of huge boxes
    sides = (a_area.sqrt() * b_area.sqrt()).sqrt()
    # exactly rounded operations alone (hypot is not one): the measure is symmetric to the last bit
    distance = (offset_x.square() + offset_y.square()).sqrt()
    badness = distance / sides + (1 - intersection / union)
    return torch.where(sides > 0, badness, torch.inf)


def _of_similar_size(sizes: Int[Tensor, "G"]) -> list[Int[Tensor, "P"]]:
    """Parts of the groups with sizes within a factor of two, so at most half is padding."""
    powers = 2 ** torch.arange(32, device=sizes.device)
    size_classes = torch.bucketize(sizes, powers)  # sizes 2^(k−1) + 1 … 2^k are class k
    parts: list[Tensor] = []
    for size_class in size_classes.unique().tolist():
        members = (size_classes == size_class).nonzero().flatten()
        parts.extend(members.split(max(1, MAX_PAIRS // 4**size_class)))
    return parts


def _merge_padded(
    entries: Float[Tensor, "6 G M"], alive: Bool[Tensor, "G M"], max_match: float, plain: bool
) -> None:
    """Merge within each group, in place, one pair of every group at a time.

    `entries` are x1, y1, x2, y2, score and weight of each box, 0 where there is none. A merged box
    replaces the first of its two, and `alive` is cleared at the second. With `plain`, it has the
    weight of one of the two, instead of their sum.
    """
    # padding has no area, so it is infinitely far: farther than any limit, even an infinite one
    max_match = min(max_match, torch.finfo(entries.dtype).max)
    boxes = entries[:4].movedim(0, -1)  # [G, M, 4]
    matches = match_score(boxes[:, :, None], boxes[:, None])  # [G, M, M]
    matches.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    for _ in range(alive.shape[1] - 1):
        rows, first, second = _best_pairs(matches, max_match)
        if len(rows) == 0:
            return
        kept, other = entries[:, rows, first], entries[:, rows, second]  # [6, R]
        total = kept[5] + other[5]
        # a step towards the other, so that equal boxes stay bit-identical
        kept[:4] += (other[:4] - kept[:4]) * (other[5] / total)
        kept[4] += other[4]
        if not plain:
            kept[5] = total
        entries[:, rows, first] = kept
        entries[:, rows, second] = 0
        alive[rows, second] = False
        renewed = match_score(kept[:4].T[:, None], boxes[rows])  # [R, M]
        renewed.scatter_(1, first[:, None], torch.inf)
        matches[rows, first] = matches[rows, :, first] = renewed
        matches[rows, second] = matches[rows, :, second] = torch.inf


def _best_pairs(
    matches: Float[Tensor, "G M M"], max_match: float
) -> tuple[Int[Tensor, "R"], Int[Tensor, "R"], Int[Tensor, "R"]]:
    """The groups in which a pair may still be merged, and the first and second box of its best.

    The matrices are symmetric: the first row with the least value and its first such column are
    the pair of the lowest indices.
    """
    first = matches.amin(dim=2).argmin(dim=1)  # several times as fast as one argmin of all pairs
    least, second = matches[torch.arange(len(matches), device=matches.device), first].min(dim=1)
    rows = (least <= max_match).nonzero().flatten()
    return rows, first[rows], second[rows]
