"""What several models found in the same images, fused."""

from collections.abc import Mapping, Sequence

import torch

from detect.errors import DetectError
from detect.ops import weighted_boxes_fusion
from detect.structures import Detections

FUSION_IOU = 0.55  # of the paper


def fuse_detections(
    found: Mapping[str, Sequence[Detections]], iou_threshold: float = FUSION_IOU
) -> list[Detections]:
    """Fuse the boxes of several models by weighted boxes fusion, all models with equal weight.

    Solovyev et al. 2021, "Weighted boxes fusion: Ensembling boxes from different object detection
    models": `detect.ops.weighted_boxes_fusion`.

    Args:
        found: by model, the detections of each image; labels mean the same classes in all.
        iou_threshold: boxes of a class that overlap more become one, in 0…1.

    Returns:
        The fused detections of each image, without joints.

    Raises:
        DetectError: fewer than two models, or scores outside 0…1, which have no common scale.
    """
    if len(found) < 2:
        raise DetectError(f"fusing: expected two models or more, found {len(found)}")
    if not 0 <= iou_threshold <= 1:
        raise DetectError(f"fusing: expected an IoU in 0…1, found {iou_threshold:g}")
    for name, records in found.items():
        for record in records:
            if len(record) and not 0 <= float(record.scores.min()) <= record.scores.max() <= 1:
                raise DetectError(
                    f"{name}: expected scores in 0…1 to fuse, found "
                    f"{float(record.scores.min()):g} … {float(record.scores.max()):g}, such as the "
                    "margins of SVMs; take a model that gives probabilities"
                )
    rows = [
        (record, image, model)
        for model, records in enumerate(found.values())
        for image, record in enumerate(records)
    ]
    num_images = len(next(iter(found.values())))
    num_classes = 1 + max((int(r.labels.max()) for r, _, _ in rows if len(r)), default=0)
    fused = weighted_boxes_fusion(
        torch.cat([record.boxes for record, _, _ in rows]),
        torch.cat([record.scores for record, _, _ in rows]),
        torch.cat([record.labels + image * num_classes for record, image, _ in rows]),
        torch.cat([torch.full_like(record.labels, model) for record, _, model in rows]),
        [1.0] * len(found),
        iou_threshold=iou_threshold,
    )
    images = fused.groups // num_classes
    ends = torch.bincount(images, minlength=num_images).cumsum(0).tolist()
    return [
        Detections.sorted(
            fused.boxes[begin:end],
            fused.scores[begin:end],
            fused.groups[begin:end] % num_classes,
        )
        for begin, end in zip([0, *ends], ends, strict=False)
    ]
