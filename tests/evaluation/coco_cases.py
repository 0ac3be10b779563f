"""Sets of detections in COCO's own form, judged by pycocotools and by the toolkit."""

import contextlib
import io
from typing import NamedTuple

import numpy as np
import torch

from detect.evaluation import COCOEvaluator


class COCOCase(NamedTuple):
    """`images`: ids; `truths`, `found`: annotations as COCO's files have them."""

    images: list
    categories: list
    truths: list
    found: list


def by_pycocotools(case):
    """The COCOeval of pycocotools, accumulated; its twelve numbers are `stats`."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": number} for number in case.images],
            "categories": [{"id": number, "name": str(number)} for number in case.categories],
            "annotations": [dict(entry) for entry in case.truths],
        }
        truth.createIndex()
        if case.found:
            found = truth.loadRes([dict(entry) for entry in case.found])
        else:  # loadRes takes no empty list
            found = COCO()
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        judged = COCOeval(truth, found, "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return judged


def by_us(case, device="cpu"):
    """Our report, from the images by rising id."""
    labels = {number: label for label, number in enumerate(sorted(case.categories))}

    def columns(entries, *names):
        return {
            "boxes_xywh": torch.tensor(
                [entry["bbox"] for entry in entries], dtype=torch.float64, device=device
            ).reshape(-1, 4),
            "labels": torch.tensor(
                [labels[entry["category_id"]] for entry in entries],
                dtype=torch.int64,
                device=device,
            ),
            **{
                name.removesuffix("s") if name != "scores" else name: torch.tensor(
                    [entry[key] for entry in entries], dtype=torch.float64, device=device
                )
                for name, key in names
            },
        }

    evaluator = COCOEvaluator([str(number) for number in sorted(case.categories)])
    evaluator.update(
        [
            columns([one for one in case.found if one["image_id"] == image], ("scores", "score"))
            for image in sorted(case.images)
        ],
        [
            columns(
                [one for one in case.truths if one["image_id"] == image],
                ("iscrowd", "iscrowd"),
                ("area", "area"),
            )
            for image in sorted(case.images)
        ],
    )
    return evaluator.compute()


def assert_equal(report, judged, tolerance=1e-12):
    """The twelve numbers, the precision at every recall and the greatest recalls."""

    def theirs(values):
        return np.where(values == -1, np.nan, values)

    numbers = np.array(list(report.numbers.values()))
    np.testing.assert_allclose(numbers, theirs(judged.stats), rtol=0, atol=tolerance)
    expected = theirs(judged.eval["precision"])[..., -1].transpose(0, 3, 2, 1)  # [T, A, C, R]
    np.testing.assert_allclose(report.precision, expected, rtol=0, atol=tolerance)
    expected = theirs(judged.eval["recall"]).transpose(3, 0, 2, 1)  # [M, T, A, C]
    np.testing.assert_allclose(report.recall, expected, rtol=0, atol=tolerance)


def random_case(seed, *, most_detections=12, num_images=6):
    """A few crowded images: ties in score and overlap, crowds, boxes of no area, empty ones.

    Boxes lie on a coarse grid, so that IoUs meet thresholds exactly; sizes go across the ranges.
    """
    draw = np.random.default_rng(seed)
    unit = float(draw.choice([1.0, 8.0, 20.0, 0.1]))
    images = draw.permutation(np.arange(1, 1000))[:num_images].tolist()
    categories = draw.permutation(np.arange(1, 90))[: draw.integers(1, 4)].tolist()
    whole = bool(draw.integers(2))

    def box():
        corner, size = draw.integers(0, 8, 2), draw.integers(0, 8, 2)
        values = np.concatenate((corner, size)) * unit
        if not whole:
            values = values + np.concatenate((draw.normal(0, 0.3, 2), draw.random(2))) * unit
        return [float(value) for value in values]

    truths, found = [], []
    for image in images:
        kind = draw.integers(5)
        for _ in range(0 if kind == 0 else draw.integers(0, 8)):
            own = box()
            truths.append(
                {
                    "id": len(truths) + 1,
                    "image_id": image,
                    "category_id": int(draw.choice(categories)),
                    "bbox": own,
                    "area": own[2] * own[3] * float(draw.choice([1.0, 0.7])),
                    "iscrowd": int(draw.random() < 0.2),
                }
            )
        near = [entry["bbox"] for entry in truths if entry["image_id"] == image]
        for _ in range(0 if kind == 1 else draw.integers(0, most_detections + 1)):
            own = box()
            if near and draw.random() < 0.7:
                own = list(near[draw.integers(len(near))])
                own[draw.integers(4)] += unit * float(draw.integers(0, 2))
            found.append(
                {
                    "image_id": image,
                    "category_id": int(draw.choice(categories)),
                    "bbox": own,
                    "score": float(draw.choice([draw.random(), 0.5, 0.25, -1.0])),
                }
            )
    return COCOCase(images, categories, truths, found)
