"""Coordinates as text, so that converting them there and back gives the same."""

# Sums and differences of decimals carry roundings, as 0.1 + 0.2: beyond these there is only that.
NUM_DECIMALS = 10


def plain_decimal(value: float) -> float | int:
    """The number without the roundings of sums, a whole one without a point.

    >>> plain_decimal(0.1 + 0.2), plain_decimal(7.0)
    (0.3, 7)
    """
    rounded = round(value, NUM_DECIMALS)
    return int(rounded) if rounded == int(rounded) else rounded
