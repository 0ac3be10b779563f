"""Measure the operations on boxes beside torchvision's.

python tools/bench_ops.py iou
python tools/bench_ops.py nms --device cuda --json nms.json

Each pair of contenders first shows that its results are equal, then takes turns in one process.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from rich.console import Console
from rich.table import Table
from torch import Tensor

from detect.ops import box_iou, grouped_nms, grouped_nms_mask, iou_at_least

IOU_SIZES = ((100, 20), (1000, 1000), (20_000, 100), (5000, 2000))
PAIR_SIZES = (2000, 6000)  # the table of 6,000 and its temporaries take 1 GB
NMS_SIZES = ((1, 1000, 20), (8, 1000, 20), (32, 300, 20), (4, 4000, 20))  # pictures, boxes, classes
NMS_SIZES_GPU = (*NMS_SIZES, (32, 1000, 80))
LARGE_GROUP = 200_000  # boxes, on a GPU
IOU_THRESHOLD = 0.5
DEFAULT_REPEATS = 15


def main() -> None:
    """Run the benchmark that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("operation", choices=("iou", "nms"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=DEFAULT_REPEATS)
    parser.add_argument("--threads", type=int, help="of torch on the CPU")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    benchmark = bench_iou if arguments.operation == "iou" else bench_nms
    figures = benchmark(torch.device(arguments.device), arguments.repeats)
    print_figures(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def bench_iou(device: torch.device | str, repeats: int) -> list[dict[str, Any]]:
    """Pairwise IoU beside torchvision's, and the sparse form beside the whole table.

    Returns:
        One dict for each size: `name`, `sizes`, `ours_median_s`, `rival`, `rival_median_s`, `ratio`
        (ours by the rival's) and `spread`, the quartiles of both in seconds.
    """
    figures = []
    for count_a, count_b in IOU_SIZES:
        a, b = random_boxes(count_a, 0, device), random_boxes(count_b, 1, device)
        figures.append(
            compared(
                "box_iou",
                {"a": count_a, "b": count_b},
                partial(box_iou, a, b),
                "torchvision.ops.box_iou",
                partial(torchvision.ops.box_iou, a, b),
                repeats,
            )
        )
    for count in PAIR_SIZES:
        extent = 50 * count**0.5  # of one density whatever the number
        a, b = (random_boxes(count, seed, device, extent) for seed in (2, 3))
        figures.append(
            compared(
                "iou_at_least",
                {"a": count, "b": count},
                lambda a=a, b=b: torch.stack(iou_at_least(a, b, IOU_THRESHOLD)[:2]),
                "torchvision.ops.box_iou >= threshold",
                lambda a=a, b=b: table_of_pairs(a, b),
                max(3, repeats // 5),
            )
        )
    return figures


def bench_nms(device: torch.device | str, repeats: int) -> list[dict[str, Any]]:
    """Grouped suppression beside torchvision's, in one call and in one for each picture.

    Returns:
        One dict for each size and rival, as `bench_iou` has them.
    """
    device = torch.device(device)
    figures = []
    for pictures, count, classes in NMS_SIZES if device.type == "cpu" else NMS_SIZES_GPU:
        boxes = random_boxes(pictures * count, 4, device)
        generator = torch.Generator().manual_seed(5)
        scores = torch.randperm(len(boxes), generator=generator).to(device) / len(boxes)
        labels = torch.randint(0, classes, (len(boxes),), generator=generator).to(device)
        groups = torch.arange(len(boxes), device=device) // count * classes + labels
        of_all = (boxes, scores, groups, IOU_THRESHOLD)
        rivals = {
            "one batched_nms over picture × class": partial(torchvision.ops.batched_nms, *of_all),
            "batched_nms picture by picture": partial(by_picture, *of_all, count),
        }
        for rival, run in rivals.items():
            figures.append(
                compared(
                    "grouped_nms",
                    {"pictures": pictures, "boxes": count, "classes": classes},
                    partial(grouped_nms, *of_all),
                    rival,
                    run,
                    repeats,
                    sort=True,
                )
            )
    if device.type == "cuda":
        figures.append(large_group(device, repeats))
    return figures


def large_group(device: torch.device, repeats: int) -> dict[str, Any]:
    """One group of very many boxes: its matrix would not fit into memory."""
    boxes = random_boxes(LARGE_GROUP, 6, device, extent=20_000)
    scores = torch.randperm(len(boxes), device=device) / len(boxes)
    groups = torch.zeros(len(boxes), dtype=torch.int64, device=device)
    return compared(
        "grouped_nms_mask",
        {"boxes": LARGE_GROUP},
        lambda: grouped_nms_mask(boxes, scores, groups, IOU_THRESHOLD).nonzero().flatten(),
        "torchvision.ops.nms",
        partial(torchvision.ops.nms, boxes, scores, IOU_THRESHOLD),
        repeats,
        sort=True,
    )


def random_boxes(count: int, seed: int, device: torch.device | str, extent: float = 500) -> Tensor:
    """Boxes with whole corners, whose areas are exact in every method."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * extent
    sides = 20 + torch.rand(count, 2, generator=generator) * 150
    return torch.cat((corners, corners + sides), dim=1).round().to(device)


def by_picture(
    boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float, count: int
) -> Tensor:
    """The loop over pictures that most code has."""
    kept = []
    for start in range(0, len(boxes), count):
        part = slice(start, start + count)
        own = torchvision.ops.batched_nms(boxes[part], scores[part], groups[part], iou_threshold)
        kept.append(own + start)
    return torch.cat(kept)


def table_of_pairs(a: Tensor, b: Tensor) -> Tensor:
    """The sparse pairs by way of the whole table."""
    return (torchvision.ops.box_iou(a, b) >= IOU_THRESHOLD).nonzero().T


def compared(
    name: str,
    sizes: dict[str, int],
    ours: Callable[[], Tensor],
    rival: str,
    run_rival: Callable[[], Tensor],
    repeats: int,
    *,
    sort: bool = False,
) -> dict[str, Any]:
    """Times of two functions of equal results, which take turns."""
    found, expected = ours(), run_rival()
    if sort:
        found, expected = found.sort().values, expected.sort().values
    if not torch.equal(found, expected):
        raise SystemExit(f"{name} {sizes}: the results differ from those of {rival}")
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for contender, run in enumerate((ours, run_rival)):
            times[contender].append(seconds(run, found.device))
    ours_s, rival_s = (statistics.median(values) for values in times)
    quartiles = [torch.tensor(values).quantile(torch.tensor([0.25, 0.75])) for values in times]
    return {
        "name": name,
        "sizes": sizes,
        "ours_median_s": ours_s,
        "rival": rival,
        "rival_median_s": rival_s,
        "ratio": ours_s / rival_s,
        "spread": dict(zip(("ours_s", "rival_s"), map(Tensor.tolist, quartiles), strict=True)),
    }


def seconds(run: Callable[[], Tensor], device: torch.device) -> float:
    """The wall time of one call, until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def print_figures(figures: list[dict[str, Any]]) -> None:
    """A table, times in milliseconds with their quartiles."""
    table = Table("operation", "sizes", "ours, ms", "rival, ms", "ratio", "rival")
    for row in figures:
        times = [
            f"{1e3 * row[f'{side}_median_s']:.2f} ({1e3 * low:.2f}–{1e3 * high:.2f})"
            for side, (low, high) in zip(("ours", "rival"), row["spread"].values(), strict=True)
        ]
        sizes = " ".join(f"{name} {value:,}" for name, value in row["sizes"].items())
        table.add_row(row["name"], sizes, *times, f"{row['ratio']:.2f}", row["rival"])
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
