"""The proposals of a trained Faster R-CNN, for detectors that take theirs from elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from torch import Tensor

from detect.detectors.faster_rcnn.detector import FasterRCNN
from detect.detectors.proposing import find_as_fed
from detect.structures import Batch, Sample


@dataclass(frozen=True, slots=True)
class RPNProposals:
    """The boxes of a region proposal network; a `ProposalSource`.

    Args:
        detector: that has been trained.
        fingerprint: of its weights and settings.
    """

    detector: FasterRCNN
    fingerprint: str

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the boxes depend on."""
        return {"method": "rpn", "model": self.fingerprint}

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], image_id: str
    ) -> Float32[np.ndarray, "N 4"]:
        """Boxes of an image of any size, best first."""
        return find_as_fed(image, image_id, self.detector.input_spec, self._find)

    def _find(self, fitted: Sample) -> Tensor:
        device = self.detector.classifier.weight.device
        (boxes,) = self.detector.propose(Batch.from_samples([fitted]).to(device))
        return boxes.cpu()
