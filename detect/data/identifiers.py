"""Ids of images and objects that are the same whenever a set is converted."""

import re
from collections.abc import Sequence
from typing import Any

_NUMBERED_NAME = re.compile(r"[0-9]+(?:_[0-9]+)*")
# Beyond, a reader that takes numbers for floating point confuses them.
_MAX_ID = 2**53


def ids_of_names(names: Sequence[str]) -> list[int | str]:
    """Whole numbers for names, in their order.

    >>> ids_of_names(["000012", "2007_000027"])
    [12, 2007000027]
    >>> ids_of_names(["dog", "cat"])
    [2, 1]
    """
    numbers = numbers_of_names(names)
    if numbers is not None:
        return list(numbers)
    ranks = {name: rank for rank, name in enumerate(sorted(names), start=1)}
    return [ranks[name] for name in names]


def numbers_of_names(names: Sequence[str]) -> list[int] | None:
    """The numbers that names consist of, as `000012`; None unless all are such, and differ."""
    if not all(_NUMBERED_NAME.fullmatch(name) for name in names):
        return None
    numbers = [int(name.replace("_", "")[:20]) for name in names]
    is_sound = len(set(numbers)) == len(numbers) and max(numbers, default=0) < _MAX_ID
    return numbers if is_sound else None


def assign_ids(
    stated: Sequence[Any], splits: Sequence[Sequence[str]]
) -> tuple[list[int | str], int]:
    """Keep ids that are unique in every split; give the others the next free numbers.

    Args:
        stated: what each entry has for an id; None where it has none.
        splits: that each entry is in.

    Returns:
        The ids, and how many were stated and not kept.
    """
    taken: dict[str, set[int | str]] = {}
    ids: list[int | str | None] = []
    for value, own in zip(stated, splits, strict=True):
        is_id = isinstance(value, int | str) and not isinstance(value, bool) and value != ""
        sets = [taken.setdefault(split, set()) for split in own or ("",)]
        if not is_id or any(value in used for used in sets):
            ids.append(None)
            continue
        for used in sets:
            used.add(value)
        ids.append(value)
    free = max((value for value in ids if isinstance(value, int)), default=0) + 1
    complete: list[int | str] = []
    for value in ids:
        complete.append(free if value is None else value)
        free += value is None
    return complete, sum(
        value is None and was is not None for value, was in zip(ids, stated, strict=True)
    )
