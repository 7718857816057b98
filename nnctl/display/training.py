"""What `nnctl train` reports: progress on standard error, the result on standard output.

Hides who is listening: a person at a terminal gets a dashboard that gives way to the result, a
log gets a line an epoch, a script JSON lines or nothing but the run directory. rich is imported
for a dashboard, or else at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from nnctl.display.output import can_redraw, console, print_json, print_path, warn
from nnctl.errors import printable
from nnctl.training.events import (
    EpochFinished,
    Event,
    Notice,
    RunFinished,
    RunStarted,
    StepFinished,
)

if TYPE_CHECKING:
    from nnctl.inspection.diagnosis import Finding
    from nnctl.runs.folder import RunFolder
    from nnctl.training.trainer import Plan

Show = Callable[[Event], None]

EVENTS = {RunStarted: "run_started", EpochFinished: "epoch_finished", RunFinished: "run_finished"}


def reporter(run: RunFolder, *, as_json: bool, quiet: bool) -> Show:
    """Return what shows an event of the run in a folder, as it happens.

    It is called for every step, so it costs next to nothing between two redraws.
    """
    show_progress = _progress(as_json=as_json, quiet=quiet)
    monitored = ""

    def show(event: Event) -> None:
        nonlocal monitored
        if isinstance(event, StepFinished):
            show_progress(event)
            return
        if isinstance(event, Notice):
            warn(event.message)
            return
        if isinstance(event, RunStarted):
            monitored = event.monitored
        show_progress(event)
        if as_json:
            if name := EVENTS.get(type(event)):
                _print_event(name, event)
        elif isinstance(event, RunFinished):
            _print_end(run, event, monitored, quiet=quiet)

    return show


def print_summary(
    run: RunFolder, event: RunFinished, monitored: str, *, as_json: bool, quiet: bool
) -> None:
    """Print the end of a run once more, from its files; `monitored` is validation or test.

    Raises:
        RunError: its metrics are damaged.

    """
    if as_json:
        _print_event("run_finished", event)
    else:
        _print_end(run, event, monitored, quiet=quiet)


def print_plan(plan: Plan, findings: Sequence[Finding], *, as_json: bool) -> None:
    """Print what a trainer would do, and what looks wrong before it does it."""
    if as_json:
        print_json(msgspec.to_builtins(plan) | {"findings": msgspec.to_builtins(findings)})
    else:
        from nnctl.display.summary import plan_view
        from nnctl.display.trace import Findings

        console().print(plan_view(plan))
        if findings:
            console().print(Findings(findings))


def _print_event(name: str, event: Event) -> None:
    print_json({"event": name, **msgspec.to_builtins(event)})


def _print_end(run: RunFolder, event: RunFinished, monitored: str, *, quiet: bool) -> None:
    """Print the end of a run for a person; `quiet`: its directory alone."""
    if quiet:
        print_path(str(run))
        return
    from nnctl.display.summary import summary_view
    from nnctl.runs.folder import read_metrics

    console().print(summary_view(msgspec.to_builtins(event), read_metrics(run), monitored))
    console().print(printable(run), soft_wrap=True)


# Progress.


def _progress(*, as_json: bool, quiet: bool) -> Show:
    """Return what shows the progress on standard error."""
    if quiet:
        return lambda event: None
    if not can_redraw(sys.stderr) or (as_json and sys.stdout.isatty()):
        # JSON lines on the terminal that a dashboard is drawn on would tear it.
        return _lines()
    from nnctl.display.dashboard import dashboard

    return dashboard()


def _lines() -> Show:
    """Return what prints a line for each epoch."""
    epochs = 0

    def show(event: Event) -> None:
        nonlocal epochs
        if isinstance(event, RunStarted):
            epochs = event.epochs
        elif isinstance(event, EpochFinished):
            print(epoch_line(event, epochs), file=sys.stderr, flush=True)

    return show


def epoch_line(row: EpochFinished, epochs: int) -> str:
    """Return the figures of an epoch on a line."""
    parts = [f"epoch {row.epoch:>{len(str(epochs))}}/{epochs}"]
    for part in ("train", "validation", "test"):
        loss, accuracy = getattr(row, f"{part}_loss"), getattr(row, f"{part}_accuracy")
        if loss is not None:
            parts.append(f"{part} loss {loss:.4f} accuracy {accuracy:.2%}")
    parts.append(f"learning rate {row.learning_rate:.3g}")
    parts.append(f"{row.seconds:.2f} s")
    return "  ".join(parts)
