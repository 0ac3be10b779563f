"""The grid: which cell is to predict which object."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detect.ops import to_center_size
from detect.structures import GroundTruth


@dataclass(frozen=True)
class Grid:
    """The division of the input into cells.

    Attributes:
        rows: S vertically.
        columns: S horizontally; differs from `rows` for inputs that are not square.
        size: (height, width) of the input in pixels.
    """

    rows: int
    columns: int
    size: tuple[int, int]

    @property
    def cell(self) -> tuple[float, float]:
        """(height, width) of a cell in pixels."""
        return self.size[0] / self.rows, self.size[1] / self.columns


@dataclass(frozen=True)
class Assignment:
    """The P pairs of a cell and the object that it is to predict, over a whole batch.

    Attributes:
        image: `[P]` index of the image in the batch.
        row: `[P]` of the cell.
        column: `[P]` of the cell.
        boxes: `[P, 4]` of the object, xyxy pixels.
        labels: `[P]` of the object.
    """

    image: Int[Tensor, "P"]
    row: Int[Tensor, "P"]
    column: Int[Tensor, "P"]
    boxes: Float[Tensor, "P 4"]
    labels: Int[Tensor, "P"]


def assign_to_center_cell(
    truths: tuple[GroundTruth, ...], grid: Grid, device: torch.device
) -> Assignment:
    """Each object to the cell that its center falls into (section 2).

    A cell has one set of class scores, so it can stand for one object: of several that fall into
    it, the first of the image gets it, as in the authors' code; the paper is silent.
    """
    image, boxes, labels = _flatten(truths, device)
    centers = to_center_size(boxes)[:, :2]
    row, column = _cell_of(centers, grid)
    cell = (image * grid.rows + row) * grid.columns + column
    return _first_of_each_cell(cell, Assignment(image, row, column, boxes, labels))


def assign_to_center_region(
    truths: tuple[GroundTruth, ...], grid: Grid, device: torch.device, radius: float = 1.5
) -> Assignment:
    """Each object to the cells around its center: see `YOLO`, variant `modern`.

    Its own cell counts even when the object is too small to cover the cell's center. Of several
    objects that claim a cell, the smallest gets it (Tian et al. 2019, section 3.1).
    """
    image, boxes, labels = _flatten(truths, device)
    sizes = boxes[:, 2:] - boxes[:, :2]
    by_area = sizes.prod(dim=1).argsort(stable=True)
    image, boxes, labels = image[by_area], boxes[by_area], labels[by_area]
    cell_height, cell_width = grid.cell
    centers = to_center_size(boxes)[:, :2]
    own_row, own_column = _cell_of(centers, grid)
    reach = int(radius) + 1
    steps = torch.arange(-reach, reach + 1, device=device)
    step_row, step_column = (s.flatten() for s in torch.meshgrid(steps, steps, indexing="ij"))
    row = own_row[:, None] + step_row  # [N, K] candidate cells around each object
    column = own_column[:, None] + step_column
    candidate_centers = torch.stack(
        ((column + 0.5) * cell_width, (row + 0.5) * cell_height), dim=-1
    )  # [N, K, 2]
    distance = (candidate_centers - centers[:, None]).abs() / centers.new_tensor(
        (cell_width, cell_height)
    )
    inside = (
        (candidate_centers > boxes[:, None, :2]) & (candidate_centers < boxes[:, None, 2:])
    ).all(dim=-1)
    claimed = (distance < radius).all(dim=-1) & inside
    claimed |= (step_row == 0) & (step_column == 0)
    claimed &= (row >= 0) & (row < grid.rows) & (column >= 0) & (column < grid.columns)
    # cells in the order of falling priority: an object's own cell before its neighbors, so that a
    # small object beside a large one cannot lose its only cell; then the smaller object
    own = (step_row == 0) & (step_column == 0)
    owner, candidate = claimed.nonzero(as_tuple=True)
    order = (~own[candidate]).to(torch.int8).argsort(stable=True)
    owner, candidate = owner[order], candidate[order]
    row, column = row[owner, candidate], column[owner, candidate]
    cell = (image[owner] * grid.rows + row) * grid.columns + column
    return _first_of_each_cell(
        cell, Assignment(image[owner], row, column, boxes[owner], labels[owner])
    )


def cell_centers(grid: Grid, device: torch.device) -> Float[Tensor, "S T 2"]:
    """Center of each cell as (x, y), counted in cells from the upper left corner."""
    rows = torch.arange(grid.rows, device=device) + 0.5
    columns = torch.arange(grid.columns, device=device) + 0.5
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x, y), dim=-1)


def _flatten(
    truths: tuple[GroundTruth, ...], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    # the objects of all images in one row: image index [N], boxes [N, 4], labels [N]
    counts = torch.tensor([len(truth) for truth in truths], device=device)
    image = torch.arange(len(truths), device=device).repeat_interleave(counts)
    boxes = torch.cat([truth.boxes for truth in truths]).to(device)
    labels = torch.cat([truth.labels for truth in truths]).to(device)
    return image, boxes, labels


def _cell_of(centers: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    # a center on the lower or right edge of the image belongs to the last cell
    cell_height, cell_width = grid.cell
    column = (centers[:, 0] / cell_width).long().clamp(0, grid.columns - 1)
    row = (centers[:, 1] / cell_height).long().clamp(0, grid.rows - 1)
    return row, column


def _first_of_each_cell(cell: Tensor, claims: Assignment) -> Assignment:
    # a stable sort brings the claims of a cell together, the earliest first
    order = cell.argsort(stable=True)
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = cell[order][1:] != cell[order][:-1]
    kept = order[first]
    return Assignment(
        claims.image[kept],
        claims.row[kept],
        claims.column[kept],
        claims.boxes[kept],
        claims.labels[kept],
    )
