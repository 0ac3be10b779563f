"""Assignment of ground truth to anchors or proposals, and balanced sampling of the result."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BACKGROUND = -1
IGNORED = -2


class Match(NamedTuple):
    """The object of each of N candidates.

    Attributes:
        indices: `[*batch, N]` int64; of the object, or `BACKGROUND` or `IGNORED`.
        overlaps: `[*batch, N]`; the highest IoU with any object, 0 without objects.
    """

    indices: Int[Tensor, "*batch N"]
    overlaps: Float[Tensor, "*batch N"]


def match(
    iou: Float[Tensor, "*batch N M"],
    positive_threshold: float,
    negative_threshold: float,
    *,
    keep_best: bool = False,
) -> Match:
    """Match N candidates to M objects by IoU.

    A candidate is matched to the object it overlaps most (ties to the lower index) if their IoU is
    at least `positive_threshold`; it is background if its best IoU is less than
    `negative_threshold`, and ignored in between. With `keep_best`, every object also takes the
    candidates that overlap it most, all of them when tied, if their IoU is not 0 (Ren et al. 2015,
    section 3.1.2). Without objects, every candidate is background. Pad the objects of the images of
    a batch with a negative IoU.

    Raises:
        ValueError: the negative threshold is greater than the positive one.
    """
    if negative_threshold > positive_threshold:
        raise ValueError(
            f"negative_threshold {negative_threshold} is greater than "
            f"positive_threshold {positive_threshold}"
        )
    *shape, num_objects = iou.shape
    if num_objects == 0 or iou.numel() == 0:
        indices = torch.full(shape, BACKGROUND, dtype=torch.int64, device=iou.device)
        return Match(indices, iou.new_zeros(shape))
    overlaps, best_object = iou.max(dim=-1)
    indices = torch.where(overlaps >= positive_threshold, best_object, IGNORED)
    indices = torch.where(overlaps < negative_threshold, BACKGROUND, indices)
    if keep_best:
        is_best = (iou == iou.amax(dim=-2, keepdim=True)) & (iou > 0)  # [*batch, N, M]
        # a candidate that is the best of several objects takes the one it overlaps most
        forced = torch.where(is_best, iou, -1.0).argmax(dim=-1)
        indices = torch.where(is_best.any(dim=-1), forced, indices)
    return Match(indices, overlaps.clamp(min=0))


class BalancedSample(NamedTuple):
    """Candidates drawn from each of B images.

    Attributes:
        indices: `[B, K]`; of the candidates, the places of positives first.
        is_positive: `[B, K]`; the same places in all rows.
        is_drawn: `[B, K]`; other places are empty.
    """

    indices: Int[Tensor, "B K"]
    is_positive: Bool[Tensor, "B K"]
    is_drawn: Bool[Tensor, "B K"]


def sample_balanced_batch(
    positive: Bool[Tensor, "B N"],
    negative: Bool[Tensor, "B N"],
    size: int,
    positive_fraction: float,
    generator: torch.Generator,
) -> BalancedSample:
    """Draw from each image as `sample_balanced` does, all at once.

    The arguments are those of `sample_balanced`, with a row for each image; `generator` must be on
    the device of the masks.
    """
    num_candidates = positive.shape[1]
    keys = torch.rand(positive.shape, generator=generator, device=positive.device)
    parts = []
    for mask, count in ((positive, int(size * positive_fraction)), (negative, size)):
        drawn = torch.where(mask, keys, -1.0).topk(min(count, num_candidates), dim=1)
        parts.append((drawn.indices, drawn.values >= 0))
    (positives, are_there), (negatives, are_free) = parts
    ranks = torch.arange(negatives.shape[1], device=positive.device)
    are_free = are_free & (ranks < size - are_there.sum(dim=1, keepdim=True))
    return BalancedSample(
        torch.cat((positives, negatives), dim=1),
        torch.cat((torch.ones_like(are_there), torch.zeros_like(are_free)), dim=1),
        torch.cat((are_there, are_free), dim=1),
    )


def sample_balanced(
    positive: Bool[Tensor, "N"],
    negative: Bool[Tensor, "N"],
    size: int,
    positive_fraction: float,
    generator: torch.Generator,
) -> tuple[Int[Tensor, "P"], Int[Tensor, "Q"]]:
    """Draw at most `size` candidates, at most `positive_fraction` of them positive.

    Negatives make up for missing positives, as in Fast R-CNN (Girshick 2015, section 2.3), but not
    positives for missing negatives.

    Args:
        positive: mask of the candidates matched to an object.
        negative: mask of the background candidates.
        size: the number wanted.
        positive_fraction: the greatest share of positives, in 0…1.
        generator: on the device of the masks or on the CPU.

    Returns:
        The indices of the positives and of the negatives, each without repetition.
    """
    positive_indices = positive.nonzero().flatten()
    negative_indices = negative.nonzero().flatten()
    num_positive = min(len(positive_indices), int(size * positive_fraction))
    num_negative = min(len(negative_indices), size - num_positive)
    return (
        _draw(positive_indices, num_positive, generator),
        _draw(negative_indices, num_negative, generator),
    )


def _draw(indices: Tensor, wanted: int, generator: torch.Generator) -> Tensor:
    permutation = torch.randperm(len(indices), generator=generator, device=generator.device)
    return indices[permutation[:wanted].to(indices.device)]
