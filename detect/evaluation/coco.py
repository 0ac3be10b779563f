"""The detection metrics of COCO: twelve numbers, and the average precision of each class.

Of each image and class, the detections are taken by falling score. Each takes the free object
that it overlaps most (ties to the last one) if their IoU reaches the threshold. Objects outside the
range of areas in question, and crowds, are ignored: a detection takes one only if there is no other
object for it, and does not count then; a crowd can be taken any number of times, and its overlap
is measured against the detection's area alone. A detection that takes nothing is a false positive,
unless its own area is out of the range.

Lin et al. 2014, section 5, and pycocotools' `COCOeval`, whose numbers these are to 1e-12, the order
of ties included. Here all images, classes, ranges of areas and IoU thresholds are matched at
once: the n-th detection of every image and class in the n-th round.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detect.evaluation.coco_report import COCOProtocol, COCOReport
from detect.evaluation.flat import (
    CollectedImages,
    DetectionsLike,
    FlatDetections,
    FlatObjects,
    TruthLike,
)
from detect.evaluation.ordering import stable_order
from detect.evaluation.pairs import pair_chunks
from detect.evaluation.ranking import (
    RankedLists,
    count_within,
    envelope,
    precision_at_recalls,
)

# The ten thresholds and 101 recalls as pycocotools has them, to the last bit.
IOU_THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)

# Areas in square pixels, both ends included.
AREA_RANGES = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}

# A pair of equal boxes may have an IoU that is a little less than 1.
GREATEST_THRESHOLD = 1 - 1e-10


class COCOEvaluator:
    """Collects detections and truths image by image and computes COCO's numbers.

    Args:
        class_names: the name of each label 0 … C−1.
        iou_thresholds: AP is the mean over these; each more than 0 and at most 1, rising.
        max_detections: of an image and class, by score, rising; the first two limits are those of
            further recalls, the last one holds for all other numbers.

    Raises:
        ValueError: a class name is given twice, or thresholds or limits do not rise or are out of
            range.
    """

    name: ClassVar[str] = "coco"

    def __init__(
        self,
        class_names: Sequence[str],
        iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
        max_detections: tuple[int, int, int] = (1, 10, 100),
    ) -> None:
        if len(set(class_names)) < len(class_names):
            raise ValueError(f"class_names: expected each once, found {list(class_names)}")
        rising = list(iou_thresholds) == sorted(set(iou_thresholds))
        if not iou_thresholds or not rising or not 0 < iou_thresholds[0] <= iou_thresholds[-1] <= 1:
            raise ValueError(
                "iou_thresholds: expected rising numbers, more than 0 and at most 1, "
                f"found {list(iou_thresholds)}"
            )
        if not 0 < max_detections[0] < max_detections[1] < max_detections[2]:
            raise ValueError(
                f"max_detections: expected rising positive numbers, found {max_detections}"
            )
        self.class_names = tuple(class_names)
        self.iou_thresholds = tuple(iou_thresholds)
        self.max_detections = max_detections
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._images = CollectedImages(len(self.class_names))

    def update(self, detections: Sequence[DetectionsLike], truths: Sequence[TruthLike]) -> None:
        """Add images: one record of detections and one of objects for each, in one frame.

        Records may also be dictionaries of tensors as torchmetrics has them. For numbers that equal
        pycocotools' even where scores of different images are tied, add images by rising id,
        and rows in the order of the files.

        Args:
            detections: what was found, or dictionaries with `boxes` `[N, 4]` (xyxy) or
                `boxes_xywh` (x, y, width and height, the numbers of COCO's files), `scores` `[N]`
                and `labels` `[N]`, in any order.
            truths: the objects, or dictionaries with `boxes` or `boxes_xywh`, `labels`, and maybe
                `iscrowd` `[N]` and `area` `[N]` in square pixels, by default that of the box. COCO
                has no difficult objects: those of a `GroundTruth` count as crowds.

        Raises:
            ValueError: the sequences differ in length, a record is not of this form, or a label
                has no class name.
        """
        self._images.append(detections, truths)

    def merge(self, other: "COCOEvaluator") -> None:
        """Add the images of `other` after those that are here; `other` stays as it is.

        Raises:
            ValueError: the evaluators differ in their classes, thresholds or limits.
        """
        for name in ("class_names", "iou_thresholds", "max_detections"):
            if getattr(self, name) != getattr(other, name):
                raise ValueError(
                    f"merge: expected an evaluator with the {name} {getattr(self, name)}, "
                    f"found {getattr(other, name)}"
                )
        self._images.extend(other._images)

    def gather(self) -> None:
        """Give each process of `torch.distributed` the images of all of them, by rank."""
        self._images.gather()

    def compute(self) -> COCOReport:
        """Judge all images so far. A number that nothing decides on is nan.

        Raises:
            ValueError: a value is not finite, a box is inverted or a label has no class name; names
                the image.
        """
        detections = self._images.detections(as_xywh=True)
        objects = self._images.objects(as_xywh=True)
        areas = self._images.areas(objects)
        num_classes, most = len(self.class_names), self.max_detections[-1]
        detections, ranks = _best_by_score(detections, num_classes, most)
        ignored = _ignored_objects(objects, areas)
        matching = _match(detections, objects, ignored, num_classes, self.iou_thresholds)
        num_objects = _count_by_class(~ignored, objects.labels, num_classes)  # [A, C]
        precision = _precisions(detections, matching, num_objects, num_classes)
        recall = _recalls(detections, matching, ranks, num_objects, self.max_detections)
        return COCOReport(
            COCOProtocol(
                iou_thresholds=self.iou_thresholds,
                max_detections=self.max_detections,
                num_images=len(self._images),
                num_objects=int((~objects.difficult).sum()),
                num_crowds=int(objects.difficult.sum()),
                num_detections=self._images.num_detections,
            ),
            self.class_names,
            precision.cpu().numpy(),
            recall.cpu().numpy(),
            num_objects.cpu().numpy(),
        )


class _Matching(NamedTuple):
    """What the detections that may find an object found, in A ranges of areas at T thresholds.

    Attributes:
        rows: `[R]` of the detections, rising.
        found: `[R, A, T]` the detection took an object that counts.
        matched_ignored: `[R, A, T]` the detection took an ignored object, so it does not count.
    """

    rows: Int[Tensor, "R"]
    found: Bool[Tensor, "R A T"]
    matched_ignored: Bool[Tensor, "R A T"]


def _best_by_score(
    detections: FlatDetections, num_classes: int, most: int
) -> tuple[FlatDetections, Int[Tensor, "D"]]:
    """The first `most` detections of each image and class, and their ranks in it, from 0."""
    ranks = _ranks_within(detections.images * num_classes + detections.labels)
    kept = ranks < most
    if bool(kept.all()):
        return detections, ranks
    return FlatDetections(*(column[kept] for column in detections)), ranks[kept]


def _ranks_within(groups: Int[Tensor, "N"]) -> Int[Tensor, "N"]:
    """How many rows of its own group stand before each row."""
    order = stable_order(groups)
    in_order = groups[order]
    numbers = torch.arange(len(groups), device=groups.device)
    is_first = torch.ones_like(groups, dtype=torch.bool)
    is_first[1:] = in_order[1:] != in_order[:-1]
    starts = torch.where(is_first, numbers, 0)
    starts = starts.cummax(0).values if len(starts) else starts
    ranks = torch.empty_like(groups)
    ranks[order] = numbers - starts
    return ranks


def _ignored_objects(objects: FlatObjects, areas: Float[Tensor, "T"]) -> Bool[Tensor, "A T"]:
    return objects.difficult | ~_in_ranges(areas)


def _in_ranges(areas: Float[Tensor, "N"]) -> Bool[Tensor, "A N"]:
    return torch.stack([(areas >= low) & (areas <= high) for low, high in AREA_RANGES.values()])


def _match(
    detections: FlatDetections,
    objects: FlatObjects,
    ignored: Bool[Tensor, "A T"],
    num_classes: int,
    iou_thresholds: Sequence[float],
) -> _Matching:
    """Match all images and classes by the greedy rule at the head of this file."""
    device = detections.boxes.device
    thresholds = torch.tensor(iou_thresholds, dtype=torch.float64, device=device)
    thresholds = thresholds.clamp(max=GREATEST_THRESHOLD)
    owners, candidates, overlaps = _candidates(
        detections, objects, num_classes, float(thresholds.min())
    )
    # a detection prefers what it overlaps most, and of equals the last
    order = stable_order(len(objects.labels) - 1 - candidates)
    order = order[overlaps[order].argsort(descending=True, stable=True)]
    order = order[stable_order(owners[order])]
    owners, candidates, overlaps = owners[order], candidates[order], overlaps[order]
    rows, pair_rows = owners.unique_consecutive(return_inverse=True)  # [R], [P]
    shape = (len(ignored), len(thresholds))
    found = torch.zeros((len(rows), *shape), dtype=torch.bool, device=device)
    matched_ignored = torch.zeros_like(found)
    is_free = torch.ones((len(objects.labels), *shape), dtype=torch.bool, device=device)
    rounds = _ranks_within(detections.images[rows] * num_classes + detections.labels[rows])
    pair_rounds = rounds[pair_rows]
    by_round = stable_order(pair_rounds)
    num_pairs = len(owners)
    for pairs in by_round.split(pair_rounds.bincount().tolist()):
        own_rows, own_objects = pair_rows[pairs], candidates[pairs]
        own_ignored = ignored[:, own_objects].T[:, :, None]  # [P, A, 1]
        may_take = (overlaps[pairs][:, None] >= thresholds)[:, None, :]  # [P, 1, T]
        may_take = may_take & (
            is_free[own_objects] | objects.difficult[own_objects][:, None, None]
        )  # [P, A, T]
        # the first pair by preference, those with an object that counts before all others
        preference = torch.arange(len(pairs), device=device)[:, None, None]
        preference = torch.where(own_ignored, preference + num_pairs, preference)
        preference = torch.where(may_take, preference, 2 * num_pairs)
        in_round, positions = own_rows.unique_consecutive(return_inverse=True)
        chosen = torch.full((len(in_round), *shape), 2 * num_pairs, device=device)
        index = positions[:, None, None].expand_as(preference)
        chosen.scatter_reduce_(0, index, preference, "amin")
        found[in_round], matched_ignored[in_round] = (
            chosen < num_pairs,
            _is_between(chosen, num_pairs),
        )
        taken = (chosen < 2 * num_pairs).nonzero()  # [K, 3]: row of the round, area, threshold
        objects_taken = own_objects[chosen[taken.unbind(1)] % max(1, num_pairs)]
        is_free[objects_taken, taken[:, 1], taken[:, 2]] = False
    return _Matching(rows, found, matched_ignored)


def _is_between(chosen: Int[Tensor, "..."], num_pairs: int) -> Bool[Tensor, "..."]:
    return (chosen >= num_pairs) & (chosen < 2 * num_pairs)


def _candidates(
    detections: FlatDetections, objects: FlatObjects, num_classes: int, least_overlap: float
) -> tuple[Int[Tensor, "P"], Int[Tensor, "P"], Float[Tensor, "P"]]:
    """Detections, objects and overlaps of the pairs of one image and class that may match."""
    parts = []
    for owners, candidates in pair_chunks(
        detections.images * num_classes + detections.labels,
        objects.images * num_classes + objects.labels,
    ):
        overlaps = _overlaps(
            detections.boxes[owners], objects.boxes[candidates], objects.difficult[candidates]
        )
        kept = overlaps >= least_overlap
        parts.append((owners[kept], candidates[kept], overlaps[kept]))
    if not parts:
        nothing = detections.labels[:0]
        return nothing, nothing, detections.boxes[:0, 0]
    owners, candidates, overlaps = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return owners, candidates, overlaps


def _overlaps(
    detections: Float[Tensor, "P 4"], objects: Float[Tensor, "P 4"], crowd: Bool[Tensor, "P"]
) -> Float[Tensor, "P"]:
    """IoU of boxes x, y, width, height; of a crowd, over the detection's area alone.

    In pycocotools' order of operations, since a threshold may be met exactly.
    """
    x, y, width, height = detections.unbind(1)
    other_x, other_y, other_width, other_height = objects.unbind(1)
    across = torch.minimum(width + x, other_width + other_x) - torch.maximum(x, other_x)
    down = torch.minimum(height + y, other_height + other_y) - torch.maximum(y, other_y)
    intersection = across * down
    area = width * height
    union = torch.where(crowd, area, area + other_width * other_height - intersection)
    return torch.where((across > 0) & (down > 0), intersection / union, 0.0)


def _precisions(
    detections: FlatDetections,
    matching: _Matching,
    num_objects: Int[Tensor, "A C"],
    num_classes: int,
) -> Float[Tensor, "T A C R"]:
    """The precision at each of 101 recalls; nan for a class without objects."""
    num_areas, num_thresholds = matching.found.shape[1:]
    boxes, labels = detections.boxes, detections.labels[matching.rows]
    in_ranges = _in_ranges(boxes[:, 2] * boxes[:, 3])  # [A, D]
    starts = torch.searchsorted(detections.labels, torch.arange(num_classes, device=boxes.device))
    in_class = in_ranges.cumsum(1, dtype=torch.int32)  # [A, D]
    before_class = torch.nn.functional.pad(in_class, (1, 0))[:, starts]  # [A, C]
    in_class = (in_class[:, matching.rows] - before_class[:, labels]).long()  # [A, R]
    # lists by threshold, range and class, each with the detections by falling score
    found = matching.found.permute(2, 1, 0)  # [T, A, R]
    is_matched = found | matching.matched_ignored.permute(2, 1, 0)
    numbers = torch.arange(num_thresholds * num_areas, device=boxes.device)
    lists = (numbers[:, None] * num_classes + labels).flatten()  # [T·A·R]
    num_lists = len(numbers) * num_classes
    hits = count_within(found.flatten(), lists, num_lists)
    matched_in_range = (is_matched & in_ranges[:, matching.rows]).flatten()
    not_false = count_within(matched_in_range, lists, num_lists)
    false = in_class.expand_as(found).flatten() - not_false
    true_rows = found.flatten().nonzero().flatten()
    hits, false = hits[true_rows].double(), false[true_rows].double()
    ranked = RankedLists(
        lists[true_rows],
        torch.ones_like(true_rows, dtype=torch.bool),
        hits / (false + hits + np.spacing(1.0)),
        num_objects.flatten().repeat(num_thresholds),
    )
    recalls = torch.from_numpy(RECALL_THRESHOLDS).to(boxes.device)
    precision = precision_at_recalls(ranked, envelope(ranked), recalls)  # [R, T·A·C]
    precision = torch.where(ranked.num_objects > 0, precision, torch.nan)
    return precision.T.reshape(num_thresholds, num_areas, num_classes, len(recalls))


def _recalls(
    detections: FlatDetections,
    matching: _Matching,
    ranks: Int[Tensor, "D"],
    num_objects: Int[Tensor, "A C"],
    max_detections: Sequence[int],
) -> Float[Tensor, "M T A C"]:
    """The greatest recall with each limit of detections; nan for a class without objects."""
    labels, ranks = detections.labels[matching.rows], ranks[matching.rows]
    num_areas, num_thresholds = matching.found.shape[1:]
    recalls = []
    for limit in max_detections:
        found = matching.found & (ranks < limit)[:, None, None]  # [R, A, T]
        counts = _count_by_class(
            found.permute(2, 1, 0).flatten(0, 1), labels, num_objects.shape[1]
        ).reshape(num_thresholds, num_areas, -1)
        recalls.append(torch.where(num_objects > 0, counts.double() / num_objects, torch.nan))
    return torch.stack(recalls)


def _count_by_class(
    flags: Bool[Tensor, "L N"], labels: Int[Tensor, "N"], num_classes: int
) -> Int[Tensor, "L C"]:
    """How many flags are set for each class, in each of L rows."""
    counts = torch.zeros((len(flags), num_classes), dtype=torch.int64, device=labels.device)
    return counts.index_add_(1, labels, flags.long())
