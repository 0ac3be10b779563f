"""Splits that must not share images, and images that are in two such splits."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from detect.data.annotated import AnnotatedImage, AnnotatedSet
from detect.data.checking.finding import Finding, error, warning
from detect.wording import counted, listed

# The words that say what a split is for, alone or beside others, as in `train2017`.
_PURPOSES = {
    "trainval": frozenset({"training", "validation"}),
    "training": frozenset({"training"}),
    "train": frozenset({"training"}),
    "validation": frozenset({"validation"}),
    "valid": frozenset({"validation"}),
    "minival": frozenset({"validation"}),
    "val": frozenset({"validation"}),
    "dev": frozenset({"validation"}),
    "testing": frozenset({"test"}),
    "test": frozenset({"test"}),
    "eval": frozenset({"test"}),
}
_PURPOSE = re.compile(rf"(?<![a-z])({'|'.join(_PURPOSES)})(?![a-z])")
# The least with which recall can take all eleven values of VOC 2007's average precision. A class
# with fewer objects has an average precision that hangs on single ones.
MIN_OBJECTS_OF_CLASS = 10
# Detectors learn from the surroundings of objects, so that images without any are good for a
# few per cent (1 % of COCO) and a sign of an unfinished annotation beyond.
MAX_EMPTY_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class SplitPurpose:
    """What a split is for, by its name.

    Attributes:
        uses: of training, validation and test; VOC's trainval has two.
        series: the rest of the name: `fold1_train` and `fold2_val` belong to different series.
    """

    uses: frozenset[str]
    series: str


def purpose_of(split: str) -> SplitPurpose | None:
    """What a split is for, or None if its name does not say.

    >>> purpose_of("val2017") == SplitPurpose(frozenset({"validation"}), "2017")
    True
    """
    name = split.lower()
    found = _PURPOSE.search(name)
    if found is None:
        return None
    return SplitPurpose(_PURPOSES[found[1]], name[: found.start()] + name[found.end() :])


def are_apart(first: str, second: str) -> bool:
    """Whether two splits must not share images: train and test of one series, for example.

    >>> are_apart("train", "test"), are_apart("train", "trainval"), are_apart("train", "all")
    (True, False, False)
    """
    one, other = purpose_of(first), purpose_of(second)
    if one is None or other is None:
        return False
    return one.series == other.series and not one.uses & other.uses


def separating_splits(first: Sequence[str], second: Sequence[str]) -> tuple[str, str] | None:
    """A split of each of two images that must not share images, or None."""
    pairs = ((a, b) for a in first for b in second if are_apart(a, b))
    return next(pairs, None)


def check_splits(annotated: AnnotatedSet) -> Iterator[Finding]:
    """Images in splits that must not overlap; classes that a split lacks or that are rare."""
    for image in annotated.images:
        yield from _overlaps(image)
    names = list(dict.fromkeys(split for p in annotated.images for split in p.splits))
    counts = {name: _class_counts(annotated, name) for name in sorted(names)}
    counts_of_all = _class_counts(annotated, None)
    for name, counts_of_split in counts.items():
        missing = [c for c in annotated.class_names if counts_of_all[c] and not counts_of_split[c]]
        if missing and purpose_of(name) is not None:
            yield warning(
                split_place(annotated, name),
                None,
                "class-missing-from-split",
                f"{name} has no object of {listed(missing)}",
                "spread the images of each class over all splits: what is not in the training "
                "split cannot be learned, what is not in the others is not judged",
            )
    for name in annotated.class_names:
        if counts_of_all[name] < MIN_OBJECTS_OF_CLASS:
            yield warning(
                annotated.root,
                None,
                "rare-class",
                f"class {name!r} has {counted(counts_of_all[name], 'object')}",
                f"add images of it, or leave the class out: below {MIN_OBJECTS_OF_CLASS} "
                "objects, its average precision hangs on single ones",
            )
    yield from _empty_images(annotated)


def _overlaps(image: AnnotatedImage) -> Iterator[Finding]:
    for first, second in combinations(image.splits, 2):
        if are_apart(first, second):
            yield error(
                image.image_path,
                None,
                "overlapping-splits",
                f"the image {image.image_id} is listed in {first} and in {second}",
                "list it in one of them: a detector must not be judged on what it has memorized",
                images=(image.image_path,),
            )


def _empty_images(annotated: AnnotatedSet) -> Iterator[Finding]:
    empty = [image for image in annotated.images if not image.objects]
    share = len(empty) / max(len(annotated.images), 1)
    if share > MAX_EMPTY_SHARE:
        yield warning(
            annotated.root,
            None,
            "many-empty-images",
            f"{len(empty)} of {counted(len(annotated.images), 'image')} without an object, the "
            f"first {empty[0].image_id}",
            "see whether they are annotated at all; if they are, this is no fault",
            images=tuple(image.image_path for image in empty[:1]),
        )


def split_place(annotated: AnnotatedSet, split: str) -> Path:
    """The file of a split where the format has one for each, else the set's folder."""
    if annotated.data_format == "voc":
        return annotated.root / "ImageSets" / "Main" / f"{split}.txt"
    return annotated.root


def _class_counts(annotated: AnnotatedSet, split: str | None) -> Counter[str]:
    return Counter(
        item.name
        for image in annotated.images
        if split is None or split in image.splits
        for item in image.objects
        if not item.crowd
    )
