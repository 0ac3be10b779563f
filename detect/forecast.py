"""How long work of several parts will take: said before it and after each part."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TypeVar

from detect.wording import duration

T = TypeVar("T")


class Forecast:
    """Tells from the time that a part of the work took when the rest will be done.

    Args:
        total: the size of the work, in any unit: steps, runs.
        done: what was done before.
        clock: seconds.
        now: the time of the day.
    """

    def __init__(
        self,
        total: float,
        done: float = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.total = total
        self._clock, self._now = clock, now
        self._begun, self._begin = done, clock()
        self._is_first = done == 0

    def seconds_left(self, done: float) -> float | None:
        """Of the work, `done` of which is done; None before anything is known."""
        if done <= self._begun:
            return None
        elapsed = self._clock() - self._begin
        return elapsed / (done - self._begun) * max(self.total - done, 0)

    def in_words(self, done: float) -> str:
        """`about 14 min in all, done at 15:42`, then `about 9 min left, …`; empty at the end."""
        left = self.seconds_left(done)
        if left is None or done >= self.total:
            return ""
        elapsed = self._clock() - self._begin
        about = f"{_roughly(elapsed + left)} in all" if self._is_first else f"{_roughly(left)} left"
        self._is_first = False
        now = self._now()
        end = now + timedelta(seconds=left)
        day = "" if end.date() == now.date() else f"{end:%a} "
        return f"{about}, done at {day}{end:%H:%M}"


def in_turn(
    parts: Mapping[str, T],
    what: str,
    say: Callable[[str], None],
    *,
    size: Callable[[T], float] = lambda _: 1,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], datetime] = datetime.now,
) -> Iterator[tuple[str, T]]:
    """The parts of a work, one after another; says first what they are, then how long they take.

    A single part is not announced: what it says itself is enough.

    Args:
        parts: by name.
        what: they are, in the plural: `runs to judge`.
        say: prints a line.
        size: of a part, in any unit, where some take longer than others.
        clock: seconds.
        now: the time of the day.
    """
    if len(parts) > 1:
        say(f"{len(parts)} {what}:")
        for line in numbered(parts):
            say(line)
    forecast = Forecast(sum(map(size, parts.values())), clock=clock, now=now)
    done = 0.0
    for number, (name, part) in enumerate(parts.items(), 1):
        yield name, part
        done += size(part)
        if words := forecast.in_words(done):
            say(f"{number} of {len(parts)} done: {words}")


def numbered(lines: Mapping[str, object] | list[str]) -> list[str]:
    """`  1. …` before each line."""
    width = len(str(len(lines)))
    return [f"  {number:>{width}}. {line}" for number, line in enumerate(lines, 1)]


def _roughly(seconds: float) -> str:
    """A duration as exact as a guess can be."""
    if seconds < 10:
        return "a few seconds"
    unit = 10 if seconds < 120 else 60 if seconds < 7200 else 600
    return f"about {duration(math.ceil(seconds / unit) * unit)}"
