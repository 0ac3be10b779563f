"""Matrix NMS: the scores of all boxes decay at once, without a loop over boxes.

Wang et al. 2020, "SOLOv2: Dynamic and Fast Instance Segmentation", section 3.3, on boxes in place
of masks.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detect.ops.boxes import at_least_float32
from detect.ops.groups import by_group_and_score, padded_groups
from detect.ops.iou import box_iou
from detect.ops.soft_nms import Decay, RescoredBoxes, by_new_score, check_scores

# Pairs of boxes held at a time; with temporaries about 300 MB.
MAX_PAIRS = 2**23


def matrix_nms(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, "N"],
    groups: Int[Tensor, "N"],
    *,
    decay: Decay = "gaussian",
    sigma: float = 0.5,
    score_threshold: float = 0.0,
) -> RescoredBoxes:
    """Lower the scores of boxes that overlap a better one of their group, all at once.

    The score of box j is multiplied by the least f(IoU of i and j) / f(c_i) over the boxes i of
    higher score (equation 5); c_i, the highest IoU of i with a box of higher score, says how likely
    i itself is suppressed (equation 4). Equal scores rank by the lower index.

    Args:
        boxes: in pixels; half precision is computed in float32.
        scores: 0 or more, finite.
        groups: any integers; boxes of different groups never touch.
        decay: `linear`: f(x) = 1 − x; `gaussian`: f(x) = exp(−x² / sigma).
        sigma: of the Gaussian, more than 0; 0.5 in the paper (the release multiplies by 2).
        score_threshold: boxes whose score falls below it are dropped.

    Raises:
        ValueError: a score is negative, or `sigma` is not positive.

    Deviation: a box equal to a better one has f(c_i) = 0 in the linear form, so its quotient with
    an equal j is undefined; it is left out, as the better one already gives 0.
    """
    check_scores(scores, sigma)
    boxes, scores = at_least_float32(boxes.detach()), at_least_float32(scores.detach())
    order = by_group_and_score(groups, scores)
    sizes = groups[order].unique_consecutive(return_counts=True)[1]
    factors = torch.ones_like(scores)
    for part in padded_groups(sizes, MAX_PAIRS):
        chosen = order[part.rows]  # [G, L]
        found = _factors(boxes[chosen], decay, sigma).to(factors.dtype)
        factors[chosen[part.valid]] = found[part.valid]
    return by_new_score(scores * factors, max(score_threshold, 0.0))


def _factors(boxes: Float[Tensor, "G L 4"], decay: Decay, sigma: float) -> Float[Tensor, "G L"]:
    """The factors of the scores. Padding comes last and affects no box."""
    ranks = torch.arange(boxes.shape[1], device=boxes.device)
    # columns at a time: all of them, unless a single group is too large
    parts = ranks.split(max(1, MAX_PAIRS // max(1, boxes.shape[0] * boxes.shape[1])))
    highest = [_overlaps_with_better(boxes, part).amax(dim=1) for part in parts]
    own_decay = _decay(torch.cat(highest, dim=1), decay, sigma)[..., None]  # [G, L, 1]
    factors = []
    for part in parts:
        quotients = _decay(_overlaps_with_better(boxes, part), decay, sigma) / own_decay
        is_better = ranks[:, None] < part
        quotients = torch.where(is_better & ~quotients.isnan(), quotients, 1.0)
        factors.append(quotients.amin(dim=1))
    return torch.cat(factors, dim=1)


def _overlaps_with_better(
    boxes: Float[Tensor, "G L 4"], columns: Int[Tensor, "C"]
) -> Float[Tensor, "G L C"]:
    # the first column's rank is the distance of the diagonal from the upper left corner
    return box_iou(boxes, boxes[:, columns]).triu(diagonal=1 - int(columns[0]))


def _decay(iou: Tensor, decay: Decay, sigma: float) -> Tensor:
    return 1 - iou if decay == "linear" else (-iou.square() / sigma).exp()
