"""The operations give on a GPU what they give on the CPU."""

import pytest
import torch
from torch.testing import assert_close

from detect.ops import (
    box_iou,
    clip_boxes,
    decode_deltas,
    elementwise_box_iou,
    encode_deltas,
    grouped_nms,
    grouped_nms_mask,
    iou_at_least,
    match,
    matrix_nms,
    nms,
    sample_balanced,
    soft_nms,
    weighted_boxes_fusion,
)
from tests.ops.random_boxes import SIZES, integer_boxes, real_boxes, scores_with_ties

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_iou(kind, dtype):
    a, b = real_boxes(257, 1).to(dtype), real_boxes(100, 2).to(dtype)
    expected = elementwise_box_iou(a[:, None], b, kind)
    assert_close(elementwise_box_iou(a.cuda()[:, None], b.cuda(), kind).cpu(), expected)


@pytest.mark.parametrize("iou_threshold", [0.0, 0.3, 0.5, 0.6, 0.7])
@pytest.mark.parametrize("count", SIZES)
def test_nms(count, iou_threshold):
    boxes, scores = integer_boxes(count, 3), scores_with_ties(count, 4)
    groups = torch.arange(count) % 5
    kept = nms(boxes.cuda(), scores.cuda(), iou_threshold)
    assert kept.cpu().tolist() == nms(boxes, scores, iou_threshold).tolist()
    kept = grouped_nms(boxes.cuda(), scores.cuda(), groups.cuda(), iou_threshold)
    assert kept.cpu().tolist() == grouped_nms(boxes, scores, groups, iou_threshold).tolist()


def ragged_groups(count):
    """Most boxes in one group, the others in many."""
    generator = torch.Generator().manual_seed(5)
    few = torch.randint(-3, max(count // 20, 1), (count,), generator=generator)
    return torch.where(torch.rand(count, generator=generator) < 0.5, 10**12, few)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["auto", "matrix", "triton"])
@pytest.mark.parametrize("draw", [integer_boxes, real_boxes])
@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 257, 1000, 5000])
def test_grouped_nms_by_all_methods(count, draw, method, dtype):
    boxes, scores, groups = (
        draw(count, 6).to(dtype),
        scores_with_ties(count, 7),
        ragged_groups(count),
    )
    for iou_threshold in (0.3, 0.6):
        expected = grouped_nms_mask(boxes, scores, groups, iou_threshold)
        arguments = (boxes.cuda(), scores.cuda(), groups.cuda(), iou_threshold)
        mask = grouped_nms_mask(*arguments, method=method)
        assert torch.equal(mask.cpu(), expected)
        kept = grouped_nms(*arguments, method=method).cpu()
        assert kept.tolist() == grouped_nms(boxes, scores, groups, iou_threshold).tolist()


@pytest.mark.parametrize("panel", [128, 1024])
def test_panels(panel, monkeypatch):
    monkeypatch.setattr("detect.ops.nms_triton.MARK_BYTES", 1)
    monkeypatch.setattr("detect.ops.nms_triton.MIN_PANEL", panel)
    boxes, scores, groups = real_boxes(5000, 8), scores_with_ties(5000, 9), ragged_groups(5000)
    for of_one in (groups, groups * 0):
        expected = grouped_nms_mask(boxes, scores, of_one, 0.5)
        mask = grouped_nms_mask(boxes.cuda(), scores.cuda(), of_one.cuda(), 0.5, method="triton")
        assert torch.equal(mask.cpu(), expected)


@pytest.mark.parametrize("kind", ["one", "ragged", "small"])
def test_two_hundred_thousand_boxes(kind):
    count = 200_000
    generator = torch.Generator().manual_seed(10)
    corners = torch.rand(count, 2, generator=generator) * 4000
    boxes = torch.cat(
        (corners, corners + 5 + torch.rand(count, 2, generator=generator) * 60), dim=1
    )
    scores = torch.rand(count, generator=generator)
    small = torch.arange(count) % 8000
    groups = {"one": small * 0, "ragged": ragged_groups(count), "small": small}[kind]
    arguments = (boxes.cuda(), scores.cuda(), groups.cuda(), 0.5)
    mask = grouped_nms_mask(*arguments, method="triton")
    assert torch.equal(mask, grouped_nms_mask(*arguments, method="matrix"))
    if kind != "one":  # where the CPU takes long
        assert torch.equal(mask.cpu(), grouped_nms_mask(boxes, scores, groups, 0.5))


