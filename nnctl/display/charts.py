"""Line charts for the terminal: curves in braille dots, or in ASCII where nothing else gets out.

    chart = Chart("loss", [Series("train", [(1, 0.9), (2, 0.4)])], marks=[Mark(2, "best epoch 2")])
    console().print(chart)

A chart is as wide as it is given room for. Series differ in dashes (ASCII: in characters), and
above four also in a letter at their ends, so that no colour is needed to tell them apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.table import Table

Point = tuple[float, float | None]

LARGEST = 8e307  # differences of numbers up to it are finite
SMALLEST = 1e-290  # what is nearer to zero is drawn as if it were zero apart

MAIN_STYLE, QUIET_STYLE = Style(bold=True), Style(dim=True)
COLOURS = [Style(color=name) for name in ("cyan", "magenta", "green", "yellow", "blue", "red")]
DASHES = ("1", "100", "11110000", "11100100")  # dots on and off along a line
LETTERS = "abcdefghijklmnopqrstuvwxyz"
MARKERS = "*o+x#@%&" + LETTERS  # in ASCII

SAMPLE = 4  # cells of a line in the legend
SIDE_BY_SIDE = 38  # cells that a chart needs beside another


@dataclass(frozen=True)
class Series:
    """One curve, its points in order of x; None and numbers that are not finite leave a gap."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Mark:
    """A vertical line at `x`, named in the legend."""

    x: float
    name: str


@dataclass(frozen=True)
class Chart:
    """Curves over a common x axis; a renderable for rich.

    `height` counts the lines of the plot; title, legend and x axis come on top. `x_range` is
    shown even where no point lies yet. On a log axis, numbers that are not positive are missing.
    """

    title: str
    series: Sequence[Series]
    marks: Sequence[Mark] = ()
    x_label: str = "epoch"
    log_x: bool = False
    log_y: bool = False
    height: int = 10
    x_range: tuple[float, float] | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the chart as wide as `options` allow."""
        width = options.max_width
        canvas_kind = AsciiCanvas if options.ascii_only else BrailleCanvas
        glyphs = ASCII if options.ascii_only else UNICODE
        height = max(self.height, 1)
        x_scale, y_scale = self._scales()
        y_ticks = y_scale.ticks(max(2, (height + 1) // 2))
        gutter = _gutter(y_ticks.values(), self.x_label, width)
        columns = max(width - gutter - 2, 1) if gutter else width
        pens = make_pens(len(self.series), options.ascii_only)

        canvas = canvas_kind(columns, height)
        for pen, series in zip(pens, self.series, strict=True):
            for line in lines(series.points, x_scale, y_scale):
                canvas.draw(line, pen)
        for pen, series in zip(pens, self.series, strict=True):
            if pen.letter:
                ends = (point for line in lines(series.points, x_scale, y_scale) for point in line)
                canvas.write_at_end(list(ends), pen)
        for mark in self.marks:
            if (position := x_scale.position(mark.x)) is not None and 0 <= position <= 1:
                canvas.rule(position, glyphs.mark)

        entries = [(self.title, MAIN_STYLE, "")] if self.title else []
        for pen, series in zip(pens, self.series, strict=True):
            sample = canvas_kind(SAMPLE, 1)
            sample.draw([(0.0, 0.5), (1.0, 0.5)], pen)
            text = "".join(character for character, _ in sample.row(0))
            entries.append((f"{pen.letter} {text}".strip(), pen.style, series.name))
        entries += [(glyphs.mark, QUIET_STYLE, mark.name) for mark in self.marks]
        yield from _flow(entries, width)

        labels = {
            round((1 - (y_scale.position(tick) or 0.0)) * (height - 1)): label
            for tick, label in y_ticks.items()
        }
        for row in range(height):
            if gutter:
                axis = glyphs.y_tick if row in labels else glyphs.y_axis
                yield Segment(f"{labels.get(row, ''):>{gutter}} {axis}", QUIET_STYLE)
            for style, run in groupby(canvas.row(row), key=lambda cell: cell[1]):
                yield Segment("".join(character for character, _ in run), style)
            yield Segment.line()
        if gutter:
            yield from _x_axis(x_scale, self.x_label, gutter, columns, glyphs)

    def _scales(self) -> tuple[Scale, Scale]:
        points = [point for series in self.series for point in series.points]
        xs = [x for x, _ in points] + [mark.x for mark in self.marks]
        if self.x_range:
            xs += self.x_range
        ys = [y for _, y in points if y is not None]
        whole = not self.log_x and all(float(x).is_integer() for x in xs if math.isfinite(x))
        return fit(xs, log=self.log_x, whole=whole), fit(ys, log=self.log_y)


@dataclass(frozen=True)
class SideBySide:
    """Charts in a row where each has room for it, else one below the other."""

    charts: Sequence[Chart]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the charts in the room that `options` give."""
        count = len(self.charts)
        if options.max_width < count * SIDE_BY_SIDE:
            yield from self.charts
            return
        grid = Table.grid(expand=True, padding=(0, 1))
        for _ in self.charts:
            grid.add_column(ratio=1, vertical="bottom")  # legends may differ in height
        grid.add_row(*self.charts)
        yield grid


