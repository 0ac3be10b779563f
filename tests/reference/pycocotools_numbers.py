"""COCO's 12 numbers by pycocotools itself, of dictionaries as the evaluator takes them."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def numbers_of(detections, truths, num_classes):
    """By name; nan where pycocotools says -1. Both hold `boxes_xywh`, one entry a picture."""
    annotations = [
        {"id": 0, "image_id": image, "category_id": label, "bbox": box, "area": area,
         "iscrowd": int(crowd)}
        for image, truth in enumerate(truths)
        for box, label, area, crowd in zip(
            *(truth[key].tolist() for key in ("boxes_xywh", "labels", "area", "iscrowd")),
            strict=True,
        )
    ]  # fmt: skip
    for number, annotation in enumerate(annotations, start=1):  # 0 means "unmatched" to it
        annotation["id"] = number
    results = [
        {"image_id": image, "category_id": label, "bbox": box, "score": score}
        for image, found in enumerate(detections)
        for box, label, score in zip(
            *(found[key].tolist() for key in ("boxes_xywh", "labels", "scores")), strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        objects = COCO()
        objects.dataset = {
            "images": [{"id": image} for image in range(len(truths))],
            "categories": [{"id": label} for label in range(num_classes)],
            "annotations": annotations,
        }
        objects.createIndex()
        evaluation = COCOeval(objects, objects.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = np.where(evaluation.stats < 0, np.nan, evaluation.stats)
    return dict(zip(NAMES, values.tolist(), strict=True))
