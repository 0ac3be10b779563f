"""The errors of a localizer as ImageNet defines them: one class an image, up to five guesses.

A guess is a class and a box; the guesses of an image are its first five detections by score. A
guess is right if its class is the image's and its IoU with any object of that class reaches the
threshold; the image is an error unless one of its guesses is right: Russakovsky et al. 2015,
"ImageNet large scale visual recognition challenge", section 4.2. For top-1 only the first guess
counts. The classification error asks for the class of the same guesses alone.

Deviation: ImageNet gives every image one class. In an image with objects of several classes the
image's class is that of its largest object, the first of equally large ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from rich.table import Table
from rich.text import Text
from torch import Tensor

from detect.errors import DetectError
from detect.evaluation.numbers import as_text, plain, ratio
from detect.evaluation.tables import report_table
from detect.ops import box_area, elementwise_box_iou
from detect.structures import Detections, GroundTruth
from detect.wording import counted

NUM_GUESSES = 5  # Russakovsky et al. 2015, section 4.2

METRICS = {
    "top1_localization_error": "share of the images whose first guess is wrong in class or box",
    "top5_localization_error": "share of the images with no guess that is right in class and box",
    "top1_classification_error": "share of the images whose first guess is wrong in class",
    "top5_classification_error": "share of the images with no guess that is right in class",
    "mean_iou": "mean over the images of the IoU of the first guess's box, whatever its class, "
    "with the object of the image's class that it overlaps most; 0 without a guess",
}
GUESS_RULE = "the guesses of an image are its first five detections by score"
BOX_RULE = "a box is right if its IoU with any object of the image's class reaches the threshold"
CLASS_RULE = "the class of an image is that of its largest object, the first of equally large ones"
DIFFICULT_RULE = "difficult objects count like others"
LEFT_OUT_RULE = "images without an object are left out"


@dataclass(frozen=True, slots=True)
class LocalizationErrors:
    """The errors in some images, those of one class or all.

    Every error is a share of the images, in 0…1, and nan without images.

    Attributes:
        num_images: the images judged.
        num_top1_localized: images whose first guess is right in class and box.
        num_top5_localized: images with such a guess among the first five.
        num_top1_classified: images whose first guess is right in class.
        num_top5_classified: images with such a guess among the first five.
        sum_iou: the sum over the images of the IoU of the first guess's box.
    """

    num_images: int
    num_top1_localized: int
    num_top5_localized: int
    num_top1_classified: int
    num_top5_classified: int
    sum_iou: float

    @property
    def top1_localization_error(self) -> float:
        """Share of the images whose first guess is wrong in class or box."""
        return self._error(self.num_top1_localized)

    @property
    def top5_localization_error(self) -> float:
        """Share of the images with no guess that is right in class and box."""
        return self._error(self.num_top5_localized)

    @property
    def top1_classification_error(self) -> float:
        """Share of the images whose first guess is wrong in class."""
        return self._error(self.num_top1_classified)

    @property
    def top5_classification_error(self) -> float:
        """Share of the images with no guess that is right in class."""
        return self._error(self.num_top5_classified)

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the first guess's box with the object it overlaps most, in 0…1."""
        return ratio(self.sum_iou, self.num_images)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the keys are stable, and a number that is not there is None."""
        numbers = {name: getattr(self, name) for name in METRICS}
        return {**plain(numbers), "num_images": self.num_images}

    def _error(self, num_right: int) -> float:
        return ratio(self.num_images - num_right, self.num_images)


@dataclass(frozen=True, slots=True, eq=False)
class LocalizationReport:
    """The errors of a localizer, of all images and by class.

    Attributes:
        iou_threshold: the least IoU of a right box, in 0…1.
        total: the errors in all images.
        classes: the errors in the images of each class, in the order of the labels.
        num_without_object: images left out because they have no object.
    """

    iou_threshold: float
    total: LocalizationErrors
    classes: Mapping[str, LocalizationErrors]
    num_without_object: int

    def __repr__(self) -> str:
        return (
            "LocalizationReport: localization error "
            f"top-1 {as_text(self.top1_localization_error)}, "
            f"top-5 {as_text(self.top5_localization_error)} at IoU {self.iou_threshold:g}, "
            f"{counted(self.num_images, 'image')}, {counted(len(self.classes), 'class')}"
        )

    def scores(self) -> dict[str, float]:
        """The numbers that are followed during a training."""
        return {
            "top1_localization_error": self.top1_localization_error,
            "top5_localization_error": self.top5_localization_error,
            "mean_iou": self.mean_iou,
        }

    @property
    def top1_localization_error(self) -> float:
        """As in `LocalizationErrors`, of all images."""
        return self.total.top1_localization_error

    @property
    def top5_localization_error(self) -> float:
        """As in `LocalizationErrors`, of all images."""
        return self.total.top5_localization_error

    @property
    def top1_classification_error(self) -> float:
        """As in `LocalizationErrors`, of all images."""
        return self.total.top1_classification_error

    @property
    def top5_classification_error(self) -> float:
        """As in `LocalizationErrors`, of all images."""
        return self.total.top5_classification_error

    @property
    def mean_iou(self) -> float:
        """As in `LocalizationErrors`, of all images."""
        return self.total.mean_iou

    @property
    def num_images(self) -> int:
        """The images judged, those without an object excluded."""
        return self.total.num_images

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON.

        The keys are stable: `protocol`; `top1_localization_error`, `top5_localization_error`,
        `top1_classification_error`, `top5_classification_error`, `mean_iou` and `num_images` of
        all images; `num_without_object`; and `classes`, which maps the name of each class to the
        same six. A number that is not defined is None.
        """
        return {
            "protocol": {
                "name": "ImageNet localization",
                "metrics": dict(METRICS),
                "iou_threshold": self.iou_threshold,
                "guesses": GUESS_RULE,
                "box": BOX_RULE,
                "class": CLASS_RULE,
                "difficult": DIFFICULT_RULE,
                "left_out": LEFT_OUT_RULE,
            },
            **self.total.as_dict(),
            "num_without_object": self.num_without_object,
            "classes": {name: errors.as_dict() for name, errors in self.classes.items()},
        }

    def in_words(self) -> str:
        """The errors and the protocol as one paragraph."""
        num_classes = len(self.classes)
        # one guess for each of five classes cannot miss: the number says nothing of the classifier
        only = f" (of only {counted(num_classes, 'class')})"
        top5_note = only if num_classes <= NUM_GUESSES else ""
        return (
            f"Localization error top-1 {as_text(self.top1_localization_error)}, top-5 "
            f"{as_text(self.top5_localization_error)}; classification error top-1 "
            f"{as_text(self.top1_classification_error)}, top-5 "
            f"{as_text(self.top5_classification_error)}{top5_note}; mean IoU of the first box "
            f"{as_text(self.mean_iou)}. ImageNet localization, IoU ≥ {self.iou_threshold:g}: "
            f"{GUESS_RULE}; {BOX_RULE}; {CLASS_RULE}; {DIFFICULT_RULE}. "
            f"{counted(self.num_images, 'image')}; left out: "
            f"{counted(self.num_without_object, 'image')} without an object."
        )

    def tables(self) -> list[Table]:
        """The one table, in a list as every report has it."""
        return [self.table()]

    def table(self) -> Table:
        """A table for the terminal: one row for each class, all images, and the protocol."""
        headers = (
            "loc. error\ntop-1",
            "loc. error\ntop-5",
            "class error\ntop-1",
            "class error\ntop-5",
            "mean\nIoU",
            "images",
        )
        footer = ("all images", *_row(self.total))
        table = report_table("class", headers, footer=footer, caption=self.in_words())
        for name, errors in self.classes.items():
            table.add_row(Text(name), *_row(errors))  # a name is no markup, whatever it has
        return table


