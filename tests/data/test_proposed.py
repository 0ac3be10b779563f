"""Proposals on their way with the images."""

import pickle

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from detect.data import Augmentation, ProposedSamples, fit_to_input
from detect.structures import Batch, GroundTruth, ImageMeta, InputSpec, Sample, StructureError

BOXES = torch.tensor([[10.0, 5.0, 30.0, 25.0], [0.0, 0.0, 40.0, 30.0], [20.0, 10.0, 39.0, 29.0]])


def sample(proposals=BOXES, image_id="a"):
    truth = GroundTruth(BOXES[:1], torch.zeros(1).long(), torch.zeros(1, dtype=torch.bool))
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    meta = ImageMeta(image_id, None, (30, 40), (30, 40))
    return Sample(image, truth, meta, proposals)


def test_each_image_gets_its_own():
    boxes = {"a": BOXES.numpy(), "b": np.zeros((0, 4), np.float32)}
    samples = ProposedSamples([sample(None, "a"), sample(None, "b")], boxes)
    assert len(samples) == 2
    assert_close(samples[0].proposals, BOXES)
    assert samples[1].proposals.shape == (0, 4)
    assert len(samples[1].truth) == 1


def test_they_are_scaled_and_shifted_with_the_image():
    fitted = fit_to_input(sample(), InputSpec((60, 60), keep_aspect_ratio=True))
    assert_close(fitted.proposals, BOXES * 1.5 + torch.tensor([0.0, 7.0, 0.0, 7.0]))
    assert_close(fitted.proposals[:1], fitted.truth.boxes)


@pytest.mark.parametrize("seed", range(5))
def test_an_augmentation_moves_them_as_it_moves_objects(seed):
    changed = Augmentation(horizontal_flip=0.5, scale=0.3, shift=0.1)(sample(), seed)
    if len(changed.truth):
        assert_close(changed.proposals[:1], changed.truth.boxes)
    assert len(changed.truth) <= 1
    assert len(changed.proposals) <= 3
    plain = Augmentation(horizontal_flip=0.5, scale=0.3, shift=0.1)(sample(None), seed)
    assert plain.proposals is None
    assert_close(plain.truth.boxes, changed.truth.boxes)
    assert np.array_equal(plain.image, changed.image)


def test_an_augmentation_of_an_image_without_proposals_found():
    changed = Augmentation(horizontal_flip=1.0, scale=0, shift=0)(sample(torch.zeros(0, 4)), 0)
    assert changed.proposals.shape == (0, 4)
    assert_close(changed.truth.boxes, torch.tensor([[10.0, 5.0, 30.0, 25.0]]))


def test_a_batch_has_those_of_all_its_images_or_of_none():
    batch = Batch.from_samples([sample(), sample(torch.zeros(0, 4))])
    assert [len(boxes) for boxes in batch.proposals] == [3, 0]
    assert Batch.from_samples([sample(None)]).proposals is None
    with pytest.raises(StructureError, match=r"proposals of all 2 samples or of none, found .* 1"):
        Batch.from_samples([sample(), sample(None)])


def test_a_batch_comes_whole_out_of_a_worker():
    for batch in (Batch.from_samples([sample()]), Batch.from_samples([sample(None)])):
        again = pickle.loads(pickle.dumps(batch))
        assert torch.equal(again.images, batch.images)
        assert again.metas == batch.metas
        assert (again.proposals is None) == (batch.proposals is None)
        for mine, other in zip(again.proposals or (), batch.proposals or (), strict=True):
            assert_close(mine, other)


def test_boxes_of_another_kind_are_refused():
    with pytest.raises(StructureError, match=r"Sample\.proposals: expected float32 \[N, 4\]"):
        sample(torch.zeros(2, 4, dtype=torch.float64))
    batch = Batch.from_samples([sample()])
    with pytest.raises(StructureError, match=r"Batch\.proposals: expected one for each of the 1"):
        Batch(batch.images, batch.truths, batch.metas, (BOXES, BOXES))
