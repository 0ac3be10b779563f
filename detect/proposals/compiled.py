"""Whether the inner loops are compiled: with numba where it is installed, else plain numpy."""

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Kernels:
    """The functions of `detect.proposals.kernels`, compiled."""

    join_segments: Callable[..., Any]
    count_bins: Callable[..., Any]
    group: Callable[..., Any]


@functools.cache
def compiled_kernels() -> Kernels | None:
    """The compiled kernels, or None where numba is missing or does not fit the other packages.

    The first call of each kernel compiles it, which takes seconds; the code is kept on the disk
    for the next process where numba finds a folder that it may write.
    """
    try:
        numba = importlib.import_module("numba")
    except ImportError:  # numba raises it as well where it meets a newer numpy than it knows
        return None
    from detect.proposals import kernels

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        function = inspect.unwrap(function)  # type checkers of tests wrap what they check
        try:
            return numba.njit(function, cache=True)  # type: ignore[no-any-return]
        except RuntimeError:  # no folder for the code: compile again in each process
            return numba.njit(function)  # type: ignore[no-any-return]

    return Kernels(
        compiled(kernels.join_segments), compiled(kernels.count_bins), compiled(kernels.group)
    )
