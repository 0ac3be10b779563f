"""What the commands' output needs of the stream it goes to: an encoding, and a width for logs."""

import codecs
import os
import sys
import unicodedata

from rich.console import Console

# Of lines in a file or a pipe, where nothing says how many columns there are: tables fit in whole.
LOG_WIDTH = 132
PLAIN = {
    "×": "x", "–": "-", "—": "-", "−": "-", "…": "...", "≥": ">=", "≤": "<=", "→": "->", "±": "+-",
    "·": ".", "“": '"', "”": '"', "‘": "'", "’": "'", "²": "^2", "━": "-", "─": "-", "│": "|",
}  # fmt: skip


def fit_output(*consoles: Console) -> None:
    """Print what the terminal's encoding lacks in plainer signs, and make lines of logs wide.

    Signs such as × and ≥ have a stand-in; letters of names, and bytes that are no text, are written
    as their code points, so that nothing is lost.
    """
    codecs.register_error("plainer", _plainer)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="plainer")
    for console in consoles:
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console.width = LOG_WIDTH


def say(console: Console, *lines: str, style: str | None = None) -> None:
    """Print lines as they are: no markup, no colors by content, no breaks but the terminal's."""
    for line in lines:
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def _plainer(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(map(_stand_in, signs)), error.end


def _stand_in(sign: str) -> str:
    if sign in PLAIN:
        return PLAIN[sign]
    if unicodedata.name(sign, "").startswith(("BOX DRAWINGS", "BRAILLE PATTERN", "BULLET")):
        return "*" if "BRAILLE" in unicodedata.name(sign) else "+"
    return sign.encode("ascii", "backslashreplace").decode()
