"""What the numbers of the grid tensor mean and how they are taught: the paper's way and ours."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from detect.detectors.yolo.grid import (
    Assignment,
    Grid,
    assign_to_center_cell,
    assign_to_center_region,
    cell_centers,
)
from detect.ops import elementwise_box_iou, from_center_size, to_center_size
from detect.ops.boxes import MAX_LOG_SCALE
from detect.structures import GroundTruth


class Variant(ABC):
    """A reading of the grid tensor, with the loss that goes with it.

    Args:
        coordinate_weight: λ_coord, of the box term.
        no_object_weight: λ_noobj, of the confidence of predictors responsible for nothing.
    """

    def __init__(self, coordinate_weight: float, no_object_weight: float) -> None:
        self.coordinate_weight = coordinate_weight
        self.no_object_weight = no_object_weight

    @abstractmethod
    def decode(
        self, outputs: Float[Tensor, "B S T boxes 4"], grid: Grid
    ) -> Float[Tensor, "B S T boxes 4"]:
        """Box outputs → xyxy pixels."""

    @abstractmethod
    def probabilities(self, outputs: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Confidence or class outputs → 0…1."""

    @abstractmethod
    def loss(
        self,
        outputs: Float[Tensor, "B S T boxes 4"],
        confidences: Float[Tensor, "B S T boxes"],
        classes: Float[Tensor, "B S T C"],
        truths: tuple[GroundTruth, ...],
        grid: Grid,
    ) -> dict[str, Float[Tensor, ""]]:
        """Terms `coordinates`, `object`, `no_object` and `classes`, weighted."""


