"""Numbers that may not exist, such as the AP of a class without objects: nan in memory."""

import math
from collections.abc import Sequence


def mean_of_defined(values: Sequence[float]) -> float:
    """The mean of the values that are numbers; nan without any."""
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else float("nan")


def none_for_nan(value: float) -> float | None:
    """The value as JSON has it."""
    return None if math.isnan(value) else value


def as_text(value: float, digits: int = 4) -> str:
    """The value as a table has it; a dash for nan."""
    return "—" if math.isnan(value) else f"{value:.{digits}f}"
