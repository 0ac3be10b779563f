"""Features of all regions of the training images: kept on the disk, or computed when needed.

Features are float16 in both cases, so that both give the same SVMs. On the disk they lie in a
folder whose name is made of all that they depend on. They are appended image by image, and how
far that has come is written after them, so that a run that is killed loses some seconds of it.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Int
from torch import Tensor, nn

from detect.backbones.base import POINTWISE, flat_layers
from detect.detectors.rcnn.regions import RegionTable, regions_of
from detect.errors import DetectError
from detect.files import read_json, write_json
from detect.structures import Batch
from detect.training import ImageSource, Watch
from detect.wording import counted

# To be raised when the same address begins to mean other features.
REVISION = 1

# Seconds of work that a killed run may lose.
WRITE_INTERVAL = 5.0

GIGABYTE = 1e9

# The features of regions `[N, D]` and the trunk's for box regression `[N, P]`, of boxes `[N, 4]` in
# a batch of one image.
Embed = Callable[[Batch, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class FeatureSizes:
    """How much there is to be kept.

    Attributes:
        num_images: P.
        num_regions: R, of all images together.
        dim: D, numbers of a region's features.
        num_regressed: Q, regions that box regression learns from.
        trunk_dim: numbers of the trunk's features.
    """

    num_images: int
    num_regions: int
    dim: int
    num_regressed: int
    trunk_dim: int

    @property
    def num_bytes(self) -> int:
        """Of float16."""
        return 2 * (self.num_regions * self.dim + self.num_regressed * self.trunk_dim)

    def __str__(self) -> str:
        mean = self.num_regions / max(1, self.num_images)
        size = 2 * self.num_regions * self.dim
        text = (
            f"{counted(self.num_images, 'image')} × {mean:,.1f} regions × {self.dim:,} numbers × 2 "
            f"bytes = {size / GIGABYTE:,.2f} GB"
        )
        if self.num_regressed:
            more = (self.num_bytes - size) / GIGABYTE
            text += (
                f", and {self.num_regressed:,} × {self.trunk_dim:,} × 2 bytes = {more:,.2f} GB for "
                "box regression"
            )
        return text


@runtime_checkable
class RegionFeatures(Protocol):
    """The features of the rows of a `RegionTable`."""

    def rows(
        self, wanted: Bool[Tensor, "R"], watch: Watch
    ) -> Iterator[tuple[Int[Tensor, "N"], Float16[Tensor, "N D"]]]:
        """Row numbers and features of each image that has any wanted ones, in order."""
        ...

    def regressed(self, watch: Watch) -> Float16[Tensor, "Q T"]:
        """The trunk's features of the regions that box regression learns from."""
        ...


