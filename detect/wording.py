"""Words for the terminal: counts with their nouns, durations, names that fit."""

import re
from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """`1 image`, `0 boxes`, `1,200 classes`: a number with its noun, which is given in singular."""
    return f"{number:,} {noun if number == 1 else _plural(noun)}"


def duration(seconds: float) -> str:
    """`0.4 s`, `45 s`, `2 min 3 s`, `1 h 12 min`."""
    if seconds < 9.95:  # what rounds to 10.0 is 10 s
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    if not minutes:
        return f"{left} s"
    if minutes < 60:
        return f"{minutes} min {left} s" if left else f"{minutes} min"
    hours, left = divmod(round(seconds / 60), 60)
    return f"{hours} h {left} min" if left else f"{hours} h"


def listed(texts: Sequence[str], limit: int = 10) -> str:
    """`a, b, c`; of more than `limit`, the first ones `and 70 more`."""
    shown = ", ".join(texts[:limit])
    return shown if len(texts) <= limit else f"{shown} and {len(texts) - limit:,} more"


def shortened(text: str, width: int) -> str:
    """The text, or where it is longer than `width` its begin and end: `layer1.…conv2`."""
    if len(text) <= width:
        return text
    behind = (width - 1) // 2
    return f"{text[: width - 1 - behind]}…{text[len(text) - behind :]}"


def _plural(noun: str) -> str:
    if re.search(r"(s|x|(?<!epo)ch|sh)$", noun):
        return f"{noun}es"
    return re.sub("(?<![aeiou])y$", "ie", noun) + "s"
