"""The objects of a detection set, cut out one by one: a data set for classification.

This is the "train a classification model" step of a detector whose images have boxes and no
other labels: each object is an image of its class, and random places without an object may be
images of one class more, the background.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from torch.utils.data import Dataset

from detect.errors import DetectError
from detect.structures import GroundTruth, ImageMeta, Sample, whole_image_truth

BACKGROUND_NAME = "background"
# A place is background when it shows less than this share of every object. Its IoU with an object
# is no greater than that share, so it is below 0.3 too: the rule of Girshick et al. 2014, "Rich
# feature hierarchies", section 2.3, who found 0.3 by a search. IoU alone would let a large place
# hold the whole of a small object. A small part of a large object is background, as there.
MAX_BACKGROUND_COVERAGE = 0.3
# Random places that are tried for one background crop before it is given up.
MAX_TRIES = 50
# Crops are no smaller, in pixels, so that they can be scaled and have an area after it.
MIN_CROP_SIZE = 2
# Rounding outward would take in another row of pixels for an error of arithmetic; box files are
# coarser than this, in pixels.
_DECIMALS = 4


@runtime_checkable
class ObjectSource(Protocol):
    """Images with their objects and sizes; a `DetectionDataset` is one."""

    @property
    def class_names(self) -> Sequence[str]:
        """The name of each label."""

    @property
    def metas(self) -> Sequence[ImageMeta]:
        """The origin and size of each image."""

    @property
    def truths(self) -> Sequence[GroundTruth]:
        """The objects of each image."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class ObjectCrops(Dataset[Sample]):
    """Each object of a detection set as a `Sample` of its own, with one object that fills it.

    The box of the object is widened, clipped to the image, rounded outward to whole pixels and,
    where the image allows it, at least 2 × 2. All objects of `dataset` are taken;
    `DetectionDataset.without_difficult` leaves difficult ones out.

    A background crop has the size of the crop of some object of the set, drawn at random, and lies
    where it fits, each place alike. It shows less than 30 % of every object of the image, which
    keeps its IoU with each below 0.3. It depends on `seed`, the number of its image
    and the boxes of the set alone, not on what was asked for before.

    The samples of one image follow one another, the objects first, and an image that is asked
    for again at once is not decoded again.

    Args:
        dataset: images with their objects.
        context: how much of its width a box is widened to the left and to the right, and of its
            height above and below; 0 or more.
        background_per_image: background crops of each image, 0 or more. Above 0 there is one
            more class, the last, named `background`.
        seed: of the background crops.
        avoid: the objects of each image that background crops keep away from; by default those
            of `dataset`. Where difficult objects were left out of `dataset`, these are the truths
            with them.

    Attributes:
        class_names: the name of each label.
        labels: `[N]` int64, the class of each crop.
        boxes: `[N, 4]` int64, the crop as xyxy pixels of its image.
        image_numbers: `[N]` int64, the number of its image in `dataset`, rising.
        num_unplaced: background crops that found no place in 50 tries.

    Raises:
        DetectError: an argument is out of its range, the set has no object, or it has a class
            named `background` already.
    """

    def __init__(
        self,
        dataset: ObjectSource,
        *,
        context: float = 0.1,
        background_per_image: int = 0,
        seed: int = 0,
        avoid: Sequence[GroundTruth] | None = None,
    ) -> None:
        _check_arguments(dataset, context, background_per_image, avoid)
        self.class_names = tuple(dataset.class_names)
        self.num_unplaced = 0
        self._dataset = dataset
        self._decoded: tuple[int, UInt8[np.ndarray, "H W 3"]] | None = None
        boxes, labels = [], []  # of each image
        for meta, truth in zip(dataset.metas, dataset.truths, strict=True):
            boxes.append(crop_boxes(_as_array(truth), meta.original_size, context))
            labels.append(truth.labels.numpy())
        num_objects = np.array([len(rows) for rows in boxes])  # [number of images]
        if not num_objects.sum():
            raise DetectError(
                f"expected objects to crop, found none in {len(boxes)} images; "
                "choose another split, or annotate some"
            )
        if background_per_image:
            self.class_names += (BACKGROUND_NAME,)
            places = _draw_background(
                dataset, np.concatenate(boxes), background_per_image, seed, avoid
            )
            self.num_unplaced = background_per_image * len(boxes) - sum(map(len, places))
            background = len(self.class_names) - 1
            for number, rows in enumerate(places):
                boxes[number] = np.concatenate([boxes[number], rows])
                labels[number] = np.append(labels[number], np.full(len(rows), background))
        counts = np.array([len(rows) for rows in boxes])
        self.boxes: Int[np.ndarray, "N 4"] = np.concatenate(boxes)
        self.labels: Int[np.ndarray, "N"] = np.concatenate(labels).astype(np.int64)
        self.image_numbers: Int[np.ndarray, "N"] = np.repeat(np.arange(len(boxes)), counts)
        self._num_objects = num_objects
        self._starts = np.cumsum(counts) - counts  # the first crop of each image

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """Cut the crop out of its image.

        Raises:
            DetectError: the image cannot be read any more, or is another one by now.
        """
        row = range(len(self))[index]
        number = int(self.image_numbers[row])
        x1, y1, x2, y2 = self.boxes[row].tolist()
        # a copy: a view would keep the whole image, and a change would reach the next crop
        image = self._image(number)[y1:y2, x1:x2].copy()
        size = (y2 - y1, x2 - x1)
        meta = ImageMeta(self._image_id(row), self._dataset.metas[number].path, size, size)
        return Sample(image, whole_image_truth(size, int(self.labels[row])), meta)

    @property
    def image_ids(self) -> tuple[str, ...]:
        """`000012_3` for object 3 of the image 000012 (from 0), `000012_background_0`."""
        return tuple(self._image_id(row) for row in range(len(self)))

    @property
    def sizes(self) -> Int[np.ndarray, "N 2"]:
        """`[N, 2]`, (height, width) of each crop in pixels."""
        sizes: np.ndarray = self.boxes[:, 2:] - self.boxes[:, :2]
        return sizes[:, ::-1]

    def class_counts(self) -> dict[str, int]:
        """The number of crops of each class, in the order of the labels."""
        counts = np.bincount(self.labels, minlength=len(self.class_names)).tolist()
        return dict(zip(self.class_names, counts, strict=True))

    def _image_id(self, row: int) -> str:
        number = int(self.image_numbers[row])
        position = row - int(self._starts[number])
        num_objects = int(self._num_objects[number])
        if position < num_objects:
            return f"{self._dataset.metas[number].image_id}_{position}"
        background = f"{BACKGROUND_NAME}_{position - num_objects}"
        return f"{self._dataset.metas[number].image_id}_{background}"

    def _image(self, number: int) -> UInt8[np.ndarray, "H W 3"]:
        decoded = self._decoded  # read once, since another thread may change it
        if decoded is None or decoded[0] != number:
            decoded = (number, self._dataset[number].image)
            self._decoded = decoded
        return decoded[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decoded": None}  # a worker process decodes for itself


def crop_boxes(
    boxes: Float[np.ndarray, "N 4"], size: tuple[int, int], context: float
) -> Int[np.ndarray, "N 4"]:
    """The pixels that are cut out for each object, as xyxy.

    Args:
        boxes: of the objects, xyxy pixels within the image.
        size: (height, width) of the image.
        context: how much of its width and height a box is widened on each side.
    """
    boxes = boxes.astype(np.float64)
    limits = np.array([size[1], size[0]])  # x, y
    margins = context * (boxes[:, 2:] - boxes[:, :2])
    low = np.floor((boxes[:, :2] - margins).round(_DECIMALS)).clip(0)
    high = np.minimum(np.ceil((boxes[:, 2:] + margins).round(_DECIMALS)), limits)
    # too small a crop grows to the right and downward, at the edge of the image the other way
    high = np.minimum(np.maximum(high, low + MIN_CROP_SIZE), limits)
    low = np.minimum(low, (high - MIN_CROP_SIZE).clip(0))
    return np.concatenate([low, high], axis=1).astype(np.int64)


def _check_arguments(
    dataset: ObjectSource,
    context: float,
    background_per_image: int,
    avoid: Sequence[GroundTruth] | None,
) -> None:
    if not (context >= 0 and math.isfinite(context)):
        raise DetectError(f"context: expected a number of 0 or more, found {context}")
    if background_per_image < 0:
        raise DetectError(f"background_per_image: expected 0 or more, found {background_per_image}")
    if background_per_image and BACKGROUND_NAME in dataset.class_names:
        raise DetectError(
            f"background_per_image: expected 0, found {background_per_image}, for a data set that "
            f"has a class {BACKGROUND_NAME!r} already; rename that class, or set it to 0"
        )
    if avoid is not None and len(avoid) != len(dataset.truths):
        raise ValueError(f"avoid: {len(avoid)} truths for {len(dataset.truths)} images")


# ---- background -------------------------------------------------------------------------------


def _draw_background(
    dataset: ObjectSource,
    object_crops: Int[np.ndarray, "S 4"],
    count: int,
    seed: int,
    avoid: Sequence[GroundTruth] | None,
) -> list[Int[np.ndarray, "_ 4"]]:
    """Up to `count` background crops for each image, as large as those of the objects."""
    crop_sizes = object_crops[:, 2:] - object_crops[:, :2]
    truths = dataset.truths if avoid is None else avoid
    places = []
    for number, (meta, truth) in enumerate(zip(dataset.metas, truths, strict=True)):
        generator = np.random.default_rng((seed, number))
        drawn = [
            _draw_place(generator, meta.original_size, crop_sizes, _as_array(truth))
            for _ in range(count)
        ]
        found = [place for place in drawn if place is not None]
        places.append(np.array(found, np.int64).reshape(-1, 4))
    return places


def _draw_place(
    generator: np.random.Generator,
    size: tuple[int, int],
    crop_sizes: Int[np.ndarray, "S 2"],
    boxes: Float[np.ndarray, "M 4"],
) -> Int[np.ndarray, "4"] | None:
    """The first of 50 random places of an image that is background, or None.

    Args:
        generator: of the draws; it moves on by as much whatever is found.
        size: (height, width) of the image.
        crop_sizes: (width, height) to choose from.
        boxes: of the image's objects.
    """
    chosen = crop_sizes[generator.integers(len(crop_sizes), size=MAX_TRIES)]  # [T, 2]
    shares = generator.random((MAX_TRIES, 2))
    room = np.array([size[1], size[0]]) - chosen  # the greatest x1 and y1
    fits = (room >= 0).all(axis=1)
    low = np.floor(shares * (room + 1)).astype(np.int64)
    places = np.concatenate([low, low + chosen], axis=1)[fits]
    places = places[_is_background(places, boxes)]
    return places[0] if len(places) else None


def _is_background(
    places: Int[np.ndarray, "T 4"], boxes: Float[np.ndarray, "M 4"]
) -> Bool[np.ndarray, "T"]:
    low = np.maximum(places[:, None, :2], boxes[None, :, :2])
    high = np.minimum(places[:, None, 2:], boxes[None, :, 2:])
    intersection = (high - low).clip(0).prod(axis=2)  # [T, M]
    object_areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)  # [M]
    shows: np.ndarray = (intersection >= MAX_BACKGROUND_COVERAGE * object_areas).any(axis=1)
    return ~shows


def _as_array(truth: GroundTruth) -> Float[np.ndarray, "N 4"]:
    return truth.boxes.numpy().astype(np.float64)
