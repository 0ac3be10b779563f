"""Numbers as text, so that reading gives back the same."""

from collections.abc import Callable

_MAX_DECIMALS = 12


def plain_number(value: float) -> float | int:
    """A whole number without a point, any other as it is: Python writes the shortest of it.

    >>> plain_number(7.0), plain_number(7.25)
    (7, 7.25)
    """
    return int(value) if value == int(value) else value


def shortest_number(value: float, is_same: Callable[[float], bool]) -> float | int:
    """The number of fewest decimals near `value` for which `is_same` holds; else `value` itself.

    A sum or difference carries a rounding, as in 0.1 + 0.2; the number that was meant is shorter.

    >>> shortest_number(0.1 + 0.2, lambda number: abs(number - 0.3) < 1e-9)
    0.3
    >>> shortest_number(7.0, lambda number: number == 7)
    7
    """
    for decimals in range(_MAX_DECIMALS + 1):
        number = round(value, decimals)
        if is_same(number):
            return plain_number(number)
    return plain_number(value)
