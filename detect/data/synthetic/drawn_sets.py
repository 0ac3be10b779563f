"""What the built-in data sets, drawn on first use, have in common: settings and folder. Floor 2."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from detect.errors import DetectError
from detect.files import read_json

MIN_IMAGE_SIDE = 64
JPEG_QUALITY = 92


@dataclass(frozen=True)
class DrawnSet:
    """A data set that the same settings draw to the same bytes.

    Attributes:
        name: begins the message of a fault.
        description: for people, with its article.
        settings_file: name of the file in the set's folder that has its settings.
        version: of the drawing.
    """

    name: str
    description: str
    settings_file: str
    version: int

    def settings(
        self,
        num_images: int,
        seed: int,
        image_size: tuple[int, int],
        splits: Sequence[int | float],
    ) -> dict[str, Any]:
        """The content of the settings file: what decides the bytes of the set.

        Args:
            num_images: at least 3, one for each split.
            seed: 0 or more.
            image_size: (height, width) in pixels, each at least 64.
            splits: shares of train, val and test in the images, or their numbers.

        Raises:
            DetectError: a setting is out of range.
        """
        if num_images < 3:
            raise DetectError(
                f"{self.name}: expected at least 3 images, one for each split, found {num_images}"
            )
        if seed < 0:
            raise DetectError(f"{self.name}: expected a seed of 0 or more, found {seed}")
        if len(image_size) != 2 or min(image_size) < MIN_IMAGE_SIDE:
            raise DetectError(
                f"{self.name}: expected an image size of at least {MIN_IMAGE_SIDE} pixels in "
                f"height and width, found {tuple(image_size)}"
            )
        return {
            "kind": f"detect {self.name}",
            "version": self.version,
            "num_images": num_images,
            "seed": seed,
            "image_size": list(image_size),
            "splits": self.split_sizes(num_images, splits),
        }

    def split_sizes(self, num_images: int, splits: Sequence[int | float]) -> dict[str, int]:
        """Numbers of images in train, val and test: at least one each, `num_images` together."""
        if len(splits) != 3 or not all(math.isfinite(share) and share > 0 for share in splits):
            raise DetectError(
                f"{self.name}: expected three positive shares for train, val and test, found "
                f"{list(splits)}"
            )
        ends = np.round(num_images * np.cumsum(splits) / sum(splits)).astype(int)
        train_end = min(max(int(ends[0]), 1), num_images - 2)
        val_end = min(max(int(ends[1]), train_end + 1), num_images - 1)
        return {"train": train_end, "val": val_end - train_end, "test": num_images - val_end}

    def check_folder(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Make sure that drawing into `folder` destroys nothing but a set of the same settings.

        Raises:
            DetectError: the folder holds something else.
        """
        remedy = "name another folder, or remove this one to have it drawn again"
        if folder.exists() and not folder.is_dir():
            raise DetectError(
                f"{folder}: expected a folder for {self.description}, found a file; {remedy}"
            )
        settings_file = folder / self.settings_file
        if not settings_file.exists():
            if folder.exists() and any(folder.iterdir()):
                raise DetectError(
                    f"{folder}: expected an empty folder or {self.description} with its "
                    f"{self.settings_file}, found other files; {remedy}"
                )
            return
        found = read_json(settings_file)
        if not isinstance(found, dict):
            raise DetectError(
                f"{settings_file}: expected the settings of {self.description}; {remedy}"
            )
        differences = [
            f"{key} {found.get(key, 'as usual')!r} (wanted: {settings.get(key, 'as usual')!r})"
            for key in sorted(found.keys() | settings.keys())
            if found.get(key) != settings.get(key)
        ]
        if differences:
            raise DetectError(
                f"{folder}: holds {self.description} with other settings: "
                f"{', '.join(differences)}; {remedy}"
            )


def write_jpeg(path: Path, image: UInt8[np.ndarray, "H W 3"]) -> None:
    """Write an RGB image."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, encoded = cv2.imencode(".jpg", image[:, :, ::-1], quality)  # OpenCV takes BGR
    path.write_bytes(encoded.tobytes())
