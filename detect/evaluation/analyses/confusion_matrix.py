"""Which class is taken for which: a confusion matrix of detections with a background.

Detections and objects of an image are matched one to one, whatever their classes: pairs with
enough IoU are gone through, those of one class before those of two, each by falling IoU, and a pair
is matched if both are still free. So a right detection is never displaced by a wrong one that lies
a little better. What stays unmatched belongs to the background: an object that was not found, a
detection where nothing is.

No paper has fixed this matrix for detections. Ultralytics' and supervision's first versions go by
IoU alone, and there a detection whose best object goes to another one takes no second.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from rich.text import Text

from detect.errors import DetectError
from detect.evaluation.flat import FlatDetections, FlatObjects
from detect.evaluation.judged import check_iou_threshold
from detect.evaluation.ordering import stable_order
from detect.evaluation.pair_choices import match_in_order, stable_order_by_falling
from detect.evaluation.pairs import overlapping_pairs
from detect.evaluation.tables import report_table
from detect.wording import counted

BACKGROUND_NAME = "background"

# Columns of the terminal for the classes; a wider matrix is in the JSON file and the figure alone.
MATRIX_WIDTH = 66


@dataclass(frozen=True, slots=True, eq=False)
class ConfusionMatrix:
    """How often an object of one class was found as another.

    Attributes:
        class_names: the name of each label.
        score_threshold: detections of a lower score are left out.
        iou_threshold: the least IoU of a match.
        counts: `[C+1][C+1]`, objects of a class (row) that were found as a class (column). The last
            row holds detections of the background, the last column objects that were not found.
        num_ignored: detections that only a difficult object explains; they do not count.
    """

    class_names: tuple[str, ...]
    score_threshold: float
    iou_threshold: float
    counts: list[list[int]]
    num_ignored: int

    @property
    def names(self) -> tuple[str, ...]:
        """Of the rows and columns."""
        return (*self.class_names, BACKGROUND_NAME)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the keys are stable."""
        return {
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "rows": "class of the object; the last row is the background",
            "columns": "class of the detection; the last column is the background",
            "names": list(self.names),
            "counts": [list(row) for row in self.counts],
            "num_ignored": self.num_ignored,
        }

    def table(self) -> Table:
        """The matrix; of many classes, what each is most often confused with."""
        title = (
            f"Confusion matrix, score ≥ {self.score_threshold:.4g}, IoU ≥ {self.iou_threshold:g}"
        )
        caption = (
            "Rows are objects, columns detections. Ignored: "
            f"{counted(self.num_ignored, 'detection')} matched to a difficult object only."
        )
        digits = len(str(max(map(max, self.counts))))
        if sum(max(len(name), digits) + 2 for name in self.names) > MATRIX_WIDTH:
            return self._summary(title, caption)
        table = report_table("object", list(map(Text, self.names)), title=title, caption=caption)
        for name, row in zip(self.names, self.counts, strict=True):
            table.add_row(Text(name), *map(str, row))
        return table

    def _summary(self, title: str, caption: str) -> Table:
        headers = ("found", "not found", "confused", "most often found as")
        table = report_table("object", headers, title=title, caption=caption)
        table.columns[-1].justify = "left"
        background = len(self.class_names)
        for label, (name, row) in enumerate(zip(self.names, self.counts, strict=True)):
            wrong = {other: row[other] for other in range(background) if other != label}
            first = max(wrong, key=lambda other: wrong[other], default=background)
            most = f"{self.names[first]} ({wrong[first]})" if wrong.get(first) else ""
            found, missed = (row[label], row[-1]) if label != background else ("", "")
            table.add_row(Text(name), str(found), str(missed), str(sum(wrong.values())), Text(most))
        return table


def measure_confusion(
    detections: FlatDetections,
    objects: FlatObjects,
    class_names: Sequence[str],
    score_threshold: float = 0.25,
    iou_threshold: float = 0.5,
) -> ConfusionMatrix:
    """Count by the rules at the head of this file.

    Difficult objects take part in no match. A detection without a match that reaches the IoU with
    a difficult object, of whatever class, does not count.

    Args:
        detections: by class and falling score.
        objects: in any order.
        class_names: the name of each label 0 … C−1.
        score_threshold: detections of a lower score are left out.
        iou_threshold: the least IoU of a match.

    Raises:
        DetectError: a threshold is out of its range.
    """
    check_iou_threshold(iou_threshold)
    if not score_threshold == score_threshold:
        raise DetectError("score_threshold: expected a number, found nan")
    num_classes = len(class_names)
    kept = FlatDetections(*(column[detections.scores >= score_threshold] for column in detections))
    pairs = overlapping_pairs(kept, objects, num_classes, iou_threshold, same_class=False)
    counts_here = ~objects.difficult[pairs.objects]
    candidates = type(pairs)(*(column[counts_here] for column in pairs))
    order = stable_order_by_falling(candidates.overlaps)
    is_confused = kept.labels[candidates.detections] != objects.labels[candidates.objects]
    order = order[stable_order(is_confused[order].long())]
    matched = match_in_order(candidates, order, len(kept.labels), len(objects.labels))
    owners, items = candidates.detections[matched], candidates.objects[matched]

    is_free = torch.ones_like(kept.labels, dtype=torch.bool)
    is_free[owners] = False
    at_difficult = torch.zeros_like(is_free)
    at_difficult[pairs.detections[~counts_here]] = True
    is_missed = ~objects.difficult
    is_missed[items] = False
    strangers, missed = kept.labels[is_free & ~at_difficult], objects.labels[is_missed]
    side = num_classes + 1
    cells = torch.cat(
        (
            objects.labels[items] * side + kept.labels[owners],
            num_classes * side + strangers,
            missed * side + num_classes,
        )
    )
    return ConfusionMatrix(
        tuple(class_names),
        score_threshold,
        iou_threshold,
        cells.bincount(minlength=side**2).reshape(side, side).tolist(),
        int((is_free & at_difficult).sum()),
    )
