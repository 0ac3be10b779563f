"""The table of backbones."""

import fnmatch
from collections.abc import Callable, Iterable
from functools import partial

from detect.backbones.base import Backbone
from detect.registry import Registry

Builder = Callable[[], Backbone]
FamilyBuilder = Callable[[str], Backbone]


class BackboneRegistry(Registry[Builder]):
    """Backbones by name, and families of them by the beginning of a name, as `torchvision/`."""

    def __init__(self) -> None:
        super().__init__("backbone")
        # of each prefix, what builds a network of the library by its name, and lists these names
        self._families: dict[str, tuple[FamilyBuilder, Callable[[], Iterable[str]]]] = {}

    def register_family(
        self, prefix: str, names: Callable[[], Iterable[str]]
    ) -> Callable[[FamilyBuilder], FamilyBuilder]:
        """Return a decorator that files a function, from the rest of a name to a backbone.

        Args:
            prefix: of the names, such as `torchvision/`.
            names: gives what can stand behind it.
        """

        def file_under_prefix(build: FamilyBuilder) -> FamilyBuilder:
            self._families[prefix] = build, names
            return build

        return file_under_prefix

    def names_like(self, pattern: str) -> list[str]:
        """The names that fit a pattern with `*`, those of families included."""
        known = list(self)
        for prefix, (_, names) in self._families.items():
            if pattern.startswith(prefix):
                known += [f"{prefix}{name}" for name in names()]
        return fnmatch.filter(known, pattern)

    def __getitem__(self, name: str) -> Builder:
        for prefix, (build, _) in self._families.items():
            if name.startswith(prefix):
                return partial(build, name.removeprefix(prefix))
        return super().__getitem__(name)


BACKBONES = BackboneRegistry()
