"""What the best detections of each class are: correct, badly localized, confused, or background.

Hoiem et al. 2012, "Diagnosing Error in Object Detectors", section 2, in the form of figure 4 of
Redmon et al. 2016, "You Only Look Once" (section 4.2): of each class the N detections of highest
score are taken, where N is the number of its objects, and each is

- correct: the right class, IoU ≥ 0.5, and the first to find its object;
- localization: the right class, 0.1 ≤ IoU < 0.5, or an object that was found already;
- similar: IoU ≥ 0.1 with an object of a similar class;
- other: IoU ≥ 0.1 with an object of any other class;
- background: IoU < 0.1 with any object.

The first that fits counts, but similar or other goes by the object of another class that the
detection overlaps most, as in Hoiem's release. Duplicates count as localization errors, as in
Hoiem's paper; the YOLO paper does not name them. It writes "IOU > .5"; the limits are inclusive
here, as VOC's and the release's.

Our deviations: detections matched to a difficult object at IoU 0.5 are left out before the
first N are taken (the release counts them as correct). For the lesser overlaps difficult objects
are objects as others, as in the release. A class with fewer than N detections has the shares of
those that there are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from rich.text import Text

from detect.evaluation.files.detection_set import check_class
from detect.evaluation.flat import FlatDetections, FlatObjects
from detect.evaluation.judged import class_ranks, judge_detections
from detect.evaluation.numbers import as_text, mean_of_defined, plain, ratio
from detect.evaluation.pair_choices import best_of_pairs
from detect.evaluation.pairs import overlapping_pairs
from detect.evaluation.tables import report_table

GROUPS = ("correct", "localization", "similar", "other", "background")
_CORRECT, _LOCALIZATION, _SIMILAR, _OTHER, _BACKGROUND = range(5)

STRONG_OVERLAP, WEAK_OVERLAP = 0.5, 0.1

# setDatasetParameters.m of Hoiem's release: classes are similar if a set has both.
VOC_SIMILAR_CLASSES = (
    ("bird", "cat", "cow", "dog", "horse", "person", "sheep"),
    ("aeroplane", "bicycle", "boat", "bus", "car", "motorbike", "train"),
    ("chair", "diningtable", "sofa"),
    ("aeroplane", "bird"),
)


@dataclass(frozen=True, slots=True, eq=False)
class HoiemReport:
    """The groups of the best detections.

    Attributes:
        class_names: the name of each label.
        similar_classes: the sets of similar classes that were used.
        counts: class name → group → number of its best detections.
        num_objects: class name → N, objects to be found.
    """

    class_names: tuple[str, ...]
    similar_classes: tuple[tuple[str, ...], ...]
    counts: Mapping[str, Mapping[str, int]]
    num_objects: Mapping[str, int]

    def shares(self, name: str) -> dict[str, float]:
        """The share of each group in the best detections of a class; nan without any."""
        total = sum(self.counts[name].values())
        return {group: ratio(count, total) for group, count in self.counts[name].items()}

    @property
    def mean_shares(self) -> dict[str, float]:
        """The mean of the shares over the classes that have any, as in the YOLO paper."""
        shares = [self.shares(name) for name in self.class_names]
        return {group: mean_of_defined([share[group] for share in shares]) for group in GROUPS}

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the keys are stable, and a number that is not there is None."""
        return {
            "similar_classes": [list(names) for names in self.similar_classes],
            "mean_shares": plain(self.mean_shares),
            "classes": {
                name: {"num_objects": self.num_objects[name], **self.counts[name]}
                for name in self.class_names
            },
        }

    def table(self) -> Table:
        """The shares of each class, and their mean."""
        means = self.mean_shares
        table = report_table(
            "class",
            (*means, "N"),
            footer=("mean", *(as_text(share, 3) for share in means.values())),
            title="The N best detections of a class with N objects, shares",
            caption=self._caption(),
        )
        for name in self.class_names:
            shares = (as_text(share, 3) for share in self.shares(name).values())
            table.add_row(Text(name), *shares, str(self.num_objects[name]))
        return table

    def _caption(self) -> str:
        if not self.similar_classes:
            return "No classes are declared similar."
        sets = "; ".join(", ".join(names) for names in self.similar_classes)
        return f"Similar classes: {sets}."


def hoiem_groups(
    detections: FlatDetections,
    objects: FlatObjects,
    class_names: Sequence[str],
    similar_classes: Iterable[Sequence[str]] | None = None,
) -> HoiemReport:
    """Sort the best detections of each class into groups, as the head of this file says.

    Args:
        detections: by class and falling score.
        objects: in any order.
        class_names: the name of each label 0 … C−1.
        similar_classes: sets of classes; two are similar if a set has both. None takes those of
            VOC that are among the class names.

    Raises:
        DetectError: a set names an unknown class.
    """
    num_classes = len(class_names)
    sets = _known_sets(class_names, similar_classes)
    judged = judge_detections(detections, objects, num_classes, STRONG_OVERLAP)
    is_best = class_ranks(judged.labels, num_classes) <= judged.num_objects[judged.labels]
    rows, is_true = judged.rows[is_best], judged.is_true[is_best]
    best = FlatDetections(*(column[rows] for column in detections))

    pairs = overlapping_pairs(best, objects, num_classes, WEAK_OVERLAP, same_class=False)
    is_same = best.labels[pairs.detections] == objects.labels[pairs.objects]
    same = best_of_pairs(pairs, is_same, len(rows))
    # ties between classes go to the lower one, as MATLAB's max has it: objects sorted by class
    by_class = objects.labels.argsort(stable=True)
    place = by_class.argsort()
    moved = pairs._replace(objects=place[pairs.objects])
    other = best_of_pairs(moved, ~is_same, len(rows))

    groups = torch.full_like(best.labels, _BACKGROUND)
    groups[other.overlaps > 0] = _OTHER
    if len(objects.labels):
        confused_with = objects.labels[by_class[other.objects]]
        is_similar = _similarity(class_names, sets)[best.labels, confused_with]
        groups[(other.overlaps > 0) & is_similar] = _SIMILAR
    groups[same.overlaps > 0] = _LOCALIZATION
    groups[is_true] = _CORRECT
    cells = (best.labels * len(GROUPS) + groups).bincount(minlength=num_classes * len(GROUPS))
    counts = cells.reshape(num_classes, len(GROUPS)).tolist()
    return HoiemReport(
        tuple(class_names),
        sets,
        {
            name: dict(zip(GROUPS, row, strict=True))
            for name, row in zip(class_names, counts, strict=True)
        },
        dict(zip(class_names, judged.num_objects.tolist(), strict=True)),
    )


def _known_sets(
    class_names: Sequence[str], similar_classes: Iterable[Sequence[str]] | None
) -> tuple[tuple[str, ...], ...]:
    if similar_classes is not None:
        sets = tuple(tuple(names) for names in similar_classes)
        for names in sets:
            for name in names:
                check_class(name, class_names, "similar classes")
        return sets
    present = (
        tuple(name for name in names if name in class_names) for names in VOC_SIMILAR_CLASSES
    )
    return tuple(names for names in present if len(names) > 1)


def _similarity(class_names: Sequence[str], sets: Sequence[Sequence[str]]) -> torch.Tensor:
    """`[C, C]` whether two classes are similar."""
    labels = {name: label for label, name in enumerate(class_names)}
    is_similar = torch.zeros(len(class_names), len(class_names), dtype=torch.bool)
    for names in sets:
        members = torch.tensor([labels[name] for name in names], dtype=torch.int64)
        is_similar[members[:, None], members] = True
    return is_similar
