"""The operations on boxes beside torchvision's.

Results are asserted to be equal, as sets where the order is not part of the contract, before
anything is timed.
"""

from collections.abc import Callable
from functools import partial

import torch
import torchvision
from torch import Tensor

from detect.benchmarks.timing import Row, row_of, time_in_turn
from detect.errors import DetectError
from detect.experiment.run import choose_device
from detect.ops import box_iou, grouped_nms, grouped_nms_mask, iou_at_least

IOU_SIZES = ((100, 20), (1000, 1000), (20_000, 100), (5000, 2000))
PAIR_SIZES = (2000, 6000)  # the rival's table of 6,000 and its temporaries take 1 GB
MILLION = 1_000_000
NMS_SIZES = ((1, 1000, 20), (8, 1000, 20), (32, 300, 20), (4, 4000, 20))  # images, boxes, classes
NMS_SIZES_GPU = (*NMS_SIZES, (32, 1000, 80))
LARGE_GROUP = 200_000  # boxes, on a GPU
SMALL = 20  # sizes are so many times smaller in a trial

IOU_THRESHOLD = 0.5
SPARSE = "iou_at_least, the pairs from 0.5 on"
# These take milliseconds, so that one more repeat costs nothing.
REPEATS_OF_REPEATS = 5


def bench_iou(device: str, repeats: int, small: bool = False) -> list[Row]:
    """Pairwise IoU beside torchvision's, and the sparse form beside the whole table.

    Args:
        device: see `choose_device`.
        repeats: of each contender, five times over.
        small: try it out on a twentieth of the boxes.

    Raises:
        DetectError: the results differ.
    """
    target = choose_device(device)
    part = SMALL if small else 1
    rows = []
    for count_a, count_b in IOU_SIZES:
        a = random_boxes(count_a // part, 0, target)
        b = random_boxes(count_b // part, 1, target)
        ours, theirs = partial(box_iou, a, b), partial(torchvision.ops.box_iou, a, b)
        sizes = f"{len(a):,} × {len(b):,} boxes"
        rows.append(_contest("box_iou", sizes, ours, "torchvision", theirs, repeats))
    for count in PAIR_SIZES:
        extent = 50 * (count // part) ** 0.5  # of one density whatever the number
        a, b = (random_boxes(count // part, seed, target, extent) for seed in (2, 3))
        ours, theirs = partial(_sparse_pairs, a, b), partial(_pairs_of_table, a, b)
        sizes = f"{len(a):,} × {len(b):,} boxes"
        rows.append(_contest(SPARSE, sizes, ours, "torchvision's table", theirs, repeats))
    count = MILLION // part
    a, b = (random_boxes(count, seed, target, 50 * count**0.5) for seed in (4, 5))
    times = time_in_turn({"ours": partial(iou_at_least, a, b, IOU_THRESHOLD)}, 1, target)
    rows.append(row_of(SPARSE, f"{count:,} × {count:,} boxes, once", times["ours"]))
    return rows


def bench_nms(device: str, repeats: int, small: bool = False) -> list[Row]:
    """Grouped suppression beside torchvision's, in one call and in one for each image.

    Args:
        device: see `choose_device`.
        repeats: of each contender, five times over.
        small: try it out on a twentieth of the boxes.

    Raises:
        DetectError: the results differ.
    """
    target = choose_device(device)
    rows = []
    for images, of_each, classes in NMS_SIZES if target.type == "cpu" else NMS_SIZES_GPU:
        count = of_each // SMALL if small else of_each
        boxes = random_boxes(images * count, 4, target)
        generator = torch.Generator().manual_seed(5)
        scores = torch.randperm(len(boxes), generator=generator).to(target) / len(boxes)
        labels = torch.randint(0, classes, (len(boxes),), generator=generator).to(target)
        groups = torch.arange(len(boxes), device=target) // count * classes + labels
        of_all = (boxes, scores, groups, IOU_THRESHOLD)
        sizes = f"{images} × {count:,} boxes, {classes} classes"
        for rival, run in (
            ("one batched_nms", partial(torchvision.ops.batched_nms, *of_all)),
            ("batched_nms by image", partial(_by_image, *of_all, count)),
        ):
            ours = partial(grouped_nms, *of_all)
            rows.append(_contest("grouped_nms", sizes, ours, rival, run, repeats, sort=True))
    if target.type == "cuda":
        rows.append(_large_group(target, repeats))
    return rows


def random_boxes(count: int, seed: int, device: torch.device, extent: float = 500) -> Tensor:
    """Boxes `[count, 4]` with whole corners, whose areas are exact in every method."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * extent
    sides = 20 + torch.rand(count, 2, generator=generator) * 150
    return torch.cat((corners, corners + sides), dim=1).round().to(device)


def _large_group(device: torch.device, repeats: int) -> Row:
    """One group of very many boxes: its matrix would not fit into memory."""
    boxes = random_boxes(LARGE_GROUP, 6, device, extent=20_000)
    scores = torch.randperm(len(boxes), device=device) / len(boxes)
    groups = torch.zeros(len(boxes), dtype=torch.int64, device=device)
    return _contest(
        "grouped_nms_mask",
        f"one group of {LARGE_GROUP:,} boxes",
        lambda: grouped_nms_mask(boxes, scores, groups, IOU_THRESHOLD).nonzero().flatten(),
        "torchvision.ops.nms",
        partial(torchvision.ops.nms, boxes, scores, IOU_THRESHOLD),
        repeats,
        sort=True,
    )


def _sparse_pairs(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack(iou_at_least(a, b, IOU_THRESHOLD)[:2])


def _pairs_of_table(a: Tensor, b: Tensor) -> Tensor:
    return (torchvision.ops.box_iou(a, b) >= IOU_THRESHOLD).nonzero().T


def _by_image(
    boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float, count: int
) -> Tensor:
    """The loop over images that most code has."""
    parts = zip(boxes.split(count), scores.split(count), groups.split(count), strict=True)
    kept = (torchvision.ops.batched_nms(*part, iou_threshold) for part in parts)
    return torch.cat([own + number * count for number, own in enumerate(kept)])


def _contest(
    name: str,
    sizes: str,
    ours: Callable[[], Tensor],
    rival: str,
    theirs: Callable[[], Tensor],
    repeats: int,
    *,
    sort: bool = False,
) -> Row:
    found, expected = ours(), theirs()
    if sort:
        found, expected = found.sort().values, expected.sort().values
    if not torch.equal(found, expected):
        raise DetectError(f"{name}, {sizes}: the results differ from those of {rival}")
    contenders = {"ours": ours, "theirs": theirs}
    times = time_in_turn(contenders, repeats * REPEATS_OF_REPEATS, found.device)
    return row_of(name, sizes, times["ours"], rival, times["theirs"])
