"""The one form of the tables of reports: 80 columns hold each of them."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

# Longer names are folded to this many columns where the numbers need the room.
MIN_NAME_WIDTH = 12


def report_table(
    first: str,
    numbers: Sequence[str | Text],
    *,
    footer: Sequence[str] | None = None,
    title: str | None = None,
    caption: str | None = None,
) -> Table:
    """A table without rows: a column of names at the left, columns of numbers at the right.

    Args:
        first: header of the column of names.
        numbers: headers of the columns of numbers, which may have line breaks.
        footer: of all columns; what is missing at the end stays empty.
        title: above the table.
        caption: below it.
    """
    table = Table(
        box=box.SIMPLE,
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
        show_footer=footer is not None,
        collapse_padding=True,
        pad_edge=False,
    )
    footers = [*(footer or ()), *[""] * (1 + len(numbers))]
    table.add_column(first, footer=footers[0], overflow="fold", min_width=MIN_NAME_WIDTH)
    for header, below in zip(numbers, footers[1:], strict=False):
        table.add_column(header, footer=below, justify="right", overflow="fold")
    return table