class LocalizationEvaluator:
    """Collects detections and truths image by image and computes the localization errors.

    Args:
        class_names: the name of each label 0 … C−1.
        iou_threshold: the least IoU of a right box, more than 0 and at most 1.

    Raises:
        DetectError: the threshold is out of its range.
        ValueError: there is no class name, or one is given twice.
    """

    name: ClassVar[str] = "localization"

    def __init__(self, class_names: Sequence[str], iou_threshold: float = 0.5) -> None:
        if not 0 < iou_threshold <= 1:
            raise DetectError(
                f"iou_threshold: expected more than 0 and at most 1, found {iou_threshold}"
            )
        if not class_names:
            raise ValueError("class_names: expected at least one name, found none")
        if len(set(class_names)) < len(class_names):
            raise ValueError(f"class_names: expected each name once, found {list(class_names)}")
        self.class_names = tuple(class_names)
        self.iou_threshold = iou_threshold
        self._guesses: list[tuple[Tensor, Tensor]] = []  # boxes [≤5, 4] and labels [≤5]
        self._objects: list[tuple[Tensor, Tensor]] = []  # boxes [N, 4] and labels [N]

    def update(self, detections: Sequence[Detections], truths: Sequence[GroundTruth]) -> None:
        """Add images: one record of detections and one of objects for each, in one frame.

        Nothing is computed here; don't write into the tensors before `compute`.

        Args:
            detections: what was found; the first five are copied to the CPU if need be.
            truths: the objects, difficult ones included.

        Raises:
            ValueError: the sequences differ in length.
        """
        if len(detections) != len(truths):
            raise ValueError(
                f"expected detections and truths of as many images, "
                f"found {len(detections)} and {len(truths)}"
            )
        for found, truth in zip(detections, truths, strict=True):
            boxes, labels = found.boxes[:NUM_GUESSES], found.labels[:NUM_GUESSES]
            self._guesses.append((boxes.detach().cpu(), labels.cpu()))
            self._objects.append((truth.boxes.cpu(), truth.labels.cpu()))

    def compute(self) -> LocalizationReport:
        """Judge all images so far. Without an image that has objects every error is nan.

        Raises:
            ValueError: a label has no class name.
        """
        guesses, objects = _flat(self._guesses), _flat(self._objects)
        self._check_labels("detections", guesses)
        self._check_labels("truths", objects)
        num_images = len(self._objects)
        image_labels = _image_labels(objects, num_images)
        verdict = _judge(guesses, objects, image_labels, self.iou_threshold)
        judged = image_labels >= 0
        classes = _errors_by_class(verdict, judged, image_labels, len(self.class_names))
        return LocalizationReport(
            iou_threshold=self.iou_threshold,
            # all images as images of one class
            total=_errors_by_class(verdict, judged, torch.zeros_like(image_labels), 1)[0],
            classes=dict(zip(self.class_names, classes, strict=True)),
            num_without_object=num_images - int(judged.sum()),
        )

    def _check_labels(self, owner: str, boxes: "_FlatBoxes") -> None:
        strange = (boxes.labels >= len(self.class_names)).nonzero()
        if len(strange):
            row = int(strange[0])
            raise ValueError(
                f"{owner}: expected labels below {len(self.class_names)}, the number of classes, "
                f"found {int(boxes.labels[row])} in image {int(boxes.images[row])} (counted from "
                "0 over all updates)"
            )


