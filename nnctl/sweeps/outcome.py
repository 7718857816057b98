"""What a finished sweep says: the best trial, what ties with it, its test accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnctl import datasets
from nnctl.config import build
from nnctl.datasets import FetchProgress, Source
from nnctl.errors import Diverged, SystemFailure, printable
from nnctl.files import as_text, write_atomically
from nnctl.nn.functions import Array
from nnctl.nn.losses import LOSSES
from nnctl.nn.metrics import wilson_interval
from nnctl.runs.checkpoint import load
from nnctl.runs.folder import (
    RunFolder,
    convert,
    now,
    read_config,
    read_json,
    read_summary,
    to_json,
)
from nnctl.runs.predictions import read_predictions
from nnctl.runs.statistics import SIGNIFICANCE, estimate_mean
from nnctl.sweeps.folder import SweepFolder, run_dirs
from nnctl.sweeps.plan import Trial
from nnctl.sweeps.settings import Search
from nnctl.training.evaluation import evaluate

COSTS = {"validation_loss": "loss", "validation_accuracy": "prediction"}  # column that it rests on


@dataclass(frozen=True, kw_only=True)
class SweepFinished:
    """The sweep's last word."""

    best: int | None  # the trial that won
    best_parameters: dict[str, Any] | None
    best_objective: float | None
    best_run_dirs: list[str]
    tied: list[int]  # the others that tie with the lowest objective in a paired test
    trials: int
    complete: int
    pruned: int
    diverged: int
    failed: int
    test_accuracy: float | None  # of the winner's first seed
    test_accuracy_interval: tuple[float, float] | None
    seconds: float  # of training, all trials together
    sweep_dir: str


def read_outcome(sweep: SweepFolder) -> SweepFinished | None:
    """Return the last word of a sweep; None if it has not come to its end.

    Raises:
        RunError: summary.json is damaged.

    """
    if not sweep.summary.exists():
        return None
    found: SweepFinished = convert(read_json(sweep.summary), SweepFinished, sweep.summary)
    return found


def conclude(
    sweep: SweepFolder,
    search: Search,
    trials: Mapping[int, Trial],
    source: Source,
    progress: FetchProgress,
) -> SweepFinished:
    """Find the winner, measure it on the test set, and write the summary.

    Raises:
        Diverged: every trial diverged; the summary is written first.
        SystemFailure: no trial is complete, for other reasons; the same.
        DataError: the test set can't be had.

    """
    ranking = rank_trials(search, trials)
    counts = {
        state: sum(trial.state == state for trial in trials.values())
        for state in ("complete", "pruned", "diverged", "failed")
    }
    best, tied, accuracy, interval = None, [], None, None
    if ranking:
        equals = [ranking[0], *tied_with_first(sweep, search, ranking)]
        # min keeps to the first: among equals in size the lowest objective wins
        best = min(equals, key=lambda trial: trial.network or 0)
        tied = sorted(trial.trial for trial in equals if trial is not best)
        accuracy, interval = test_accuracy(sweep.run(best.trial, search.seed), source, progress)
    finished = SweepFinished(
        best=best.trial if best else None,
        best_parameters=best.parameters if best else None,
        best_objective=best.objective if best else None,
        best_run_dirs=run_dirs(sweep, search, best) if best else [],
        tied=tied,
        trials=len(trials),
        **counts,
        test_accuracy=accuracy,
        test_accuracy_interval=interval,
        seconds=sum(trial.seconds for trial in trials.values()),
        sweep_dir=as_text(sweep.path),
    )
    write_atomically(sweep.summary, to_json(finished))
    manifest = read_json(sweep.manifest)
    write_atomically(sweep.manifest, to_json({**manifest, "ended": now()}))
    return finished


def check_any_complete(
    sweep: SweepFolder, search: Search, finished: SweepFinished, trials: Mapping[int, Trial]
) -> None:
    """Raise what a sweep without a complete trial ends with.

    Raises:
        Diverged: every trial did; what its runs say mends it.
        SystemFailure: no trial is complete, for other reasons.
        RunError: the summary of a run is damaged.

    """
    if finished.complete:
        return
    if finished.diverged == finished.trials:
        summaries = [
            summary
            for trial in trials.values()
            for seed in search.training_seeds()
            if (summary := read_summary(sweep.run(trial.trial, seed))) is not None
        ]
        told = (summary.overfitting.remedy for summary in summaries)
        remedies = Counter(remedy for remedy in told if remedy)
        lines = [
            f"\nwhat may help {count:,} of {len(summaries):,} runs: {remedy}"
            for remedy, count in remedies.most_common()
        ]
        raise Diverged(f"every trial diverged{''.join(lines)}")
    first = next((trial.error for trial in trials.values() if trial.error), "")
    reason = f"; the first failed with:\n{printable(first.splitlines()[0])}" if first else ""
    raise SystemFailure(f"no trial is complete{reason}")


def rank_trials(search: Search, trials: Mapping[int, Trial]) -> list[Trial]:
    """Return the complete trials, best first; the smaller network first where they are equal."""
    complete = [trial for trial in trials.values() if trial.state == "complete"]

    def key(trial: Trial) -> tuple[float, int, int]:
        assert trial.objective is not None
        return search.loss(trial.objective), trial.network or 0, trial.trial

    return sorted(complete, key=key)


def tied_with_first(sweep: SweepFolder, search: Search, ranking: Sequence[Trial]) -> list[Trial]:
    """Return the trials that tie with the first in a paired t test on the validation images.

    With several seeds, an image counts with its mean over them. Objectives that are no mean over
    images can only be equal.

    Raises:
        RunError: stored predictions are missing or damaged.

    """
    first, *rest = ranking
    if search.objective not in COSTS:
        return [trial for trial in rest if trial.objective == first.objective]
    images, lowest = costs(sweep, search, first)
    found = []
    for trial in rest:
        others, each = costs(sweep, search, trial)
        if not np.array_equal(images, others):
            continue  # on other images: their difference is one of the images, too
        if estimate_mean(each - lowest).p_value >= SIGNIFICANCE:
            found.append(trial)
    return found


def costs(sweep: SweepFolder, search: Search, trial: Trial) -> tuple[Array, Array]:
    """Return validation images (n, 2), index and label, and what each cost (n,): loss or error."""
    runs = [sweep.run(trial.trial, seed) for seed in search.training_seeds()]
    tables = [read_predictions(run, "validation") for run in runs]
    images = np.stack([tables[0].indices, tables[0].labels], axis=1)
    if search.objective == "validation_loss":
        each = [table.losses for table in tables if table.losses is not None]
    else:
        each = [(~table.right).astype(np.float64) for table in tables]
    return images, np.mean(each, axis=0)


def test_accuracy(
    run: RunFolder, source: Source, progress: FetchProgress
) -> tuple[float, tuple[float, float]]:
    """Return the accuracy of a run's best network on the test set, and its Wilson interval.

    Raises:
        RunError: the run's checkpoint is missing or damaged.
        DataError: the test set can't be had.

    """
    checkpoint, settings = load(run.best), read_config(run)
    network = checkpoint.network()
    classes = network.widths[-1]
    name = settings.data.dataset
    test = datasets.load(name, source, progress=progress, classes=classes, parts=("test",)).test
    loss = build(LOSSES, settings.loss)
    measured = evaluate(network, loss, test, np.arange(len(test.labels)), threads=1)
    right = int((measured.predictions == measured.labels).sum())
    return measured.accuracy, wilson_interval(right, len(test.labels))
