"""Tables that fit the terminal: columns that give way are named, nothing is cut off unseen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from detect.wording import shortened


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        heading: may have several lines.
        justify: numbers stand to the right.
        rank: those of the highest rank are left out first; those of rank 0 always stay.
        least: columns of the screen to which the cells may be shortened in their middle; None
            where they may not.
        breaks: a character after which a cell may go on in the next line, instead of being
            shortened.
    """

    heading: str
    justify: Literal["left", "right"] = "right"
    rank: int = 0
    least: int | None = None
    breaks: str = ""


def print_table(
    console: Console,
    title: str,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    styles: Mapping[int, str] | None = None,
    sections: Sequence[int] = (),
    elsewhere: str = "a wider terminal shows them",
) -> None:
    """Print a table with the columns that there is room for, and name the others below it.

    Args:
        console: decides on the room.
        title: above the table.
        columns: of the table.
        rows: a cell for each column.
        styles: of rows, by number.
        sections: the rows that a line follows.
        elsewhere: where the columns that are left out can be seen.
    """
    natural = [_natural_width(column, [row[i] for row in rows]) for i, column in enumerate(columns)]
    kept = _kept(columns, natural, console.width)
    gap, widths = _fitted(columns, natural, kept, console.width)
    table = Table(
        box=box.SIMPLE,
        padding=(0, gap - 1, 0, 0),  # beside the blank that the box has between columns
        pad_edge=False,
        show_edge=False,
    )
    for i in kept:
        column = columns[i]
        is_number = column.justify == "right"
        table.add_column(
            Text(column.heading), justify=column.justify, overflow="fold", no_wrap=is_number
        )
    for number, row in enumerate(rows):
        cells = [Text(_cell(row[i], widths[i], columns[i].breaks)) for i in kept]
        table.add_row(*cells, style=(styles or {}).get(number), end_section=number in sections)
    console.print(title, style="bold", highlight=False, markup=False)
    console.print(table)
    left_out = [
        column.heading.replace("\n", " ") for i, column in enumerate(columns) if i not in kept
    ]
    if left_out:
        console.print(
            f"Not shown for lack of room: {', '.join(left_out)}; {elsewhere}",
            highlight=False,
            markup=False,
        )


def _cell(text: str, width: int, breaks: str) -> str:
    at = text.rfind(breaks, 0, width) + 1 if breaks and len(text) > width else 0
    if at:
        return f"{text[:at]}\n{_cell(text[at:], width, breaks)}"
    return shortened(text, width)


def _natural_width(column: Column, cells: Sequence[str]) -> int:
    texts = [*column.heading.splitlines(), *cells]
    return max(cell_len(line) for text in texts for line in text.splitlines() or [""])


def _least(column: Column, natural: int) -> int:
    return natural if column.least is None else min(column.least, natural)


def _kept(columns: Sequence[Column], natural: Sequence[int], room: int) -> list[int]:
    """The columns that fit once all that may be is shortened, those of low rank first."""
    kept = list(range(len(columns)))
    ranked = [i for i, column in enumerate(columns) if column.rank]
    for i in sorted(ranked, key=lambda i: columns[i].rank, reverse=True):
        if sum(_least(columns[j], natural[j]) for j in kept) + len(kept) - 1 <= room:
            break
        kept.remove(i)
    return kept


def _fitted(
    columns: Sequence[Column], natural: Sequence[int], kept: Sequence[int], room: int
) -> tuple[int, list[int]]:
    """The gap between columns, and the width of each: the widest that may be are shortened."""
    widths = list(natural)
    needed = sum(widths[i] for i in kept)
    for gap in (2, 1):
        excess = needed + gap * (len(kept) - 1) - room
        if excess <= 0:
            return gap, widths
    while excess > 0:
        longer = [i for i in kept if widths[i] > _least(columns[i], natural[i])]
        if not longer:  # the cells are folded
            break
        widths[max(longer, key=widths.__getitem__)] -= 1
        excess -= 1
    return 1, widths
