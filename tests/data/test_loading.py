import multiprocessing
import os
import random
import signal
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
import torch

from detect.data import Augmentation, EvaluationBatches, TrainingBatches
from detect.data.loading import batches as module
from detect.data.loading.batches import WORKER_ERRORS
from detect.errors import DetectError
from detect.structures import Batch, GroundTruth, ImageMeta, InputSpec, Sample

SPEC = InputSpec((32, 32))


class Images:
    """Numbered images: every pixel of image k is k."""

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
        Images(count),
        Augmentation(),
        SPEC,
        batch_size=batch_size,
        seed=seed,
        num_workers=workers,
    )


def test_an_epoch_takes_each_image_at_most_once_and_leaves_out_the_rest():
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
    list(EvaluationBatches(Images(5), SPEC, batch_size=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_takes_all_images_in_order():
    batches: list[Batch] = list(EvaluationBatches(Images(5), SPEC, batch_size=2))
    assert ids(batches) == [["0", "1"], ["2", "3"], ["4"]]
    assert (batches[1].images[1] == 3).all()


def test_shares_of_processes_make_up_the_batches():
    whole = [ids(source(count=20, batch_size=4).epoch(epoch)) for epoch in (0, 1)]
    shares = []
    for rank in range(2):
        batches = TrainingBatches(Images(20), None, SPEC, batch_size=4, seed=0, share=(rank, 2))
        shares.append([ids(batches.epoch(epoch)) for epoch in (0, 1)])
    for epoch in (0, 1):
        for batch, one, other in zip(whole[epoch], *(s[epoch] for s in shares), strict=True):
            assert (len(one), len(other)) == (2, 2)
            assert sorted(one + other) == sorted(batch)


def test_more_processes_than_images_are_refused():
    with pytest.raises(DetectError, match="for each of the 3 processes, found 2"):
        TrainingBatches(Images(2), None, SPEC, batch_size=4, seed=0, share=(0, 3))


def test_evaluation_batches_go_round():
    whole = ids(EvaluationBatches(Images(10), SPEC, batch_size=3))
    shares = [
        ids(EvaluationBatches(Images(10), SPEC, batch_size=3, share=(rank, 3))) for rank in range(3)
    ]
    assert shares == [[whole[0], whole[3]], [whole[1]], [whole[2]]]


class GlobalDraws:
    """An augmentation that draws from every global generator, as those of others do."""

    def __call__(self, sample, seed):  # noqa: ARG002
        draws = (random.random(), np.random.rand(), torch.rand(()).item())  # noqa: NPY002
        image = sample.image.copy()
        image[0, 0] = [int(255 * draw) for draw in draws]
        return Sample(image, sample.truth, sample.meta)


def pixels(batches):
    return [batch.images[:, :, 0, 0].tolist() for batch in batches]


def test_draws_from_global_generators_depend_on_seed_epoch_and_image_alone():
    def make(workers, seed=0):
        return TrainingBatches(
            Images(8), GlobalDraws(), SPEC, batch_size=2, seed=seed, num_workers=workers
        )

    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    expected = pixels(make(0).epoch(1))
    next_number = np.random.rand()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert np.random.rand() == next_number  # nothing was taken from it  # noqa: NPY002
    assert pixels(make(0).epoch(1)) == expected
    assert pixels(make(2).epoch(1)) == expected
    assert pixels(make(2).epoch(1, 2)) == expected[2:]
    assert pixels(make(0).epoch(2)) != expected
    assert pixels(make(0, seed=1).epoch(1)) != expected


class Deadly(Images):
    """Reading one of its images kills the process."""

    metas = tuple(
        ImageMeta(str(index), Path(f"image_{index}.jpg"), (32, 32), (32, 32)) for index in range(8)
    )

    def __getitem__(self, index):
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_the_image_at_which_a_worker_died_is_named():
    batches = TrainingBatches(Deadly(8), None, SPEC, batch_size=2, seed=0, num_workers=2)
    with pytest.raises(WORKER_ERRORS) as caught:
        list(batches.epoch(0))
    error = batches.explain(caught.value)
    assert isinstance(error, DetectError)
    assert "a process that reads images ended while it read image_5.jpg" in str(error)
    assert "data.num_workers" in str(error)
    other = RuntimeError("something else")
    assert batches.explain(other) is other


def test_a_worker_whose_end_shows_after_its_connection_broke_is_named():
    batches = TrainingBatches(Images(8), None, SPEC, batch_size=2, seed=0, num_workers=1)
    next(batches.epoch(0))
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the loader's, which tells of a death
    try:
        (worker,) = multiprocessing.active_children()
        killing = Timer(0.3, os.kill, (worker.pid, signal.SIGKILL))
        killing.start()
        error = batches.explain(ConnectionResetError("by peer"))
        killing.join()
        worker.join()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert isinstance(error, DetectError)
    assert "a process that reads images ended while it read" in str(error)


def test_a_broken_connection_is_no_dead_worker(monkeypatch):
    monkeypatch.setattr(module, "SECONDS_TO_DIE", 0.2)
    batches = TrainingBatches(Images(8), None, SPEC, batch_size=2, seed=0, num_workers=1)
    next(batches.epoch(0))
    error = ConnectionResetError("by a file server")
    assert batches.explain(error) is error


def test_a_worker_that_dies_in_an_evaluation_is_named_too():
    with pytest.raises(DetectError, match=r"while it read image_5\.jpg"):
        list(EvaluationBatches(Deadly(8), SPEC, batch_size=2, num_workers=2))
