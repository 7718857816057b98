"""One training of a trial: the command that does it, and what came of it as its folder says."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from nnctl.errors import UsageError
from nnctl.runs.folder import RunFolder, read_metrics, read_summary
from nnctl.sweeps.folder import SweepFolder
from nnctl.sweeps.orders import PruningRule
from nnctl.sweeps.plan import Trial, values
from nnctl.sweeps.settings import Search
from nnctl.training.events import RunFinished


@dataclass(frozen=True)
class Training:
    """A training to be done: a trial with one of its seeds."""

    trial: int
    seed: int
    run: RunFolder
    config: Path
    overrides: tuple[tuple[str, str], ...]
    rule: PruningRule | None

    def arguments(self) -> list[str]:
        """Return the arguments of `nnctl` that begin the training, or go on with it."""
        if self.run.config.exists():
            start = ["--resume", str(self.run.path)]
        else:
            start = [*train_arguments(str(self.config), self.overrides)]
            start += ["--run-dir", str(self.run.path), "--no-test"]
            if self.run.manifest.exists():  # it was killed before it had begun
                start.append("--overwrite")
        return ["train", *start, "--threads", "1", "--quiet"]


def train_arguments(config: str, overrides: tuple[tuple[str, str], ...]) -> list[str]:
    """Return what a user would type to train a config with other values."""
    arguments = ["--config", config]
    for key, value in overrides:
        arguments += ["--set", f"{key}={value}"]
    return arguments


def training_commands(search: Search) -> Iterator[str]:
    """Yield what a shell needs to do all trainings of a search itself, a line for each.

    Raises:
        UsageError: the search needs results, or a config that is no file.

    """
    if search.method == "bayes":
        raise UsageError(
            "--commands: a Bayesian search needs the results of its trials; use grid or random"
        )
    if search.config == "-":
        raise UsageError("--commands: each training needs the config, so it must be a file")
    for k in range(search.trials):
        for seed in search.training_seeds():
            overrides = tuple(search.overrides(values(search, k, {}), seed))
            arguments = ["nnctl", "train", *train_arguments(search.config, overrides)]
            yield shlex.join([*arguments, "--no-test", "--threads", "1", "--quiet"])


@dataclass(frozen=True)
class Result:
    """How a training ended."""

    state: Literal["complete", "pruned", "diverged"]
    objective: float | None
    early: float | None
    parameters: int
    seconds: float


def read_result(search: Search, training: Training) -> Result | None:
    """Return what came of a training; None if it has not come to its end.

    Raises:
        RunError: a file of the run is damaged.

    """
    summary = read_summary(training.run)
    if summary is None:
        return None
    rows = read_metrics(training.run)
    early = next(
        (row[search.objective] for row in rows if row["epoch"] == search.prune_after), None
    )
    state: Literal["complete", "pruned", "diverged"]
    if summary.status == "interrupted":
        rule = training.rule
        if not (rule and rows and summary.epochs == len(rows) and rule.prunes(rows[-1])):
            return None
        state = "pruned"
    else:
        state = "diverged" if summary.status == "diverged" else "complete"
    objective = figure_of(summary, search.objective) if state == "complete" else None
    return Result(state, objective, early, summary.parameters, summary.seconds)


def figure_of(summary: RunFinished, field: str) -> float | None:
    """Return a numeric field of a run's summary by its dotted name."""
    value: Any = msgspec.to_builtins(summary)
    for name in field.split("."):
        value = value[name]
    return None if value is None else float(value)


def progress_of(search: Search, sweep: SweepFolder, trial: Trial) -> tuple[str, float | None]:
    """Return how far a trial under way has come, and its objective there.

    That is the epoch, behind the number of the training where there are several: `2:5`.
    """
    runs = [sweep.run(trial.trial, seed) for seed in search.training_seeds()]
    begun = [run for run in runs if run.config.exists()]
    rows = read_metrics(begun[-1]) if begun else []
    value = rows[-1].get(search.objective) if rows else None
    which = f"{len(begun)}:" if len(runs) > 1 and begun else ""
    return f"{which}{len(rows)}", value