@pytest.mark.parametrize("count", [1, 1000, 100_000])
def test_the_mask_of_nms_does_not_wait_for_the_gpu(count):
    boxes, scores = real_boxes(count, 11).cuda(), scores_with_ties(count, 12).cuda()
    groups = ragged_groups(count).cuda()
    expected = grouped_nms_mask(boxes, scores, groups, 0.5)  # compiles as well
    torch.cuda.set_sync_debug_mode("error")
    try:
        mask = grouped_nms_mask(boxes, scores, groups, 0.5)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(mask, expected)


def test_pairs_in_chunks(monkeypatch):
    monkeypatch.setattr("detect.ops.overlapping_pairs.PAIRS_AT_A_TIME", 1000)
    a, b = real_boxes(500, 13), real_boxes(400, 14)
    expected = iou_at_least(a, b, 0.4)
    for found, wanted in zip(iou_at_least(a.cuda(), b.cuda(), 0.4), expected, strict=True):
        assert_close(found.cpu(), wanted)
    assert_close(box_iou(a.cuda(), b.cuda(), "giou").cpu(), box_iou(a, b, "giou"))


def test_rescoring_and_fusion():
    boxes, groups = real_boxes(600, 15).double(), ragged_groups(600)
    scores = torch.rand(600, generator=torch.Generator().manual_seed(16), dtype=torch.float64)
    models = torch.arange(600) % 3
    on_cpu, on_gpu = (
        (boxes.to(device), scores.to(device), groups.to(device)) for device in ("cpu", "cuda")
    )
    for rescore in (soft_nms, matrix_nms):
        for decay in ("linear", "gaussian"):
            expected, found = (rescore(*on, decay=decay) for on in (on_cpu, on_gpu))
            assert found.indices.cpu().tolist() == expected.indices.tolist()
            assert_close(found.scores.cpu(), expected.scores)
    expected = weighted_boxes_fusion(*on_cpu, models, [1.0, 2.0, 1.0])
    found = weighted_boxes_fusion(*on_gpu, models.cuda(), [1.0, 2.0, 1.0])
    for column, wanted in zip(found, expected, strict=True):
        assert_close(column.cpu(), wanted)


@pytest.mark.parametrize("keep_best", [False, True])
@pytest.mark.parametrize("num_objects", [0, 1, 31])
def test_match(num_objects, keep_best):
    iou = box_iou(integer_boxes(257, 5), integer_boxes(num_objects, 6))
    expected = match(iou, 0.5, 0.3, keep_best=keep_best)
    result = match(iou.cuda(), 0.5, 0.3, keep_best=keep_best)
    assert result.indices.cpu().tolist() == expected.indices.tolist()
    assert_close(result.overlaps.cpu(), expected.overlaps)


def test_deltas_and_clipping():
    boxes, references = real_boxes(257, 7), real_boxes(257, 8)
    deltas = encode_deltas(boxes, references)
    assert_close(encode_deltas(boxes.cuda(), references.cuda()).cpu(), deltas)
    decoded = decode_deltas(deltas.cuda(), references.cuda()).cpu()
    assert_close(decoded, decode_deltas(deltas, references))
    assert_close(clip_boxes(boxes.cuda(), (50, 60)).cpu(), clip_boxes(boxes, (50, 60)))


def test_a_balanced_sample_from_a_generator_on_the_cpu_is_the_same():
    positive = torch.arange(300) % 3 == 0
    expected = sample_balanced(positive, ~positive, 64, 0.25, torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(9)
    result = sample_balanced(positive.cuda(), ~positive.cuda(), 64, 0.25, generator)
    for drawn, wanted in zip(result, expected, strict=True):
        assert drawn.cpu().tolist() == wanted.tolist()
