"""A name → object table that refuses duplicates and helps with misspelled names."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from detect.errors import DetectError

T = TypeVar("T")


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return up to `count` of the `known` names that look like `name`, the most alike first."""
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), by_lower_case, n=count, cutoff=0.5)
    return [by_lower_case[match] for match in matches]


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
        alike = " or ".join(repr(match) for match in nearest(name, self._entries))
        hint = f"did you mean {alike}?" if alike else f"there are: {', '.join(sorted(self))}"
        raise DetectError(f"unknown {self.kind} {name!r}; {hint}")

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
