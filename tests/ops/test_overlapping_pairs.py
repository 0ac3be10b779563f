import pytest
import torch

from detect.ops import box_iou, iou_at_least
from tests.ops.random_boxes import integer_boxes, real_boxes


def brute_force(a, b, threshold, groups_a=None, groups_b=None):
    iou = box_iou(a, b)
    reached = iou >= threshold
    if groups_a is not None:
        reached &= groups_a[:, None] == groups_b
    first, second = reached.nonzero().unbind(dim=1)
    return first, second, iou[first, second]


def assert_equal(found, expected):
    assert found.first.tolist() == expected[0].tolist()
    assert found.second.tolist() == expected[1].tolist()
    assert torch.equal(found.overlaps, expected[2])  # bit by bit


def many_sizes(count, seed):
    """Boxes of all sizes and shapes, on both sides of the origin, some of them twice."""
    generator = torch.Generator().manual_seed(seed)
    sides = torch.exp2(torch.rand(count, 2, generator=generator) * 14 - 6)
    corners = (torch.rand(count, 2, generator=generator) - 0.5) * 100
    boxes = torch.cat((corners, corners + sides), dim=1)
    boxes[count // 2 :] = boxes[: count - count // 2] + torch.randint(
        0, 2, (count - count // 2, 4), generator=generator
    )
    return boxes


@pytest.mark.parametrize("threshold", [1e-6, 0.1, 0.3, 0.5, 0.6, 0.75, 1.0])
@pytest.mark.parametrize("draw", [integer_boxes, real_boxes, many_sizes])
@pytest.mark.parametrize("count", [0, 1, 2, 400])
def test_pairs_equal_those_of_all(count, draw, threshold):
    a, b = draw(count, 1), draw(257, 2)
    b[:2] = a[:2] if count > 1 else b[:2]  # equal in all methods
    for dtype in (torch.float32, torch.float64):
        found = iou_at_least(a.to(dtype), b.to(dtype), threshold)
        assert_equal(found, brute_force(a.to(dtype), b.to(dtype), threshold))
        assert_equal(
            iou_at_least(b.to(dtype), a.to(dtype), threshold),
            brute_force(b.to(dtype), a.to(dtype), threshold),
        )


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_a_pair_that_meets_the_threshold_to_the_last_bit(threshold):
    for seed in range(30):
        a, b = many_sizes(60, seed), many_sizes(60, seed + 1)
        overlaps = box_iou(a, b).flatten()
        exact = overlaps[(overlaps - threshold).abs().argmin()].item()
        found = iou_at_least(a, b, exact)
        assert exact in found.overlaps.tolist()
        assert_equal(found, brute_force(a, b, exact))


@pytest.mark.parametrize("chunk", [1, 50, 10**6])
def test_pairs_within_groups_in_chunks_of_any_size(chunk, monkeypatch):
    monkeypatch.setattr("detect.ops.overlapping_pairs.PAIRS_AT_A_TIME_CPU", chunk)
    generator = torch.Generator().manual_seed(3)
    a, b = many_sizes(90, 4), many_sizes(80, 5)
    a[:40] = b[:40]
    groups_a = torch.randint(-2, 3, (90,), generator=generator) * 10**15
    groups_b = torch.randint(-2, 4, (80,), generator=generator) * 10**15
    found = iou_at_least(a, b, 0.4, groups_a=groups_a, groups_b=groups_b)
    assert_equal(found, brute_force(a, b, 0.4, groups_a, groups_b))
    assert len(found.first) > 5


def test_boxes_that_overlap_nothing():
    boxes = torch.tensor(
        [[0.0, 0, 10, 10], [10, 0, 20, 10], [5, 5, 5, 9], [9, 9, 1, 1], [0, 10, 10, 20]]
    )
    found = iou_at_least(boxes, boxes, 1e-9)
    assert found.first.tolist() == found.second.tolist() == [0, 1, 4]
    odd = torch.tensor([[0.0, 0, float("nan"), 10], [0, 0, float("inf"), 10]])
    assert len(iou_at_least(odd, boxes, 0.1).first) == 0
    assert len(iou_at_least(boxes, odd, 0.1).first) == 0


@pytest.mark.parametrize("offset", [1e6, -1e6, 1e9])
def test_boxes_far_from_the_origin(offset):
    a, b = integer_boxes(100, 6) * 64 + offset, integer_boxes(100, 7) * 64 + offset
    for threshold in (0.3, 1.0):
        assert_equal(iou_at_least(a, b, threshold), brute_force(a, b, threshold))


def test_only_near_pairs_are_looked_at(monkeypatch):
    from detect.ops import overlapping_pairs

    looked_at = []

    def counted(a, b):
        looked_at.append(len(a))
        return measure(a, b)

    measure = overlapping_pairs.elementwise_box_iou
    monkeypatch.setattr(overlapping_pairs, "elementwise_box_iou", counted)
    generator = torch.Generator().manual_seed(8)
    corners = (
        torch.rand(2, 20_000, 2, generator=generator) * 7000
    )  # as dense as a million in 50000²
    a, b = torch.cat((corners, corners + 20), dim=2)
    found = iou_at_least(a, b, 0.5)
    assert 0 < len(found.first) < sum(looked_at) < 10 * 20_000
    assert (found.overlaps >= 0.5).all()


def test_what_cannot_be_asked_is_refused():
    boxes, groups = torch.zeros(1, 4), torch.zeros(1).long()
    for threshold in (0.0, 1.1):
        with pytest.raises(ValueError, match="threshold: expected more than 0 and at most 1"):
            iou_at_least(boxes, boxes, threshold)
    with pytest.raises(ValueError, match="expected both or neither"):
        iou_at_least(boxes, boxes, 0.5, groups_a=groups)
