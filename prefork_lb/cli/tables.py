"""Tables on standard output. Cells are never cut, on a terminal, in a pipe or in a file."""
from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

_ENDLESS = 100_000
_ANY_HEIGHT = 100  # rich uses a given width only when it is given a height, too


def print_table(table: Table, folds: str) -> None:
    """Print a table whose cells are strings, as wide as its contents are.

    On a terminal that is narrower the column with the heading `folds` is broken at its spaces. Where that is not enough, the
    terminal breaks the lines.
    """
    console = _console()
    for column in table.columns:
        column.no_wrap = column.header != folds
    width = _width(table)
    if console.is_terminal and width > console.width:
        for column in table.columns:
            if column.header == folds:
                cells = [str(cell) for cell in (column.header, *column.cells)]
                longest_word = max(cell_len(word) for cell in cells for word in cell.split() or [""])
                column.width = max(longest_word, max(map(cell_len, cells)) - (width - console.width))
        width = _width(table)
    # Without a width, rich takes 80 columns where it finds no terminal, or a dumb one, and cuts what is beyond.
    _console(width).print(table)


def _console(width: int | None = None) -> Console:
    """A console that prints text as it is: to rich's markup, `[fd00::1]` would be a tag, and a tag is not printed."""
    return Console(width=width, height=_ANY_HEIGHT if width else None, markup=False, emoji=False, highlight=False)


def _width(table: Table) -> int:
    """The columns of the terminal that the table takes when only cells with a set width are broken."""
    endless = _console(_ENDLESS)
    return Measurement.get(endless, endless.options, table).maximum
