"""The region proposal network (Ren et al. 2015, section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from detect.detectors.fast_rcnn.pooling import FeatureMap
from detect.detectors.fast_rcnn.regions import PaddedTruths, rank_in_image
from detect.detectors.faster_rcnn.anchors import base_anchors, grid_anchors
from detect.detectors.images import clip_to_frames, generator_on
from detect.detectors.ranges import Count, Positives, Share, Weight
from detect.errors import DetectError
from detect.ops import (
    BACKGROUND,
    BalancedSample,
    decode_deltas,
    divisor_over_processes,
    encode_deltas,
    grouped_nms,
    match,
    sample_balanced_batch,
)

# Sides of the anchors in pixels: of one map (section 3.1.1), and of the finest map of a pyramid,
# doubled from level to level (Lin et al. 2017, section 4.1).
ANCHOR_SIZES = (128.0, 256.0, 512.0)
FINEST_ANCHOR_SIZE = 32.0
# Of the 3×3 convolution: VGG's (section 3.1).
HIDDEN_CHANNELS = 512
# Half of the anchors of a step are positive (section 3.1.3).
POSITIVE_FRACTION = 0.5
# Where smooth L1 turns into a line, as in the release (RPN's sigma = 3 in py-faster-rcnn).
BOX_BETA = 1 / 9


class AnchorOutputs(NamedTuple):
    """What the network says of the N anchors of B images, all levels after one another.

    Attributes:
        anchors: `[N, 4]` xyxy pixels of the input.
        counts: anchors of each level.
        logits: `[B, N]`; that there is an object.
        deltas: `[B, N, 4]`; to its box.
    """

    anchors: Float[Tensor, "N 4"]
    counts: tuple[int, ...]
    logits: Float[Tensor, "B N"]
    deltas: Float[Tensor, "B N 4"]


class AnchorTargets(NamedTuple):
    """Which anchors a step learns from.

    Attributes:
        sample: drawn for each image.
        deltas: `[B, K, 4]`; of the drawn positive ones to their objects, 0 for others.
    """

    sample: BalancedSample
    deltas: Float[Tensor, "B K 4"]


class PaddedProposals(NamedTuple):
    """The proposals of B images, best first.

    Attributes:
        boxes: `[B, P, 4]` xyxy pixels of the input.
        valid: `[B, P]`; other places are empty.
    """

    boxes: Float[Tensor, "B P 4"]
    valid: Bool[Tensor, "B P"]


class RegionProposalNetwork(nn.Module):
    """A 3×3 convolution, then for each anchor of each position a score and a box.

    Deviations, as the paper allows or its release has them: the score is one logit under a sigmoid,
    not two under a softmax (footnote 3); both losses are means over the sampled anchors. The paper
    divides the box loss by the number of positions (about 2,400) and multiplies it by λ = 10, which
    comes to nearly the same for images of its size, and to another balance for others.

    Args:
        channels: of the maps.
        hidden: channels of the 3×3 convolution.
        anchor_sizes: for each level, those of its anchors.
        anchor_ratios: height by width, of all levels.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        anchor_sizes: Sequence[Sequence[float]],
        anchor_ratios: Sequence[float],
    ) -> None:
        super().__init__()
        count = len(anchor_sizes[0]) * len(anchor_ratios)
        self.convolution = nn.Conv2d(channels, hidden, 3, padding=1)
        self.objectness = nn.Conv2d(hidden, count, 1)
        self.regressor = nn.Conv2d(hidden, 4 * count, 1)
        for layer in (self.convolution, self.objectness, self.regressor):  # section 3.1.3
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        for level, sizes in enumerate(anchor_sizes):
            anchors = base_anchors(sizes, anchor_ratios)
            self.register_buffer(f"anchors_{level}", anchors, persistent=False)

    def forward(self, maps: Sequence[FeatureMap]) -> AnchorOutputs:
        """Scores and deltas of all anchors of all levels."""
        anchors, logits, deltas = [], [], []
        for level, (values, scale) in enumerate(maps):
            hidden = functional.relu(self.convolution(values))
            size = (values.shape[2], values.shape[3])
            anchors.append(
                grid_anchors(self.get_buffer(f"anchors_{level}"), size, round(1 / scale))
            )
            # [B, A, h, w] → [B, h · w · A]
            logits.append(self.objectness(hidden).permute(0, 2, 3, 1).flatten(1))
            moves = self.regressor(hidden).permute(0, 2, 3, 1)  # [B, h, w, 4 A]
            deltas.append(moves.reshape(len(values), -1, 4))
        return AnchorOutputs(
            torch.cat(anchors),
            tuple(map(len, anchors)),
            torch.cat(logits, dim=1).float(),
            torch.cat(deltas, dim=1).float(),
        )


