"""From an image to what a detector is fed."""

import cv2
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detect.ops import has_area
from detect.structures import GroundTruth, ImageMeta, InputSpec, Sample

# Gray of the letterbox and of what an augmentation moves in: near the mean of natural images.
FILL = (114, 114, 114)


def fit_to_input(sample: Sample, spec: InputSpec) -> Sample:
    """Scale an image to a detector's input, stretching it or keeping its aspect ratio.

    The meta of the result leads back to the frame of `sample.meta`'s image.
    """
    image = sample.image
    height, width = image.shape[:2]
    meta = meta_in_input(sample.meta, (height, width), spec)
    inner = (round(height * meta.scale[0]), round(width * meta.scale[1]))
    top, left = (round(offset) for offset in meta.offset)
    shrinks = inner[0] < height or inner[1] < width
    if inner != (height, width):
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(image, (inner[1], inner[0]), interpolation=method)
    if inner != meta.input_size:
        bottom, right = meta.input_size[0] - inner[0] - top, meta.input_size[1] - inner[1] - left
        image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=FILL)
    boxes = meta.to_input(sample.truth.boxes)
    joints = sample.truth.joints
    if joints is not None:
        joints = moved_joints(joints, meta.points_to_input(joints[..., :2]))
    truth = drop_empty(boxes, sample.truth.labels, sample.truth.difficult, joints)
    proposals = None if sample.proposals is None else meta.to_input(sample.proposals)
    return Sample(image, truth, meta, proposals)


def meta_in_input(meta: ImageMeta, size: tuple[int, int], spec: InputSpec) -> ImageMeta:
    """Where an image of `size` (height, width) lies in a detector's input."""
    scales = [length / own for length, own in zip(spec.size, size, strict=True)]
    if spec.shorter_side is not None:
        scales = [min(spec.shorter_side / min(size), max(spec.size) / max(size))] * 2
    elif spec.keep_aspect_ratio:
        scales = [min(scales)] * 2
    inner = [max(1, round(own * scale)) for own, scale in zip(size, scales, strict=True)]
    outer = spec.size if spec.shorter_side is None else (inner[0], inner[1])
    return ImageMeta(
        image_id=meta.image_id,
        path=meta.path,
        original_size=size,
        input_size=outer,
        scale=(inner[0] / size[0], inner[1] / size[1]),  # after rounding to whole pixels
        offset=(float((outer[0] - inner[0]) // 2), float((outer[1] - inner[1]) // 2)),
    )


def moved_joints(
    joints: Float[Tensor, "N K 3"], points: Float[Tensor, "N K 2"]
) -> Float[Tensor, "N K 3"]:
    """The joints at new points; those that are not labeled stay at 0, 0."""
    visibility = joints[..., 2:]
    return torch.cat((torch.where(visibility > 0, points, 0.0), visibility), dim=-1)


def drop_empty(
    boxes: Float[Tensor, "N 4"],
    labels: Int[Tensor, "N"],
    difficult: Bool[Tensor, "N"],
    joints: Float[Tensor, "N K 3"] | None = None,
) -> GroundTruth:
    """A ground truth of those rows whose box has an area; a transform may leave some without."""
    kept = has_area(boxes)
    return GroundTruth(
        boxes[kept], labels[kept], difficult[kept], None if joints is None else joints[kept]
    )
