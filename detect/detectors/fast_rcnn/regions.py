"""Which regions a step learns from, and what it is to learn (Girshick 2015, section 2.3).

All images of a batch are treated at once: what differs in number is padded to the most, and
masked.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from detect.detectors.images import padded
from detect.ops import (
    box_iou,
    decode_deltas,
    divisor_over_processes,
    encode_deltas,
    match,
    sample_balanced_batch,
)
from detect.structures import GroundTruth

# What deltas are divided by before they are learned, so that they vary by about 1 ("we normalize
# the ground-truth regression targets to have zero mean and unit variance", section 2.3). The paper
# measures them on the training set; these are the constants of the authors' later release
# (py-faster-rcnn, BBOX_NORMALIZE_STDS), which has a mean of 0.
DELTA_STD = (0.1, 0.1, 0.2, 0.2)


class PaddedTruths(NamedTuple):
    """The objects of B images; at least one place for each image.

    Attributes:
        boxes: `[B, M, 4]`.
        labels: `[B, M]`.
        valid: `[B, M]`; other places are empty.
    """

    boxes: Float[Tensor, "B M 4"]
    labels: Int[Tensor, "B M"]
    valid: Bool[Tensor, "B M"]

    def iou(self, boxes: Float[Tensor, "*#B N 4"]) -> Float[Tensor, "B N M"]:
        """IoU of boxes with all objects of their image; −1 with one that is not there."""
        return torch.where(self.valid[:, None], box_iou(boxes, self.boxes), -1.0)


class SampledRegions(NamedTuple):
    """N regions that a step learns from, of all images.

    Attributes:
        boxes: `[N, 4]` xyxy pixels of the input.
        image_index: `[N]`; the image of the batch that each is of.
        labels: `[N]`; the class, C for background.
        targets: `[N, 4]`; the normalized deltas to the object; 0 for background.
    """

    boxes: Float[Tensor, "N 4"]
    image_index: Int[Tensor, "N"]
    labels: Int[Tensor, "N"]
    targets: Float[Tensor, "N 4"]


def pad_truths(truths: Sequence[GroundTruth]) -> PaddedTruths:
    """The objects of a batch as tensors."""
    boxes, valid = padded([truth.boxes for truth in truths])
    labels = torch.nn.utils.rnn.pad_sequence([truth.labels for truth in truths], batch_first=True)
    missing = 0 if boxes.shape[1] else 1
    return PaddedTruths(
        functional.pad(boxes, (0, 0, 0, missing)),
        functional.pad(labels, (0, missing)),
        functional.pad(valid, (0, missing)),
    )


@torch.no_grad()
def sample_regions(
    proposals: Float[Tensor, "B P 4"],
    valid: Bool[Tensor, "B P"],
    truths: PaddedTruths,
    num_classes: int,
    *,
    regions_per_image: int,
    positive_fraction: float,
    positive_iou: float,
    background_iou: tuple[float, float],
    generator: torch.Generator,
) -> SampledRegions:
    """Draw the regions of a step: of each image as many, a quarter with an object at most.

    A region whose IoU with an object is `positive_iou` or more shows it; one whose greatest IoU is
    in `background_iou`, low end included, is background; the objects themselves take part as
    regions, as in the release. In an image without objects, every proposal is background: there,
    the low end would leave nothing to learn from.

    Args:
        proposals: of each image.
        valid: which of them are no padding.
        truths: of the same images.
        num_classes: C.
        regions_per_image: the number wanted.
        positive_fraction: the greatest share with an object.
        positive_iou: least IoU with it.
        background_iou: from and to.
        generator: the source of the draw, on the device of the proposals.
    """
    boxes = torch.cat((truths.boxes, proposals), dim=1)  # [B, R, 4]
    valid = torch.cat((truths.valid, valid), dim=1)
    matches = match(truths.iou(boxes), positive_iou, positive_iou)
    low, high = background_iou
    is_empty = ~truths.valid.any(dim=1, keepdim=True)
    is_background = (matches.overlaps < high) & ((matches.overlaps >= low) | is_empty)
    sample = sample_balanced_batch(
        valid & (matches.indices >= 0),
        valid & is_background & (matches.indices < 0),
        regions_per_image,
        positive_fraction,
        generator,
    )
    image_index, columns = sample.is_drawn.nonzero(as_tuple=True)
    rows = sample.indices[image_index, columns]
    is_positive = sample.is_positive[image_index, columns]
    objects = matches.indices[image_index, rows].clamp(min=0)
    chosen = boxes[image_index, rows]
    labels = torch.where(is_positive, truths.labels[image_index, objects], num_classes)
    deltas = encode_deltas(truths.boxes[image_index, objects], chosen) / chosen.new_tensor(
        DELTA_STD
    )
    return SampledRegions(
        chosen, image_index, labels, torch.where(is_positive[:, None], deltas, 0.0)
    )


def region_losses(
    logits: Float[Tensor, "N D"],
    deltas: Float[Tensor, "N C 4"],
    regions: SampledRegions,
    beta: float = 1.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The multi-task loss: log loss of the class, smooth L1 of the box (equations 1 to 3, λ = 1).

    Both are means over all regions, those of all processes; of background, the box counts nothing.
    Without regions they are 0.

    Args:
        logits: of C classes, then background.
        deltas: normalized, for each class.
        regions: what they are to be.
        beta: the error from which smooth L1 is a line, in normalized deltas; equation 3 has 1.
    """
    count, num_classes = divisor_over_processes(len(logits)), deltas.shape[1]
    classification = functional.cross_entropy(logits, regions.labels, reduction="sum") / count
    rows = torch.arange(len(logits), device=logits.device)
    own = deltas[rows, regions.labels.clamp(max=num_classes - 1)]
    errors = functional.smooth_l1_loss(own, regions.targets, reduction="none", beta=beta).sum(dim=1)
    return classification, (errors * (regions.labels < num_classes)).sum() / count


def moved_boxes(
    deltas: Float[Tensor, "N 4"], regions: Float[Tensor, "N 4"]
) -> Float[Tensor, "N 4"]:
    """The boxes that normalized deltas make of regions."""
    return decode_deltas(deltas * deltas.new_tensor(DELTA_STD), regions)


def rank_in_image(image_index: Int[Tensor, "N"], num_images: int) -> Int[Tensor, "N"]:
    """How many rows of the same image stand before each row."""
    order = image_index.argsort(stable=True)
    counts = torch.bincount(image_index, minlength=num_images)
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(image_index)
    ranks[order] = (
        torch.arange(len(image_index), device=image_index.device) - starts[image_index[order]]
    )
    return ranks
