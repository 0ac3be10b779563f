"""Batches from a data set, in an order and with random draws that depend on seed and epoch alone.

Each draw of an augmentation comes from a seed made of (seed, epoch, picture). The result does not
depend on the number of workers, nor on which batches were taken before. The loaders have a
generator of their own, since they would draw from torch's global one, which dropout uses.
"""

import signal
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from detect.data.transforms import fit_to_input
from detect.structures import Batch, InputSpec, Sample

# (index of the picture, seed of its augmentation)
Draw = tuple[int, int]
# an augmentation: a sample and a seed to the changed sample
Change = Callable[[Sample, int], Sample]


@runtime_checkable
class SampleSource(Protocol):
    """Pictures by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class TrainingBatches:
    """Augmented pictures in batches, shuffled anew each epoch.

    The last batch of an epoch is left out when it is not full, unless it is the only one.

    Args:
        samples: the pictures.
        augmentation: applied to each, or None.
        spec: what the detector wants to be fed.
        batch_size: pictures per batch.
        seed: of the order and of the augmentation.
        num_workers: processes that read ahead; 0 reads in this one.
        pin_memory: page-locked memory, for a faster copy to a GPU.
    """

    def __init__(
        self,
        samples: SampleSource,
        augmentation: Change | None,
        spec: InputSpec,
        *,
        batch_size: int,
        seed: int,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self._order = EpochOrder(len(samples), batch_size, seed)
        self._loader = DataLoader(
            _TrainingSamples(samples, augmentation, spec),
            batch_sampler=self._order,
            collate_fn=Batch.from_samples,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=_start_worker,
            pin_memory=pin_memory,
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._order.num_batches

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` (from 0), from batch `start` on."""
        self._order.epoch, self._order.start = epoch, start
        return iter(self._loader)


class EpochOrder:
    """The order of the pictures in each epoch; a batch sampler.

    Attributes:
        epoch: that iteration gives, from 0.
        start: batch of it that iteration begins with.
    """

    def __init__(self, num_samples: int, batch_size: int, seed: int) -> None:
        self.num_batches = max(1, num_samples // batch_size)
        self.epoch = self.start = 0
        self._num_samples = num_samples
        self._batch_size = batch_size
        self._seed = seed

    def __len__(self) -> int:
        return self.num_batches - self.start

    def __iter__(self) -> Iterator[list[Draw]]:
        order = np.random.default_rng((self._seed, self.epoch)).permutation(self._num_samples)
        seeds = np.random.SeedSequence((self._seed, self.epoch)).generate_state(self._num_samples)
        for batch in range(self.start, self.num_batches):
            chosen = order[batch * self._batch_size : (batch + 1) * self._batch_size]
            yield [(int(index), int(seeds[index])) for index in chosen]


def evaluation_batches(
    samples: SampleSource, spec: InputSpec, *, batch_size: int, num_workers: int = 0
) -> DataLoader[Sample]:
    """All pictures in order, unchanged but for the fit to the input; iterate to get `Batch`es."""
    return DataLoader(
        _EvaluationSamples(samples, spec),
        batch_size=batch_size,
        collate_fn=Batch.from_samples,
        num_workers=num_workers,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),
    )


class _TrainingSamples(Dataset[Sample]):
    def __init__(self, samples: SampleSource, augmentation: Change | None, spec: InputSpec) -> None:
        self.samples, self.augmentation, self.spec = samples, augmentation, spec

    def __getitem__(self, draw: Draw) -> Sample:
        index, seed = draw
        sample = self.samples[index]
        if self.augmentation is not None:
            sample = self.augmentation(sample, seed)
        return fit_to_input(sample, self.spec)


class _EvaluationSamples(Dataset[Sample]):
    def __init__(self, samples: SampleSource, spec: InputSpec) -> None:
        self.samples, self.spec = samples, spec

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return fit_to_input(self.samples[index], self.spec)


def _start_worker(worker: int) -> None:  # noqa: ARG001
    # Such signals reach every process of a terminal or a job; the main one decides about them.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
