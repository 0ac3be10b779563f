import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.testing import assert_close
from torchvision.ops import complete_box_iou_loss

from detect.detectors.yolo.grid import Assignment, Grid, assign_to_center_cell
from detect.detectors.yolo.variants import ModernVariant, PaperVariant, responsible_predictor
from detect.structures import GroundTruth

CPU = torch.device("cpu")
GRID = Grid(rows=3, columns=4, size=(48, 64))
NUM_CLASSES = 3


def plain_iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (area - width * height)


def random_case(seed: int, boxes_per_cell: int = 2):
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.rand(2, 3, 4, boxes_per_cell, 4, generator=generator)
    confidences = torch.rand(2, 3, 4, boxes_per_cell, generator=generator)
    classes = torch.rand(2, 3, 4, NUM_CLASSES, generator=generator)
    corners = torch.tensor([[3.0, 4, 20, 30], [30, 2, 61, 40], [33, 8, 50, 28]])
    truths = (
        GroundTruth(corners, torch.tensor([0, 2, 1]), torch.zeros(3, dtype=torch.bool)),
        GroundTruth.empty(),
    )
    return outputs, confidences, classes, truths


def slow_paper_loss(outputs, confidences, classes, truths) -> dict[str, float]:
    """Equation 3, term by term and cell by cell, for `GRID`."""
    height, width = GRID.size
    terms = dict.fromkeys(("coordinates", "object", "no_object", "classes"), 0.0)
    for image, truth in enumerate(truths):
        cells: dict[tuple[int, int], int] = {}
        for index, (x1, y1, x2, y2) in enumerate(truth.boxes.tolist()):
            row = int((y1 + y2) / 2 / (height / GRID.rows))
            column = int((x1 + x2) / 2 / (width / GRID.columns))
            cells.setdefault((row, column), index)
        for row in range(GRID.rows):
            for column in range(GRID.columns):
                responsible = None
                if (row, column) in cells:
                    index = cells[row, column]
                    box = truth.boxes[index].tolist()
                    overlaps = []
                    for x, y, root_w, root_h in outputs[image, row, column].tolist():
                        cx = (column + x) * width / GRID.columns
                        cy = (row + y) * height / GRID.rows
                        w, h = root_w**2 * width, root_h**2 * height
                        overlaps.append(
                            plain_iou([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], box)
                        )
                    responsible = max(range(len(overlaps)), key=lambda j: overlaps[j])
                    x, y, root_w, root_h = outputs[image, row, column, responsible].tolist()
                    target_x = (box[0] + box[2]) / 2 / (width / GRID.columns) - column
                    target_y = (box[1] + box[3]) / 2 / (height / GRID.rows) - row
                    target_w = math.sqrt((box[2] - box[0]) / width)
                    target_h = math.sqrt((box[3] - box[1]) / height)
                    terms["coordinates"] += 5 * (
                        (x - target_x) ** 2
                        + (y - target_y) ** 2
                        + (root_w - target_w) ** 2
                        + (root_h - target_h) ** 2
                    )
                    confidence = float(confidences[image, row, column, responsible])
                    terms["object"] += (confidence - overlaps[responsible]) ** 2
                    for label in range(NUM_CLASSES):
                        wanted = float(label == int(truth.labels[index]))
                        terms["classes"] += (
                            float(classes[image, row, column, label]) - wanted
                        ) ** 2
                for j in range(outputs.shape[3]):
                    if j != responsible:
                        terms["no_object"] += 0.5 * float(confidences[image, row, column, j]) ** 2
    return {name: value / len(truths) for name, value in terms.items()}


@pytest.mark.parametrize("seed", range(5))
def test_paper_loss_equals_equation_3_written_out(seed: int):
    case = random_case(seed)
    terms = PaperVariant(5.0, 0.5).loss(*case, GRID)
    expected = slow_paper_loss(*case)
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(expected, rel=1e-5)


