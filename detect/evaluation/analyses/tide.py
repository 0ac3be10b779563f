"""TIDE: which kind of error costs how much average precision.

Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors". Section 2.2
sorts what is wrong into six types, by the IoU with the objects of its image, with the thresholds
t_f = 0.5 and t_b = 0.1 (figure 2):

- classification: at least t_f with an object of another class;
- localization: between t_b and t_f with an object of its class;
- both: between t_b and t_f with an object of another class;
- duplicate: at least t_f with an object of its class, which a better detection has;
- background: at most t_b with any object;
- missed: objects that were not found and that no error of classification or localization explains.

Section 2.3 weighs a type by an oracle that fixes it alone: dAP is the AP with the fix less that
without. A classification error gets the class of its object, a localization error its place, and
each becomes a true positive; where several lie at one object the best one does and the others are
removed, all of them if the object was found. Errors of the other types are removed; missed objects
are no longer to be found. The types do not add up to 1 − AP, as the paper intends. The two special
errors are all false positives (removed) and all false negatives (no longer to be found).

Where the paper is silent we follow the authors' release: a detection is tested for localization,
classification, duplicate, background and both, in this order, and takes the first that fits, with
the limits t_b and t_f within localization; the object of an error is that of greatest IoU among
those of the class (or of the other classes); localization and classification errors compete for an
object, even where only one type is fixed; objects that are ignored explain nothing; dAP is at least
0 for the six types.

Our deviations: a class without objects is left out of the mean (in the release it counts as AP 0 if
it has detections), all detections of an image count (the release takes the first 100), and
equal scores keep their order. By default, "voc", the detections are judged and averaged as
everywhere here: VOC's matching and the area under the curve, so that the AP is the mAP of the
report. With "release", they are as in the release: a detection whose best object is taken gets
another one if it overlaps that enough; one that found nothing is ignored if more than t_f of its
area lies in a difficult object of its class; and the AP is COCO's mean over 101 recalls. That is
the head of the release's repository; its package 1.0.1 sorts ignored detections as errors as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from rich.table import Table
from rich.text import Text
from torch import Tensor

from detect.errors import DetectError
from detect.evaluation.flat import FlatDetections, FlatObjects
from detect.evaluation.judged import (
    area_average_precision,
    ranked_classes,
    sampled_average_precision,
)
from detect.evaluation.numbers import as_text, mean_of_defined, none_for_nan, plain
from detect.evaluation.ordering import order_by_group_and_score, stable_order
from detect.evaluation.pair_choices import best_of_pairs, match_by_detection
from detect.evaluation.pairs import overlapping_pairs
from detect.evaluation.tables import report_table
from detect.evaluation.voc import dense_verdict, judge, num_objects_of

TIDEProtocol = Literal["voc", "release"]

# In the paper's order. The numbers of the types are their places here.
ERROR_TYPES = ("classification", "localization", "both", "duplicate", "background", "missed")
_CLASSIFICATION, _LOCALIZATION, _BOTH, _DUPLICATE, _BACKGROUND, _MISSED = range(6)
_HYPHENATED = (
    "classi-\nfication",
    "locali-\nzation",
    "both",
    "dupli-\ncate",
    "back-\nground",
    "missed",
)
SPECIAL_ERRORS = ("false positives", "false negatives")
_NO_ERROR = -1

MATCHINGS = {
    "voc": "VOC's: the object of greatest IoU and no other; AP is the area under the curve",
    "release": "the release's: the free object of greatest IoU; AP is the mean over 101 recalls",
}


@dataclass(frozen=True, slots=True, eq=False)
class TIDEReport:
    """The errors of each type, and what they cost.

    Attributes:
        protocol: "voc" or "release", how detections are judged and averaged.
        foreground_threshold: t_f, the least IoU of a true positive.
        background_threshold: t_b, the greatest IoU with the background.
        class_names: the name of each label.
        class_average_precision: AP of each class at t_f, in 0…1; nan without objects.
        average_precision: its mean over the classes with objects.
        counts: type → number of errors of each class: of the detections, of missed ones the object.
        delta: type or special error → dAP, in 0…1; nan where no class has objects.
    """

    protocol: TIDEProtocol
    foreground_threshold: float
    background_threshold: float
    class_names: tuple[str, ...]
    class_average_precision: tuple[float, ...]
    average_precision: float
    counts: dict[str, list[int]]
    delta: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the keys are stable, and a number that is not there is None."""
        return {
            "protocol": self.protocol,
            "matching": MATCHINGS[self.protocol],
            "foreground_threshold": self.foreground_threshold,
            "background_threshold": self.background_threshold,
            "average_precision": none_for_nan(self.average_precision),
            "delta_average_precision": plain(self.delta),
            "counts": {name: sum(counts) for name, counts in self.counts.items()},
            "classes": {
                name: {
                    "average_precision": none_for_nan(self.class_average_precision[label]),
                    "counts": {kind: counts[label] for kind, counts in self.counts.items()},
                }
                for label, name in enumerate(self.class_names)
            },
        }

    def table(self) -> Table:
        """What each type costs, and how often it occurs."""
        table = report_table(
            "error",
            ("dAP", "number"),
            title=f"TIDE: mAP {as_text(self.average_precision)} and what each error costs "
            f"(t_f {self.foreground_threshold:g}, t_b {self.background_threshold:g})",
            caption=f"Matching is {MATCHINGS[self.protocol]}. dAP: mAP gained by fixing errors of "
            "this type alone; they do not add up.",
        )
        table.min_width = 72
        for name in ERROR_TYPES:
            table.add_row(name, as_text(self.delta[name]), str(sum(self.counts[name])))
        table.add_section()
        for name in SPECIAL_ERRORS:
            table.add_row(name, as_text(self.delta[name]), "")
        return table

    def tables(self) -> list[Table]:
        """What each type costs, and the errors of each class."""
        return [self.table(), self.class_table()]

    def class_table(self) -> Table:
        """The errors of each class."""
        table = report_table("errors of class", ("AP", *_HYPHENATED))
        for label, name in enumerate(self.class_names):
            counts = (str(self.counts[kind][label]) for kind in ERROR_TYPES)
            table.add_row(Text(name), as_text(self.class_average_precision[label]), *counts)
        return table