# Scales: from values to positions, and to round numbers.


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high`, which lie at the positions 0 and 1."""

    low: float
    high: float
    log: bool = False
    whole: bool = False  # only whole numbers make sense as ticks

    def position(self, value: float | None) -> float | None:
        """Return where a value lies, None for one that can't be drawn."""
        if value is None or not math.isfinite(value) or (self.log and value <= 0):
            return None
        value = min(max(value, -LARGEST), LARGEST)
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return (math.log(value) - low) / (high - low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int) -> dict[float, str]:
        """Return at most so many round numbers between the ends, each with its label."""
        if self.log:
            numbers = round_log_numbers(self.low, self.high, most)
            if len(numbers) > 1:
                return {number: short(number) for number in numbers}
        numbers = round_numbers(self.low, self.high, most, whole=self.whole)
        return dict(zip(numbers, alike(numbers), strict=True))


def fit(values: Iterable[float], *, log: bool = False, whole: bool = False) -> Scale:
    """Return the scale on which all of `values` that can be drawn have room."""
    finite = [
        min(max(value, -LARGEST), LARGEST)
        for value in values
        if math.isfinite(value) and (value > 0 or not log)
    ]
    if not finite:
        return Scale(1.0, 10.0, log, whole) if log else Scale(0.0, 1.0, log, whole)
    low, high = min(finite), max(finite)
    if log:
        low = max(low, SMALLEST)
        high = max(high, low)
        if math.log(high / low) < 1e-9:
            low, high = low / 2, high * 2
    elif high - low <= max(1e-12 * max(abs(low), abs(high)), SMALLEST):
        reach = 0.1 * abs(low)
        if whole or reach < SMALLEST:
            reach = max(1.0, 1e-6 * abs(low))
        low, high = max(low - reach, -LARGEST), min(high + reach, LARGEST)
    return Scale(low, high, log, whole)


def round_numbers(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Return the multiples of 1, 2 or 5 times a power of ten from `low` to `high`.

    The finest step is taken that gives no more than `most` of them.

    >>> round_numbers(0.07, 0.43, 5)
    [0.1, 0.2, 0.3, 0.4]
    """
    exponent = math.floor(math.log10((high - low) / max(most, 1))) - 1
    if whole:
        exponent = max(exponent, 0)
    while True:
        for factor in (1, 2, 5):
            # Integers as long as possible: 3 / 10 is 0.3, which 3 * 0.1 is not.
            up, down = factor * 10 ** max(exponent, 0), 10 ** max(-exponent, 0)
            first = math.ceil(low / up * down - 1e-9)
            last = math.floor(high / up * down + 1e-9)
            if last - first < most:
                return [multiple * up / down for multiple in range(first, last + 1)]
        exponent += 1


def round_log_numbers(low: float, high: float, most: int) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten from `low` to `high`, or as few as `most` allows.

    >>> round_log_numbers(0.04, 3, 9)
    [0.05, 0.1, 0.2, 0.5, 1.0, 2.0]
    >>> round_log_numbers(0.04, 300, 4)
    [0.1, 1.0, 10.0, 100.0]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = 1
    while True:
        for factors in ((1, 2, 5), (1,)) if every == 1 else ((1,),):
            numbers = [
                float(f"{factor}e{exponent}")
                for exponent in range(first, last + 1)
                if exponent % every == 0
                for factor in factors
            ]
            numbers = [x for x in numbers if low * (1 - 1e-9) <= x <= high * (1 + 1e-9)]
            if len(numbers) <= most:
                return numbers
        every += 1


def short(number: float) -> str:
    """Return a number in few characters.

    >>> short(0.05), short(1e-12), short(2e6)
    ('0.05', '1e-12', '2e6')
    """
    plain = f"{number:g}"
    mantissa, _, exponent = f"{number:e}".partition("e")
    scientific = f"{float(mantissa):g}e{int(exponent)}"
    return scientific if "e" in plain or len(plain) > len(scientific) + 1 else plain


def alike(numbers: Sequence[float]) -> list[str]:
    """Return the numbers with the same decimals, as few as tell them exactly.

    >>> alike([0.9, 0.95, 1.0]), alike([0.0, 2e7])
    (['0.90', '0.95', '1.00'], ['0e7', '2e7'])
    """
    largest = max(map(abs, numbers), default=0.0)
    if largest == 0:
        return ["0" for _ in numbers]
    # Up to a million as it is, beyond with the power of ten that all of them share.
    power = 0 if 1e-4 <= largest < 1e6 else math.floor(math.log10(largest) + 1e-9)
    for decimals in range(16):
        texts = [f"{number / 10.0**power:.{decimals}f}" for number in numbers]
        shown = (float(text) * 10.0**power for text in texts)
        if all(
            math.isclose(*pair, abs_tol=1e-9 * largest) for pair in zip(numbers, shown, strict=True)
        ):
            break
    return [f"{text}e{power}" for text in texts] if power else texts


# Pens and canvases.


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


Place = tuple[float, float]  # x from the left, y from the bottom, each 0..1


def lines(points: Sequence[Point], x_scale: Scale, y_scale: Scale) -> Iterator[list[Place]]:
    """Yield the unbroken parts of a series as places on the canvas."""
    line: list[Place] = []
    for x, y in points:
        across, up = x_scale.position(x), y_scale.position(y)
        if across is not None and up is not None:
            line.append((across, up))
        elif line:
            yield line
            line = []
    if line:
        yield line


Cell = tuple[int, int]  # column, row; also a dot's place in a finer grid


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
        for place in reversed(line):
            x, y = self._dot(place)
            cell = x // self.dots_across, y // self.dots_down
            if cell not in self.written:
                self.written[cell], self.styles[cell] = pen.letter, pen.style
                return

    def rule(self, position: float, character: str) -> None:
        """Draw a vertical line behind everything else."""
        column = round(position * (self.columns - 1))
        for row in range(self.rows):
            if (column, row) not in self.styles:
                self.written[column, row], self.styles[column, row] = character, QUIET_STYLE

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


# What stands around the plot.


@dataclass(frozen=True)
class Glyphs:
    """The characters of axes and marks."""

    y_axis: str
    y_tick: str
    x_axis: str
    x_tick: str
    corner: str
    mark: str


UNICODE = Glyphs("│", "┤", "─", "┬", "└", "┊")
ASCII = Glyphs("|", "+", "-", "+", "+", ":")


def _gutter(labels: Iterable[str], x_label: str, width: int) -> int:
    """Return the cells for the labels on the left, 0 where the plot would have too few left."""
    needed = max(map(cell_len, [*labels, x_label]))
    return needed if needed + 2 <= width // 2 else 0


def _x_axis(
    scale: Scale, x_label: str, gutter: int, columns: int, glyphs: Glyphs
) -> Iterator[Segment]:
    """Yield the line of the x axis and the line of its labels."""
    most = max(2, columns // 8)
    ticks = scale.ticks(most)
    axis = [glyphs.x_axis] * columns
    labels = [" "] * (columns + 2)  # two cells more on the left, below the corner
    free = 0
    for tick, label in ticks.items():
        column = round((scale.position(tick) or 0.0) * (columns - 1))
        start = min(max(column + 2 - len(label) // 2, 1), len(labels) - len(label))
        if start < free:
            continue
        axis[column] = glyphs.x_tick
        labels[start : start + len(label)] = label
        free = start + len(label) + 1
    yield Segment(f"{'':{gutter}} {glyphs.corner}{''.join(axis)}\n", QUIET_STYLE)
    yield Segment(f"{x_label:>{gutter}}{''.join(labels).rstrip()}\n", QUIET_STYLE)


def _flow(entries: Sequence[tuple[str, Style, str]], width: int) -> Iterator[Segment]:
    """Yield title and legend, (sample, its style, name) each, in as few lines as they need."""
    used = 0
    for sample, style, name in entries:
        room = cell_len(sample) + (1 + cell_len(name) if name else 0)
        if used and used + 2 + room > width:
            yield Segment.line()
            used = 0
        if used:
            yield Segment("  ")
            used += 2
        sample = set_cell_size(sample, min(cell_len(sample), width - used))
        yield Segment(sample, style)
        used += cell_len(sample)
        if name and used + 1 < width:
            name = set_cell_size(name, min(cell_len(name), width - used - 1))
            yield Segment(f" {name}")
            used += 1 + cell_len(name)
    if entries:
        yield Segment.line()
