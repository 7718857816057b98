"""Lines on a terminal that are drawn over and over."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from time import sleep

from rich.console import Console, RenderableType
from rich.segment import Segment, Segments

from nnctl.display.output import can_redraw, console

REDRAW_SECONDS = 0.5


class Region:
    """The lowest lines of a terminal, which are drawn over and over."""

    def __init__(self, screen: Console) -> None:
        self.screen = screen
        self._widths: list[int] = []  # of the lines that stand there

    def draw(self, content: RenderableType) -> None:
        """Replace what stands there; what the terminal is too low for is left out."""
        screen = self.screen
        lines = screen.render_lines(content, pad=False)[: max(screen.height - 1, 1)]
        with screen.capture() as capture:
            screen.print(
                Segments(part for line in lines for part in [*line, Segment.line()]), end=""
            )
        # Each line wipes what is left of the one it replaces: nothing flickers.
        self._write(self._up() + capture.get().replace("\n", "\x1b[K\n") + "\x1b[J")
        self._widths = [Segment.get_line_length(line) for line in lines]

    def erase(self) -> None:
        """Leave the terminal as if nothing had been drawn."""
        # Line by line: what is cleared from the top of the screen on, some terminals keep above.
        self._write(self._up() + "\x1b[K\n" * self._rows() + "\x1b[K" + self._up())
        self._widths = []

    def _rows(self) -> int:
        """Return how many rows stand there.

        A terminal that has become narrower has wrapped the lines that no longer fit.
        """
        return sum(max(1, math.ceil(line / self.screen.width)) for line in self._widths)

    def _up(self) -> str:
        """Return what moves the cursor to the first row."""
        rows = self._rows()
        return f"\r\x1b[{rows}A" if rows else "\r"

    def _write(self, text: str) -> None:
        self.screen.file.write(text)
        self.screen.file.flush()


def redraw_until(over: Callable[[], bool], content: Callable[[], RenderableType]) -> None:
    """Draw what `content` returns on standard output, again and again until `over` is true.

    Where nothing can be drawn over, it is drawn once, at the end.
    """
    screen = console()
    region = Region(screen) if can_redraw(sys.stdout) else None
    while True:
        last = over()  # asked first: what is drawn then is the end
        if region is not None:
            region.draw(content())
        elif last:
            screen.print(content())
        if last:
            return
        sleep(REDRAW_SECONDS)
