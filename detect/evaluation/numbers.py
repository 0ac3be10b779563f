"""Numbers that may not exist, such as the AP of a class without objects.

Such a number is nan in memory, None in JSON and a dash in a table, and is left out of means.
"""

import math
from collections.abc import Iterable, Mapping


def ratio(part: float, whole: float) -> float:
    """A share of a whole; nan of nothing."""
    return part / whole if whole else math.nan


def mean_of_defined(values: Iterable[float]) -> float:
    """The mean of the values that are numbers; nan without any."""
    numbers = [value for value in values if not math.isnan(value)]
    return ratio(sum(numbers), len(numbers))


def none_for_nan(value: float) -> float | None:
    """The value as JSON has it."""
    return None if math.isnan(value) else value


def plain(values: Mapping[str, float]) -> dict[str, float | None]:
    """Named values as JSON has them."""
    return {name: none_for_nan(value) for name, value in values.items()}


def as_text(value: float, digits: int = 4, *, sign: str = "") -> str:
    """The value as a table has it; `sign="+"` writes that of a difference, even if positive."""
    return "—" if math.isnan(value) else f"{value:{sign}.{digits}f}"
