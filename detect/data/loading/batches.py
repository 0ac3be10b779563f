"""Batches from a data set, in an order and with random draws that depend on seed and epoch alone.

Each draw of an augmentation comes from a seed made of (seed, epoch, image), and so do those that
it takes from a global generator. The result does not depend on the number of workers, nor on which
batches were taken before, and a worker has no state that a continued run would need. The loaders
have a generator of their own, since they would draw from torch's global one, which dropout uses.
"""

import multiprocessing
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from detect.data.loading.transforms import fit_to_input
from detect.errors import DetectError
from detect.structures import Batch, InputSpec, Sample

# (index of the image, seed of its augmentation)
Draw = tuple[int, int]
# which of the processes that share the images this one is, from 0, and their number
Share = tuple[int, int]
# an augmentation: a sample and a seed to the changed sample
Change = Callable[[Sample, int], Sample]

# What the death of a worker may be met as: the loader's own error, or a connection that breaks
# where the worker died between announcing a batch and handing over its memory.
WORKER_ERRORS = (RuntimeError, ConnectionError, EOFError)
# The connection of a killed process breaks shortly before its end can be seen.
SECONDS_TO_DIE = 5.0


@runtime_checkable
class SampleSource(Protocol):
    """Images by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class TrainingBatches:
    """Augmented images in batches, reshuffled each epoch.

    The last batch of an epoch is left out when it is not full, unless it is the only one. Of
    several processes, each gets its share of every batch; no image comes twice.

    Args:
        samples: the images.
        augmentation: applied to each, or None.
        spec: what the detector wants to be fed.
        batch_size: images per batch, over all processes.
        seed: of the order and of the augmentation.
        num_workers: processes that read ahead; 0 reads in this one.
        pin_memory: page-locked memory, for a faster copy to a GPU.
        share: of the batches that this process gets.

    Raises:
        DetectError: there are fewer images than processes.
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
        share: Share = (0, 1),
    ) -> None:
        self._order = EpochOrder(len(samples), batch_size, seed, share)
        self._reading = _Reading(num_workers)
        self._samples = samples
        self._loader = DataLoader(
            _TrainingSamples(samples, augmentation, spec, self._reading),
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

    def explain(self, error: Exception) -> Exception:
        """What an error while training says, if it is that a worker died; else the error."""
        return self._reading.explain(error, self._samples)


class EpochOrder:
    """The order of the images in each epoch; a batch sampler.

    Attributes:
        epoch: that iteration gives, from 0.
        start: batch of it that iteration begins with.
    """

    def __init__(self, num_samples: int, batch_size: int, seed: int, share: Share = (0, 1)) -> None:
        self.num_batches = max(1, num_samples // batch_size)
        if num_samples < share[1]:
            raise DetectError(
                f"expected at least one training image for each of the {share[1]} processes, "
                f"found {num_samples}; start fewer processes"
            )
        self._rank, self._num_processes = share
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
            own = chosen[self._rank :: self._num_processes]
            yield [(int(index), int(seeds[index])) for index in own]


class EvaluationBatches:
    """All images in order, unchanged but for the fit to the input, in batches.

    Args:
        samples: the images.
        spec: what the detector wants to be fed.
        batch_size: images per batch.
        num_workers: processes that read ahead; 0 reads in this one.
        share: of several processes, each gets every so many-th batch.
    """

    def __init__(
        self,
        samples: SampleSource,
        spec: InputSpec,
        *,
        batch_size: int,
        num_workers: int = 0,
        share: Share = (0, 1),
    ) -> None:
        numbers = list(range(len(samples)))
        batches = [numbers[n : n + batch_size] for n in range(0, len(numbers), batch_size)]
        self._reading = _Reading(num_workers)
        self._samples = samples
        self._loader = DataLoader(
            _EvaluationSamples(samples, spec, self._reading),
            batch_sampler=batches[share[0] :: share[1]],
            collate_fn=Batch.from_samples,
            num_workers=num_workers,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Batches of this process."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        """The batches.

        Raises:
            DetectError: an image cannot be read, or a worker died.
        """
        try:
            yield from self._loader
        except WORKER_ERRORS as error:
            raise self._reading.explain(error, self._samples) from error


class _TrainingSamples(Dataset[Sample]):
    def __init__(
        self,
        samples: SampleSource,
        augmentation: Change | None,
        spec: InputSpec,
        reading: "_Reading",
    ) -> None:
        self.samples, self.augmentation, self.spec = samples, augmentation, spec
        self.reading = reading

    def __getitem__(self, draw: Draw) -> Sample:
        index, seed = draw
        self.reading.note(index)
        sample = self.samples[index]
        if self.augmentation is not None:
            with _seeded(seed):
                sample = self.augmentation(sample, seed)
        return fit_to_input(sample, self.spec)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators, for an augmentation that draws from them; then set them back."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


class _Reading:
    """Which image each loader worker is at, in memory that outlives it."""

    def __init__(self, num_workers: int) -> None:
        # of each worker its process and the image, from 1
        self._table: Tensor = torch.zeros(num_workers, 2, dtype=torch.int64).share_memory_()

    def note(self, index: int) -> None:
        """Tell that this worker begins to read an image."""
        worker = get_worker_info()
        if worker is not None:
            self._table[worker.id] = torch.tensor((os.getpid(), index + 1))

    def _kill_all(self) -> None:
        # One that waits for a lock that the dead one held would wait forever, and so would the
        # end of this process: a termination signal, which it is sent then, is ignored by workers.
        for pid in self._table[:, 0].tolist():
            if pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _death(self) -> RuntimeError | None:
        """Which worker is dead, where there is one after a connection broke."""
        end = time.monotonic() + SECONDS_TO_DIE
        try:
            while time.monotonic() < end:
                alive = {process.pid for process in multiprocessing.active_children()}
                for pid in self._table[:, 0].tolist():
                    if pid and pid not in alive:
                        return RuntimeError(f"DataLoader worker (pid {pid}) died")
                time.sleep(0.05)
        except RuntimeError as told:  # by the loader, which heard of it at this moment
            return told
        return None

    def explain(self, error: Exception, samples: SampleSource) -> Exception:
        """The error that names the image at which a worker died; others as they are."""
        if isinstance(error, ConnectionError | EOFError):
            error = self._death() or error
        if not _DEAD_WORKER.search(str(error)):
            return error
        self._kill_all()
        pids = {int(pid) for pid in re.findall(r"\d+", str(error).partition("pid")[2])}
        rows = self._table.tolist()
        while hasattr(samples, "samples"):  # those of a set, with a cache or proposals around it
            samples = samples.samples
        metas = getattr(samples, "metas", None)
        at = [
            str(number - 1) if metas is None else str(metas[number - 1].path)
            for pid, number in rows
            if pid in pids and number
        ]
        where = f" while it read {' and '.join(at)}" if at else ""
        killed = re.search(r"killed by signal: ([^.]*)", str(error))
        how = f", killed by signal {killed[1].strip()}" if killed else ""
        return DetectError(
            f"a process that reads images ended{where}{how}. If the system was out of memory, "
            "set a smaller data.num_workers or data.image_cache; if it happens at the same "
            "image each time, look at that, with data.num_workers=0. The run continues with "
            "--resume"
        )


_DEAD_WORKER = re.compile(r"DataLoader worker \(pid")


class _EvaluationSamples(Dataset[Sample]):
    def __init__(self, samples: SampleSource, spec: InputSpec, reading: "_Reading") -> None:
        self.samples, self.spec, self.reading = samples, spec, reading

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        self.reading.note(index)
        return fit_to_input(self.samples[index], self.spec)


def _start_worker(worker: int) -> None:  # noqa: ARG001
    # Such signals reach every process of a terminal or a job; the main one decides about them.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