class _FlatBoxes(NamedTuple):
    """The boxes of all images, sorted by image, within an image in their own order.

    Attributes:
        images: `[N]` the number of the image.
        ranks: `[N]` the place within the image, from 0.
        boxes: `[N, 4]` float64 xyxy pixels.
        labels: `[N]` classes 0 … C−1.
    """

    images: Int[Tensor, "N"]
    ranks: Int[Tensor, "N"]
    boxes: Float[Tensor, "N 4"]
    labels: Int[Tensor, "N"]


class _Verdict(NamedTuple):
    """What became of the guesses of each of B images.

    Attributes:
        localized: `[B, 5]` whether the guess is right in class and box.
        classified: `[B, 5]` whether it is right in class.
        iou: `[B]` the IoU of the first guess's box.
    """

    localized: Bool[Tensor, "B 5"]
    classified: Bool[Tensor, "B 5"]
    iou: Float[Tensor, "B"]


def _flat(records: Sequence[tuple[Tensor, Tensor]]) -> _FlatBoxes:
    lengths = torch.tensor([len(labels) for _, labels in records], dtype=torch.int64)
    images = torch.repeat_interleave(torch.arange(len(records)), lengths)
    starts = lengths.cumsum(0) - lengths
    return _FlatBoxes(
        images,
        torch.arange(len(images)) - starts[images],
        # so that there is something to concatenate
        torch.cat([torch.zeros(0, 4), *(boxes for boxes, _ in records)]).double(),
        torch.cat([torch.zeros(0, dtype=torch.int64), *(labels for _, labels in records)]),
    )


