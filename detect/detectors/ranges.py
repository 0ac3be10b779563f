"""Ranges of the numbers in a config's `detector` section."""

from detect.errors import DetectError


def check_at_least_one(**values: int) -> None:
    """Refuse settings below 1."""
    for name, value in values.items():
        if value < 1:
            raise DetectError(f"detector.{name}: expected 1 or more, found {value}")


def check_shares(**values: float) -> None:
    """Refuse settings outside of 0…1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise DetectError(f"detector.{name}: expected 0 to 1, found {value}")
