from pathlib import Path

import numpy as np
import pytest
import torch

from detect.data import Augmentation, TrainingBatches, evaluation_batches
from detect.structures import Batch, GroundTruth, ImageMeta, InputSpec, Sample

SPEC = InputSpec((32, 32))


class Pictures:
    """Numbered pictures: every pixel of picture k is k."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        image = np.full((32, 32, 3), index, dtype=np.uint8)
        return Sample(
            image, GroundTruth.empty(), ImageMeta(str(index), Path(str(index)), (32, 32), (32, 32))
        )


def ids(batches) -> list[list[str]]:
    return [[meta.image_id for meta in batch.metas] for batch in batches]


def source(count: int = 10, batch_size: int = 3, seed: int = 0, workers: int = 0):
    return TrainingBatches(
        Pictures(count),
        Augmentation(),
        SPEC,
        batch_size=batch_size,
        seed=seed,
        num_workers=workers,
    )


def test_an_epoch_takes_each_picture_at_most_once_and_leaves_out_the_rest():
    batches = ids(source().epoch(0))
    assert [len(batch) for batch in batches] == [3, 3, 3]
    assert len({name for batch in batches for name in batch}) == 9


def test_a_set_smaller_than_a_batch_is_one_batch():
    batches = source(count=2, batch_size=5)
    assert len(batches) == 1
    assert [len(batch) for batch in ids(batches.epoch(0))] == [2]


def test_epochs_differ_and_repeat():
    one, other = source(), source()
    first, second = ids(one.epoch(0)), ids(one.epoch(1))
    assert first != second
    assert ids(other.epoch(1)) == second
    assert ids(one.epoch(0)) == first
    assert ids(source(seed=1).epoch(0)) != first


def test_an_epoch_can_be_entered_in_the_middle():
    whole = list(source().epoch(4))
    rest = list(source().epoch(4, start=1))
    assert len(rest) == 2
    for expected, found in zip(whole[1:], rest, strict=True):
        assert torch.equal(expected.images, found.images)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int):
    alone, shared = source(), source(workers=workers)
    for epoch in range(2):
        for expected, found in zip(alone.epoch(epoch), shared.epoch(epoch), strict=True):
            assert torch.equal(expected.images, found.images)


def test_loading_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    list(source().epoch(0))
    list(evaluation_batches(Pictures(5), SPEC, batch_size=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_takes_all_pictures_in_order():
    batches: list[Batch] = list(evaluation_batches(Pictures(5), SPEC, batch_size=2))
    assert ids(batches) == [["0", "1"], ["2", "3"], ["4"]]
    assert (batches[1].images[1] == 3).all()
