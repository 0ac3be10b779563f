"""Pictures that several splits list become one record each, with an id unique in the set."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from detect.data.annotated import AnnotatedPicture
from detect.data.faults import Fault


def merge_splits(
    pictures: Iterable[AnnotatedPicture],
) -> tuple[list[AnnotatedPicture], list[Fault]]:
    """Join the records of the same picture from several splits.

    Pictures of one id that are different files, as `train/0001.jpg` and `val/0001.jpg`, get the
    name of their split before the id.

    Args:
        pictures: each with the one split, or none, that it was read from.

    Returns:
        The pictures in order, and the faults of those whose splits give them different objects;
        of these, the first split holds.
    """
    by_path: dict[Path, AnnotatedPicture] = {}
    faults = []
    for picture in pictures:
        earlier = by_path.setdefault(picture.image_path, picture)
        if earlier is picture:
            continue
        if _content(earlier) != _content(picture):
            value = (
                f"the picture {picture.image_id} has other objects in {picture.annotation_path} "
                f"than in {earlier.annotation_path}"
            )
            remedy = "give both the same objects, or leave the picture out of one"
            file = str(picture.annotation_path)
            faults.append(Fault(file, None, "different-in-splits", value, remedy))
            continue
        splits = tuple(sorted({*earlier.splits, *picture.splits}))
        by_path[picture.image_path] = replace(earlier, splits=splits)
    return _with_unique_ids(list(by_path.values())), faults


def _content(picture: AnnotatedPicture) -> list[Any]:
    # ids may be counted anew in each file
    extras = [
        {key: value for key, value in item.extras.items() if key != "id"}
        for item in picture.objects
    ]
    items = [(item.name, item.box, item.difficult, item.crowd) for item in picture.objects]
    return [*items, *extras]


def _with_unique_ids(pictures: Sequence[AnnotatedPicture]) -> list[AnnotatedPicture]:
    """Put the split before ids that are not unique, then the folder, then a number behind."""
    ids = [picture.image_id for picture in pictures]
    prefixes = (
        ["/".join(picture.splits[:1]) for picture in pictures],
        [picture.image_path.parent.name for picture in pictures],
    )
    for prefix in prefixes:
        counts = Counter(ids)
        ids = [
            f"{folder}/{name}" if counts[name] > 1 and folder else name
            for folder, name in zip(prefix, ids, strict=True)
        ]
    seen: Counter[str] = Counter()
    unique = []
    for picture, name in zip(pictures, ids, strict=True):
        seen[name] += 1
        own = name if seen[name] == 1 else f"{name}_{seen[name]}"
        unique.append(picture if own == picture.image_id else replace(picture, image_id=own))
    return unique
