import pytest
import torch
from torch.testing import assert_close

from detect.detectors.fast_rcnn.regions import (
    DELTA_STD,
    SampledRegions,
    moved_boxes,
    pad_truths,
    rank_in_image,
    region_losses,
    sample_regions,
)
from detect.detectors.images import padded
from detect.structures import GroundTruth
from tests.contracts import some_truth
from tests.reference import two_stage as reference

SIZE = (80, 120)
NUM_CLASSES = 3


def some_images():
    truths = [some_truth(SIZE, NUM_CLASSES, 5, 3), GroundTruth.empty(), some_truth(SIZE, 3, 1, 4)]
    proposals = [some_truth(SIZE, 1, count, count).boxes for count in (60, 20, 0)]
    near = truths[0].boxes + torch.tensor([2.0, -1.0, 3.0, 1.0])
    return truths, [torch.cat((near, proposals[0])), *proposals[1:]]


def sample(count, low=0.1, **options):
    truths, proposals = some_images()
    boxes, valid = padded(proposals)
    settings = {
        "regions_per_image": count,
        "positive_fraction": 0.25,
        "positive_iou": 0.5,
        "background_iou": (low, 0.5),
        "generator": torch.Generator().manual_seed(0),
    }
    return sample_regions(boxes, valid, pad_truths(truths), NUM_CLASSES, **settings | options)


@pytest.mark.parametrize("low", [0.0, 0.1, 0.3])
def test_regions_equal_the_oracle(low):
    # so many that every candidate is drawn
    drawn = sample(10_000, low)
    truths, proposals = some_images()
    expected = set()
    for image, (truth, found) in enumerate(zip(truths, proposals, strict=True)):
        objects = truth.boxes.tolist()
        for box in [*objects, *found.tolist()]:
            kind, number = reference.region_kind(box, objects, 0.5, (low, 0.5))
            if kind == "ignored":
                continue
            label, deltas = NUM_CLASSES, (0.0,) * 4
            if kind == "object":
                label = int(truth.labels[number])
                encoded = reference.encode(objects[number], box)
                deltas = tuple(d / std for d, std in zip(encoded, DELTA_STD, strict=True))
            expected.add((image, tuple(box), label, tuple(round(d, 3) + 0.0 for d in deltas)))
    found = {
        (image, tuple(box), label, tuple(round(d, 3) + 0.0 for d in deltas))
        for image, box, label, deltas in zip(
            drawn.image_index.tolist(),
            drawn.boxes.tolist(),
            drawn.labels.tolist(),
            drawn.targets.tolist(),
            strict=True,
        )
    }
    assert len(drawn.labels) == len(expected)
    assert {entry[:3] for entry in found} == {entry[:3] for entry in expected}
    by_box = {entry[:2]: entry[3] for entry in expected}
    for entry in found:
        assert entry[3] == pytest.approx(by_box[entry[:2]], abs=2e-3)


def test_a_quarter_of_each_image_shows_an_object_at_most():
    drawn = sample(16, 0.0)
    counts = torch.bincount(drawn.image_index, minlength=3).tolist()
    assert counts == [16, 16, 1]  # the third has its object and no proposal
    is_object = drawn.labels < NUM_CLASSES
    assert torch.bincount(drawn.image_index[is_object], minlength=3).tolist() == [4, 0, 1]


def test_an_image_without_objects_gives_background_from_all_proposals():
    drawn = sample(10_000, 0.1)
    assert (drawn.image_index == 1).sum() == 20
    assert (drawn.labels[drawn.image_index == 1] == NUM_CLASSES).all()


@pytest.mark.parametrize("beta", [1.0, 1 / 9])
def test_losses_equal_the_oracle(beta):
    drawn = sample(32, 0.0)
    generator = torch.Generator().manual_seed(1)
    count = len(drawn.labels)
    logits = torch.randn(count, NUM_CLASSES + 1, generator=generator)
    deltas = torch.randn(count, NUM_CLASSES, 4, generator=generator)
    found = region_losses(logits, deltas, drawn, beta)
    expected = reference.region_losses(
        logits.tolist(),
        deltas.tolist(),
        drawn.labels.tolist(),
        drawn.targets.tolist(),
        NUM_CLASSES,
        beta,
    )
    assert_close(torch.stack(found), torch.tensor(expected), atol=1e-5, rtol=1e-5)
    assert expected[1] > 0


def test_losses_of_no_regions_are_zero():
    nothing = SampledRegions(
        torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).long(), torch.zeros(0, 4)
    )
    found = region_losses(torch.zeros(0, 4), torch.zeros(0, 3, 4), nothing)
    assert [float(term) for term in found] == [0.0, 0.0]


def test_moved_boxes_invert_the_targets():
    drawn = sample(64, 0.0)
    is_object = drawn.labels < NUM_CLASSES
    moved = moved_boxes(drawn.targets[is_object], drawn.boxes[is_object])
    truths, _ = some_images()
    for box, image in zip(moved, drawn.image_index[is_object], strict=True):
        distances = (truths[int(image)].boxes - box).abs().amax(dim=1)
        assert float(distances.min()) < 1e-3


def test_ranks_count_the_rows_of_the_same_image():
    images = torch.tensor([2, 0, 2, 2, 0, 1])
    assert rank_in_image(images, 4).tolist() == [0, 0, 1, 2, 1, 0]
    assert rank_in_image(images[:0], 2).tolist() == []