class PaperVariant(Variant):
    """Section 2.2 and equation 3: sums of squares, over a picture, averaged over the batch.

    A box is `(x, y, √w, √h)`: the center from the cell's upper left corner in cells, the size as a
    share of the picture. All outputs are linear.
    """

    def decode(
        self, outputs: Float[Tensor, "B S T boxes 4"], grid: Grid
    ) -> Float[Tensor, "B S T boxes 4"]:
        """`(x, y, √w, √h)` → xyxy pixels."""
        corners = cell_centers(grid, outputs.device)[:, :, None] - 0.5  # [S, T, 1, 2]
        centers = (outputs[..., :2] + corners) * outputs.new_tensor(grid.cell[::-1])
        sizes = outputs[..., 2:].square() * outputs.new_tensor(grid.size[::-1])
        return from_center_size(torch.cat((centers, sizes), dim=-1))

    def encode(self, assignment: Assignment, grid: Grid) -> Float[Tensor, "P 4"]:
        """The outputs that decode to the assigned boxes in their cells."""
        target = to_center_size(assignment.boxes)
        cells = torch.stack((assignment.column, assignment.row), dim=1)
        offsets = target[:, :2] / target.new_tensor(grid.cell[::-1]) - cells
        roots = (target[:, 2:] / target.new_tensor(grid.size[::-1])).sqrt()
        return torch.cat((offsets, roots), dim=1)

    def probabilities(self, outputs: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Cut off at 0 and 1: a negative confidence times a negative class score is no find."""
        return outputs.clamp(0, 1)

    def loss(
        self,
        outputs: Float[Tensor, "B S T boxes 4"],
        confidences: Float[Tensor, "B S T boxes"],
        classes: Float[Tensor, "B S T C"],
        truths: tuple[GroundTruth, ...],
        grid: Grid,
    ) -> dict[str, Float[Tensor, ""]]:
        """Equation 3; the confidence of the responsible predictor aims at its IoU."""
        assignment = assign_to_center_cell(truths, grid, outputs.device)
        cells = (assignment.image, assignment.row, assignment.column)
        decoded = self.decode(outputs.detach(), grid)[cells]  # [P, boxes, 4]
        responsible, overlaps = responsible_predictor(decoded, assignment.boxes)
        predictors = (*cells, responsible)
        errors = outputs[predictors] - self.encode(assignment, grid)
        labels = functional.one_hot(assignment.labels, classes.shape[-1]).to(classes.dtype)
        terms = {
            "coordinates": self.coordinate_weight * errors.square().sum(),
            "object": (confidences[predictors] - overlaps).square().sum(),
            "no_object": self.no_object_weight
            * (_without(predictors, confidences) * confidences.square()).sum(),
            "classes": (classes[cells] - labels).square().sum(),
        }
        return {name: term / len(truths) for name, term in terms.items()}


class ModernVariant(Variant):
    """CIoU for boxes, binary cross entropy for scores, more than one cell for an object.

    A box is `(t_x, t_y, t_w, t_h)`: the center from the cell's center in cells, the logarithm of
    the size in cells. Confidences and class scores are logits. Terms are sums over the batch,
    divided by its number of positive cells.
    """

    def decode(
        self, outputs: Float[Tensor, "B S T boxes 4"], grid: Grid
    ) -> Float[Tensor, "B S T boxes 4"]:
        """`(t_x, t_y, t_w, t_h)` → xyxy pixels."""
        origins = cell_centers(grid, outputs.device)[:, :, None]  # [S, T, 1, 2]
        cell = outputs.new_tensor(grid.cell[::-1])
        centers = (outputs[..., :2] + origins) * cell
        sizes = outputs[..., 2:].clamp(max=MAX_LOG_SCALE).exp() * cell
        return from_center_size(torch.cat((centers, sizes), dim=-1))

    def probabilities(self, outputs: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """The sigmoid."""
        return outputs.sigmoid()

    def loss(
        self,
        outputs: Float[Tensor, "B S T boxes 4"],
        confidences: Float[Tensor, "B S T boxes"],
        classes: Float[Tensor, "B S T C"],
        truths: tuple[GroundTruth, ...],
        grid: Grid,
    ) -> dict[str, Float[Tensor, ""]]:
        """As the class says; the confidence of the responsible predictor aims at its IoU."""
        assignment = assign_to_center_region(truths, grid, outputs.device)
        cells = (assignment.image, assignment.row, assignment.column)
        decoded = self.decode(outputs, grid)[cells]  # [P, boxes, 4]
        responsible, overlaps = responsible_predictor(decoded.detach(), assignment.boxes)
        predictors = (*cells, responsible)
        chosen = decoded[torch.arange(len(decoded), device=decoded.device), responsible]
        labels = functional.one_hot(assignment.labels, classes.shape[-1]).to(classes.dtype)
        terms = {
            "coordinates": self.coordinate_weight
            * (1 - elementwise_box_iou(chosen, assignment.boxes, "ciou")).sum(),
            "object": functional.binary_cross_entropy_with_logits(
                confidences[predictors], overlaps.to(confidences.dtype), reduction="sum"
            ),
            # −log(1 − σ(t)) = softplus(t)
            "no_object": self.no_object_weight
            * (_without(predictors, confidences) * functional.softplus(confidences)).sum(),
            "classes": functional.binary_cross_entropy_with_logits(
                classes[cells], labels, reduction="sum"
            ),
        }
        num_positive = max(len(assignment.labels), 1)
        return {name: term / num_positive for name, term in terms.items()}


def responsible_predictor(
    decoded: Float[Tensor, "P boxes 4"], truths: Float[Tensor, "P 4"]
) -> tuple[Int[Tensor, "P"], Float[Tensor, "P"]]:
    """Which of a cell's boxes is responsible for the cell's object, and its IoU with it.

    The one of the highest IoU (section 2.2). Where no box touches the object, as in the first
    steps, the one that is nearest in its coordinates: so the authors' code, the paper is silent.
    """
    overlaps = elementwise_box_iou(decoded, truths[:, None])  # [P, boxes]
    nearest = (decoded - truths[:, None]).square().sum(dim=-1).argmin(dim=1)
    best_overlaps, best = overlaps.max(dim=1)
    return torch.where(best_overlaps > 0, best, nearest), best_overlaps


def _without(predictors: tuple[Tensor, ...], confidences: Tensor) -> Tensor:
    # 1 for each predictor that is responsible for nothing
    mask = torch.ones_like(confidences)
    mask[predictors] = 0
    return mask
