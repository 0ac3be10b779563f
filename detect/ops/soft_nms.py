"""Soft-NMS: boxes that overlap a better one lose score instead of being suppressed.

Bodla et al. 2017, "Soft-NMS: Improving Object Detection With One Line of Code", section 3.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detect.ops.boxes import at_least_float32
from detect.ops.groups import padded_groups
from detect.ops.iou import elementwise_box_iou

Decay = Literal["linear", "gaussian"]

# Boxes, padding included, whose scores decay side by side: temporaries of 64 MB.
MAX_CELLS = 2**20

# On a GPU, checking for the end synchronizes, so it happens once in so many steps.
STEPS_BETWEEN_LOOKS = 16


class RescoredBoxes(NamedTuple):
    """Boxes with new scores, by falling new score, ties to the lower index.

    Attributes:
        indices: `[K]`; of the boxes that were given.
        scores: `[K]`; the new ones.
    """

    indices: Int[Tensor, "K"]
    scores: Float[Tensor, "K"]


def soft_nms(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, "N"],
    groups: Int[Tensor, "N"],
    *,
    decay: Decay = "gaussian",
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    score_threshold: float = 0.001,
) -> RescoredBoxes:
    """Lower the scores of boxes that overlap a better one of their group.

    Repeatedly, of the remaining boxes, take the one with the highest current score, ties to the
    lower index, and multiply the scores of the others by the decay of their IoU with it. All groups
    step together, so the loop is as long as the largest group.

    Args:
        boxes: in pixels; half precision is computed in float32.
        scores: 0 or more, finite; negative margins or logits would be raised by the factors.
        groups: any integers; boxes of different groups never touch.
        decay: `linear` multiplies by 1 − IoU where the IoU is `iou_threshold` or more (the first
            equation of the paper's section 3), `gaussian` by exp(−IoU² / sigma) everywhere.
        iou_threshold: of the linear decay, in 0…1; 0.3 in the paper.
        sigma: of the Gaussian decay, more than 0; 0.5 in the paper.
        score_threshold: boxes whose score falls below it are dropped; 0.001 in the release.

    Raises:
        ValueError: a score is negative, or `sigma` is not positive.
    """
    check_scores(scores, sigma)
    boxes, scores = at_least_float32(boxes.detach()), at_least_float32(scores.detach())
    order = groups.argsort(stable=True)  # within a group by index, which decides ties
    sizes = groups[order].unique_consecutive(return_counts=True)[1]
    rescored = torch.full_like(scores, -1.0)
    for part in padded_groups(sizes, MAX_CELLS, cells_per_box=1):
        chosen = order[part.rows]  # [G, L]
        current = torch.where(part.valid, scores[chosen], -1.0)
        final = _decayed(boxes[chosen], current, decay, iou_threshold, sigma, score_threshold)
        rescored[chosen[part.valid]] = final[part.valid]
    return by_new_score(rescored, max(score_threshold, 0.0))


def check_scores(scores: Float[Tensor, "N"], sigma: float) -> None:
    """Raise ValueError where a score is negative, or sigma not positive."""
    if sigma <= 0:
        raise ValueError(f"sigma: expected more than 0, found {sigma}")
    if bool((scores < 0).any()):
        raise ValueError(f"scores: expected 0 or more, found {float(scores.min())}")


def by_new_score(scores: Float[Tensor, "N"], score_threshold: float) -> RescoredBoxes:
    """The boxes whose new score reaches the threshold, by falling score."""
    kept = (scores >= score_threshold).nonzero().flatten()
    kept = kept[scores[kept].argsort(descending=True, stable=True)]
    return RescoredBoxes(kept, scores[kept])


def _decayed(
    boxes: Float[Tensor, "G L 4"],
    current: Float[Tensor, "G L"],
    decay: Decay,
    iou_threshold: float,
    sigma: float,
    score_threshold: float,
) -> Float[Tensor, "G L"]:
    """The new scores; −1 for boxes never taken. `current` is −1 where there is no box."""
    final = torch.full_like(current, -1.0)
    members = torch.arange(len(boxes), device=boxes.device)
    steps_between_looks = 1 if boxes.device.type == "cpu" else STEPS_BETWEEN_LOOKS
    for step in range(boxes.shape[1]):
        best = current.argmax(dim=1)
        score = current[members, best]
        if step % steps_between_looks == 0 and not bool((score >= max(score_threshold, 0)).any()):
            break
        # a finished group takes its box again, or one without a score: nothing changes
        final[members, best] = torch.maximum(final[members, best], score)
        current[members, best] = -1.0
        iou = elementwise_box_iou(boxes[members, best][:, None], boxes)  # [G, L]
        if decay == "linear":
            factors = torch.where(iou >= iou_threshold, 1 - iou, 1.0)
        else:
            factors = (-iou.square() / sigma).exp()
        current = torch.where(current >= 0, current * factors, current)
    return final
