"""Sharing the images of a set between splits, each class in proportion.

Sechidis, Tsoumakas and Vlahavas 2011, "On the stratification of multi-label data", algorithm 1: an
image with objects of several classes is given to the split that lacks its rarest class the most.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from detect.errors import DetectError

# Shares are written with few decimals, as 0.33,0.33,0.34 or 0.3333,0.3333,0.3334.
_MAX_EXCESS = 1e-3


def parse_shares(text: str) -> dict[str, float]:
    """`train=0.8,val=0.1,test=0.1` as a mapping.

    >>> parse_shares("train=0.8,val=0.2")
    {'train': 0.8, 'val': 0.2}

    Raises:
        DetectError: it is nothing of that form, or the shares do not add up to 1.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            share = float(number)
        except ValueError:
            share = math.nan
        if not name or name in shares or not 0 < share <= 1:
            raise DetectError(
                f"--shares: expected names with shares between 0 and 1, such as "
                f"train=0.8,val=0.1,test=0.1, found {part.strip()!r} in {text!r}"
            )
        if name.startswith(".") or any(sign in name for sign in "/\\\0"):
            raise DetectError(f"--shares: {name!r} cannot be the name of a file; name it otherwise")
        shares[name] = share
    total = sum(shares.values())
    if abs(total - 1) > _MAX_EXCESS:
        raise DetectError(
            f"--shares: expected shares that add up to 1, found {total:g} in {text!r}"
        )
    return {name: share / total for name, share in shares.items()}


def stratify(
    class_counts: Int[np.ndarray, "N C"], shares: Mapping[str, float], seed: int
) -> list[str]:
    """The split of each image.

    What is shared in proportion are the images with each class, as in the paper. Of splits that
    lack equally many, the one that lacks more objects of the class takes the image, then the one
    that lacks more images. Images without objects are shared out last.

    Args:
        class_counts: the number of objects of each class in each image.
        shares: of each split; they add up to 1.
        seed: of the order of images and of the choice between equal splits.

    Raises:
        DetectError: there are fewer images than splits.
    """
    num_images = len(class_counts)
    if num_images < len(shares):
        raise DetectError(
            f"expected at least as many images as splits, found {num_images} for {len(shares)}"
        )
    generator = np.random.default_rng(seed)
    names = list(shares)
    portions = np.array([shares[name] for name in names])  # [S]
    has_class = class_counts > 0  # [N, C]
    lacking_images = portions * num_images  # [S]
    lacking = portions[:, None] * has_class.sum(axis=0)  # [S, C], images
    lacking_objects = portions[:, None] * class_counts.sum(axis=0)  # [S, C]
    chosen = np.full(num_images, -1)
    order = generator.permutation(num_images)
    while True:
        remaining = order[chosen[order] < 0]
        left = has_class[remaining].sum(axis=0)  # [C]
        if not left.any():
            break
        rarest = int(np.where(left > 0, left, num_images + 1).argmin())
        for image in remaining[has_class[remaining, rarest]]:
            needs = (lacking[:, rarest], lacking_objects[:, rarest], lacking_images)
            split = _neediest(needs, generator)
            chosen[image] = split
            lacking[split] -= has_class[image]
            lacking_objects[split] -= class_counts[image]
            lacking_images[split] -= 1
    for image in order[chosen[order] < 0]:
        split = _neediest([lacking_images], generator)
        chosen[image] = split
        lacking_images[split] -= 1
    _fill_empty(chosen, class_counts, len(names))
    return [names[split] for split in chosen]


def _neediest(needs: Sequence[np.ndarray], generator: np.random.Generator) -> int:
    """The split of the greatest first need; of equal ones that of the second, …, then by chance."""
    candidates = np.arange(len(needs[0]))
    for need in needs:
        own = need[candidates]
        candidates = candidates[np.isclose(own, own.max(), rtol=0, atol=1e-9)]
    return int(generator.choice(candidates))


def _fill_empty(chosen: np.ndarray, class_counts: np.ndarray, num_splits: int) -> None:
    """Give a split that got no image one of the largest: an empty split is of no use."""
    for split in range(num_splits):
        if (chosen == split).any():
            continue
        largest = int(np.bincount(chosen, minlength=num_splits).argmax())
        own = np.flatnonzero(chosen == largest)
        chosen[own[class_counts[own].sum(axis=1).argmin()]] = split


def counts_by_split(
    class_counts: Int[np.ndarray, "N C"], splits: Sequence[str], names: Sequence[str]
) -> dict[str, tuple[int, list[int]]]:
    """For each split the number of images, and of objects of each class."""
    of = np.array(splits)
    return {
        name: (int((of == name).sum()), class_counts[of == name].sum(axis=0).tolist())
        for name in names
    }