@torch.no_grad()
def sample_anchors(
    anchors: Float[Tensor, "N 4"],
    truths: PaddedTruths,
    frames: Float[Tensor, "B 4"],
    *,
    anchors_per_image: int,
    positive_iou: float,
    negative_iou: float,
    crossing: bool,
    generator: torch.Generator,
) -> AnchorTargets:
    """Draw the anchors of a step, and say where they are to move (sections 3.1.2 and 3.1.3).

    An anchor is positive if its IoU with an object is `positive_iou` or more, or the greatest that
    this object has with any; negative if that with all is less than `negative_iou`. Those that
    cross the border of their image take no part, nor does what lies beyond it.

    Args:
        anchors: of all levels.
        truths: of the images.
        frames: what each image fills of the input.
        anchors_per_image: the number wanted.
        positive_iou: see above; the paper's is exclusive, which differs for exact ties alone.
        negative_iou: see above.
        crossing: whether anchors that cross the border take part all the same.
        generator: the source of the draw, on the device of the anchors.
    """
    low, high = frames[:, None, :2], frames[:, None, 2:]  # [B, 1, 2]
    if crossing:  # those that touch the image
        is_inside = ((anchors[:, 2:] > low) & (anchors[:, :2] < high)).all(dim=-1)  # [B, N]
    else:
        is_inside = ((anchors[:, :2] >= low) & (anchors[:, 2:] <= high)).all(dim=-1)
    iou = torch.where(is_inside[:, :, None], truths.iou(anchors[None]), -1.0)
    objects = match(iou, positive_iou, negative_iou, keep_best=True)
    sample = sample_balanced_batch(
        is_inside & (objects.indices >= 0),
        is_inside & (objects.indices == BACKGROUND),
        anchors_per_image,
        POSITIVE_FRACTION,
        generator,
    )
    image_index = torch.arange(len(frames), device=anchors.device)[:, None]
    meant = objects.indices.gather(1, sample.indices).clamp(min=0)
    deltas = encode_deltas(truths.boxes[image_index, meant], anchors[sample.indices])
    is_learned = sample.is_positive & sample.is_drawn
    return AnchorTargets(sample, torch.where(is_learned[:, :, None], deltas, 0.0))


