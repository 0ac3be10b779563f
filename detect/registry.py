"""A name → object table that refuses duplicates and helps with misspelled names."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from detect.errors import DetectError

T = TypeVar("T")

# Names that a hint lists at most.
MAX_LISTED = 40


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` of the `known` names that look like `name`, and hardly less than the best."""
    wanted = name.lower()
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(wanted, by_lower_case, n=count, cutoff=0.5)
    likeness = [difflib.SequenceMatcher(None, match, wanted).ratio() for match in matches]
    return [
        by_lower_case[match]
        for match, ratio in zip(matches, likeness, strict=True)
        if ratio > likeness[0] - 0.1
    ]


def hint(name: str, known: Iterable[str], prefix: str = "") -> str:
    """What to say of an unknown name: the known ones that look like it, or else which there are.

    The known names are shown behind `prefix`.

    >>> hint("circel", ["circle", "square"])
    "did you mean 'circle'?"
    >>> hint("xyz", ["circle", "square"])
    'there are: circle, square'
    """
    names = list(known)
    alike = nearest(name, names)
    if alike:
        return f"did you mean {' or '.join(repr(prefix + match) for match in alike)}?"
    names = [prefix + known_name for known_name in names]
    more = ", …" if len(names) > MAX_LISTED else ""
    return f"there are: {', '.join(names[:MAX_LISTED])}{more}" if names else "there are none"


class Registry(Generic[T]):
    """Objects of one kind by name.

    >>> shapes = Registry[type]("shape")
    >>> @shapes.register("circle")
    ... class Circle: ...
    >>> shapes["circle"].__name__
    'Circle'
    >>> shapes["circel"]
    Traceback (most recent call last):
        ...
    detect.errors.DetectError: unknown shape 'circel'; did you mean 'circle'?
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files its object under `name`.

        Raises:
            ValueError: `name` is taken already.
        """
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered already")

        def file_under_name(entry: T) -> T:
            self._entries[name] = entry
            return entry

        return file_under_name

    def __getitem__(self, name: str) -> T:
        if name in self._entries:
            return self._entries[name]
        raise DetectError(f"unknown {self.kind} {name!r}; {hint(name, sorted(self))}")

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
