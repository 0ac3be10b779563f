"""Inner loops, compiled with numba where it is installed."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any


def compiled(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """`function` compiled, or None where numba is missing or does not fit the other packages.

    Its first call compiles, which takes seconds; the code is cached on disk for the next process
    where numba finds a folder it can write.
    """
    try:
        numba = importlib.import_module("numba")
    except ImportError:  # numba also raises it for a numpy newer than it knows
        return None
    function = inspect.unwrap(function)  # type checkers of tests wrap what they check
    try:
        return numba.njit(function, cache=True)  # type: ignore[no-any-return]
    except RuntimeError:  # no folder for the code: compile again in each process
        return numba.njit(function)  # type: ignore[no-any-return]