def tide_errors(
    detections: FlatDetections,
    objects: FlatObjects,
    class_names: Sequence[str],
    *,
    foreground_threshold: float = 0.5,
    background_threshold: float = 0.1,
    protocol: TIDEProtocol = "voc",
) -> TIDEReport:
    """Sort the errors into types and fix each type alone, as the head of this file says.

    Args:
        detections: by class and falling score.
        objects: by image.
        class_names: the name of each label 0 … C−1.
        foreground_threshold: t_f.
        background_threshold: t_b.
        protocol: how detections are judged and averaged.

    Raises:
        DetectError: not 0 < t_b < t_f ≤ 1.
    """
    if not 0 < background_threshold < foreground_threshold <= 1:
        raise DetectError(
            "TIDE's thresholds: expected 0 < background < foreground ≤ 1, found "
            f"{background_threshold} and {foreground_threshold}"
        )
    num_classes = len(class_names)
    match = _matches_of_voc if protocol == "voc" else _matches_of_release
    matches = match(detections, objects, num_classes, foreground_threshold)
    required = _required(objects)
    errors = _errors(
        detections, required, num_classes, matches, foreground_threshold, background_threshold
    )
    found = _Scored(detections, required, num_classes, matches, errors, protocol)
    before = found.as_they_are()
    average = found.mean(before)
    delta = {
        name: max(found.mean(found.fixed(kind)) - average, 0.0) if average == average else average
        for kind, name in enumerate(ERROR_TYPES)
    }
    special = (found.without_false_positives(), found.without_false_negatives())
    delta |= {
        name: found.mean(fixed) - average
        for name, fixed in zip(SPECIAL_ERRORS, special, strict=True)
    }
    return TIDEReport(
        protocol,
        foreground_threshold,
        background_threshold,
        tuple(class_names),
        tuple(before.tolist()),
        average,
        _counts(detections, required, num_classes, errors),
        delta,
    )


