"""Images that several splits list become one record each, with an id unique in the set."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from detect.data.annotated import AnnotatedImage
from detect.data.faults import Fault


def merge_splits(
    images: Iterable[AnnotatedImage],
) -> tuple[list[AnnotatedImage], list[Fault]]:
    """Join the records of the same image from several splits.

    Images of one id that are different files, as `train/0001.jpg` and `val/0001.jpg`, get the
    name of their split before the id.

    Args:
        images: each with the one split, or none, that it was read from.

    Returns:
        The images in order, and the faults of those whose splits give them different objects;
        of these, the first split holds.
    """
    by_path: dict[Path, AnnotatedImage] = {}
    faults = []
    for image in images:
        earlier = by_path.setdefault(image.image_path, image)
        if earlier is image:
            continue
        if _content(earlier) != _content(image):
            value = (
                f"the image {image.image_id} has other objects in {image.annotation_path} "
                f"than in {earlier.annotation_path}"
            )
            remedy = "give both the same objects, or leave the image out of one"
            file = str(image.annotation_path)
            faults.append(Fault(file, None, "different-in-splits", value, remedy))
            continue
        splits = tuple(sorted({*earlier.splits, *image.splits}))
        by_path[image.image_path] = replace(earlier, splits=splits)
    return _with_unique_ids(list(by_path.values())), faults


def _content(image: AnnotatedImage) -> list[Any]:
    # ids may restart in each file
    extras = [
        {key: value for key, value in item.extras.items() if key != "id"} for item in image.objects
    ]
    items = [(item.name, item.box, item.difficult, item.crowd) for item in image.objects]
    return [*items, *extras]


def _with_unique_ids(images: Sequence[AnnotatedImage]) -> list[AnnotatedImage]:
    """Put the split before ids that are not unique, then the folder, then a number behind."""
    ids = [image.image_id for image in images]
    prefixes = (
        ["/".join(image.splits[:1]) for image in images],
        [image.image_path.parent.name for image in images],
    )
    for prefix in prefixes:
        counts = Counter(ids)
        ids = [
            f"{folder}/{name}" if counts[name] > 1 and folder else name
            for folder, name in zip(prefix, ids, strict=True)
        ]
    seen: Counter[str] = Counter()
    unique = []
    for image, name in zip(images, ids, strict=True):
        seen[name] += 1
        own = name if seen[name] == 1 else f"{name}_{seen[name]}"
        unique.append(image if own == image.image_id else replace(image, image_id=own))
    return unique
