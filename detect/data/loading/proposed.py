"""Images with the proposals that were found in them."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32
from torch.utils.data import Dataset

from detect.data.loading.batches import SampleSource
from detect.structures import Sample


@runtime_checkable
class BoxesOfImages(Protocol):
    """Boxes by the id of their image; `Proposals` are."""

    def __getitem__(self, image_id: str) -> Float32[np.ndarray, "_ 4"]: ...


class ProposedSamples(Dataset[Sample]):
    """The samples of a data set, each with its proposals.

    Args:
        samples: in the images' own frame.
        boxes: of every image, in its own frame, best first.
    """

    def __init__(self, samples: SampleSource, boxes: BoxesOfImages) -> None:
        self.samples, self.boxes = samples, boxes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        boxes = torch.from_numpy(np.array(self.boxes[sample.meta.image_id], np.float32))
        return Sample(sample.image, sample.truth, sample.meta, boxes.reshape(-1, 4))