# --- which detections are right ------------------------------------------------------------------


class _Matches(NamedTuple):
    """What became of the detections, and of the objects that are to be found."""

    is_true: Bool[Tensor, "D"]
    is_ignored: Bool[Tensor, "D"]
    is_found: Bool[Tensor, "T"]


def _required(objects: FlatObjects) -> FlatObjects:
    return FlatObjects(*(column[~objects.difficult] for column in objects))


def _matches_of_voc(
    detections: FlatDetections, objects: FlatObjects, num_classes: int, threshold: float
) -> _Matches:
    verdict = judge(detections, objects, num_classes, (threshold,))
    is_true, is_ignored = dense_verdict(verdict)
    is_found = torch.zeros_like(objects.difficult)
    is_found[verdict.best.objects[is_true]] = True
    return _Matches(is_true, is_ignored, is_found[~objects.difficult])


def _matches_of_release(
    detections: FlatDetections, objects: FlatObjects, num_classes: int, threshold: float
) -> _Matches:
    required = _required(objects)
    pairs = overlapping_pairs(detections, required, num_classes, threshold, same_class=True)
    owners, items = match_by_detection(pairs, len(required.labels))
    is_true = torch.zeros_like(detections.labels, dtype=torch.bool)
    is_found = torch.zeros_like(required.difficult)
    is_true[owners], is_found[items] = True, True

    ignored = FlatObjects(*(column[objects.difficult] for column in objects))
    least = torch.finfo(torch.float64).tiny  # any overlap at all
    touching = overlapping_pairs(detections, ignored, num_classes, least, same_class=True)
    a, b = detections.boxes[touching.detections], ignored.boxes[touching.objects]
    sides = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).double()
    areas = (a[:, 2:] - a[:, :2]).double().prod(dim=1)
    is_within = sides.prod(dim=1) / areas > threshold
    is_ignored = torch.zeros_like(is_true)
    is_ignored[touching.detections[is_within]] = True
    return _Matches(is_true, is_ignored & ~is_true, is_found)


# --- which error a detection is ------------------------------------------------------------------


class _Errors(NamedTuple):
    """The type of each detection's error, and what its oracle makes of it.

    Attributes:
        types: `[D]` the place in `ERROR_TYPES`, −1 for a detection that is no error.
        becomes_true: `[D]` the oracle makes it the true positive of its object.
        targets: `[D]` the object of an error of classification or localization.
        is_missed: `[T]` the object is a missed one.
    """

    types: Int[Tensor, "D"]
    becomes_true: Bool[Tensor, "D"]
    targets: Int[Tensor, "D"]
    is_missed: Bool[Tensor, "T"]


def _errors(
    detections: FlatDetections,
    required: FlatObjects,
    num_classes: int,
    matches: _Matches,
    foreground: float,
    background: float,
) -> _Errors:
    count = len(detections.labels)
    # what overlaps less is background, whatever it is
    pairs = overlapping_pairs(detections, required, num_classes, background, same_class=False)
    is_same = detections.labels[pairs.detections] == required.labels[pairs.objects]
    same = best_of_pairs(pairs, is_same, count)
    other = best_of_pairs(pairs, ~is_same, count)
    taken = best_of_pairs(pairs, is_same & matches.is_found[pairs.objects], count)
    types = torch.full((count,), _BOTH)
    # the test that comes first is written last
    greatest = torch.maximum(same.overlaps, other.overlaps)
    types[greatest <= background] = _BACKGROUND
    types[taken.overlaps >= foreground] = _DUPLICATE
    types[other.overlaps >= foreground] = _CLASSIFICATION
    types[(same.overlaps >= background) & (same.overlaps <= foreground)] = _LOCALIZATION
    types[matches.is_true | matches.is_ignored] = _NO_ERROR

    is_classification = types == _CLASSIFICATION
    targets = torch.where(is_classification, other.objects, same.objects)
    competes = is_classification | (types == _LOCALIZATION)
    if len(required.labels):
        competes &= ~matches.is_found[targets]
    rows = competes.nonzero().flatten()
    rows = rows[order_by_group_and_score(torch.zeros_like(rows), detections.scores[rows])]
    # by falling score, the first of each object is the one that is made true
    first = torch.full((len(required.labels),), len(rows))
    first.scatter_reduce_(0, targets[rows], torch.arange(len(rows)), "amin")
    becomes_true = torch.zeros_like(competes)
    becomes_true[rows] = first[targets[rows]] == torch.arange(len(rows))
    return _Errors(types, becomes_true, targets, ~matches.is_found & (first == len(rows)))


