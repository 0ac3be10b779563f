"""The table of backbones."""

import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from detect.backbones.base import Backbone
from detect.registry import Registry

Builder = Callable[[], Backbone]


@dataclass(frozen=True)
class Family:
    """Networks of a library.

    Attributes:
        build: from the name that the library knows.
        names: gives those names.
    """

    build: Callable[[str], Backbone]
    names: Callable[[], Iterable[str]]


class BackboneRegistry(Registry[Builder]):
    """Backbones by name, and families of them by the beginning of a name, as `torchvision/`."""

    def __init__(self) -> None:
        super().__init__("backbone")
        self._families: dict[str, Family] = {}

    def register_family(
        self, prefix: str, names: Callable[[], Iterable[str]]
    ) -> Callable[[Callable[[str], Backbone]], Callable[[str], Backbone]]:
        """Return a decorator that files a function, from the rest of a name to a backbone.

        Args:
            prefix: of the names, such as `torchvision/`.
            names: gives what can stand behind it.
        """

        def file_under_prefix(build: Callable[[str], Backbone]) -> Callable[[str], Backbone]:
            self._families[prefix] = Family(build, names)
            return build

        return file_under_prefix

    def names_like(self, pattern: str) -> list[str]:
        """The names that fit a pattern with `*`, those of families included."""
        known = list(self)
        for prefix, family in self._families.items():
            if pattern.startswith(prefix):
                known += [f"{prefix}{name}" for name in family.names()]
        return fnmatch.filter(known, pattern)

    def __getitem__(self, name: str) -> Builder:
        for prefix, family in self._families.items():
            if name.startswith(prefix):
                return partial(family.build, name.removeprefix(prefix))
        return super().__getitem__(name)


BACKBONES = BackboneRegistry()
