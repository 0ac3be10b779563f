"""What a detector is."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detect.proposals import ProposalSource
from detect.registry import Registry
from detect.structures import Batch, Detections, InputSpec
from detect.training import Phase, Plan


class Detector(nn.Module, ABC):
    """Finds objects in images, and knows the loss that teaches it to.

    A subclass has plain constructor arguments with defaults and types, which for numbers state a
    range (`detect.detectors.ranges`): they are the keys of the `detector` section of a config,
    after `backbone`, `num_classes` and nothing else.

    Attributes:
        num_classes: C; labels are 0 … C−1. A background class, if there is one, is private.
        input_spec: how the detector wants to be fed.
        phase_names: the phases of its training, in order; a config may have a subsection for each.
        metrics: what it is judged by in addition to mAP: `localization`, `pose`.
    """

    phase_names: ClassVar[tuple[str, ...]] = ("train",)
    metrics: tuple[str, ...] = ()

    num_classes: int
    input_spec: InputSpec

    @property
    def proposal_source(self) -> ProposalSource | None:
        """Finds the proposals of an image; None for a detector that has no use for any."""
        return None

    def lacks(self) -> str | None:
        """What a detection would need that has not been trained, and what to do; usually None."""
        return None

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Weighted terms of the objective, which is their sum; legal without any object."""

    @torch.no_grad()
    def detect(self, batch: Batch) -> list[Detections]:
        """Detections of each image in the input frame, after suppression.

        The result does not depend on whether the detector is in training mode.
        """
        with evaluating(self):
            return self._detect(batch)

    @abstractmethod
    def _detect(self, batch: Batch) -> list[Detections]:
        """What `detect` returns; called in evaluation mode and without gradients."""

    def phases(self, plan: Plan) -> Sequence[Phase]:
        """The steps of training; one descent on `loss` unless a subclass knows better."""
        return [plan.gradient_phase("train", self, self.loss)]


DETECTORS: Registry[type[Detector]] = Registry("detector")


def list_detectors() -> list[str]:
    """The names of the detectors, for `detector.name`; those of plug-ins included."""
    return list(DETECTORS)


def predict(detector: Detector, batch: Batch) -> list[Detections]:
    """Detections of each image in the image's own frame, clipped to it, on the CPU.

    This is the one place where any detector's boxes leave the input frame.
    """
    detections = detector.detect(batch)
    return [
        found.to(torch.device("cpu")).restored(meta)
        for found, meta in zip(detections, batch.metas, strict=True)
    ]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and back into the mode it was in."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
