"""Training images in memory, for the phases of R-CNN that look at all regions."""

from collections.abc import Iterator

import torch
from torch import Tensor

from detect.structures import Batch, GroundTruth
from tests.contracts import image_batch, some_truth

SIZE = (64, 64)


class DrawnImages:
    """Noise with boxes; counts how many images were read."""

    def __init__(self, num_images: int = 4, num_classes: int = 2, seed: int = 0) -> None:
        self.num_read = 0
        self.fingerprint = f"{num_images} {num_classes} {seed}"
        self.truths = [
            some_truth(SIZE, num_classes, number % 4, seed + number) for number in range(num_images)
        ]
        self.proposals = [
            near(truth, some_truth(SIZE, 1, 6, 100 + number).boxes)
            for number, truth in enumerate(self.truths)
        ]

    def __len__(self) -> int:
        return len(self.truths)

    def regions(self, image: int) -> tuple[GroundTruth, Tensor]:
        return self.truths[image], self.proposals[image]

    def batches(self, start: int = 0) -> Iterator[Batch]:
        for number in range(start, len(self)):
            self.num_read += 1
            drawn = image_batch(SIZE, (self.truths[number],), seed=number)
            yield Batch(drawn.images, drawn.truths, drawn.metas, (self.proposals[number],))


def near(truth: GroundTruth, others: Tensor) -> Tensor:
    """Boxes some of which lie on objects, and some nowhere in particular."""
    moved = truth.boxes + torch.tensor([1.0, 0.0, 1.0, 2.0])
    return torch.cat((moved, others))


class Silent:
    """A watch that remembers what was said; ends the work at unit `until`, if there is one."""

    def __init__(self, until: int | None = None) -> None:
        self.until = until
        self.lines: list[str] = []
        self.num_calls = 0

    def __call__(self, done: int, total: int) -> None:
        assert 0 <= done <= total
        self.num_calls += 1
        if self.until is not None and self.num_calls > self.until:
            raise KeyboardInterrupt

    def say(self, message: str) -> None:
        self.lines.append(message)
