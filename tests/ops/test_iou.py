import sys
from functools import partial

import pytest
import torch
import torchvision
from torch.testing import assert_close

from detect.ops import (
    box_iou,
    elementwise_box_iou,
)
from tests.ops.random_boxes import SIZES, integer_boxes, real_boxes
from tests.reference import boxes as reference

# the package has a function of a like name
iou_module = sys.modules["detect.ops.iou"]

MEASURES = {
    "iou": (box_iou, reference.iou, torchvision.ops.box_iou),
    "giou": (
        partial(box_iou, kind="giou"),
        reference.generalized_iou,
        torchvision.ops.generalized_box_iou,
    ),
    "diou": (
        partial(box_iou, kind="diou"),
        reference.distance_iou,
        torchvision.ops.distance_box_iou,
    ),
    "ciou": (
        partial(box_iou, kind="ciou"),
        reference.complete_iou,
        torchvision.ops.complete_box_iou,
    ),
}


def table(measure, a, b):
    rows = [[measure(x, y) for y in b.tolist()] for x in a.tolist()]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(a), len(b))


@pytest.mark.parametrize("kind", MEASURES)
@pytest.mark.parametrize("num_a", SIZES)
def test_pairwise_equals_the_oracle(kind, num_a):
    pairwise, oracle, _ = MEASURES[kind]
    a, b = real_boxes(num_a, 1), real_boxes(17, 2)
    b[:2] = a[0] if num_a else b[:2]  # duplicates
    result = pairwise(a, b)
    assert result.dtype == torch.float32
    assert_close(result.double(), table(oracle, a, b), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", MEASURES)
@pytest.mark.parametrize("draw", [integer_boxes, real_boxes])
def test_pairwise_equals_torchvision(kind, draw):
    pairwise, _, of_torchvision = MEASURES[kind]
    a, b = draw(257, 3), draw(100, 4)
    assert_close(pairwise(a, b), of_torchvision(a, b), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", MEASURES)
def test_boxes_smaller_than_a_pixel_overlap_as_large_ones_do(kind):
    pairwise = MEASURES[kind][0]
    a, b = real_boxes(40, 3).double(), real_boxes(40, 4).double()
    assert_close(pairwise(a / 1024, b / 1024), pairwise(a, b), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", MEASURES)
def test_elementwise_is_the_diagonal_of_pairwise(kind):
    a, b = real_boxes(257, 5), real_boxes(257, 6)
    assert_close(elementwise_box_iou(a, b, kind), MEASURES[kind][0](a, b).diagonal())


def test_iou_of_half_open_boxes_is_the_plus_one_iou_of_inclusive_ones():
    inclusive = integer_boxes(200, 7).double() + torch.tensor([1.0, 1, 0, 0])
    half_open = inclusive - torch.tensor([1.0, 1, 0, 0])
    expected = table(reference.iou_devkit, inclusive, inclusive)
    assert torch.equal(box_iou(half_open, half_open), expected)  # bit by bit, not just closely


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", MEASURES)
def test_half_precision_is_measured_in_float32(kind, dtype):
    a, b = (integer_boxes(50, seed).to(dtype) for seed in (8, 9))  # whole numbers are exact
    pairwise = MEASURES[kind][0]
    assert pairwise(a, b).dtype == torch.float32
    assert_close(pairwise(a, b), pairwise(a.float(), b.float()))
    large = torch.tensor([[0, 0, 300, 300]], dtype=dtype)  # its area overflows float16
    assert_close(pairwise(large, large), torch.ones(1, 1))


def test_empty_and_inverted_boxes_never_give_nan():
    boxes = torch.tensor([[3.0, 3, 3, 3], [3, 3, 3, 3], [5, 5, 2, 2], [0, 0, 10, 10]])
    for kind in MEASURES:
        assert elementwise_box_iou(boxes[:, None], boxes, kind).isfinite().all()
    assert box_iou(boxes, boxes)[:3].count_nonzero() == 0
    assert box_iou(boxes, boxes)[3, 3] == 1


def test_touching_boxes_do_not_overlap():
    assert box_iou(torch.tensor([[0.0, 0, 5, 5]]), torch.tensor([[5.0, 0, 9, 5]])).item() == 0


def test_leading_dimensions_broadcast():
    a, b = real_boxes(24, 10).reshape(4, 6, 4), real_boxes(5, 11).reshape(1, 5, 4)
    result = box_iou(a, b)
    assert result.shape == (4, 6, 5)
    for image in range(4):
        assert_close(result[image], box_iou(a[image], b[0]))
    assert box_iou(torch.zeros(3, 0, 4), torch.zeros(3, 7, 4)).shape == (3, 0, 7)


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_gradient_moves_a_box_that_does_not_overlap_towards_its_target(kind):
    box = torch.tensor([[20.0, 20, 30, 26]], requires_grad=True)
    target = torch.tensor([[0.0, 0, 10, 10]])
    before = (1 - elementwise_box_iou(box, target, kind)).sum()
    before.backward()
    assert box.grad.isfinite().all()
    with torch.no_grad():
        after = (1 - elementwise_box_iou(box - 10 * box.grad, target, kind)).sum()
    assert after < before


def test_the_weight_of_the_aspect_term_is_constant_in_the_gradient():
    box = torch.tensor([[0.0, 0, 8, 4]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[0.0, 0, 5, 9]], dtype=torch.float64)
    elementwise_box_iou(box, target, "ciou").sum().backward()

    def with_weight_of(original, moved):
        shapes = [torch.atan((x[2] - x[0]) / (x[3] - x[1])) for x in (original, moved, target[0])]
        disparity = 4 / torch.pi**2 * (shapes[0] - shapes[2]) ** 2
        weight = disparity / (1 - elementwise_box_iou(original, target[0]) + disparity)
        term = weight * 4 / torch.pi**2 * (shapes[1] - shapes[2]) ** 2
        return elementwise_box_iou(moved, target[0], "diou") - term

    original = box.detach()[0]
    step = 1e-6
    for corner in range(4):
        shift = torch.zeros(4, dtype=torch.float64)
        shift[corner] = step
        # one-sided: at equal corners the slope of the overlap differs by direction
        slopes = [
            (with_weight_of(original, original + sign * shift) - with_weight_of(original, original))
            / (sign * step)
            for sign in (1, -1)
        ]
        low, high = min(slopes) - 1e-5, max(slopes) + 1e-5
        assert low <= box.grad[0, corner] <= high


@pytest.mark.parametrize("kind", MEASURES)
@pytest.mark.parametrize("chunk", [1, 7, 100, 5000])
def test_chunks_of_any_size_give_the_same_bits(kind, chunk, monkeypatch):
    a, b = real_boxes(66, 12).reshape(2, 33, 4), real_boxes(41, 13)
    expected = MEASURES[kind][0](a, b)
    monkeypatch.setattr(iou_module, "CHUNK_PAIRS_CPU", chunk)
    assert torch.equal(MEASURES[kind][0](a, b), expected)
    assert torch.equal(elementwise_box_iou(a[0], b[:1], kind), expected[0, :, 0])


def test_only_a_chunk_of_pairs_is_measured_at_a_time(monkeypatch):
    monkeypatch.setattr(iou_module, "CHUNK_PAIRS_CPU", 1000)
    sizes = []

    def watched(a, b, kind):
        sizes.append(torch.broadcast_shapes(a.shape, b.shape)[:-1].numel())
        return measure(a, b, kind)

    measure = iou_module._measure
    monkeypatch.setattr(iou_module, "_measure", watched)
    box_iou(real_boxes(300, 14), real_boxes(70, 15))
    assert max(sizes) <= 1000
    assert sum(sizes) == 300 * 70


@pytest.mark.parametrize("kind", MEASURES)
def test_gradients_of_many_pairs_are_those_of_few(kind, monkeypatch):
    a, b = real_boxes(40, 16).requires_grad_(), real_boxes(30, 17)
    expected = torch.autograd.grad(MEASURES[kind][0](a, b).sum(), a)[0]
    monkeypatch.setattr(iou_module, "CHUNK_PAIRS_CPU", 100)
    assert torch.equal(torch.autograd.grad(MEASURES[kind][0](a, b).sum(), a)[0], expected)


@pytest.mark.parametrize("kind", ["iou", "giou", "diou"])
def test_gradients_equal_the_differences_of_the_measure(kind):
    a, b = real_boxes(12, 18).double().requires_grad_(), real_boxes(12, 19).double()
    assert torch.autograd.gradcheck(lambda boxes: elementwise_box_iou(boxes, b, kind), a)
