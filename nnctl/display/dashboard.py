"""The live dashboard of `train`: progress, growing curves, the best epoch, signs of overfitting.

It is drawn over and over at the lower end of the terminal that standard error is, and only when
the clock says so: never more than ten times a second, and never for more than 1 % of the time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.segment import Segments
from rich.text import Text

from nnctl.display.charts import SIDE_BY_SIDE, SideBySide
from nnctl.display.curves import Row, accuracy_chart, best_mark, loss_chart
from nnctl.display.output import console
from nnctl.display.region import Region
from nnctl.display.summary import duration
from nnctl.display.verdict import describe
from nnctl.errors import printable
from nnctl.training.events import (
    EpochFinished,
    EpochJudged,
    EpochsRestored,
    Event,
    RunFinished,
    RunStarted,
    StepFinished,
    Verdict,
)

INTERVAL = 0.1  # seconds between two redraws, at least
SHARE = 0.01  # of the time, at most, goes into redraws

CHART_HEIGHTS = (4, 12)  # lines of a plot: fewer show nothing, more show no more
CHART_FRAME = 4  # lines around a plot: axis, its labels, up to two of legend


def dashboard() -> Callable[[Event], None]:
    """Return what shows an event, mostly by doing nothing.

    At the end the dashboard is erased if standard output is a terminal too, where the result
    takes its place; else it stays.
    """
    region = Region(console(stderr=True))
    view = View()
    clock, due = time.perf_counter, 0.0

    def show(event: Event) -> None:
        nonlocal due
        started = clock()
        early = started < due
        if early and isinstance(event, StepFinished):
            return
        view.take(event)
        over = isinstance(event, RunFinished)
        if early and not over:
            return
        if over and sys.stdout.isatty():
            region.erase()
        else:
            region.draw(view)
        due = started + max(INTERVAL, (clock() - started) / SHARE)

    return show


class View:
    """The dashboard's content, of the moment it is rendered; a renderable for rich."""

    def __init__(self) -> None:
        self._started: RunStarted | None = None
        self._latest: StepFinished | EpochFinished | None = None
        self._since = time.perf_counter()
        self._rows: list[Row] = []
        self._verdict: Verdict | None = None
        self._drawn: tuple[object, Segments] = None, Segments([])  # the charts, and of what

    def take(self, event: Event) -> None:
        """Note what an event reports."""
        if isinstance(event, StepFinished):
            self._latest = event
        elif isinstance(event, EpochFinished):
            self._latest = event
            self._rows.append(msgspec.to_builtins(event))
        elif isinstance(event, EpochJudged):
            self._verdict = event.verdict
        elif isinstance(event, EpochsRestored):
            self._rows = msgspec.to_builtins(event.epochs)
        elif isinstance(event, RunStarted):
            self._started = event

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw into the width and height of the terminal."""
        started = self._started
        if started is None:
            return
        verdict = ""
        if self._verdict is not None:
            judged = msgspec.to_builtins(self._verdict)
            described = describe(judged, self._rows[-1], started.monitored, ended=False)
            verdict = described.partition("\n")[0]
        top, bottom = Group(*self._top(started, options)), Text(verdict)
        used = len(console.render_lines(top)) + len(console.render_lines(bottom))
        yield top
        yield self._charts(console, options, console.height - 1 - used, started.epochs)
        yield bottom

    def _top(self, started: RunStarted, options: ConsoleOptions) -> Iterator[Text]:
        """Yield the lines of text above the charts."""
        width, epochs = options.max_width, started.epochs
        step = self._latest.step if self._latest else started.step
        steps = epochs * started.steps_per_epoch
        title = f"{started.name}  {started.dataset}  {started.parameters:,} parameters"
        yield Text(printable(title), style="bold", no_wrap=True, overflow="crop")
        epoch = min(step // started.steps_per_epoch + 1, epochs)
        words = f"epoch {epoch}/{epochs}  {step / steps:4.0%}"
        yield Text(f"{words} {bar(step / steps, width - len(words) - 1, options)}")

        facts = [f"step {step:,}/{steps:,}"]
        done = step - started.step
        elapsed = time.perf_counter() - self._since
        if done:
            facts.append(f"{done / elapsed * started.batch_size:,.0f} images/s")
            left = f"{duration((steps - step) * elapsed / done)} left"
            facts.append(left if step < steps else duration(elapsed))
        if self._latest is not None:
            facts.append(f"batch loss {self._latest.batch_loss:.4f}")
            facts.append(f"learning rate {self._latest.learning_rate:.3g}")
        yield Text(flow(facts, width))

        for mark in best_mark(self._rows):
            row = self._rows[int(mark.x) - 1]
            loss, accuracy = (row[f"{started.monitored}_{name}"] for name in ("loss", "accuracy"))
            figures = [f"{started.monitored} loss {loss:.4f}", f"accuracy {accuracy:.2%}"]
            yield Text(flow([mark.name, *figures], width))

    def _charts(
        self, console: Console, options: ConsoleOptions, room: int, epochs: int
    ) -> Segments:
        """Return the charts that fit into so many lines; they are drawn once an epoch."""
        width = options.max_width
        least, most = CHART_HEIGHTS
        beside = width >= 2 * SIDE_BY_SIDE
        count = 2 if beside or room >= 2 * (least + CHART_FRAME) else 1
        height = min(room // (1 if beside else count) - CHART_FRAME, most)
        if not self._rows or height < least:
            return Segments([])
        look = (len(self._rows), width, height, count, options.ascii_only)
        if self._drawn[0] != look:
            charts = [
                make(self._rows, height=height, x_range=(1, epochs))
                for make in (loss_chart, accuracy_chart)
            ]
            lines = console.render_lines(SideBySide(charts[:count]), options, new_lines=True)
            self._drawn = look, Segments(segment for line in lines for segment in line)
        return self._drawn[1]


def flow(parts: Sequence[str], width: int) -> str:
    """Return the parts in as few lines of `width` as they need, none of them broken."""
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + 2 + len(part) > width:
            lines.append("")
        lines[-1] += f"  {part}" if lines[-1] else part
    return "\n".join(lines)


def bar(fraction: float, width: int, options: ConsoleOptions) -> str:
    """Return a progress bar that needs no colour."""
    full, rest = "=-" if options.ascii_only else "━┄"
    done = round(min(max(fraction, 0), 1) * max(width, 0))
    return full * done + rest * (max(width, 0) - done)