def _image_labels(objects: _FlatBoxes, num_images: int) -> Int[Tensor, "B"]:
    """The class of each image, that of its largest object; −1 for an image without objects."""
    areas = box_area(objects.boxes)
    largest = areas.new_zeros(num_images).scatter_reduce(0, objects.images, areas, "amax")
    rows = torch.arange(len(areas))
    tied = torch.where(areas == largest[objects.images], rows, len(areas))
    first = torch.full((num_images,), len(areas)).scatter_reduce(0, objects.images, tied, "amin")
    return torch.cat((objects.labels, torch.tensor([-1])))[first]


def _judge(
    guesses: _FlatBoxes, objects: _FlatBoxes, image_labels: Int[Tensor, "B"], iou_threshold: float
) -> _Verdict:
    num_images = len(image_labels)
    boxes = torch.zeros(num_images, NUM_GUESSES, 4, dtype=torch.float64)
    boxes[guesses.images, guesses.ranks] = guesses.boxes  # no guess is a box of no size: IoU 0
    labels = torch.full((num_images, NUM_GUESSES), -2)  # nor of any class, nor of none
    labels[guesses.images, guesses.ranks] = guesses.labels
    classified = labels == image_labels[:, None]
    # of the objects, only those of the image's class count
    counted = objects.labels == image_labels[objects.images]
    images = objects.images[counted]
    iou = elementwise_box_iou(boxes[images], objects.boxes[counted][:, None])  # [objects, 5]
    best = torch.zeros(num_images, NUM_GUESSES, dtype=torch.float64)
    best = best.scatter_reduce(0, images[:, None].expand_as(iou), iou, "amax")
    return _Verdict(classified & (best >= iou_threshold), classified, best[:, 0])


def _errors_by_class(
    verdict: _Verdict, judged: Bool[Tensor, "B"], labels: Int[Tensor, "B"], num_classes: int
) -> list[LocalizationErrors]:
    """The errors of each class, in the images that are judged and have its label."""
    columns = (
        torch.ones_like(judged),
        verdict.localized[:, 0],
        verdict.localized.any(dim=1),
        verdict.classified[:, 0],
        verdict.classified.any(dim=1),
    )
    counts = [labels[judged & column].bincount(minlength=num_classes) for column in columns]
    sums = torch.zeros(num_classes, dtype=torch.float64)
    sums = sums.index_add(0, labels[judged], verdict.iou[judged])
    return [
        LocalizationErrors(*numbers)
        for numbers in zip(*(column.tolist() for column in (*counts, sums)), strict=True)
    ]


def _row(errors: LocalizationErrors) -> list[str]:
    return [*(as_text(getattr(errors, name)) for name in METRICS), str(errors.num_images)]
