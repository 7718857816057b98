"""Pens and a canvas of characters to draw lines on: dots in braille, or markers in ASCII."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.style import Style

QUIET_STYLE = Style(dim=True)
COLOURS = [Style(color=name) for name in ("cyan", "magenta", "green", "yellow", "blue", "red")]
DASHES = ("1", "100", "11110000", "11100100")  # dots on and off along a line
LETTERS = "abcdefghijklmnopqrstuvwxyz"
MARKERS = "*o+x#@%&" + LETTERS  # in ASCII

Place = tuple[float, float]  # x from the left, y from the bottom, each 0..1
Cell = tuple[int, int]  # column, row; also a dot's place in a finer grid


@dataclass(frozen=True)
class Pen:
    """How a series is drawn."""

    dash: str  # on a braille canvas
    marker: str  # on an ASCII canvas
    letter: str  # at the end of the line; may be empty
    style: Style


def make_pens(count: int, ascii_only: bool) -> list[Pen]:
    """Return `count` pens that can be told apart without colour."""
    lettered = count > len(DASHES) and not ascii_only
    return [
        Pen(
            dash=DASHES[index % len(DASHES)],
            marker=MARKERS[index % len(MARKERS)],
            letter=LETTERS[index % len(LETTERS)] if lettered else "",
            style=COLOURS[index % len(COLOURS)],
        )
        for index in range(count)
    ]


class Canvas:
    """A grid of cells to draw on; subclasses say what a dot is."""

    dots_across = 1  # in a cell
    dots_down = 1
    dashed = False

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.written: dict[Cell, str] = {}
        self.styles: dict[Cell, Style] = {}

    def draw(self, line: Sequence[Place], pen: Pen) -> None:
        """Draw a line through places; a single place becomes a dot that can be seen."""
        dots = [self._dot(place) for place in line]
        if len(set(dots)) == 1:
            (x, y) = dots[0]
            for dx in range(self.dots_across):
                for dy in range(self.dots_across):
                    self._set(max(x - dx, 0), max(y - dy, 0), pen)
            return
        dash = pen.dash if self.dashed else "1"
        for travelled, dot in enumerate(_path(dots)):
            if dash[travelled % len(dash)] == "1":
                self._set(*dot, pen)

    def write_at_end(self, line: Sequence[Place], pen: Pen) -> None:
        """Write the pen's letter at the last place of a line where no other letter stands."""
        for cell in map(self.cell, reversed(line)):
            if cell not in self.written:
                self.written[cell], self.styles[cell] = pen.letter, pen.style
                return

    def rule(self, position: float, character: str) -> None:
        """Draw a vertical line behind everything else."""
        column, _ = self.cell((position, 0))
        for row in range(self.rows):
            if (column, row) not in self.styles:
                self.written[column, row], self.styles[column, row] = character, QUIET_STYLE

    def cell(self, place: Place) -> Cell:
        """Return the cell that a place lies in."""
        x, y = self._dot(place)
        return x // self.dots_across, y // self.dots_down

    def row(self, row: int) -> list[tuple[str, Style | None]]:
        """Return the cells of a row, from the left to the last that isn't blank, with styles."""
        last = max((column for column, at in self.styles if at == row), default=-1)
        cells = ((column, row) for column in range(last + 1))
        return [
            (self.written.get(cell) or self._character(cell), self.styles.get(cell))
            for cell in cells
        ]

    def _dot(self, place: Place) -> tuple[int, int]:
        across, up = (min(max(part, 0.0), 1.0) for part in place)
        x = round(across * (self.columns * self.dots_across - 1))
        y = round((1 - up) * (self.rows * self.dots_down - 1))
        return x, y

    def _set(self, x: int, y: int, pen: Pen) -> None:
        self.styles[x // self.dots_across, y // self.dots_down] = pen.style

    def _character(self, cell: Cell) -> str:
        raise NotImplementedError


def _path(dots: Sequence[Cell]) -> Iterator[Cell]:
    """Yield all dots on the way from the first of `dots` to the last."""
    for (x0, y0), (x1, y1) in pairwise(dots):
        length = max(abs(x1 - x0), abs(y1 - y0))
        for step in range(length):
            yield x0 + round((x1 - x0) * step / length), y0 + round((y1 - y0) * step / length)
    yield dots[-1]


class AsciiCanvas(Canvas):
    """One dot in a cell, drawn as the pen's marker."""

    def _set(self, x: int, y: int, pen: Pen) -> None:
        super()._set(x, y, pen)
        self.written[x, y] = pen.marker

    def _character(self, cell: Cell) -> str:
        return " "


class BrailleCanvas(Canvas):
    """Two by four dots in a cell."""

    dots_across = 2
    dots_down = 4
    dashed = True
    BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # from U+2800

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__(columns, rows)
        self._bits: dict[Cell, int] = {}

    def _set(self, x: int, y: int, pen: Pen) -> None:
        super()._set(x, y, pen)
        cell = x // 2, y // 4
        self._bits[cell] = self._bits.get(cell, 0) | self.BITS[y % 4][x % 2]

    def _character(self, cell: Cell) -> str:
        bits = self._bits.get(cell)
        return chr(0x2800 + bits) if bits else " "