def _counts(
    detections: FlatDetections, required: FlatObjects, num_classes: int, errors: _Errors
) -> dict[str, list[int]]:
    labels = [detections.labels[errors.types == kind] for kind in range(_MISSED)]
    labels.append(required.labels[errors.is_missed])
    return {
        name: of_kind.bincount(minlength=num_classes).tolist()
        for name, of_kind in zip(ERROR_TYPES, labels, strict=True)
    }


# --- what it costs -------------------------------------------------------------------------------


class _Scored:
    """The AP of the classes, as it is and with errors fixed."""

    def __init__(
        self,
        detections: FlatDetections,
        required: FlatObjects,
        num_classes: int,
        matches: _Matches,
        errors: _Errors,
        protocol: TIDEProtocol,
    ) -> None:
        self.detections, self.required, self.protocol = detections, required, protocol
        self.matches, self.errors = matches, errors
        self.num_objects = num_objects_of(required, num_classes)
        self.counts = ~matches.is_ignored

    def as_they_are(self) -> Float[Tensor, "C"]:
        return self._average_precisions(self.detections.labels, self.matches.is_true, self.counts)

    def fixed(self, kind: int) -> Float[Tensor, "C"]:
        """With the errors of one type fixed."""
        labels, is_true = self.detections.labels, self.matches.is_true
        if kind == _MISSED:
            missed = self.required.labels[self.errors.is_missed]
            num_missed = missed.bincount(minlength=len(self.num_objects))
            return self._average_precisions(
                labels, is_true, self.counts, self.num_objects - num_missed
            )
        is_of_kind = self.errors.types == kind
        becomes_true = is_of_kind & self.errors.becomes_true
        is_kept = self.counts & (~is_of_kind | becomes_true)
        if kind == _CLASSIFICATION:
            labels = labels.clone()
            labels[becomes_true] = self.required.labels[self.errors.targets[becomes_true]]
        return self._average_precisions(labels, is_true | becomes_true, is_kept)

    def without_false_positives(self) -> Float[Tensor, "C"]:
        is_true = self.matches.is_true
        return self._average_precisions(self.detections.labels, is_true, is_true)

    def without_false_negatives(self) -> Float[Tensor, "C"]:
        found = self.required.labels[self.matches.is_found]
        num_found = found.bincount(minlength=len(self.num_objects))
        labels, is_true = self.detections.labels, self.matches.is_true
        return self._average_precisions(labels, is_true, self.counts, num_found)

    def mean(self, values: Float[Tensor, "C"]) -> float:
        """Over the classes with objects; a class without any object left to find has 0."""
        return mean_of_defined(values[self.num_objects > 0].nan_to_num(0.0).tolist())

    def _average_precisions(
        self,
        labels: Int[Tensor, "D"],
        is_true: Bool[Tensor, "D"],
        is_kept: Bool[Tensor, "D"],
        num_objects: Int[Tensor, "C"] | None = None,
    ) -> Float[Tensor, "C"]:
        rows = is_kept.nonzero().flatten()
        if labels is not self.detections.labels:
            by_score = order_by_group_and_score(
                torch.zeros_like(rows), self.detections.scores[rows]
            )
            rows = rows[by_score]
            rows = rows[stable_order(labels[rows])]
        ranked = ranked_classes(
            labels[rows], is_true[rows], self.num_objects if num_objects is None else num_objects
        )
        if self.protocol == "voc":
            return area_average_precision(ranked)
        recalls = torch.arange(101, dtype=torch.float64) / 100
        return sampled_average_precision(ranked, recalls)
