"""Pairs of a detection and an object of one group, without a loop over groups.

A group is an image, or an image and a class. Pairs come in chunks, so that memory stays bounded
however crowded the images are.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detect.evaluation.flat import FlatDetections, FlatObjects
from detect.ops import elementwise_box_iou

# Pairs of detection and object that are held at once: about 60 MiB of float64 boxes and results.
MAX_PAIRS = 1 << 19


class Pairs(NamedTuple):
    """Detections and objects of one image, and how far they overlap.

    Attributes:
        detections: `[P]` rows of the detections, rising.
        objects: `[P]` rows of the objects, rising for each detection.
        overlaps: `[P]` float64, IoU in 0…1.
    """

    detections: Int[Tensor, "P"]
    objects: Int[Tensor, "P"]
    overlaps: Float[Tensor, "P"]


def overlapping_pairs(
    detections: FlatDetections,
    objects: FlatObjects,
    num_classes: int,
    least_overlap: float,
    *,
    same_class: bool,
) -> Pairs:
    """All pairs of one image whose IoU is at least `least_overlap`.

    Args:
        detections: boxes xyxy.
        objects: boxes xyxy.
        num_classes: labels are less.
        least_overlap: more than 0.
        same_class: leave out the pairs of different classes.
    """
    wanted, present = _group_numbers(detections, objects, num_classes, same_class)
    no_rows = detections.images[:0]
    parts = [Pairs(no_rows, no_rows, detections.boxes[:0, 0].double())]
    for owners, candidates in pair_chunks(wanted, present):
        overlaps = elementwise_box_iou(
            detections.boxes[owners].double(), objects.boxes[candidates].double()
        )
        kept = overlaps >= least_overlap
        parts.append(Pairs(owners[kept], candidates[kept], overlaps[kept]))
    return Pairs(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


class BestObjects(NamedTuple):
    """The object that each detection overlaps most, ties to the first.

    Attributes:
        overlaps: `[D]` float64, IoU in 0…1; 0 where there is no object.
        objects: `[D]` the row of the object; 0 where there is none.
    """

    overlaps: Float[Tensor, "D"]
    objects: Int[Tensor, "D"]


def best_objects(
    detections: FlatDetections,
    objects: FlatObjects,
    num_classes: int,
    *,
    same_class: bool = True,
    num_pairs: int | None = None,
) -> BestObjects:
    """The object of its image, and of its class, that each detection overlaps most.

    Args:
        detections: boxes xyxy.
        objects: boxes xyxy.
        num_classes: labels are less.
        same_class: pass over objects of other classes.
        num_pairs: of a detection and an object of one image, of any classes. With their number
            known all pairs are held at once, and nothing makes a GPU wait for the CPU; None finds
            the pairs that matter and holds `MAX_PAIRS` at a time.
    """
    device = detections.boxes.device
    overlaps = torch.zeros(len(detections.labels), dtype=torch.float64, device=device)
    best = torch.zeros(len(detections.labels), dtype=torch.int64, device=device)
    in_one_go = num_pairs is not None
    # with one group for an image, the number of pairs is known without a look at the labels
    wanted, present = _group_numbers(detections, objects, num_classes, same_class and not in_one_go)
    if num_pairs is None:
        chunks = pair_chunks(wanted, present)
    else:
        chunks = iter([_all_pairs(wanted, present, num_pairs)])
    for owners, candidates in chunks:
        iou = elementwise_box_iou(
            detections.boxes[owners].double(), objects.boxes[candidates].double()
        )
        if in_one_go and same_class:
            iou = torch.where(detections.labels[owners] == objects.labels[candidates], iou, 0.0)
        _raise_to_greatest(overlaps, best, owners, candidates, iou)
    return BestObjects(overlaps, best)


def pair_chunks(
    wanted: Int[Tensor, "D"], present: Int[Tensor, "T"]
) -> Iterator[tuple[Int[Tensor, "P"], Int[Tensor, "P"]]]:
    """All pairs of rows with equal group numbers, by rising row of `wanted`, then of `present`.

    All pairs of a row are in one chunk, which holds `MAX_PAIRS` pairs and those of one row more.
    """
    rows = _present_somewhere(wanted, present)
    starts, counts, by_group = _ranges(wanted[rows], present)
    chunk_numbers = (counts.cumsum(0) - 1) // MAX_PAIRS
    sizes = chunk_numbers.unique_consecutive(return_counts=True)[1].tolist()
    for chunk, chunk_starts, chunk_counts in zip(
        rows.split(sizes), starts.split(sizes), counts.split(sizes), strict=True
    ):
        owner, position = _expanded(chunk_starts, chunk_counts)
        yield chunk[owner], by_group[position]


def _present_somewhere(wanted: Int[Tensor, "D"], present: Int[Tensor, "T"]) -> Int[Tensor, "R"]:
    """The rows of `wanted` whose group is among those of `present`.

    Most detections have no object of their class in the image, and a look into a table finds
    that out faster than a search. Its size is bounded by that of what it saves.
    """
    if len(wanted) == 0 or len(present) == 0:
        return wanted[:0]
    num_groups = int(torch.maximum(wanted.max(), present.max())) + 1
    if num_groups > 16 * (len(wanted) + len(present)) + 1_000_000:
        return torch.isin(wanted, present).nonzero().flatten()
    is_present = torch.zeros(num_groups, dtype=torch.bool, device=present.device)
    is_present[present] = True
    return is_present[wanted].nonzero().flatten()


def _all_pairs(
    wanted: Int[Tensor, "D"], present: Int[Tensor, "T"], num_pairs: int
) -> tuple[Int[Tensor, "P"], Int[Tensor, "P"]]:
    starts, counts, by_group = _ranges(wanted, present)
    owner, position = _expanded(starts, counts, num_pairs)
    return owner, by_group[position]


def _ranges(
    wanted: Int[Tensor, "D"], present: Int[Tensor, "T"]
) -> tuple[Int[Tensor, "D"], Int[Tensor, "D"], Int[Tensor, "T"]]:
    """Where the rows of `present` of each wanted group start and how many they are, by group."""
    groups, by_group = present.sort(stable=True)
    starts = torch.searchsorted(groups, wanted)
    counts = torch.searchsorted(groups, wanted, right=True) - starts
    return starts, counts, by_group


def _expanded(
    starts: Int[Tensor, "K"], counts: Int[Tensor, "K"], total: int | None = None
) -> tuple[Int[Tensor, "P"], Int[Tensor, "P"]]:
    """The numbers `starts[k] … starts[k] + counts[k] − 1` of all k in a row, each after its k."""
    numbers = torch.arange(len(counts), device=counts.device)
    owner = torch.repeat_interleave(numbers, counts, output_size=total)
    firsts = counts.cumsum(0) - counts  # [K], where the pairs of k begin
    return owner, torch.arange(len(owner), device=counts.device) + (starts - firsts)[owner]


def _group_numbers(
    detections: FlatDetections, objects: FlatObjects, num_classes: int, same_class: bool
) -> tuple[Int[Tensor, "D"], Int[Tensor, "T"]]:
    if not same_class:
        return detections.images, objects.images
    return (
        detections.images * num_classes + detections.labels,
        objects.images * num_classes + objects.labels,
    )


def _raise_to_greatest(
    greatest: Float[Tensor, "D"],
    best: Int[Tensor, "D"],
    owners: Int[Tensor, "P"],
    items: Int[Tensor, "P"],
    values: Float[Tensor, "P"],
) -> None:
    """Write the greatest value of each owner and its item, the least item of equal values."""
    greatest.scatter_reduce_(0, owners, values, "amax")
    # values are 0 or more, so an owner whose values are all 0 is tied with all of them
    last = torch.iinfo(items.dtype).max
    tied = torch.where(values == greatest[owners], items, last)
    best.scatter_reduce_(0, owners, tied, "amin", include_self=False)
