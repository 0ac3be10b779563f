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
    match,
    nms,
    sample_balanced,
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