class StreamedFeatures:
    """Features that are computed whenever they are asked for; nothing is kept."""

    def __init__(self, images: ImageSource, table: RegionTable, embed: Embed) -> None:
        self.images, self.table, self.embed = images, table, embed

    def rows(
        self, wanted: Bool[Tensor, "R"], watch: Watch
    ) -> Iterator[tuple[Int[Tensor, "N"], Float16[Tensor, "N D"]]]:
        """See `RegionFeatures`."""
        for rows, features, _ in self._computed(wanted, watch):
            yield rows, features

    def regressed(self, watch: Watch) -> Float16[Tensor, "Q T"]:
        """See `RegionFeatures`."""
        parts = [trunk for _, _, trunk in self._computed(self.table.regressed, watch)]
        return torch.cat(parts) if parts else torch.zeros(0, 0, dtype=torch.float16)

    def _computed(
        self, wanted: Bool[Tensor, "R"], watch: Watch
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for image, batch in enumerate(self.images.batches()):
            watch(image, len(self.images))
            of_image = self.table.rows_of(image)
            chosen = wanted[of_image].nonzero().flatten()
            if len(chosen):
                features, trunk = embed_rows(batch, chosen, self.embed)
                yield chosen + of_image.start, features, trunk


class StoredFeatures:
    """Features on the disk, computed once.

    Args:
        folder: of its own.
        sizes: of all there is to be kept.
        images: to compute what is missing from.
        table: of the regions.
        embed: computes.
        budget: the most bytes that may be taken.
    """

    def __init__(
        self,
        folder: Path,
        sizes: FeatureSizes,
        images: ImageSource,
        table: RegionTable,
        embed: Embed,
        budget: float,
    ) -> None:
        self.folder, self.sizes, self.budget = folder, sizes, budget
        self.images, self.table, self.embed = images, table, embed
        self._files = (folder / "features.f16", folder / "regressed.f16")
        self._progress = folder / "progress.json"

    def complete(self, watch: Watch) -> None:
        """Compute and write what is not there yet.

        Raises:
            DetectError: it takes more than the budget or the disk has, or cannot be written.
        """
        start = self._num_done()
        if start == len(self.images):
            return
        self._check_room(start)
        begin = self._ends(start)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                files = []
                for path, size in zip(self._files, begin, strict=True):
                    file = stack.enter_context(path.open("r+b" if path.exists() else "w+b"))
                    file.truncate(size)  # what was written after the last note may be torn
                    file.seek(size)
                    files.append(file)
                self._append(files, start, watch)
        except OSError as error:
            raise DetectError(
                f"{self.folder}: the features cannot be written: {error.strerror or error}; they "
                f"take {self.sizes}. Make room and continue with --resume, set data.cache to a "
                "folder on another disk, or set detector.feature_cache to none"
            ) from error

    def rows(
        self, wanted: Bool[Tensor, "R"], watch: Watch
    ) -> Iterator[tuple[Int[Tensor, "N"], Float16[Tensor, "N D"]]]:
        """See `RegionFeatures`."""
        self.complete(watch)
        kept = self._read(0, (self.sizes.num_regions, self.sizes.dim))
        for image in range(self.table.num_images):
            watch(image, self.table.num_images)
            of_image = self.table.rows_of(image)
            chosen = wanted[of_image].nonzero().flatten()
            if len(chosen):
                rows = chosen + of_image.start
                yield rows, torch.from_numpy(kept[rows.numpy()])

    def regressed(self, watch: Watch) -> Float16[Tensor, "Q T"]:
        """See `RegionFeatures`."""
        self.complete(watch)
        kept = self._read(1, (self.sizes.num_regressed, self.sizes.trunk_dim))
        return torch.from_numpy(np.array(kept))

    def remove(self) -> None:
        """Give the disk back."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _append(self, files: list[Any], start: int, watch: Watch) -> None:
        written = time.monotonic()
        done = start

        def note() -> None:
            for file in files:
                file.flush()
                os.fsync(file.fileno())
            write_json(self._progress, {"num_images": done})

        try:
            for image, batch in enumerate(self.images.batches(start), start):
                watch(image, len(self.images))
                of_image = self.table.rows_of(image)
                everything = torch.arange(of_image.stop - of_image.start)
                features, trunk = embed_rows(batch, everything, self.embed)
                files[0].write(features.numpy().tobytes())
                files[1].write(trunk[self.table.regressed[of_image]].numpy().tobytes())
                done = image + 1
                if time.monotonic() - written > WRITE_INTERVAL:
                    note()
                    written = time.monotonic()
        except Exception:
            if done > start and shutil.disk_usage(self.folder).free >= 2**20:
                note()
            raise
        note()

    def _num_done(self) -> int:
        """Images that are kept whole; 0 where the files say something else than the note."""
        if not self._progress.is_file():
            return 0
        try:
            done = int(read_json(self._progress)["num_images"])
        except (DetectError, KeyError, TypeError, ValueError):
            return 0
        if not 0 <= done <= len(self.images):
            return 0
        for path, size in zip(self._files, self._ends(done), strict=True):
            if not path.is_file() or path.stat().st_size < size:
                return 0
        return done

    def _ends(self, num_images: int) -> tuple[int, int]:
        # bytes of both files when so many images are written
        num_rows = int(self.table.offsets[num_images])
        num_regressed = int(self.table.regressed[:num_rows].sum())
        return 2 * num_rows * self.sizes.dim, 2 * num_regressed * self.sizes.trunk_dim

    def _check_room(self, num_done: int) -> None:
        needed = self.sizes.num_bytes
        remedy = (
            "raise detector.feature_budget, lower detector.max_proposals, or set "
            "detector.feature_cache to none, which computes the features again for each pass"
        )
        if needed > self.budget:
            raise DetectError(
                f"the features take {self.sizes}: {needed / GIGABYTE:,.2f} GB, and "
                f"detector.feature_budget is {self.budget / GIGABYTE:,.2f} GB; {remedy}"
            )
        place = next(p for p in (self.folder, *self.folder.absolute().parents) if p.exists())
        free, missing = shutil.disk_usage(place).free, needed - sum(self._ends(num_done))
        if missing > free:
            raise DetectError(
                f"{self.folder}: the features take {self.sizes}; {missing / GIGABYTE:,.2f} GB are "
                f"to be written, and the disk has {free / GIGABYTE:,.2f} GB left; make room, set "
                f"data.cache to a folder on another disk, or {remedy}"
            )

    def _read(self, file: int, shape: tuple[int, int]) -> np.ndarray:
        if shape[0] * shape[1] == 0:  # which cannot be mapped
            return np.zeros(shape, np.float16)
        # copy-on-write: torch wants memory that could be written
        return np.memmap(self._files[file], np.float16, "c", shape=shape)


def embed_rows(
    batch: Batch, chosen: Int[Tensor, "N"], embed: Embed
) -> tuple[Float16[Tensor, "N D"], Float16[Tensor, "N T"]]:
    """The features of some of an image's regions, on the CPU."""
    assert batch.proposals is not None
    boxes = regions_of(batch.truths[0], batch.proposals[0])[chosen]
    features, trunk = embed(batch, boxes)
    return _as_half(features), _as_half(trunk)


def first_fully_connected(head: nn.Module) -> list[nn.Module] | None:
    """A head's layers up to fc6 with what works on each of its numbers; None if there is no fc7."""
    layers = flat_layers(head)
    linear = [number for number, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
    if len(linear) < 2:
        return None
    end = linear[0] + 1
    while isinstance(layers[end], POINTWISE):
        end += 1
    return layers[:end]


def feature_address(settings: Mapping[str, Any], *networks: nn.Module) -> str:
    """A name made of settings and of the weights of networks."""
    digest = hashlib.sha256(json.dumps({**settings, "revision": REVISION}, sort_keys=True).encode())
    for network in networks:
        for name, tensor in network.state_dict().items():
            digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:40]


def _as_half(features: Float[Tensor, "N D"]) -> Float16[Tensor, "N D"]:
    greatest = torch.finfo(torch.float16).max
    return features.clamp(-greatest, greatest).half().cpu().contiguous()
