"""What `nnctl sweep` reports: progress on standard error, the result on standard output.

A person at a terminal gets a table that is drawn over, a log a line a trial, a script JSON lines
or nothing but the sweep's folder. rich is imported where something is drawn.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from nnctl.display.output import can_redraw, console, print_json, print_path, warn
from nnctl.errors import printable
from nnctl.files import as_text
from nnctl.sweeps.folder import SweepFolder, run_dirs
from nnctl.sweeps.outcome import SweepFinished
from nnctl.sweeps.plan import Trial
from nnctl.sweeps.run import Event, TrialFinished
from nnctl.sweeps.settings import Search, as_override
from nnctl.training.events import Notice

Show = Callable[[Event], None]


def reporter(
    sweep: SweepFolder, search: Search, trials: Mapping[int, Trial], *, as_json: bool, quiet: bool
) -> Show:
    """Return what shows an event of a sweep, whose `trials` so far are given, as it happens."""
    show_progress = _progress(sweep, search, trials, as_json=as_json, quiet=quiet)
    if as_json:
        print_json(
            {
                "event": "sweep_started",
                "sweep_dir": as_text(sweep.path),
                "name": search.name,
                "method": search.method,
                "objective": search.objective,
                "parameters": list(search.space),
                "trials": search.trials,
                "done": sum(trial.over for trial in trials.values()),
                "parallel": search.parallel,
                "seeds": list(search.training_seeds()),
                "seed": search.seed,
            }
        )

    def show(event: Event) -> None:
        if isinstance(event, Notice):
            warn(printable(event.message))
        show_progress(event)
        if as_json and isinstance(event, TrialFinished):
            print_json({"event": "trial_finished", **_fields(sweep, search, event.trial)})

    return show


def print_end(
    sweep: SweepFolder,
    search: Search,
    trials: Mapping[int, Trial],
    outcome: SweepFinished,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print what a sweep has found."""
    if as_json:
        print_json({"event": "sweep_finished", **asdict(outcome)})
    elif quiet:
        print_path(sweep.path)
    else:
        from nnctl.display.columns import Shrinking, print_table
        from nnctl.display.trials import end_view

        for part in end_view(search, trials, outcome).renderables:
            if isinstance(part, Shrinking):
                print_table(part)
            else:
                console().print(part)
        console().print(printable(sweep.path), soft_wrap=True)


def _fields(sweep: SweepFolder, search: Search, trial: Trial) -> dict[str, Any]:
    """Return the fields of `trial_finished`."""
    return {
        **{name: getattr(trial, name) for name in ("trial", "state", "parameters", "objective")},
        "objectives": trial.objectives,
        "seeds": list(search.training_seeds()),
        "seconds": trial.seconds,
        "error": trial.error,
        "run_dirs": run_dirs(sweep, search, trial),
    }


def _progress(
    sweep: SweepFolder, search: Search, trials: Mapping[int, Trial], *, as_json: bool, quiet: bool
) -> Show:
    """Return what shows the progress on standard error."""
    if quiet:
        return lambda event: None
    if not can_redraw(sys.stderr) or (as_json and sys.stdout.isatty()):
        # JSON lines on the terminal that a table is drawn on would tear it.
        return _lines(search, sum(trial.over for trial in trials.values()))
    from nnctl.display.trials import live_table

    return live_table(sweep, search, trials)


def _lines(search: Search, done: int) -> Show:
    """Return what prints a line for each trial that is over."""

    def show(event: Event) -> None:
        nonlocal done
        if isinstance(event, TrialFinished):
            done += 1
            print(trial_line(search, event.trial, done), file=sys.stderr, flush=True)

    return show


def trial_line(search: Search, trial: Trial, done: int) -> str:
    """Return a trial that is over on a line; `done` are over with it."""
    width = len(str(search.trials))
    parts = [f"{done:>{width}}/{search.trials}", f"trial {trial.trial}", trial.state]
    if trial.objective is not None:
        parts.append(f"{search.objective} {trial.objective:.6g}")
    parts += [f"{key}={shown(value)}" for key, value in trial.parameters.items()]
    if trial.error is not None:
        parts.append(trial.error.splitlines()[0])
    return "  ".join(map(printable, parts))


def shown(value: Any) -> str:
    """Return a parameter's value as people read it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict) and value.keys() == {"kind"}:
        value = value["kind"]
    return printable(as_override(value).replace('"', ""))
