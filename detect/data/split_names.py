"""Which of the splits of a data set are read, and the help for names that are not there."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from detect.errors import DetectError
from detect.registry import nearest


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
            there_are = f"there are: {', '.join(there)}" if there else no_splits
            alike = nearest(split, there, count=1)
            hint = f"did you mean {alike[0]!r}? {there_are}" if alike else there_are
            raise DetectError(f"{root}: there is no split {split!r}; {hint}")
    return list(dict.fromkeys(splits))
