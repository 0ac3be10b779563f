"""What the numbers of the grid tensor mean and how they are taught: the paper's way and ours."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

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
from detect.ops import divisor_over_processes, elementwise_box_iou, from_center_size, to_center_size
from detect.ops.boxes import MAX_LOG_SCALE
from detect.structures import GroundTruth


@dataclass(frozen=True)
class Learned:
    """What the P responsible predictors say, and what they are to say.

    Attributes:
        assignment: of cells to objects.
        outputs: `[P, 4]` raw box outputs.
        boxes: `[P, 4]` the same decoded, xyxy pixels.
        confidences: `[P]` raw.
        classes: `[P, C]` raw class outputs of the cells.
        overlaps: `[P]` IoU of the decoded box with the object, without gradient.
        labels: `[P, C]` 1 for the class of the object.
    """

    assignment: Assignment
    outputs: Float[Tensor, "P 4"]
    boxes: Float[Tensor, "P 4"]
    confidences: Float[Tensor, "P"]
    classes: Float[Tensor, "P C"]
    overlaps: Float[Tensor, "P"]
    labels: Float[Tensor, "P C"]


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
    def assign(
        self, truths: tuple[GroundTruth, ...], grid: Grid, device: torch.device
    ) -> Assignment:
        """Which cells are to predict which objects."""

    @abstractmethod
    def terms(
        self,
        learned: Learned,
        confidences: Float[Tensor, "B S T boxes"],
        no_object: Float[Tensor, "B S T boxes"],
        grid: Grid,
    ) -> dict[str, Float[Tensor, ""]]:
        """Sums over the batch of `coordinates`, `object`, `no_object` and `classes`, weighted.

        `no_object` is 1 for each predictor that is responsible for nothing, else 0.
        """

    @abstractmethod
    def divisor(self, assignment: Assignment, num_images: int) -> int:
        """What the sums are divided by, if it is not 0."""

    def loss(
        self,
        outputs: Float[Tensor, "B S T boxes 4"],
        confidences: Float[Tensor, "B S T boxes"],
        classes: Float[Tensor, "B S T C"],
        truths: tuple[GroundTruth, ...],
        grid: Grid,
    ) -> dict[str, Float[Tensor, ""]]:
        """The terms of the objective from the raw outputs and the objects."""
        assignment = self.assign(truths, grid, outputs.device)
        cells = (assignment.image, assignment.row, assignment.column)
        decoded = self.decode(outputs, grid)[cells]  # [P, boxes, 4]
        responsible, overlaps = responsible_predictor(decoded.detach(), assignment.boxes)
        predictors = (*cells, responsible)
        rows = torch.arange(len(responsible), device=outputs.device)
        learned = Learned(
            assignment=assignment,
            outputs=outputs[predictors],
            boxes=decoded[rows, responsible],
            confidences=confidences[predictors],
            classes=classes[cells],
            overlaps=overlaps.to(confidences.dtype),
            labels=functional.one_hot(assignment.labels, classes.shape[-1]).to(classes.dtype),
        )
        no_object = torch.ones_like(confidences)
        no_object[predictors] = 0
        terms = self.terms(learned, confidences, no_object, grid)
        divisor = divisor_over_processes(self.divisor(assignment, len(truths)))
        return {name: term / divisor for name, term in terms.items()}


class PaperVariant(Variant):
    """Section 2.2 and equation 3: sums of squares, over an image, averaged over the batch.

    A box is `(x, y, √w, √h)`: the center from the cell's upper left corner in cells, the size as a
    share of the image. All outputs are linear.
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

    def assign(
        self, truths: tuple[GroundTruth, ...], grid: Grid, device: torch.device
    ) -> Assignment:
        """An object to the cell at its center."""
        return assign_to_center_cell(truths, grid, device)

    def terms(
        self,
        learned: Learned,
        confidences: Float[Tensor, "B S T boxes"],
        no_object: Float[Tensor, "B S T boxes"],
        grid: Grid,
    ) -> dict[str, Float[Tensor, ""]]:
        """Equation 3; the confidence of the responsible predictor aims at its IoU."""
        errors = learned.outputs - self.encode(learned.assignment, grid)
        return {
            "coordinates": self.coordinate_weight * errors.square().sum(),
            "object": (learned.confidences - learned.overlaps).square().sum(),
            "no_object": self.no_object_weight * (no_object * confidences.square()).sum(),
            "classes": (learned.classes - learned.labels).square().sum(),
        }

    def divisor(self, assignment: Assignment, num_images: int) -> int:  # noqa: ARG002
        """The images of the batch."""
        return num_images


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

    def assign(
        self, truths: tuple[GroundTruth, ...], grid: Grid, device: torch.device
    ) -> Assignment:
        """An object to the cells around its center."""
        return assign_to_center_region(truths, grid, device)

    def terms(
        self,
        learned: Learned,
        confidences: Float[Tensor, "B S T boxes"],
        no_object: Float[Tensor, "B S T boxes"],
        grid: Grid,  # noqa: ARG002
    ) -> dict[str, Float[Tensor, ""]]:
        """As the class says; the confidence of the responsible predictor aims at its IoU."""
        complete_iou = elementwise_box_iou(learned.boxes, learned.assignment.boxes, "ciou")
        return {
            "coordinates": self.coordinate_weight * (1 - complete_iou).sum(),
            "object": functional.binary_cross_entropy_with_logits(
                learned.confidences, learned.overlaps, reduction="sum"
            ),
            # −log(1 − σ(t)) = softplus(t)
            "no_object": self.no_object_weight
            * (no_object * functional.softplus(confidences)).sum(),
            "classes": functional.binary_cross_entropy_with_logits(
                learned.classes, learned.labels, reduction="sum"
            ),
        }

    def divisor(self, assignment: Assignment, num_images: int) -> int:  # noqa: ARG002
        """The positive cells of the batch."""
        return len(assignment.labels)


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
