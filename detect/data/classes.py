"""The names of classes: those that are wanted, and what to say of one that is unknown."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Literal

from detect.errors import DetectError
from detect.registry import hint

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

# The names of the labels 0 … C−1, or whose they are: those of PASCAL VOC, or the data set's own.
ClassNames = Sequence[str] | Literal["voc", "auto"]


def listed_class_names(classes: ClassNames) -> tuple[str, ...] | None:
    """The class names that the user gave, or None when they are the data set's to say.

    Raises:
        DetectError: they make no sense.
    """
    if classes == "auto":
        return None
    if classes == "voc":
        return VOC_CLASSES
    if isinstance(classes, str):
        raise DetectError(
            f"data.classes: expected voc, auto or a list of names, found {classes!r}; "
            f"for a single class, write [{classes}]"
        )
    names = tuple(classes)
    if not names or not all(name.strip() for name in names):
        raise DetectError(f"data.classes: expected names, found {list(names)}; name each class")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DetectError(
            f"data.classes: expected every name once, found {repeated[0]!r} "
            f"{names.count(repeated[0])} times; delete the others"
        )
    return names


def unknown_class_remedy(
    name: str, known: Collection[str], action: str = "correct the name, or add it to data.classes"
) -> str:
    """What to do about an object of a class that is not among the known ones.

    Args:
        name: as it stands in the file.
        known: the names of the labels.
        action: what helps where no known name is alike.
    """
    if name.strip() in known:
        return f"remove the blanks around the name: {name.strip()!r}"
    same = [other for other in known if other.lower() == name.strip().lower()]
    if same:
        return f"upper and lower case count: write {same[0]!r}"
    return f"{hint(name.strip(), known)}; {action}"
