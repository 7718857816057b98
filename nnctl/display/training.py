"""What `nnctl train` tells: progress on standard error, the result on standard output.

Hides who is listening: a person at a terminal gets a dashboard that gives way to the result, a
log gets a line an epoch, a script JSON lines or nothing but the run directory. rich is imported
for a dashboard, or else at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from nnctl.display.output import can_redraw, console, print_json, print_path
from nnctl.errors import printable
from nnctl.training.events import EpochFinished, Event, RunFinished, RunStarted

if TYPE_CHECKING:
    from nnctl.display.curves import Row
    from nnctl.runs.folder import RunFolder
    from nnctl.training.trainer import Trainer

Show = Callable[[Event], None]

EVENTS = {RunStarted: "run_started", EpochFinished: "epoch_finished", RunFinished: "run_finished"}


def reporter(trainer: Trainer, run: RunFolder, *, as_json: bool, quiet: bool) -> Show:
    """Return what shows an event of `trainer`, which writes to `run`, as it happens.

    It is called for every step, so it costs next to nothing between two redraws.
    """
    show_progress = _progress(trainer, as_json=as_json, quiet=quiet)

    def show(event: Event) -> None:
        show_progress(event)
        if as_json:
            if name := EVENTS.get(type(event)):
                _print_event(name, event)
        elif isinstance(event, RunFinished):
            rows = msgspec.to_builtins(trainer.progress.history)
            _print_end(run, event, rows, trainer.monitored, quiet=quiet)

    return show


def print_summary(
    run: RunFolder, event: RunFinished, monitored: str, *, as_json: bool, quiet: bool
) -> None:
    """Print the end of a run once more, from its files; `monitored` is validation or test.

    Raises:
        RunError: its metrics are damaged.

    """
    from nnctl.runs.folder import read_metrics

    if as_json:
        _print_event("run_finished", event)
    else:
        _print_end(run, event, read_metrics(run), monitored, quiet=quiet)


def print_plan(trainer: Trainer, *, as_json: bool) -> None:
    """Print what a trainer would do: its layers with their shapes, samples, steps per epoch."""
    network, settings = trainer.engine.network, trainer.settings
    plan = {
        "name": settings.name,
        "dataset": settings.data.dataset,
        "inputs": network.inputs,
        "layers": [
            {
                "name": network.layer_name(index),
                "output_shape": [trainer.batch_size, network.widths[index + 1]],
                "parameters": layer.parameter_count,
            }
            for index, layer in enumerate(network.layers)
        ],
        "parameters": network.size,
        "train_samples": len(trainer.split.train),
        "validation_samples": len(trainer.split.validation),
        "test_samples": len(trainer.data.test.labels),
        "batch_size": trainer.batch_size,
        "steps_per_epoch": trainer.steps_per_epoch,
        "epochs": settings.training.epochs,
        "threads": trainer.engine.threads,
    }
    if as_json:
        print_json(plan)
    else:
        from nnctl.display.summary import plan_view

        console().print(plan_view(plan))


def _print_event(name: str, event: Event) -> None:
    print_json({"event": name, **msgspec.to_builtins(event)})


def _print_end(
    run: RunFolder, event: RunFinished, rows: Sequence[Row], monitored: str, *, quiet: bool
) -> None:
    """Print the end of a run for a person; `quiet`: its directory alone."""
    if quiet:
        print_path(run.path)
        return
    from nnctl.display.summary import summary_view

    console().print(summary_view(msgspec.to_builtins(event), rows, monitored))
    console().print(printable(run.path), soft_wrap=True)


# Progress.


def _progress(trainer: Trainer, *, as_json: bool, quiet: bool) -> Show:
    """Return what shows the progress on standard error."""
    if quiet:
        return lambda event: None
    if not can_redraw(sys.stderr) or (as_json and sys.stdout.isatty()):
        # JSON lines on the terminal that a dashboard is drawn on would tear it.
        return _lines(trainer.settings.training.epochs)
    from nnctl.display.dashboard import dashboard

    return dashboard(trainer)


def _lines(epochs: int) -> Show:
    """Return what prints a line for each epoch."""

    def show(event: Event) -> None:
        if isinstance(event, EpochFinished):
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
