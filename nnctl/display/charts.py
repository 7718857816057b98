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
from itertools import groupby

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.table import Table

from nnctl.display.canvas import (
    QUIET_STYLE,
    AsciiCanvas,
    BrailleCanvas,
    Canvas,
    Pen,
    Place,
    make_pens,
)
from nnctl.display.scales import Scale, fit

Point = tuple[float, float | None]
Entry = tuple[str, Style, str]  # of a legend: sample, its style, name

TITLE_STYLE = Style(bold=True)
BARS, ASCII_BARS = " ▁▂▃▄▅▆▇█", " _-:=+*#@"
SAMPLE = 4  # cells of a line in the legend
SIDE_BY_SIDE = 38  # cells that a chart needs beside another
LONGEST_LABEL = 15  # characters of the name of an axis


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
        width, height = options.max_width, max(self.height, 1)
        kind = AsciiCanvas if options.ascii_only else BrailleCanvas
        glyphs = ASCII if options.ascii_only else UNICODE
        pens = make_pens(len(self.series), options.ascii_only)
        x_scale, y_scale = self.scales()
        y_ticks = y_scale.ticks(max(2, (height + 1) // 2))
        x_label = self.x_label[:LONGEST_LABEL]
        gutter = _gutter(y_ticks.values(), x_label, width)
        canvas = kind(max(width - gutter - 2, 1) if gutter else width, height)
        self._draw(canvas, pens, x_scale, y_scale, glyphs)

        yield from _flow(self._legend(kind, pens, glyphs), width)
        labels = {
            canvas.cell((0, y_scale.position(tick) or 0))[1]: label
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
            yield from _x_axis(x_scale, x_label, gutter, canvas, glyphs)

    def _draw(
        self,
        canvas: Canvas,
        pens: Sequence[Pen],
        x_scale: Scale,
        y_scale: Scale,
        glyphs: Glyphs,
    ) -> None:
        """Draw the curves, then the letters at their ends, then the marks behind all that."""
        curves = [list(lines(series.points, x_scale, y_scale)) for series in self.series]
        for pen, curve in zip(pens, curves, strict=True):
            for line in curve:
                canvas.draw(line, pen)
        for pen, curve in zip(pens, curves, strict=True):
            if pen.letter:
                canvas.write_at_end([place for line in curve for place in line], pen)
        for mark in self.marks:
            if (position := x_scale.position(mark.x)) is not None:
                canvas.rule(position, glyphs.mark)

    def _legend(self, kind: type[Canvas], pens: Sequence[Pen], glyphs: Glyphs) -> list[Entry]:
        """Return the title, a sample of each pen with its name, and the marks."""
        entries: list[Entry] = [(self.title, TITLE_STYLE, "")] if self.title else []
        for pen, series in zip(pens, self.series, strict=True):
            sample = kind(SAMPLE, 1)
            sample.draw([(0, 0.5), (1, 0.5)], pen)
            text = "".join(character for character, _ in sample.row(0))
            entries.append((f"{pen.letter} {text}".strip(), pen.style, series.name))
        return entries + [(glyphs.mark, QUIET_STYLE, mark.name) for mark in self.marks]

    def scales(self) -> tuple[Scale, Scale]:
        """Return the scales of x and y."""
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


def sparkline(counts: Sequence[int], ascii_only: bool) -> str:
    """Return a bar for each count, one cell wide; the largest is full, only 0 is empty.

    >>> sparkline([0, 1, 40, 80], ascii_only=False)
    ' ▁▄█'
    """
    bars = ASCII_BARS if ascii_only else BARS
    full = max(counts, default=0) or 1
    return "".join(bars[math.ceil(count / full * (len(bars) - 1))] for count in counts)


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


def _gutter(labels: Iterable[str], x_label: str, width: int) -> int:
    """Return the cells for the labels on the left, 0 where the plot would have too few left."""
    needed = max(map(cell_len, [*labels, x_label]))
    return needed if needed + 2 <= width // 2 else 0


def _x_axis(
    scale: Scale, x_label: str, gutter: int, canvas: Canvas, glyphs: Glyphs
) -> Iterator[Segment]:
    """Yield the line of the x axis and the line of its labels."""
    columns = canvas.columns
    ticks = scale.ticks(max(2, columns // 8))
    axis = [glyphs.x_axis] * columns
    labels = [" "] * (columns + 2)  # two cells more on the left, below the corner
    free = 0
    for tick, label in ticks.items():
        column, _ = canvas.cell((scale.position(tick) or 0, 0))
        start = min(max(column + 2 - len(label) // 2, 1), len(labels) - len(label))
        if start < free:
            continue
        axis[column] = glyphs.x_tick
        labels[start : start + len(label)] = label
        free = start + len(label) + 1
    yield Segment(f"{'':{gutter}} {glyphs.corner}{''.join(axis)}\n", QUIET_STYLE)
    yield Segment(f"{x_label:>{gutter}}{''.join(labels).rstrip()}\n", QUIET_STYLE)


def _flow(entries: Sequence[Entry], width: int) -> Iterator[Segment]:
    """Yield title and legend in as few lines as they need."""
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
