"""A module that is made of others, such as a dense head, and made again when they have changed."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from torch import nn

Derived = TypeVar("Derived")


class DerivedModule:
    """Keeps what was made of some modules for as long as their tensors stay as they are."""

    def __init__(self) -> None:
        self._version: tuple[int, ...] = ()
        self._made: Any = None

    def of(self, modules: Iterable[nn.Module], make: Callable[[], Derived]) -> Derived:
        """What `make` makes of the modules, made at the first call and after each change.

        A training step changes a tensor in place, which raises its version; moving a module to
        another device replaces its tensors.
        """
        tensors = [t for module in modules for t in module.state_dict(keep_vars=True).values()]
        version = tuple(number for t in tensors for number in (t._version, t.data_ptr()))
        if self._made is None or self._version != version:
            self._version, self._made = version, make()
        made: Derived = self._made
        return made