def test_paper_loss_is_zero_at_the_truth():
    outputs, confidences, classes, truths = random_case(0)
    variant = PaperVariant(5.0, 0.5)
    assignment = assign_to_center_cell(truths, GRID, CPU)
    cells = (assignment.image, assignment.row, assignment.column)
    outputs = torch.zeros_like(outputs)
    confidences, classes = torch.zeros_like(confidences), torch.zeros_like(classes)
    outputs[(*cells, 0)] = variant.encode(assignment, GRID)
    confidences[(*cells, 0)] = 1.0
    classes[(*cells, assignment.labels)] = 1.0
    terms = variant.loss(outputs, confidences, classes, truths, GRID)
    for name, term in terms.items():
        assert_close(term, torch.tensor(0.0), atol=1e-10, rtol=0, msg=name)


@given(
    st.lists(
        st.tuples(st.floats(0, 55), st.floats(0, 40), st.floats(1, 8), st.floats(1, 7)),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=50, deadline=None)
def test_paper_decode_inverts_encode(rows):
    boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in rows])
    truth = GroundTruth(boxes, torch.arange(len(boxes)), torch.zeros(len(boxes), dtype=torch.bool))
    assignment = assign_to_center_cell((truth,), GRID, CPU)
    variant = PaperVariant(5.0, 0.5)
    outputs = torch.zeros(1, GRID.rows, GRID.columns, 1, 4)
    cells = (assignment.image, assignment.row, assignment.column)
    outputs[(*cells, 0)] = variant.encode(assignment, GRID)
    # the square root and its square lose a few of float32's 24 bits
    assert_close(variant.decode(outputs, GRID)[(*cells, 0)], assignment.boxes, atol=1e-4, rtol=1e-5)


def test_paper_probabilities_never_multiply_two_negatives():
    variant = PaperVariant(5.0, 0.5)
    low = variant.probabilities(torch.tensor([-2.0, 0.25, 3.0]))
    assert_close(low, torch.tensor([0.0, 0.25, 1.0]))


def test_modern_decode_at_zero_is_the_cell():
    decoded = ModernVariant(2.0, 1.0).decode(torch.zeros(1, 3, 4, 1, 4), GRID)
    assert_close(decoded[0, 1, 2, 0], torch.tensor([32.0, 16.0, 48.0, 32.0]))


def test_modern_decode_is_finite_for_any_output():
    decoded = ModernVariant(2.0, 1.0).decode(torch.full((1, 3, 4, 1, 4), 1e4), GRID)
    assert decoded.isfinite().all()


@pytest.mark.parametrize("seed", range(3))
def test_modern_loss_against_torch_and_torchvision(seed: int):
    outputs, confidences, classes, truths = random_case(seed, boxes_per_cell=1)
    variant = ModernVariant(2.0, 1.0)
    terms = variant.loss(outputs, confidences, classes, truths, GRID)
    assignment: Assignment = _region(truths)
    cells = (assignment.image, assignment.row, assignment.column)
    decoded = variant.decode(outputs, GRID)[(*cells, 0)]
    count = len(assignment.labels)
    assert count > 3
    box_loss = complete_box_iou_loss(decoded, assignment.boxes, reduction="sum")
    assert_close(terms["coordinates"], 2 * box_loss / count)
    overlaps = torch.tensor(
        [plain_iou(a, b) for a, b in zip(decoded.tolist(), assignment.boxes.tolist(), strict=True)]
    )
    target = torch.zeros_like(confidences)
    target[(*cells, 0)] = overlaps
    both = binary_cross_entropy_with_logits(confidences, target, reduction="sum") / count
    assert_close(terms["object"] + terms["no_object"], both)
    labels = torch.eye(NUM_CLASSES)[assignment.labels]
    class_loss = binary_cross_entropy_with_logits(classes[cells], labels, reduction="sum")
    assert_close(terms["classes"], class_loss / count)


def _region(truths: tuple[GroundTruth, ...]) -> Assignment:
    from detect.detectors.yolo.grid import assign_to_center_region

    return assign_to_center_region(truths, GRID, CPU)


def test_responsible_predictor_is_the_best_overlap_or_else_the_nearest():
    truths = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]])
    decoded = torch.tensor(
        [
            [[0.0, 0, 5, 5], [0, 0, 9, 9], [1, 1, 4, 4]],
            [[90.0, 90, 99, 99], [50, 50, 60, 60], [20, 20, 30, 30]],
        ]
    )
    responsible, overlaps = responsible_predictor(decoded, truths)
    assert responsible.tolist() == [1, 2]
    assert_close(overlaps, torch.tensor([0.81, 0.0]))
