"""Augmentation of training images through albumentations, boxes and joints following."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import albumentations
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from detect.data.loading.transforms import FILL, drop_empty, moved_joints
from detect.errors import DetectError
from detect.ops import has_area
from detect.registry import hint
from detect.structures import ImageMeta, Sample, whole_image_truth

# An object of which less than this share of its area is left in the image is left out. Cut-off
# remains teach a detector noise; SSD (Liu et al. 2016) and its successors use 0.1 to 0.5.
MIN_VISIBILITY = 0.25

# Points of the image, as shares of its width and height, that go through the transforms with the
# joints and tell what happened to the whole. Three would do, but transforms that bend the image
# remove points that have left it.
_SENTINELS = tuple((x, y) for y in (0.1, 0.35, 0.65, 0.9) for x in (0.1, 0.35, 0.65, 0.9))


class Augmentation:
    """Random changes of an image and its boxes. The arguments are the keys of `data.augmentation`.

    The defaults are those of YOLO (Redmon et al. 2016, section 2.2): scaling and translation by up
    to 20 % of the image, exposure and saturation by up to a factor of 1.5, a horizontal flip as
    in its code. Deviation: exposure and saturation change through albumentations' `ColorJitter`,
    which scales all channels and mixes with gray, where the paper works in HSV.

    Args:
        horizontal_flip: probability, in 0…1.
        vertical_flip: probability, in 0…1.
        scale: the image is scaled by a factor in `1 − scale … 1 + scale`.
        shift: and moved by up to this share of its width and height.
        hue: the hue is turned by up to this share of the circle, 0…0.5.
        saturation: the saturation changes by up to this factor, 1 or more.
        exposure: the brightness changes by up to this factor, 1 or more.
        extra: further albumentations transforms, applied last: a list of `{name: GaussianBlur,
            p: 0.1, …}` with the arguments of that transform.
        joint_swaps: pairs of joints, as `(left eye, right eye)` by their indices, that exchange
            their places in the record when the image is mirrored: what was a left eye is a right
            one in the mirror. They belong to the data set.

    Raises:
        DetectError: a value outside its range, an unknown transform or an argument it refuses.
        ValueError: a joint is in two pairs.
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
        *,
        joint_swaps: Sequence[tuple[int, int]] = (),
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
        swapped = [joint for pair in joint_swaps for joint in pair]
        if len(set(swapped)) < len(swapped):
            raise ValueError(f"joint_swaps: a joint is listed twice in {list(joint_swaps)}")
        self._joint_swaps = tuple(joint_swaps)
        self._pipeline = _composed(transforms or [albumentations.NoOp()])

    def __call__(self, sample: Sample, seed: int) -> Sample:
        """The changed sample; equal seeds change equal samples equally.

        The result is an image of its own: its meta leads back to itself, not to the unchanged one.
        A joint that leaves the image cannot be seen any more: its visibility becomes 0. On the
        border it is still in. Proposals follow as boxes do.
        """
        points = _points_of(sample)
        num_objects = len(sample.truth)
        boxes = sample.truth.boxes.numpy()
        if sample.proposals is not None:
            boxes = np.concatenate((boxes, sample.proposals.numpy()))
        self._pipeline.set_random_seed(seed)
        changed = self._pipeline(
            image=sample.image,
            bboxes=boxes,
            rows=np.arange(len(boxes)),
            keypoints=points,
            point_rows=np.arange(len(points)),
        )
        rows = torch.as_tensor(np.asarray(changed["rows"], dtype=np.int64))
        moved_boxes = torch.as_tensor(np.asarray(changed["bboxes"], np.float32)).reshape(-1, 4)
        is_object = rows < num_objects
        proposals = None
        if sample.proposals is not None:
            proposals = moved_boxes[~is_object & has_area(moved_boxes)]
        moved_boxes, rows = moved_boxes[is_object], rows[is_object]
        image = changed["image"]
        size = (image.shape[0], image.shape[1])
        joints = sample.truth.joints
        if joints is not None:
            moved = np.full(points.shape, np.nan)  # what a transform removes is nowhere
            moved[np.asarray(changed["point_rows"], np.int64)] = changed["keypoints"]
            places = moved[len(_SENTINELS) :] + 0.5
            joints = _joints_at(joints, places, size)
            if _is_mirrored(points, moved):
                joints = self._swapped(joints)
            joints = joints[rows]
        return Sample(
            image,
            drop_empty(
                moved_boxes, sample.truth.labels[rows], sample.truth.difficult[rows], joints
            ),
            ImageMeta(sample.meta.image_id, sample.meta.path, size, size),
            proposals,
        )

    def _swapped(self, joints: Float[Tensor, "N K 3"]) -> Float[Tensor, "N K 3"]:
        order = list(range(joints.shape[1]))
        for left, right in self._joint_swaps:
            order[left], order[right] = right, left
        return joints[:, order]


