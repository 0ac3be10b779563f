"""Decoded images in memory, shared by the processes that read ahead."""

import mmap
import multiprocessing
import pickle
from typing import Any

import numpy as np

from detect.data.loading.batches import SampleSource
from detect.structures import Sample


class CachedSamples:
    """Samples that are decoded once, as long as there is room for them.

    The memory is shared with loader workers that are forked; of workers that are started in
    another way, each reads its images again. An image takes height × width × 3 bytes. Those that
    come when the room is taken are decoded each time.

    Args:
        samples: give the same image each time.
        num_bytes: the room.
    """

    def __init__(self, samples: SampleSource, num_bytes: int) -> None:
        self.samples = samples
        self.num_bytes = num_bytes
        self._memory: mmap.mmap | None = mmap.mmap(-1, max(num_bytes, 1))
        # of each image its place, and its length or 0; at the end, what is taken
        self._table = mmap.mmap(-1, 16 * (len(samples) + 1))
        self._lock = multiprocessing.Lock()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        """The sample, from memory if it is there."""
        if self._memory is None:
            return self.samples[index]
        begin, length = self._rows[index]
        if length:
            return _unpacked(self._memory[begin : begin + length])
        sample = self.samples[index]
        self._keep(index, _packed(sample))
        return sample

    def __getstate__(self) -> dict[str, Any]:
        # memory that is no file cannot go to a process that is not forked
        return {"samples": self.samples, "num_bytes": self.num_bytes, "_memory": None}

    @property
    def num_kept(self) -> int:
        """How many images are in memory."""
        return 0 if self._memory is None else int((self._rows[:-1, 1] > 0).sum())

    @property
    def _rows(self) -> np.ndarray:
        return np.frombuffer(self._table, dtype=np.int64).reshape(-1, 2)

    def _keep(self, index: int, data: bytes) -> None:
        assert self._memory is not None
        with self._lock:
            begin = int(self._rows[-1, 0])
            if begin + len(data) > self.num_bytes:
                return
            self._rows[-1, 0] = begin + len(data)
        self._memory[begin : begin + len(data)] = data
        with self._lock:  # only now is it all there
            self._rows[index] = begin, len(data)


def _packed(sample: Sample) -> bytes:
    rest = pickle.dumps((sample.image.shape, sample.truth, sample.meta, sample.proposals))
    return len(rest).to_bytes(8, "little") + rest + np.ascontiguousarray(sample.image).tobytes()


def _unpacked(data: bytes) -> Sample:
    end = 8 + int.from_bytes(data[:8], "little")
    shape, truth, meta, proposals = pickle.loads(data[8:end])
    image = np.frombuffer(data, dtype=np.uint8, offset=end).reshape(shape).copy()
    return Sample(image, truth, meta, proposals)
