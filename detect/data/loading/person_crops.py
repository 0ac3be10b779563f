"""One image a person: the objects of a keypoint set, cut out as DeepPose takes its input.

Toshev and Szegedy 2014, "DeepPose", section 3.1, takes the box of a person detector, enlarged.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from detect.data.dataset import DetectionDataset, joints_of
from detect.data.loading.crops import crop_boxes
from detect.data.loading.transforms import moved_joints
from detect.errors import DetectError
from detect.structures import GroundTruth, ImageMeta, Sample


class PersonCrops(DetectionDataset):
    """Each object of a keypoint set that is not difficult, cut out as a `Sample` of its own.

    A box is widened, clipped to the image, rounded outward to whole pixels and, where the image
    allows it, at least 2 × 2. The truth of a sample is the one object, its box and its joints in
    the frame of the crop; a joint that the crop leaves out is not labeled.

    The samples of one image follow one another, and an image that is asked for again at once is
    not decoded again. The metas name the file that a crop was cut from.

    Args:
        dataset: images with their objects and joints.
        context: how much of its width a box is widened to the left and to the right, and of its
            height above and below; 0 or more.

    Attributes:
        boxes: `[N, 4]` int64, the crop as xyxy pixels of its image.
        image_numbers: `[N]` int64, the number of its image in the whole set, rising.
        num_joints_outside: labeled joints that lie outside their crop, and are not labeled in it.

    Raises:
        DetectError: `context` is out of range, or the set has no object that is not difficult.
    """

    def __init__(self, dataset: DetectionDataset, context: float = 0.2) -> None:
        if not (context >= 0 and math.isfinite(context)):
            raise DetectError(f"context: expected a number of 0 or more, found {context}")
        metas, truths, boxes, numbers = [], [], [], []
        self.num_joints_outside = 0
        for number, (meta, truth) in enumerate(zip(dataset.metas, dataset.truths, strict=True)):
            crops = crop_boxes(truth.boxes.numpy(), meta.original_size, context)
            for row in (~truth.difficult).nonzero().flatten().tolist():
                x1, y1, x2, y2 = crops[row].tolist()
                size = (y2 - y1, x2 - x1)
                metas.append(ImageMeta(f"{meta.image_id}_{row}", meta.path, size, size))
                own, num_outside = _truth_in_crop(truth, row, (x1, y1, x2, y2))
                truths.append(own)
                self.num_joints_outside += num_outside
                boxes.append(crops[row])
                numbers.append(number)
        if not truths:
            raise DetectError(
                f"expected persons to crop, found none with a labeled joint in {len(dataset)} "
                "images; choose another split"
            )
        super().__init__(
            dataset.class_names,
            metas,
            truths,
            skeleton=dataset.skeleton,
            name=dataset.name,
            faults=dataset.faults,
            num_skipped_images=dataset.num_skipped_images,
            num_skipped_objects=dataset.num_skipped_objects,
        )
        self.boxes: Int[np.ndarray, "N 4"] = np.stack(boxes)
        self.image_numbers: Int[np.ndarray, "N"] = np.array(numbers, np.int64)
        self._dataset = dataset
        self._decoded: tuple[int, np.ndarray] | None = None

    def __getitem__(self, index: int) -> Sample:
        """Cut the crop out of its image.

        Raises:
            DetectError: the image cannot be read any more, or is another one by now.
        """
        row = range(len(self))[index]
        number = int(self.image_numbers[row])
        decoded = self._decoded  # read once, since another thread may change it
        if decoded is None or decoded[0] != number:
            decoded = (number, self._dataset[number].image)
            self._decoded = decoded
        x1, y1, x2, y2 = self.boxes[row].tolist()
        # a copy: a view would keep the whole image, and a change would reach the next crop
        return Sample(decoded[1][y1:y2, x1:x2].copy(), self.truths[row], self.metas[row])

    def without_difficult(self) -> DetectionDataset:
        """The set itself, which has no difficult objects."""
        return self

    def subset(self, indices: Iterable[int]) -> DetectionDataset:
        """Some of the crops, in the order of `indices`."""
        chosen = list(indices)
        part = super().subset(chosen)
        assert isinstance(part, PersonCrops)
        part.boxes, part.image_numbers = self.boxes[chosen], self.image_numbers[chosen]
        return part

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decoded": None}  # a worker process decodes for itself


def _truth_in_crop(
    truth: GroundTruth, row: int, crop: tuple[int, int, int, int]
) -> tuple[GroundTruth, int]:
    """Object `row` in the frame of a crop, and the number of labeled joints that it leaves out."""
    x1, y1, x2, y2 = crop
    own = joints_of(truth)[row : row + 1]  # [1, K, 3]
    points = own[..., :2] - torch.tensor([x1, y1])
    inside = ((points >= 0) & (points <= torch.tensor([x2 - x1, y2 - y1]))).all(dim=-1)
    visibility = torch.where(inside, own[..., 2], 0.0)
    joints = torch.cat((own[..., :2], visibility[..., None]), dim=-1)
    box = truth.boxes[row : row + 1] - torch.tensor([x1, y1, x1, y1])
    in_crop = GroundTruth(
        box, truth.labels[row : row + 1], torch.tensor([False]), moved_joints(joints, points)
    )
    return in_crop, int(((own[..., 2] > 0) & ~inside).sum())
