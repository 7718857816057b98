"""Columns, a cell for each run, and how they find room on terminals of every width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table

from nnctl.display.output import console, is_on_terminal, note
from nnctl.display.tables import plain_table

GAP = 2  # cells between two columns
WIDEST = 24  # cells of a value where a column stands for a run


@dataclass(frozen=True)
class Column:
    """A column of a table; where room is short, the one with the highest `order` leaves first."""

    heading: str
    cells: Sequence[str]
    order: int | None = None  # None: stays
    is_text: bool = False

    @property
    def width(self) -> int:
        """The cells that it needs."""
        return max(map(cell_len, (self.heading, *self.cells)))


@dataclass(frozen=True)
class Shrinking:
    """A table that leaves out columns where the terminal is too narrow for all."""

    columns: Sequence[Column]

    def shown(self, width: int) -> list[Column]:
        """Return the columns that stay where the terminal is so wide."""
        shown = list(self.columns)
        while width_of(shown) > width:
            leaving = max(shown, key=lambda column: column.order or 0)
            if not leaving.order:
                break
            shown.remove(leaving)
        return shown

    def left_out(self, width: int) -> list[str]:
        """Return the headings of the columns that leave there."""
        shown = self.shown(width)
        return [column.heading for column in self.columns if column not in shown]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table; what stays and still doesn't fit is folded."""
        shown = self.shown(options.max_width)
        table = plain_table(GAP)
        for column in shown:
            table.add_column(
                column.heading, justify="left" if column.is_text else "right", overflow="fold"
            )
        for cells in zip(*(column.cells for column in shown), strict=True):
            table.add_row(*cells)
        yield table


def print_table(table: Shrinking) -> None:
    """Print a table: whole into a file or a pipe, on a terminal as much as there is room for."""
    if not is_on_terminal():
        console(width=max(console().width, width_of(table.columns))).print(table)
        return
    out = console()
    out.print(table)
    if left_out := table.left_out(out.width):
        note(f"left out for want of room: {', '.join(left_out)}; in a pipe the table is whole")


def turned(columns: Sequence[Column]) -> Table:
    """Return a row for each column: for few runs with many settings."""
    head, *rest = columns
    table = plain_table(GAP)
    table.add_column(head.heading, no_wrap=True)
    for cell in head.cells:
        table.add_column(cell, justify="right", overflow="fold", max_width=WIDEST)
    for column in rest:
        table.add_row(column.heading, *column.cells)
    return table


def turned_width(columns: Sequence[Column]) -> int:
    """Return the cells that `turned` needs."""
    runs = zip(*(column.cells for column in columns), strict=True)
    cells = [min(max(map(cell_len, run)), WIDEST) for run in runs]
    return max(cell_len(column.heading) for column in columns) + sum(GAP + n for n in cells)


def runs_by_value(names: Column, setting: Column) -> Padding:
    """Return a row for each value of a setting: the value and the runs that have it."""
    runs: dict[str, list[str]] = {}
    for name, value in zip(names.cells, setting.cells, strict=True):
        runs.setdefault(value, []).append(name)
    table = plain_table(GAP, show_header=False)
    for value, having in runs.items():
        table.add_row(value, ", ".join(having))
    return Padding(table, (0, 0, 0, GAP))


def width_of(columns: Sequence[Column]) -> int:
    """Return the cells that all of `columns` need beside each other."""
    return sum(column.width + GAP for column in columns) - GAP
