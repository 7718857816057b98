"""Tables of figures, which want all of their columns or none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table

UNLIMITED = 10_000  # columns


def figures(headings: Sequence[str], rows: Iterable[Sequence[str]], gap: int = 2) -> Table:
    """Return a table without lines: names at the left, figures after them, `gap` apart."""
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right" if table.columns else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def fits(table: Table, console: Console, options: ConsoleOptions) -> bool:
    """Return whether `table` can be drawn without cutting anything off."""
    needed = Measurement.get(console, options.update(width=UNLIMITED), table).maximum
    return needed <= options.max_width
