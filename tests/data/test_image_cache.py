import pickle

import pytest
import torch
from torch.testing import assert_close
from torch.utils.data import DataLoader

from detect.data import CachedSamples, draw_shapes, read_dataset
from detect.structures import Batch


class Counted:
    """A data set that counts how often each image is read."""

    def __init__(self, samples):
        self.samples = samples
        self.reads = torch.zeros(len(samples), dtype=torch.int64).share_memory_()

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        self.reads[index] += 1
        return self.samples[index]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    draw_shapes(folder, 20, seed=0, image_size=(64, 64))
    return read_dataset(folder, "train")


def assert_same(sample, expected):
    assert (sample.image == expected.image).all()
    assert sample.meta == expected.meta
    assert_close(sample.truth.boxes, expected.truth.boxes, rtol=0, atol=0)
    assert sample.truth.labels.tolist() == expected.truth.labels.tolist()


def test_an_image_is_read_once(dataset):
    counted = Counted(dataset)
    cached = CachedSamples(counted, 2**20)
    for _ in range(3):
        for index in range(len(cached)):
            assert_same(cached[index], dataset[index])
    assert counted.reads.tolist() == [1] * len(dataset)
    assert cached.num_kept == len(cached) == len(dataset)
    first = cached[0]
    first.image[:] = 0  # what an augmentation may do
    assert_same(cached[0], dataset[0])


def test_the_room_is_not_exceeded(dataset):
    counted = Counted(dataset)
    size = 64 * 64 * 3
    cached = CachedSamples(counted, 3 * size + 3000)
    for _ in range(2):
        for index in range(len(cached)):
            assert_same(cached[index], dataset[index])
    assert cached.num_kept == 3
    assert counted.reads.tolist() == [1] * 3 + [2] * (len(dataset) - 3)


def test_workers_share_what_they_have_read(dataset):
    counted = Counted(dataset)
    cached = CachedSamples(counted, 2**20)
    for _ in range(2):  # the workers of an epoch are gone in the next
        loader = DataLoader(
            cached,
            batch_size=2,
            num_workers=2,
            collate_fn=Batch.from_samples,
            multiprocessing_context="fork",
        )
        images = torch.cat([batch.images for batch in loader])
        assert_close(images[1], torch.from_numpy(dataset[1].image).permute(2, 0, 1))
    assert counted.reads.tolist() == [1] * len(dataset)


def test_a_process_that_is_not_forked_reads_anew(dataset):
    cached = CachedSamples(dataset, 2**20)
    _ = cached[0]
    other = pickle.loads(pickle.dumps(cached))
    assert other.num_kept == 0
    assert_same(other[0], dataset[0])
