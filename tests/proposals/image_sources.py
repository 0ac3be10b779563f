"""Sources for tests that other processes can load, and images of known parts."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detect.proposals import ImageFile


@dataclass(frozen=True)
class BrightestPixels:
    """The boxes of the first pixels that are not black; notes each call in a file, if given."""

    count: int = 3
    log: Path | None = None
    dies_on: str = ""
    raises_on: str = ""
    extra: dict = field(default_factory=dict)

    @property
    def settings(self):
        return {"method": "brightest", "count": self.count, **self.extra}

    def __call__(self, image, image_id):
        if self.log is not None:
            with self.log.open("a") as log:
                log.write(f"{image_id}\n")
        if image_id == self.dies_on:
            os._exit(9)
        if image_id == self.raises_on:
            raise RuntimeError(image_id)
        ys, xs = np.nonzero(image[..., 0])
        rows = np.stack((xs, ys, xs + 1, ys + 1), axis=1)[: self.count]
        return rows.astype(np.float32)


def read_array(path):
    return np.load(path)


def array_files(folder, count, size=(6, 9), seed=0):
    """Images of noise as arrays on the disk."""
    images = []
    for number in range(count):
        path = folder / f"{number}.npy"
        generator = np.random.default_rng([seed, number])
        np.save(path, generator.integers(1, 256, (*size, 3), dtype=np.uint8))
        images.append(ImageFile(f"image{number}", path, size))
    return images


def four_squares(side=60):
    """Red, green, blue and white in a row, each as far from the next as any in RGB.

    In two rows, borders of several contrasts would meet: the pixels that smoothing mixes at one of
    them are led astray by the others.
    """
    image = np.zeros((side, 4 * side, 3), np.uint8)
    image[:, :side, 0] = 255
    image[:, side : 2 * side, 1] = 255
    image[:, 2 * side : 3 * side, 2] = 255
    image[:, 3 * side :] = 255
    return image


# the squares, the pairs that are merged first where all are alike, and the image
SQUARES = {(start, 0, start + 60, 60) for start in (0, 60, 120, 180)}
FOUR_SQUARES_BOXES = SQUARES | {(0, 0, 120, 60), (120, 0, 240, 60), (0, 0, 240, 60)}


def blobs(size=(40, 60), seed=0):
    """An image of smooth colored blobs: dozens of segments at small scales."""
    import cv2

    generator = np.random.default_rng(seed)
    noise = generator.random((max(1, size[0] // 8), max(1, size[1] // 8), 3), np.float32)
    smooth = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_NEAREST)
    return (smooth * 200 + generator.random((*size, 3)) * 40).astype(np.uint8)
