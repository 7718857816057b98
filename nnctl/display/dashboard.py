"""The live dashboard of `train`: progress, growing curves, the best epoch, signs of overfitting.

It is drawn over and over at the lower end of the terminal that standard error is, and only when
the clock says so: never more than ten times a second, and never for more than 1.5 % of the time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import msgspec
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from nnctl.display.charts import SIDE_BY_SIDE, SideBySide
from nnctl.display.curves import Row, accuracy_chart, best_epoch, loss_chart
from nnctl.display.output import console, is_terminal
from nnctl.display.region import Region
from nnctl.display.summary import duration
from nnctl.display.verdict import describe
from nnctl.errors import printable
from nnctl.training.events import EpochFinished, Event, RunFinished, RunStarted, StepFinished
from nnctl.training.trainer import Trainer

INTERVAL = 0.1  # seconds between two redraws, at least
SHARE = 0.015  # of the time, at most, goes into redraws

CHART_HEIGHTS = (4, 12)  # lines of a plot: fewer show nothing, more show no more
CHART_FRAME = 4  # lines around a plot: axis, its labels, up to two of legend


@contextmanager
def dashboard(trainer: Trainer) -> Iterator[Callable[[Event], None]]:
    """Yield what shows an event, mostly by doing nothing.

    At the end the dashboard is erased if standard output is a terminal too, where the result
    takes its place; else it stays.
    """
    region = Region(console(stderr=True))
    view = View(trainer)
    clock, due = time.perf_counter, 0.0

    def show(event: Event) -> None:
        nonlocal due
        started = clock()
        if started < due and not isinstance(event, RunFinished):
            return
        with suppress(OSError):  # a lost terminal stops no training
            if isinstance(event, RunFinished) and is_terminal(sys.stdout):
                region.erase()
            else:
                view.event = event
                region.draw(view)
        now = clock()
        due = started + max(INTERVAL, (now - started) / SHARE)

    yield show


class View:
    """The dashboard's content, of the moment it is rendered; a renderable for rich."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.event: Event | None = None  # the newest one
        self.started: RunStarted | None = None
        self._since = time.perf_counter()
        self._rows: list[Row] = []
        self._verdict = ""
        self._batch_loss: float | None = None
        self._learning_rate: float | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw into the width and height of the terminal."""
        self._take(self.event)
        top = Group(*self._top(options))
        bottom = Text(self._verdict)
        used = len(console.render_lines(top)) + len(console.render_lines(bottom))
        yield top
        yield from self._charts(options.max_width, console.height - 1 - used)
        yield bottom

    def _take(self, event: Event | None) -> None:
        if isinstance(event, RunStarted):
            self.started = event
        if isinstance(event, StepFinished | EpochFinished):
            self._batch_loss, self._learning_rate = event.batch_loss, event.learning_rate
        trainer = self.trainer
        if len(trainer.progress.history) > len(self._rows):
            self._rows = msgspec.to_builtins(trainer.progress.history)
            verdict = msgspec.to_builtins(trainer.verdict())
            self._verdict = describe(verdict, trainer.watched).partition("\n")[0]

    def _top(self, options: ConsoleOptions) -> Iterator[Text]:
        """Yield the lines of text above the charts."""
        trainer, started, step = self.trainer, self.started, self.trainer.progress.step
        settings = trainer.settings
        if started:
            title = f"{started.name}  {started.dataset}  {started.parameters:,} parameters"
            yield Text(printable(title), style="bold", no_wrap=True, overflow="crop")
        epochs, fraction = settings.training.epochs, step / max(trainer.steps, 1)
        epoch = min(trainer.progress.epoch + 1, epochs)
        words = f"epoch {epoch}/{epochs}  {fraction:4.0%}"
        yield Text(f"{words} {bar(fraction, options.max_width - len(words) - 1, options)}")
        facts = [f"step {step:,}/{trainer.steps:,}"]
        done = step - (started.step if started else 0)
        elapsed = time.perf_counter() - self._since
        if done:
            rate = done / elapsed
            facts.append(f"{rate * trainer.batch_size:,.0f} images/s")
            facts.append(f"{duration((trainer.steps - step) / rate)} left")
        yield Text("  ".join(facts))
        if self._batch_loss is not None:
            yield Text(
                f"batch loss {self._batch_loss:.4f}  learning rate {self._learning_rate:.3g}"
            )
        best = best_epoch(self._rows)
        for row in self._rows:
            if row["epoch"] == best:
                loss, accuracy = (row[f"{trainer.watched}_{name}"] for name in ("loss", "accuracy"))
                figures = [f"loss {loss:.4f}", f"accuracy {accuracy:.2%}"]
                yield Text(
                    flow([f"best epoch {best}: {trainer.watched}", *figures], options.max_width)
                )

    def _charts(self, width: int, room: int) -> Sequence[RenderableType]:
        """Return the charts that fit into so many lines."""
        beside = width >= 2 * SIDE_BY_SIDE
        least, most = CHART_HEIGHTS
        count = 2 if beside or room >= 2 * (least + CHART_FRAME) else 1
        height = min(room // (1 if beside else count) - CHART_FRAME, most)
        if not self._rows or height < least:
            return []
        x_range = (1, self.trainer.settings.training.epochs)
        charts = [
            make(self._rows, height=height, x_range=x_range)
            for make in (loss_chart, accuracy_chart)
        ]
        return [SideBySide(charts[:count])]


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
