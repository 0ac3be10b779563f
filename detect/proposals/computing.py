"""Proposals of a whole data set: images in parallel, each cached as soon as it is done.

The name of a cached file is a hash of all that the boxes depend on: the settings of the source, the
image's id and the content of its file. So a run that was stopped resumes, and other settings or
images find nothing.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from detect.errors import DetectError
from detect.files import replacing
from detect.proposals.base import ProposalSource
from detect.proposals.collection import Proposals
from detect.wording import counted

# Expected disk space in the cache and the file: 2,500 boxes of 16 bytes, compressed to a third, as
# measured on photographs in the mode fast.
BYTES_PER_IMAGE = 2 * 13_000

Reader = Callable[[Path], UInt8[np.ndarray, "H W 3"]]


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image to find proposals in.

    Attributes:
        image_id: unique in the set.
        path: the file.
        size: (height, width) in pixels, as recorded when the data set was read.
    """

    image_id: str
    path: Path
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ImageResult:
    """The proposals of one image.

    Attributes:
        boxes: `[N, 4]` xyxy pixels, best first.
        seconds: to find them, reading excluded.
        reused: whether they came from the cache.
    """

    boxes: Float32[np.ndarray, "N 4"]
    seconds: float
    reused: bool


@dataclass(frozen=True, slots=True)
class ComputedProposals:
    """The proposals of a set.

    Attributes:
        proposals: of all images, in their order.
        seconds: `[P]` of each image, when it was computed.
        num_reused: images that came from the cache.
    """

    proposals: Proposals
    seconds: Float64[np.ndarray, "P"]
    num_reused: int


def compute_proposals(
    images: Sequence[ImageFile],
    source: ProposalSource,
    read: Reader,
    *,
    cache: Path | None = None,
    num_workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> ComputedProposals:
    """Run a source over images.

    The result does not depend on `num_workers`. When the call ends early, by an error, Ctrl-C or
    an exception of `progress`, finished images are in the cache, and those that workers have begun
    are finished and cached as well.

    Args:
        images: each id once.
        source: must be picklable if `num_workers` is more than 1.
        read: reads a file as RGB; must be picklable if `num_workers` is more than 1.
        cache: a folder for the boxes of single images; None caches nothing.
        num_workers: parallel processes; 1 works in this one.
        progress: called with the number of finished images, in this process.

    Raises:
        DetectError: an image cannot be read or has another size, a worker died, the cache cannot be
            written or its disk is too full.
    """
    if num_workers < 1:
        raise DetectError(f"workers: expected 1 or more, found {num_workers}")
    if len({image.image_id for image in images}) < len(images):
        raise DetectError("expected images with different ids; the data set has one twice")
    if cache is not None:
        _check_disk(cache, len(images))
    work = _Work(source, read, cache, json.dumps(source.settings, sort_keys=True))
    results: dict[int, ImageResult] = {}
    missing: dict[int, ImageFile] = {}
    for number, image in enumerate(images):
        kept = work.kept(image)
        if kept is None:
            missing[number] = image
        else:
            results[number] = kept
    num_workers = min(num_workers, len(missing))
    here = ((number, work(image)) for number, image in missing.items())
    finished = _in_processes(missing, work, num_workers) if num_workers > 1 else here
    try:
        for number, result in finished:
            results[number] = result
            if progress is not None:
                progress(len(results))
    finally:
        finished.close()
    ordered = [results[number] for number in range(len(images))]
    boxes = {image.image_id: results[number].boxes for number, image in enumerate(images)}
    return ComputedProposals(
        Proposals.of_images(boxes, source.settings),
        np.array([result.seconds for result in ordered], np.float64),
        sum(result.reused for result in ordered),
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """What is done with each image, in any process."""

    source: ProposalSource
    read: Reader
    cache: Path | None
    settings: str

    def kept(self, image: ImageFile) -> ImageResult | None:
        """What the cache has of an image."""
        file = self._file(image)
        return None if file is None else _read_cached(file)

    def __call__(self, image: ImageFile) -> ImageResult:
        file = self._file(image)
        pixels = self.read(image.path)
        if pixels.shape[:2] != image.size:
            raise DetectError(
                f"{image.path}: expected (height, width) {image.size} as when the data set was "
                f"read, found {pixels.shape[:2]}; the file was replaced meanwhile: start again"
            )
        start = time.perf_counter()
        boxes = self.source(pixels, image.image_id)
        seconds = time.perf_counter() - start
        if file is not None:
            try:
                with replacing(file) as temporary, temporary.open("wb") as out:
                    np.savez_compressed(out, boxes=boxes, seconds=np.array(seconds))
            except OSError as error:
                raise DetectError(
                    f"{file}: cannot be written: {error.strerror or error}; finished images are "
                    "kept, make room and run the same command again"
                ) from error
        return ImageResult(boxes, seconds, reused=False)

    def _file(self, image: ImageFile) -> Path | None:
        if self.cache is None:
            return None
        digest = hashlib.sha256(f"{self.settings}\0{image.image_id}\0".encode())
        try:
            digest.update(image.path.read_bytes())
        except OSError:  # the reader will say what is wrong
            self.read(image.path)
            raise
        return self.cache / f"{digest.hexdigest()[:40]}.npz"


def _read_cached(file: Path) -> ImageResult | None:
    """The content of a cached file; None if it is missing or damaged."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            boxes, seconds = archive["boxes"], float(archive["seconds"])
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        return None
    if boxes.dtype != np.float32 or boxes.ndim != 2 or boxes.shape[1] != 4:
        return None
    return ImageResult(boxes, seconds, reused=True)


def _check_disk(cache: Path, num_images: int) -> None:
    place = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    needed, free = num_images * BYTES_PER_IMAGE, shutil.disk_usage(place).free
    if needed > free:
        raise DetectError(
            f"{cache}: the proposals of {counted(num_images, 'image')} take about "
            f"{needed / 2**20:,.0f} MiB, the disk has {free / 2**20:,.0f} MiB left; make room, or "
            "write to another disk"
        )


_work_of_this_process: _Work | None = None


def _in_processes(
    images: Mapping[int, ImageFile], work: _Work, num_workers: int
) -> Generator[tuple[int, ImageResult]]:
    """Results as they come, with the numbers of their images."""
    executor = ProcessPoolExecutor(
        num_workers,
        # a fresh interpreter: a forked one could hang in the threads of libraries
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(work,),
    )
    waiting = iter(images.items())
    running: dict[Future[ImageResult], int] = {}
    try:
        while True:
            # no more than there are workers: a dead worker can then be told by its image
            while len(running) < num_workers and (item := next(waiting, None)) is not None:
                running[executor.submit(_do_work, item[1])] = item[0]
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                result = future.result()
                yield running.pop(future), result
    except BrokenProcessPool as error:
        names = ", ".join(images[number].image_id for number in running.values())
        raise DetectError(
            f"a worker process died while working on {names}: it was killed, probably for lack of "
            "memory; finished images are kept: run with fewer workers, or look at these images"
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _start_worker(work: _Work) -> None:
    global _work_of_this_process
    _work_of_this_process = work
    # Ctrl-C reaches all processes of a terminal; a worker first finishes its image
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    # without this, the workers of a killed parent would wait for ever
    threading.Thread(target=follow, daemon=True).start()


def _do_work(image: ImageFile) -> ImageResult:
    assert _work_of_this_process is not None
    return _work_of_this_process(image)
