import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from detect.ops import (
    box_area,
    clip_boxes,
    decode_deltas,
    encode_deltas,
    from_center_size,
    has_area,
    to_center_size,
)
from tests.reference import boxes as reference

pixels = st.floats(-500, 500, width=32)
sides = st.floats(0.5, 500, width=32)


@st.composite
def positive_boxes(draw):
    x, y, width, height = draw(pixels), draw(pixels), draw(sides), draw(sides)
    return torch.tensor([[x, y, x + width, y + height]])


def test_area_is_that_of_the_oracle_with_inverted_boxes_as_empty():
    boxes = torch.tensor([[0, 0, 3, 4], [5, 5, 5, 9], [3, 0, 0, 4], [3, 4, 0, 0], [-2, -1, 1, 1.5]])
    expected = torch.tensor([reference.area(box) for box in boxes.tolist()])
    assert expected.tolist() == [12, 0, 0, 0, 7.5]
    assert_close(box_area(boxes), expected)


def test_area_of_half_precision_does_not_overflow():
    boxes = torch.tensor([[0, 0, 300, 300]], dtype=torch.float16)
    assert_close(box_area(boxes), torch.tensor([90000.0]))


def test_area_keeps_leading_dimensions_and_float64():
    boxes = torch.rand(2, 3, 4, dtype=torch.float64)
    assert box_area(boxes).shape == (2, 3)
    assert box_area(boxes).dtype == torch.float64
    assert box_area(torch.zeros(0, 4)).shape == (0,)


def test_clip_boxes_cuts_at_width_and_height():
    boxes = torch.tensor([[-5.0, -6, 50, 60], [1, 2, 3, 4], [45, 35, 70, 80]])
    expected = torch.tensor([[0.0, 0, 40, 30], [1, 2, 3, 4], [40, 30, 40, 30]])
    assert_close(clip_boxes(boxes, (30, 40)), expected)


@settings(derandomize=True, deadline=None)
@given(positive_boxes())
def test_center_size_and_back(boxes):
    # coordinates up to 1000 carry float32 steps of 6e-5
    assert_close(from_center_size(to_center_size(boxes)), boxes, atol=2e-4, rtol=0)


def test_center_size_of_a_known_box():
    assert to_center_size(torch.tensor([[10.0, 20, 14, 26]])).tolist() == [[12, 23, 4, 6]]


@settings(derandomize=True, deadline=None)
@given(positive_boxes().map(torch.Tensor.double), positive_boxes().map(torch.Tensor.double))
def test_decoding_inverts_encoding(boxes, references):
    sizes = to_center_size(boxes)[:, 2:] / to_center_size(references)[:, 2:]
    expected = boxes
    if sizes.max() > 1000 / 16:  # beyond the cut the box comes back with its size capped
        expected = to_center_size(boxes)
        expected[:, 2:] = torch.minimum(
            expected[:, 2:], to_center_size(references)[:, 2:] * 1000 / 16
        )
        expected = from_center_size(expected)
    assert_close(decode_deltas(encode_deltas(boxes, references), references), expected)


def test_deltas_of_a_known_pair():
    deltas = encode_deltas(
        torch.tensor([[10.0, 10, 30, 50]]), torch.tensor([[0.0, 0, 10, 20]])
    )  # centers (20, 30) and (5, 10), sizes (20, 40) and (10, 20)
    assert_close(deltas, torch.tensor([[1.5, 1.0, math.log(2), math.log(2)]]))


def test_huge_deltas_decode_to_finite_boxes():
    boxes = decode_deltas(torch.tensor([[0.0, 0, 1e4, 1e4]]), torch.tensor([[0.0, 0, 16, 32]]))
    assert_close(boxes, torch.tensor([[8.0 - 500, 16 - 1000, 8 + 500, 16 + 1000]]))


@pytest.mark.parametrize("function", [encode_deltas, decode_deltas])
def test_no_boxes_give_no_deltas(function):
    assert function(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)


def test_clip_boxes_keeps_leading_dimensions():
    boxes = torch.tensor([[[-5.0, -6, 50, 60]], [[1, 2, 3, 4]]])
    assert clip_boxes(boxes, (30, 40)).tolist() == [[[0, 0, 40, 30]], [[1, 2, 3, 4]]]


def test_center_size_keeps_leading_dimensions():
    boxes = torch.tensor([[[0.0, 0, 4, 2]], [[1, 2, 3, 8]]])
    assert to_center_size(boxes).tolist() == [[[2, 1, 4, 2]], [[2, 5, 2, 6]]]
    assert from_center_size(to_center_size(boxes)).tolist() == boxes.tolist()


def test_lines_and_points_have_no_area():
    boxes = torch.tensor([[0.0, 0, 1, 1], [1, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 1]])
    assert has_area(boxes).tolist() == [True, False, False, False, False]
