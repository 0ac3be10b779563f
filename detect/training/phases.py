"""What training consists of: a list of phases.

Most of the classical detectors train in several steps. A phase is one of them; what it leaves
behind is parameters of the detector, so that checkpoint, evaluation and inference are one code.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from detect.structures import Batch, GroundTruth
from detect.training.settings import GradientSettings

Loss = Callable[[Batch], dict[str, Tensor]]


@runtime_checkable
class BatchSource(Protocol):
    """Training images, epoch by epoch, in an order that depends on nothing but the epoch."""

    def __len__(self) -> int:
        """Batches in an epoch."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterable[Batch]:
        """The batches of an epoch (from 0), from batch `start` on."""
        ...

    def explain(self, error: Exception) -> Exception:
        """What an error while training says of the source, such as a worker that died."""
        ...


@runtime_checkable
class ImageSource(Protocol):
    """The training images as they are, in order, once."""

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides their content: files, objects, proposals, input size."""
        ...

    def __len__(self) -> int:
        """The number of images."""
        ...

    def regions(self, image: int) -> tuple[GroundTruth, Tensor]:
        """Objects and proposals `[P, 4]` of an image in the input frame, without reading it."""
        ...

    def batches(self, start: int = 0) -> Iterable[Batch]:
        """One image a batch, from image `start` on, its proposals with it."""
        ...


@runtime_checkable
class Watch(Protocol):
    """Follows the work of a `FitPhase`."""

    def __call__(self, done: int, total: int) -> None:
        """Note that `done` of `total` units are done.

        Raises:
            Interrupted: the user wants the work to end; what is to be kept must be written.
        """
        ...

    def say(self, message: str) -> None:
        """Print a line that stays."""
        ...


@runtime_checkable
class Phase(Protocol):
    """One step of training."""

    @property
    def name(self) -> str:
        """Unique within a detector; names its subsection in the config."""
        ...


@dataclass(frozen=True)
class GradientPhase:
    """A descent on a loss.

    Attributes:
        name: of the phase.
        module: put into training mode; those of its parameters that require a gradient are trained.
        loss: terms whose sum is the objective.
        batches: the training images.
        settings: of the descent.
    """

    name: str
    module: nn.Module
    loss: Loss
    batches: BatchSource
    settings: GradientSettings


Fit = Callable[[Watch], Mapping[str, Any] | None]


@dataclass(frozen=True)
class FitPhase:
    """A step that is no descent: it measures or solves, and leaves the result in the model.

    A run that is interrupted in it starts it over; what it keeps in a cache of its own it finds
    again.

    Attributes:
        name: of the phase.
        fit: does it, deterministically; what it returns stands in the journal's line of the phase.
    """

    name: str
    fit: Fit


@dataclass(frozen=True)
class Plan:
    """What a detector is given to make its phases from.

    Attributes:
        settings: by name of the phase.
        batches: makes the source of training images for a phase.
        images: the training images as they are.
        cache: a folder for what is expensive to compute again.
    """

    settings: Mapping[str, GradientSettings]
    batches: Callable[[GradientSettings], BatchSource]
    images: ImageSource | None = None
    cache: Path | None = None

    def gradient_phase(self, name: str, module: nn.Module, loss: Loss) -> GradientPhase:
        """A descent on `loss` with the settings that the config has for `name`."""
        settings = self.settings[name]
        return GradientPhase(name, module, loss, self.batches(settings), settings)
