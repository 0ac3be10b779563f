import pytest
import torch

from detect.detectors.yolo.grid import (
    Grid,
    assign_to_center_cell,
    assign_to_center_region,
)
from detect.structures import GroundTruth

CPU = torch.device("cpu")
GRID = Grid(rows=4, columns=5, size=(64, 80))  # cells of 16×16 pixels


def truth(*boxes: tuple[float, float, float, float], labels: list[int] | None = None):
    return GroundTruth(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels if labels is not None else range(len(boxes)), dtype=torch.int64),
        torch.zeros(len(boxes), dtype=torch.bool),
    )


def as_table(assignment) -> dict[tuple[int, int, int], int]:
    rows = zip(
        assignment.image.tolist(),
        assignment.row.tolist(),
        assignment.column.tolist(),
        assignment.labels.tolist(),
        strict=True,
    )
    return {(image, row, column): label for image, row, column, label in rows}


def test_center_cell_of_each_object():
    truths = (truth((0, 0, 16, 16), (60, 40, 78, 62)), truth(), truth((30, 30, 34, 34)))
    assert as_table(assign_to_center_cell(truths, GRID, CPU)) == {
        (0, 0, 0): 0,
        (0, 3, 4): 1,
        (2, 2, 2): 0,
    }


def test_center_on_the_far_edge_belongs_to_the_last_cell():
    found = assign_to_center_cell((truth((79.9999, 63.9999, 80, 64)),), GRID, CPU)
    assert as_table(found) == {(0, 3, 4): 0}


def test_first_object_takes_a_shared_cell():
    found = assign_to_center_cell((truth((2, 2, 10, 10), (0, 0, 14, 14)),), GRID, CPU)
    assert as_table(found) == {(0, 0, 0): 0}


def slow_center_region(truths: tuple[GroundTruth, ...], grid: Grid, radius: float = 1.5):
    """The rule, cell by cell."""
    cell_height, cell_width = grid.cell
    table = {}
    for image, objects in enumerate(truths):
        own = {}
        for index, (x1, y1, x2, y2) in enumerate(objects.boxes.tolist()):
            row = min(int((y1 + y2) / 2 / cell_height), grid.rows - 1)
            column = min(int((x1 + x2) / 2 / cell_width), grid.columns - 1)
            own.setdefault((row, column), []).append(index)
        area = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in objects.boxes.tolist()]
        for row in range(grid.rows):
            for column in range(grid.columns):
                x, y = (column + 0.5) * cell_width, (row + 0.5) * cell_height
                claims = own.get((row, column), [])
                if not claims:
                    for index, (x1, y1, x2, y2) in enumerate(objects.boxes.tolist()):
                        near = (
                            abs(x - (x1 + x2) / 2) < radius * cell_width
                            and abs(y - (y1 + y2) / 2) < radius * cell_height
                        )
                        if near and x1 < x < x2 and y1 < y < y2:
                            claims = [*claims, index]
                if claims:
                    best = min(claims, key=lambda index: area[index])
                    table[image, row, column] = int(objects.labels[best])
    return table


@pytest.mark.parametrize("seed", range(20))
def test_center_region_equals_the_slow_rule(seed: int):
    generator = torch.Generator().manual_seed(seed)
    truths = []
    for count in (0, 1, 6):
        centers = torch.rand(count, 2, generator=generator) * torch.tensor([80.0, 64.0])
        sizes = torch.rand(count, 2, generator=generator) * 40 + 1
        boxes = torch.cat((centers - sizes / 2, centers + sizes / 2), dim=1)
        boxes = torch.stack(
            (*boxes[:, :2].clamp(min=0).T, boxes[:, 2].clamp(max=80), boxes[:, 3].clamp(max=64)),
            dim=1,
        )
        truths.append(truth(*boxes.tolist()))
    found = as_table(assign_to_center_region(tuple(truths), GRID, CPU))
    assert found == slow_center_region(tuple(truths), GRID)


def test_small_object_keeps_its_cell_beside_a_large_one():
    large, small = (0.0, 0.0, 64.0, 64.0), (34.0, 34.0, 36.0, 36.0)
    table = as_table(assign_to_center_region((truth(large, small),), GRID, CPU))
    assert table[0, 2, 2] == 1
    assert 0 in table.values()
