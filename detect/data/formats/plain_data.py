"""Plain data of others' files, as far as it can be written again."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

# No annotation tool nests deeper, and the interpreter's stack bears it.
_MAX_DEPTH = 20


def sound_extras(
    entry: Mapping[str, Any], without: Iterable[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """The keys of an entry that can be kept, and what is wrong with the others.

    >>> sound_extras({"area": float("inf"), "license": 1, "bbox": [1]}, {"bbox"})
    ({'license': 1}, ["'area' holds a number that is not finite"])
    """
    extras, bad = {}, []
    for key, value in entry.items():
        if key in without:
            continue
        fault = _fault_of(value)
        if fault is None:
            extras[key] = value
        else:
            bad.append(f"{key!r:.40} holds {fault}")
    return extras, bad


def _fault_of(value: Any) -> str | None:
    waiting = [(value, 0)]  # no recursion: the depth is what is to be found out
    while waiting:
        inner, depth = waiting.pop()
        if isinstance(inner, float) and not math.isfinite(inner):
            return "a number that is not finite"
        if isinstance(inner, list | dict):
            if depth == _MAX_DEPTH:
                return f"lists nested more than {_MAX_DEPTH} deep"
            values = inner if isinstance(inner, list) else inner.values()
            waiting += [(part, depth + 1) for part in values]
    return None