def anchor_losses(
    outputs: AnchorOutputs, targets: AnchorTargets
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Log loss of the scores and smooth L1 of the boxes (equation 1), over the drawn anchors."""
    sample = targets.sample
    count = divisor_over_processes(sample.is_drawn.sum())
    logits = outputs.logits.gather(1, sample.indices)
    objectness = functional.binary_cross_entropy_with_logits(
        logits, sample.is_positive.to(logits), reduction="none"
    )
    image_index = torch.arange(len(logits), device=logits.device)[:, None]
    errors = functional.smooth_l1_loss(
        outputs.deltas[image_index, sample.indices], targets.deltas, reduction="none", beta=BOX_BETA
    ).sum(dim=-1)
    is_learned = sample.is_positive & sample.is_drawn
    return (objectness * sample.is_drawn).sum() / count, (errors * is_learned).sum() / count


@torch.no_grad()
def select_proposals(
    outputs: AnchorOutputs,
    frames: Float[Tensor, "B 4"],
    *,
    num_before: int,
    num_after: int,
    iou_threshold: float,
    min_size: float,
) -> PaddedProposals:
    """The best boxes of each image after suppression (section 3.3, "sharing features").

    Args:
        outputs: of all anchors.
        frames: what each image fills of the input; boxes are clipped to it.
        num_before: of each level that go into the suppression.
        num_after: of each image that are left.
        iou_threshold: of the suppression, within a level.
        min_size: boxes with a shorter side are left out, in pixels.
    """
    num_images, num_levels = len(frames), len(outputs.counts)
    best, levels = [], []
    start = 0
    for level, count in enumerate(outputs.counts):
        of_level = outputs.logits[:, start : start + count]
        found = of_level.topk(min(num_before, count), dim=1).indices + start
        best.append(found)
        levels.append(torch.full_like(found, level))
        start += count
    chosen = torch.cat(best, dim=1)  # [B, K]
    image_index = torch.arange(num_images, device=chosen.device)[:, None].expand_as(chosen)
    boxes = decode_deltas(outputs.deltas[image_index, chosen], outputs.anchors[chosen])
    boxes = clip_to_frames(boxes, frames[:, None])
    scores = outputs.logits[image_index, chosen]
    is_large = ((boxes[..., 2:] - boxes[..., :2]) >= min_size).all(dim=-1)
    image_index, groups = (
        image_index[is_large],
        (image_index * num_levels + torch.cat(levels, 1))[is_large],
    )
    boxes, scores = boxes[is_large], scores[is_large]
    # by falling score; of an image no more than of any of its levels are wanted
    kept = grouped_nms(boxes, scores, groups, iou_threshold, max_kept=num_after)
    ranks = rank_in_image(image_index[kept], num_images)
    return _packed(boxes[kept], image_index[kept], ranks, num_images, num_after)


def _packed(
    boxes: Float[Tensor, "N 4"],
    image_index: Int[Tensor, "N"],
    ranks: Int[Tensor, "N"],
    num_images: int,
    most: int,
) -> PaddedProposals:
    is_kept = ranks < most
    boxes, image_index, ranks = boxes[is_kept], image_index[is_kept], ranks[is_kept]
    length = int(ranks.max()) + 1 if len(ranks) else 0
    values = boxes.new_zeros(num_images, length, 4)
    valid = torch.zeros(num_images, length, dtype=torch.bool, device=boxes.device)
    values[image_index, ranks] = boxes
    valid[image_index, ranks] = True
    return PaddedProposals(values, valid)


@dataclass(frozen=True)
class RPNSettings:
    """The region proposal network, what it learns from, and which of its boxes are proposals.

    Attributes:
        rpn_channels: of its 3×3 convolution; None takes 512, with a pyramid as many as its maps
            have.
        anchor_sizes: square roots of the anchors' areas in pixels of the input; of a pyramid, one
            for each level. None takes 128, 256 and 512; of a pyramid 32, 64, …
        anchor_ratios: height by width.
        crossing_anchors: whether anchors across the border of the image are learned from; the
            paper leaves them out.
        anchors_per_image: the number that a step learns from, at most half of them positive.
        anchor_positive_iou: from here on an anchor shows the object.
        anchor_negative_iou: below, an anchor shows none.
        train_proposals: in training, how many of an image (of each level of a pyramid) go into
            their suppression, and how many of the image come out.
        test_proposals: the same for detection.
        proposal_iou: of that suppression.
        min_proposal_size: the least width and height of a proposal in pixels of the input; the
            release has 16.
    """

    rpn_channels: Count | None = None
    anchor_sizes: Positives | None = None
    anchor_ratios: Positives = (0.5, 1.0, 2.0)
    crossing_anchors: bool = False
    anchors_per_image: Count = 256
    anchor_positive_iou: Share = 0.7
    anchor_negative_iou: Share = 0.3
    train_proposals: tuple[Count, Count] = (12000, 2000)
    test_proposals: tuple[Count, Count] = (6000, 300)
    proposal_iou: Share = 0.7
    min_proposal_size: Weight = 1.0

    def __post_init__(self) -> None:
        if self.anchor_negative_iou > self.anchor_positive_iou:
            raise DetectError(
                "detector.anchor_negative_iou: expected at most detector.anchor_positive_iou, "
                f"{self.anchor_positive_iou}, found {self.anchor_negative_iou}"
            )

    def network(self, channels: int, num_levels: int | None = None) -> RegionProposalNetwork:
        """The network, untrained.

        Args:
            channels: of the maps.
            num_levels: of a pyramid; None for one map.

        Raises:
            DetectError: not as many sizes of anchors as levels.
        """
        if num_levels is None:
            sizes = [self.anchor_sizes or ANCHOR_SIZES]
        else:
            doubled = [FINEST_ANCHOR_SIZE * 2**level for level in range(num_levels)]
            sizes = [(size,) for size in self.anchor_sizes or doubled]
            if len(sizes) != num_levels:
                raise DetectError(
                    f"detector.anchor_sizes: expected one for each of the pyramid's {num_levels} "
                    f"levels, found {list(self.anchor_sizes or ())}"
                )
        hidden = self.rpn_channels or (HIDDEN_CHANNELS if num_levels is None else channels)
        return RegionProposalNetwork(channels, hidden, sizes, self.anchor_ratios)

    def losses(
        self, outputs: AnchorOutputs, frames: Float[Tensor, "B 4"], truths: PaddedTruths
    ) -> dict[str, Float[Tensor, ""]]:
        """Terms `objectness` and `anchor_boxes`, of anchors drawn from those of each image."""
        targets = sample_anchors(
            outputs.anchors,
            truths,
            frames,
            anchors_per_image=self.anchors_per_image,
            positive_iou=self.anchor_positive_iou,
            negative_iou=self.anchor_negative_iou,
            crossing=self.crossing_anchors,
            generator=generator_on(outputs.anchors.device),
        )
        objectness, boxes = anchor_losses(outputs, targets)
        return {"objectness": objectness, "anchor_boxes": boxes}

    def select(
        self, outputs: AnchorOutputs, frames: Float[Tensor, "B 4"], counts: tuple[int, int]
    ) -> PaddedProposals:
        """The proposals of each image; `counts` are `train_proposals` or `test_proposals`."""
        return select_proposals(
            outputs,
            frames,
            num_before=counts[0],
            num_after=counts[1],
            iou_threshold=self.proposal_iou,
            min_size=self.min_proposal_size,
        )
