"""How long a detection spends on its parts: finding proposals, the network, what comes after it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch

Stage = Literal["proposals", "network", "post-processing"]

_seconds: ContextVar[dict[str, float] | None] = ContextVar("seconds", default=None)


@contextmanager
def timed(name: Stage) -> Iterator[None]:
    """Mark a part of a detection; costs nothing unless somebody measures."""
    seconds = _seconds.get()
    if seconds is None:
        yield
        return
    begin = _now()
    yield
    seconds[name] = seconds.get(name, 0.0) + _now() - begin


@contextmanager
def measured_stages() -> Iterator[dict[str, float]]:
    """Add up the seconds of each part of what is detected inside the block."""
    seconds: dict[str, float] = {}
    token = _seconds.set(seconds)
    try:
        yield seconds
    finally:
        _seconds.reset(token)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
