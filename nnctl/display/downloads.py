"""What a person sees while data are fetched: a bar on a terminal, lines elsewhere.

Hides rich, which is imported when the first byte is asked for: a warm cache costs nothing here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from nnctl.datasets import FetchProgress
from nnctl.display.output import can_redraw

if TYPE_CHECKING:
    import rich.progress

NARROW = 66  # columns; below, a bar leaves no room for what is said beside it


@contextmanager
def download_progress(*, quiet: bool = False) -> Iterator[FetchProgress]:
    """Yield a listener that prints warnings and, unless `quiet`, transfers on standard error."""
    with ExitStack() as stack:
        yield _Silent() if quiet else _Bar(stack) if can_redraw(sys.stderr) else _Lines()


class _Silent(FetchProgress):
    """Reports warnings alone."""

    def warn(self, message: str) -> None:
        self.say(f"nnctl: warning: {message}")

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class _Lines(_Silent):
    """Reports the start of each file in a line."""

    name = ""

    def transfer(self, name: str, received: int, total: int) -> None:
        if name != self.name:  # and not once more for the next mirror
            from rich.filesize import decimal

            self.name = name
            self.say(f"downloading {name} ({decimal(total)})")


class _Bar(_Silent):
    """Draws a bar for each file, with its rate and the time left."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.bars: rich.progress.Progress | None = None
        self.tasks: dict[str, rich.progress.TaskID] = {}

    def say(self, line: str) -> None:
        if self.bars is None:
            super().say(line)
        else:
            self.bars.console.print(line, soft_wrap=True)

    def transfer(self, name: str, received: int, total: int) -> None:
        if self.bars is None:
            self.bars = self.stack.enter_context(_bars())
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(name, total=total)
        elif received == 0:  # the next mirror begins anew, and so does its rate
            self.bars.reset(self.tasks[name])
        self.bars.update(self.tasks[name], completed=received)


def _bars() -> rich.progress.Progress:
    from rich import progress

    from nnctl.display.output import console

    screen = console(stderr=True)
    columns: list[progress.ProgressColumn] = [
        progress.TextColumn("{task.description}", markup=False),
        progress.DownloadColumn(),
    ]
    if screen.width >= NARROW:
        columns[1:1] = [progress.BarColumn(bar_width=None)]
        columns += [progress.TransferSpeedColumn(), progress.TimeRemainingColumn(compact=True)]
    return progress.Progress(*columns, console=screen, expand=True)
