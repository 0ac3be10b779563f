"""Whether the inner loops are compiled: with numba where it is installed, else plain numpy."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from detect.ops.compiled import compiled


class Kernels(NamedTuple):
    """The functions of `detect.proposals.kernels`, compiled."""

    join_segments: Callable[..., Any]
    count_bins: Callable[..., Any]
    group: Callable[..., Any]


@functools.cache
def compiled_kernels() -> Kernels | None:
    """The compiled kernels, or None where `detect.ops.compiled.compiled` gives None."""
    from detect.proposals import kernels

    functions = [compiled(getattr(kernels, name)) for name in Kernels._fields]
    return None if None in functions else Kernels(*filter(None, functions))
