"""Tables of figures, which want all of their columns or none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

UNLIMITED = 10_000  # columns
GAPS = (2, 1)  # cells between columns: where there is room, and where there is little
NOTHING = "-"  # where a figure has no meaning


def plain_table(gap: int = 2, **options: Any) -> Table:
    """Return an empty table without lines, its columns `gap` cells apart."""
    return Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold", **options)


def figures(headings: Sequence[str], rows: Iterable[Sequence[str]], gap: int = 2) -> Table:
    """Return a table without lines: names at the left, figures after them, `gap` apart."""
    table = plain_table(gap)
    for heading in headings:
        table.add_column(heading, justify="right" if table.columns else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def fits(table: Table, console: Console, options: ConsoleOptions) -> bool:
    """Return whether `table` can be drawn without cutting anything off."""
    needed = Measurement.get(console, options.update(width=UNLIMITED), table).maximum
    return needed <= options.max_width


@dataclass(frozen=True)
class Rows:
    """A table; where it doesn't fit, each row as lines of its own."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table, or leave out of the lines what has no meaning."""
        for gap in GAPS:
            table = figures(self.headings, self.rows, gap)
            if fits(table, console, options):
                yield table
                return
        for name, *cells in self.rows:
            yield Text(name)
            for heading, cell in zip(self.headings[1:], cells, strict=True):
                if cell != NOTHING:
                    yield Text(f"  {heading} {cell}")
