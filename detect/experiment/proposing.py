"""Proposals of data sets, for the detectors that want them. Floor 4."""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from detect.data import (
    DetectionDataset,
    EvaluationBatches,
    ProposedSamples,
    drop_empty,
    meta_in_input,
    read_image,
)
from detect.detectors import Detector
from detect.detectors.faster_rcnn import RPNProposals
from detect.detectors.proposing import FittedSource
from detect.errors import DetectError, Interrupted
from detect.progress import showing
from detect.proposals import (
    GivenBoxes,
    ImageFile,
    Proposals,
    ProposalSource,
    compute_proposals,
)
from detect.structures import Batch, GroundTruth, InputSpec
from detect.training.interruption import Interruption

# Images whose time is taken, and the least time of a whole set, in seconds, for which other
# processes are started: each takes some seconds to load what it needs.
NUM_TIMED = 4
MIN_SECONDS = 20.0


def find_proposals(
    detector: Detector, dataset: DetectionDataset, cache: Path, console: Console
) -> Proposals | None:
    """The proposals of all images, in their own frames, as a detector wants them.

    Images are worked on in parallel, by a process for each core, unless they are few; the boxes
    of each are kept, so that they are found once for each content of an image and each setting.

    Args:
        detector: says from where.
        dataset: of the images.
        cache: a folder for the boxes of single images.
        console: where progress is shown.

    Returns:
        None if the detector wants none.

    Raises:
        DetectError: an image cannot be read, or the cache cannot be written.
        Interrupted: the same command continues.
    """
    source = detector.proposal_source
    if source is None:
        return None
    if isinstance(source, FittedSource) and isinstance(source.source, GivenBoxes):
        given = source.source.proposals.of(dataset.image_ids)
        return given.first(source.max_proposals)
    images = [
        ImageFile(meta.image_id, meta.path, meta.original_size)
        for meta in dataset.metas
        if meta.path is not None
    ]
    folder = cache / "proposals"
    find = functools.partial(compute_proposals, source=source, read=read_image, cache=folder)
    # to start a process takes longer than many a small set
    seconds = find(images[:NUM_TIMED]).seconds
    expected = len(images) * float(np.median(seconds)) if len(seconds) else 0.0
    num_workers = 1 if expected < MIN_SECONDS or is_network(source) else os.cpu_count() or 1
    with showing_proposals(len(images), folder, console) as advance:
        return find(images, num_workers=num_workers, progress=advance).proposals


def is_network(source: ProposalSource) -> bool:
    """Whether a source is a network, which uses all cores, or the GPU, on its own."""
    own = source.source if isinstance(source, FittedSource) else source
    return isinstance(own, RPNProposals)


@contextmanager
def showing_proposals(total: int, cache: Path, console: Console) -> Iterator[Callable[[int], None]]:
    """Show how many images are done; a signal ends the work once what is begun is finished."""
    with (
        Interruption() as interruption,
        showing("Finding proposals", console, total=total) as progress,
    ):

        def advance(num_done: int) -> None:
            progress(num_done, total)
            if interruption.requested is not None and num_done < total:
                raise Interrupted(
                    f"stopped by {interruption.requested.name}; {num_done} of {total} images are "
                    f"done and kept in {cache}. The same command continues",
                    128 + interruption.requested,
                )

        yield advance


class ProposedImages:
    """The training images as they are, with their proposals; an `ImageSource`.

    Args:
        dataset: with the objects that are learned from.
        proposals: of its images.
        spec: how the detector wants to be fed.
        num_workers: processes that read ahead.
    """

    def __init__(
        self, dataset: DetectionDataset, proposals: Proposals, spec: InputSpec, num_workers: int
    ) -> None:
        self.dataset, self.proposals, self.spec = dataset, proposals, spec
        self.num_workers = num_workers

    def __len__(self) -> int:
        """The number of images."""
        return len(self.dataset)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the images' files, their objects and proposals, and the input's size."""
        digest = hashlib.sha256(self.proposals.fingerprint.encode())
        spec = self.spec
        input_settings = [list(spec.size), spec.keep_aspect_ratio, spec.shorter_side]
        digest.update(json.dumps([input_settings, list(self.dataset.class_names)]).encode())
        for meta, truth in zip(self.dataset.metas, self.dataset.truths, strict=True):
            digest.update(meta.image_id.encode() + b"\0")
            digest.update(truth.boxes.numpy().tobytes() + truth.labels.numpy().tobytes())
            if meta.path is not None:
                digest.update(_content(meta.path))
        return digest.hexdigest()

    def regions(self, image: int) -> tuple[GroundTruth, Tensor]:
        """Objects and proposals `[P, 4]` of an image in the input frame, without reading it."""
        own, truth = self.dataset.metas[image], self.dataset.truths[image]
        meta = meta_in_input(own, own.original_size, self.spec)
        boxes = torch.from_numpy(self.proposals[own.image_id].copy())
        placed = drop_empty(meta.to_input(truth.boxes), truth.labels, truth.difficult)
        return placed, meta.to_input(boxes)

    def batches(self, start: int = 0) -> Iterable[Batch]:
        """One image a batch, from image `start` on, its proposals with it."""
        samples = torch.utils.data.Subset(
            ProposedSamples(self.dataset, self.proposals), range(start, len(self.dataset))
        )
        return EvaluationBatches(samples, self.spec, batch_size=1, num_workers=self.num_workers)


def _content(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        raise DetectError(f"{path}: cannot be read: {error.strerror or error}") from error
