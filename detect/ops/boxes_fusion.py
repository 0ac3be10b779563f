"""Weighted boxes fusion: the weighted mean of several models' boxes of one object.

Solovyev et al. 2021, "Weighted boxes fusion: Ensembling boxes from different object detection
models", section 3.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detect.ops.groups import by_group_and_score, padded_groups
from detect.ops.iou import elementwise_box_iou

FusedScore = Literal["average", "max", "box_and_model_average", "absent_model_average"]

# Boxes, padding included, fused side by side: about 200 MB of state and temporaries for 3 models.
MAX_CELLS = 2**20


class FusedBoxes(NamedTuple):
    """The fused boxes, by rising group and within it by falling score.

    Attributes:
        boxes: `[K, 4]`; in pixels.
        scores: `[K]`.
        groups: `[K]`.
        counts: `[K]`; how many boxes each stands for.
    """

    boxes: Float[Tensor, "K 4"]
    scores: Float[Tensor, "K"]
    groups: Int[Tensor, "K"]
    counts: Int[Tensor, "K"]


def weighted_boxes_fusion(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, "N"],
    groups: Int[Tensor, "N"],
    models: Int[Tensor, "N"],
    model_weights: Sequence[float],
    *,
    iou_threshold: float = 0.55,
    skip_threshold: float = 0.0,
    fused_score: FusedScore = "average",
    allow_overflow: bool = False,
) -> FusedBoxes:
    """Fuse the boxes of T models, group by group (image × class).

    Scores are multiplied by the weight of their model. Then, by falling score: a box joins the
    cluster whose fused box it overlaps most, if their IoU is greater than `iou_threshold`, else
    founds a cluster; the fused box is the cluster's mean, weighted by score (equations 2 and 3).
    All groups step together, so the loop is as long as the largest group.

    Args:
        boxes: in pixels; computed in float64 and returned in their own type, or float32.
        scores: 0 or more, finite.
        groups: any integers; boxes of different groups never fuse.
        models: which model found the box, in 0 … T − 1.
        model_weights: T positive numbers; only their proportions matter.
        iou_threshold: in 0…1; 0.55 in the paper.
        skip_threshold: boxes with a lower score, before weighting, are dropped.
        fused_score: the score of a cluster of n boxes with weighted scores c and model weights w.
            `average`: the mean of c, times min(n, T) / the sum of all weights (equation 6, with
            weights). The other three are the authors' release's: `max`: the highest c / the highest
            weight; `box_and_model_average`: the sum of c / the sum of w, times the share of all
            weights that the cluster's models have; `absent_model_average`: the sum of c / the sum
            of w and of the weights of absent models.
        allow_overflow: in `average`, n in place of min(n, T) (equation 5): scores may exceed 1.

    Raises:
        ValueError: a score is negative, a weight not positive, or a model has no weight.

    Deviations: equal scores rank by the lower index, where the release leaves it to numpy's sort;
    boxes of score 0 are dropped, since a mean with weights of 0 is undefined.
    """
    _check(scores, models, model_weights)
    weights = torch.tensor(model_weights, dtype=torch.float64, device=boxes.device)
    box_weights = weights[models]
    weighted = scores.detach().double() * box_weights
    takes_part = ((scores >= skip_threshold) & (weighted > 0)).nonzero().flatten()
    order = takes_part[by_group_and_score(groups[takes_part], weighted[takes_part])]
    names, sizes = groups[order].unique_consecutive(return_counts=True)
    box_dtype = torch.promote_types(boxes.dtype, torch.float32)
    score_dtype = torch.promote_types(scores.dtype, torch.float32)
    coordinates = boxes.detach().double()
    fused = [(coordinates[:0], weighted[:0], groups[:0], groups[:0].long())]
    for part in padded_groups(sizes, MAX_CELLS, cells_per_box=1):
        chosen = order[part.rows]  # [G, L]
        clusters = _Clusters(part.valid, len(model_weights))
        for rank in range(part.rows.shape[1]):
            row = chosen[:, rank]
            own = coordinates[row], weighted[row], box_weights[row], models[row]
            clusters.add(*own, part.valid[:, rank], iou_threshold)
        exists = clusters.counts > 0
        new_scores = clusters.scores(weights, fused_score, allow_overflow)
        owners = names[part.members][:, None].expand_as(exists)
        found = (clusters.boxes[exists], new_scores[exists], owners[exists])
        fused.append((*found, clusters.counts[exists]))
    new_boxes, new_scores, new_groups, counts = (
        torch.cat(column) for column in zip(*fused, strict=True)
    )
    order = by_group_and_score(new_groups, new_scores)
    new_boxes, new_scores = new_boxes[order].to(box_dtype), new_scores[order].to(score_dtype)
    return FusedBoxes(new_boxes, new_scores, new_groups[order], counts[order])


def _check(
    scores: Float[Tensor, "N"], models: Int[Tensor, "N"], model_weights: Sequence[float]
) -> None:
    if not all(weight > 0 for weight in model_weights):
        raise ValueError(f"model_weights: expected more than 0, found {list(model_weights)}")
    if bool((scores < 0).any()):
        raise ValueError(f"scores: expected 0 or more, found {float(scores.min())}")
    if bool(((models < 0) | (models >= len(model_weights))).any()):
        raise ValueError(
            f"models: expected 0 to {len(model_weights) - 1}, as there are weights, found "
            f"{int(models.min())} to {int(models.max())}"
        )


class _Clusters:
    """The L possible clusters of each of G groups: fused `boxes`, and `counts` of their boxes."""

    def __init__(self, valid: Bool[Tensor, "G L"], num_models: int) -> None:
        device, shape = valid.device, valid.shape
        self.boxes = torch.zeros(*shape, 4, dtype=torch.float64, device=device)
        self.counts = torch.zeros(shape, dtype=torch.int64, device=device)
        self._num_clusters = torch.zeros(len(valid), dtype=torch.int64, device=device)
        self._members = torch.arange(len(valid), device=device)
        self._moments = torch.zeros_like(self.boxes)  # coordinates times scores
        self._score_sums = torch.zeros_like(self.boxes[..., 0])
        self._score_peaks = torch.zeros_like(self._score_sums)
        self._weight_sums = torch.zeros_like(self._score_sums)
        self._has_model = torch.zeros(*shape, num_models, dtype=torch.bool, device=device)
        self._num_steps = 0

    def add(
        self,
        boxes: Float[Tensor, "G 4"],
        scores: Float[Tensor, "G"],
        weights: Float[Tensor, "G"],
        models: Int[Tensor, "G"],
        valid: Bool[Tensor, "G"],
        iou_threshold: float,
    ) -> None:
        """Let one box of each group join a cluster or found one."""
        self._num_steps += 1
        part = slice(self._num_steps)  # there can be no more clusters than steps
        iou = elementwise_box_iou(self.boxes[:, part], boxes[:, None])
        # an IoU of 0 joins nothing, not even with a negative threshold
        best = torch.where(self.counts[:, part] > 0, iou, -1.0).argmax(dim=1)
        matches = (self.counts[self._members, best] > 0) & (
            iou[self._members, best] > iou_threshold
        )
        place = self._members, torch.where(matches, best, self._num_clusters)
        place = place[0][valid], place[1][valid]
        boxes, scores, weights = boxes[valid], scores[valid], weights[valid]
        self._moments[place] += boxes * scores[:, None]
        self._score_sums[place] += scores
        self._score_peaks[place] = torch.maximum(self._score_peaks[place], scores)
        self._weight_sums[place] += weights
        self._has_model[(*place, models[valid])] = True
        self.counts[place] += 1
        self.boxes[place] = self._moments[place] / self._score_sums[place][:, None]
        self._num_clusters += valid & ~matches

    def scores(
        self, weights: Float[Tensor, "T"], fused_score: FusedScore, allow_overflow: bool
    ) -> Float[Tensor, "G L"]:
        """The fused scores, nan where there is no cluster."""
        if fused_score == "max":
            return self._score_peaks / weights.max()
        present = self._has_model.double() @ weights  # [G, L]
        if fused_score == "box_and_model_average":
            return self._score_sums / self._weight_sums * present / weights.sum()
        if fused_score == "absent_model_average":
            return self._score_sums / (self._weight_sums + weights.sum() - present)
        most = self.counts if allow_overflow else self.counts.clamp(max=len(weights))
        return self._score_sums / self.counts * most / weights.sum()
