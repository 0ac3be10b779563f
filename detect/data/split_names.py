"""Which of the splits of a data set are read, and the help for names that are not there."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from detect.errors import DetectError
from detect.registry import hint


def chosen_splits(root: Path, splits: Sequence[str] | None, known: Iterable[str]) -> list[str]:
    """The `splits` that were asked for, or all that are known.

    Raises:
        DetectError: one of them is not there.
    """
    there = list(known)
    no_splits = "the set has no splits; 'detect data split' makes some"
    if splits is None:
        return there
    for split in splits:
        if split not in there:
            remedy = hint(split, there) if there else no_splits
            raise DetectError(f"{root}: there is no split {split!r}; {remedy}")
    return list(dict.fromkeys(splits))
