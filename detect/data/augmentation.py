"""Augmentation of training pictures through albumentations, boxes following."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import albumentations
import numpy as np
import torch

from detect.data.folders import whole_image_truth
from detect.data.transforms import FILL, drop_empty
from detect.errors import DetectError
from detect.registry import nearest
from detect.structures import ImageMeta, Sample

# An object of which less than this share of its area is left in the picture is left out. Cut-off
# remains teach a detector noise; SSD (Liu et al. 2016) and its successors use 0.1 to 0.5.
MIN_VISIBILITY = 0.25


class Augmentation:
    """Random changes of a picture and its boxes. The arguments are the keys of `data.augmentation`.

    The defaults are those of YOLO (Redmon et al. 2016, section 2.2): scaling and translation by up
    to 20 % of the picture, exposure and saturation by up to a factor of 1.5, a horizontal flip as
    in its code. Deviation: exposure and saturation change through albumentations' `ColorJitter`,
    which scales all channels and mixes with gray, where the paper works in HSV.

    Args:
        horizontal_flip: probability, in 0…1.
        vertical_flip: probability, in 0…1.
        scale: the picture is scaled by a factor in `1 − scale … 1 + scale`.
        shift: and moved by up to this share of its width and height.
        hue: the hue is turned by up to this share of the circle, 0…0.5.
        saturation: the saturation changes by up to this factor, 1 or more.
        exposure: the brightness changes by up to this factor, 1 or more.
        extra: further albumentations transforms, applied last: a list of `{name: GaussianBlur,
            p: 0.1, …}` with the arguments of that transform.

    Raises:
        DetectError: a value outside its range, an unknown transform or an argument it refuses.
    """

    def __init__(
        self,
        horizontal_flip: float = 0.5,
        vertical_flip: float = 0.0,
        scale: float = 0.2,
        shift: float = 0.2,
        hue: float = 0.0,
        saturation: float = 1.5,
        exposure: float = 1.5,
        extra: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        _check("horizontal_flip", horizontal_flip, 0, 1)
        _check("vertical_flip", vertical_flip, 0, 1)
        _check("scale", scale, 0, 0.9)
        _check("shift", shift, 0, 0.9)
        _check("hue", hue, 0, 0.5)
        _check("saturation", saturation, 1, 100)
        _check("exposure", exposure, 1, 100)
        transforms: list[albumentations.BasicTransform | albumentations.BaseCompose] = []
        if horizontal_flip > 0:
            transforms.append(albumentations.HorizontalFlip(p=horizontal_flip))
        if vertical_flip > 0:
            transforms.append(albumentations.VerticalFlip(p=vertical_flip))
        if scale > 0 or shift > 0:
            affine = albumentations.Affine(
                scale=(1 - scale, 1 + scale),
                translate_percent=(-shift, shift),
                keep_ratio=True,
                fill=FILL,
                p=1.0,
            )
            transforms.append(affine)
        if hue > 0 or saturation > 1 or exposure > 1:
            jitter = albumentations.ColorJitter(
                brightness=(1 / exposure, exposure),
                contrast=(1.0, 1.0),
                saturation=(1 / saturation, saturation),
                hue=(-hue, hue),
                p=1.0,
            )
            transforms.append(jitter)
        transforms += [_named_transform(entry) for entry in extra]
        self._pipeline = albumentations.Compose(
            transforms or [albumentations.NoOp()],
            bbox_params=albumentations.BboxParams(
                format="pascal_voc",
                label_fields=["rows"],
                min_visibility=MIN_VISIBILITY,
                clip=True,
            ),
        )

    def __call__(self, sample: Sample, seed: int) -> Sample:
        """The changed sample; equal seeds change equal samples equally.

        The result is a picture of its own: its meta leads back to itself, not to the unchanged one.
        """
        self._pipeline.set_random_seed(seed)
        changed = self._pipeline(
            image=sample.image,
            bboxes=sample.truth.boxes.numpy(),
            rows=np.arange(len(sample.truth)),
        )
        rows = torch.as_tensor(np.asarray(changed["rows"], dtype=np.int64))
        boxes = torch.as_tensor(np.asarray(changed["bboxes"], dtype=np.float32)).reshape(-1, 4)
        image = changed["image"]
        size = (image.shape[0], image.shape[1])
        return Sample(
            image,
            drop_empty(boxes, sample.truth.labels[rows], sample.truth.difficult[rows]),
            ImageMeta(sample.meta.image_id, sample.meta.path, size, size),
        )


class ClassificationAugmentation:
    """Random changes of pictures of one object each, which keep its class whatever is cut off."""

    def __init__(self, augmentation: Augmentation) -> None:
        self.augmentation = augmentation

    def __call__(self, sample: Sample, seed: int) -> Sample:
        """The changed sample, whose object fills the picture as before."""
        changed = self.augmentation(sample, seed)
        truth = whole_image_truth(changed.meta.input_size, int(sample.truth.labels[0]))
        return Sample(changed.image, truth, changed.meta)


def _named_transform(entry: Mapping[str, Any]) -> albumentations.BasicTransform:
    arguments = dict(entry)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise DetectError(
            f"data.augmentation.extra: expected entries such as {{name: GaussianBlur, p: 0.1}}, "
            f"found {dict(entry)}"
        )
    transform = getattr(albumentations, name, None)
    known = [
        key
        for key, value in vars(albumentations).items()
        if isinstance(value, type) and issubclass(value, albumentations.BasicTransform)
    ]
    if transform is None or name not in known:
        alike = " or ".join(nearest(name, known)) or "see albumentations' documentation"
        raise DetectError(
            f"data.augmentation.extra: albumentations has no transform {name!r}; "
            f"did you mean {alike}?"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # albumentations only warns of an unknown argument
            built: albumentations.BasicTransform = transform(**arguments)
            return built
    except Exception as error:
        raise DetectError(
            f"data.augmentation.extra: {name} refuses its arguments {arguments}: {error}"
        ) from error


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise DetectError(f"data.augmentation.{name}: expected {low} to {high}, found {value}")
