"""What the regions of the training images are to the SVMs and to the box regressors."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detect.ops import box_iou, encode_deltas
from detect.structures import GroundTruth
from detect.training import ImageSource, Watch


class RegionTable(NamedTuple):
    """All regions of the training images: of each its objects, then its proposals.

    Attributes:
        offsets: `[P + 1]`; the rows of image p are `offsets[p]` to `offsets[p + 1]`.
        labels: `[R]` int16; the class of an object, −1 for a proposal.
        negatives: `[R, C]`; whether the region overlaps every object of the class by less than the
            threshold: a negative of that class's SVM.
        regressed: `[R]`; whether the region is a proposal that box regression learns from.
        classes: `[Q]`; of these, in the same order, the class of the object that is meant.
        deltas: `[Q, 4]`; and the way to it.
    """

    offsets: Int[Tensor, "P1"]
    labels: Int[Tensor, "R"]
    negatives: Bool[Tensor, "R C"]
    regressed: Bool[Tensor, "R"]
    classes: Int[Tensor, "Q"]
    deltas: Float[Tensor, "Q 4"]

    @property
    def num_images(self) -> int:
        """P."""
        return len(self.offsets) - 1

    @property
    def num_regions(self) -> int:
        """R."""
        return len(self.labels)

    def rows_of(self, image: int) -> slice:
        """The rows of an image."""
        return slice(int(self.offsets[image]), int(self.offsets[image + 1]))


def regions_of(truth: GroundTruth, proposals: Float[Tensor, "N 4"]) -> Float[Tensor, "R 4"]:
    """The boxes of an image's rows."""
    return torch.cat((truth.boxes, proposals))


def tabulate_regions(
    images: ImageSource,
    num_classes: int,
    max_proposals: int,
    negative_iou: float,
    regression_iou: float,
    watch: Watch,
) -> RegionTable:
    """Label all regions by their overlaps with the objects of their image.

    Section 2.3 of the paper for the SVMs: an object is a positive of its class, a region that
    overlaps all objects of a class by less than 0.3 a negative; others are ignored. Appendix C for
    the regressors: a proposal learns from the object that it overlaps most, by 0.6 at least.
    """
    counts, labels, negatives, regressed, classes, deltas = [0], [], [], [], [], []
    for image in range(len(images)):
        watch(image, len(images))
        truth, proposals = images.regions(image)
        boxes = regions_of(truth, proposals[:max_proposals])
        iou = box_iou(boxes, truth.boxes)  # [R, M]
        best, objects = (
            iou.max(dim=1)
            if len(truth)
            else (torch.zeros(len(boxes)), torch.zeros(len(boxes), dtype=torch.int64))
        )
        of_class = torch.zeros(len(boxes), num_classes)
        of_class.scatter_reduce_(1, truth.labels.expand(len(boxes), -1), iou, "amax")
        own = torch.full((len(boxes),), -1, dtype=torch.int16)
        own[: len(truth)] = truth.labels.to(torch.int16)
        is_regressed = (own < 0) & (best >= regression_iou)
        meant = objects[is_regressed]
        counts.append(len(boxes))
        labels.append(own)
        negatives.append(of_class < negative_iou)
        regressed.append(is_regressed)
        classes.append(truth.labels[meant])
        deltas.append(encode_deltas(truth.boxes[meant], boxes[is_regressed]))
    return RegionTable(
        torch.tensor(counts).cumsum(0),
        torch.cat(labels),
        torch.cat(negatives),
        torch.cat(regressed),
        torch.cat(classes),
        torch.cat(deltas),
    )