class ClassificationAugmentation:
    """Random changes of images of one object each, which keep its class whatever is cut off."""

    def __init__(self, augmentation: Augmentation) -> None:
        self.augmentation = augmentation

    def __call__(self, sample: Sample, seed: int) -> Sample:
        """The changed sample, whose object fills the image as before."""
        changed = self.augmentation(sample, seed)
        truth = whole_image_truth(changed.meta.input_size, int(sample.truth.labels[0]))
        return Sample(changed.image, truth, changed.meta)


def _composed(
    transforms: list[albumentations.BasicTransform | albumentations.BaseCompose],
) -> albumentations.Compose:
    with warnings.catch_warnings():
        # where only colors change, it warns that boxes and points stay where they are
        warnings.filterwarnings("ignore", message="Got processor for")
        return albumentations.Compose(
            transforms,
            bbox_params=albumentations.BboxParams(
                format="pascal_voc",
                label_fields=["rows"],
                min_visibility=MIN_VISIBILITY,
                clip=True,
            ),
            keypoint_params=albumentations.KeypointParams(
                format="xy", label_fields=["point_rows"], remove_invisible=False
            ),
        )


def _points_of(sample: Sample) -> Float[np.ndarray, "P 2"]:
    """The sentinels and the joints of a sample; without joints, nothing.

    They are in albumentations' frame, where the first pixel's center is (0, 0).
    """
    joints = sample.truth.joints
    if joints is None:
        return np.zeros((0, 2))
    height, width = sample.image.shape[:2]
    sentinels = np.array(_SENTINELS) * (width, height)
    return np.concatenate((sentinels, joints[..., :2].reshape(-1, 2).numpy())) - 0.5


def _joints_at(
    joints: Float[Tensor, "N K 3"], places: Float[np.ndarray, "P 2"], size: tuple[int, int]
) -> Float[Tensor, "N K 3"]:
    """The joints moved to `places` of an image of `size`; outside of it they are not labeled."""
    points = torch.as_tensor(places, dtype=torch.float32).reshape(*joints.shape[:2], 2)
    inside = ((points >= 0) & (points <= points.new_tensor((size[1], size[0])))).all(dim=-1)
    visibility = torch.where(inside, joints[..., 2], 0.0)
    return moved_joints(torch.cat((joints[..., :2], visibility[..., None]), dim=-1), points)


def _is_mirrored(before: Float[np.ndarray, "P 2"], after: Float[np.ndarray, "P 2"]) -> bool:
    """Whether the whole change, flips and turns together, mirrors: two flips only turn.

    It does if the linear map that fits the points best has a negative determinant.
    """
    left = np.isfinite(after).all(axis=1)
    if left.sum() < 3:
        return False
    corners = np.column_stack((before[left], np.ones(int(left.sum()))))
    fit: np.ndarray = np.linalg.lstsq(corners, after[left], rcond=None)[0]  # [3, 2]
    return bool(np.linalg.det(fit[:2]) < 0)


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
        raise DetectError(
            f"data.augmentation.extra: albumentations has no transform {name!r}; "
            f"{hint(name, known)}"
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
