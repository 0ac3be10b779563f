"""Which of overlapping detections stay: the one place where any detector suppresses."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detect.detectors.ranges import Count, Positive, Share
from detect.ops import Decay, grouped_nms, matrix_nms, soft_nms
from detect.structures import Detections


@dataclass(frozen=True)
class Suppressor:
    """Makes detections of candidates; those of different classes or images never touch.

    Attributes:
        suppression: `greedy` drops what overlaps a better detection of its class too much; `soft`
            (Bodla et al. 2017) and `matrix` (Wang et al. 2020) lower its score instead, and drop
            what falls below the score threshold. Scores that may be negative, such as margins of
            SVMs, decay towards that threshold, not towards 0.
        iou_threshold: detections are suppressed when their IoU with a better one is greater than
            this; of `soft` with the linear decay, the least IoU that lowers a score.
        suppression_decay: what an IoU does to a score, of `soft` and `matrix`: `gaussian`
            multiplies by exp(−IoU² / sigma), `linear` by 1 − IoU.
        suppression_sigma: of the Gaussian decay; less suppresses more.
        max_detections: the best that are kept of each image; None keeps all.
    """

    suppression: Literal["greedy", "soft", "matrix"] = "greedy"
    iou_threshold: Share = 0.5
    suppression_decay: Decay = "gaussian"
    suppression_sigma: Positive = 0.5
    max_detections: Count | None = 100

    def __call__(
        self,
        boxes: Float[Tensor, "N 4"],
        scores: Float[Tensor, "N"],
        labels: Int[Tensor, "N"],
        image_index: Int[Tensor, "N"],
        num_images: int,
        score_threshold: float,
    ) -> list[Detections]:
        """The detections of each image, best first.

        Args:
            boxes: the candidates of all images, xyxy pixels.
            scores: `score_threshold` or more.
            labels: the class of each.
            image_index: and its image, in 0 … `num_images` − 1.
            num_images: of the batch; an image may have no candidate.
            score_threshold: what a lowered score must reach.
        """
        groups = labels * num_images + image_index
        if self.suppression == "greedy":
            kept = grouped_nms(boxes, scores, groups, self.iou_threshold)
        else:
            floor = min(score_threshold, 0.0)
            kept, lowered = self._rescored(boxes, scores - floor, groups, score_threshold - floor)
            scores = scores.scatter(0, kept, lowered + floor)
        numbers = image_index[kept]
        kept = kept[numbers.argsort(stable=True)]  # by image, within it by falling score
        parts = kept.split(torch.bincount(numbers, minlength=num_images).tolist())
        best = [rows[: self.max_detections] for rows in parts]
        return [Detections(boxes[rows], scores[rows], labels[rows]) for rows in best]

    def _rescored(
        self,
        boxes: Float[Tensor, "N 4"],
        scores: Float[Tensor, "N"],
        groups: Int[Tensor, "N"],
        score_threshold: float,
    ) -> tuple[Int[Tensor, "K"], Float[Tensor, "K"]]:
        decay, sigma = self.suppression_decay, self.suppression_sigma
        if self.suppression == "matrix":
            return matrix_nms(
                boxes, scores, groups, decay=decay, sigma=sigma, score_threshold=score_threshold
            )
        return soft_nms(
            boxes,
            scores,
            groups,
            decay=decay,
            iou_threshold=self.iou_threshold,
            sigma=sigma,
            score_threshold=score_threshold,
        )
