"""The proof that a run can be interrupted without a trace."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nnctl import datasets
from nnctl.config import Settings
from nnctl.datasets import DataSet, Source
from nnctl.files import exists, sha256_of
from nnctl.runs.checkpoint import versions
from nnctl.runs.folder import RunFolder, read_metrics, read_steps
from nnctl.runs.lock import new_run
from nnctl.runs.origin import read_origin
from nnctl.runs.recorder import train
from nnctl.runs.resume import check_same_data, resume_point
from nnctl.training.engine import InitialWeights
from nnctl.training.events import TIMINGS, RunStarted


@dataclass(frozen=True)
class Verification:
    """The same run trained in different ways: SHA-256 of `last.safetensors`, and what differs."""

    uninterrupted: str  # a copy in one go
    interrupted: str  # a copy that was stopped and went on in a new trainer
    recorded: str | None  # the run's own; None if not complete, or of other versions or threads
    step: int  # after which the copy was interrupted
    steps: int  # of the whole run
    differences: tuple[str, ...]  # from the copy in one go, in words

    @property
    def exact(self) -> bool:
        """True if nothing differs."""
        return not self.differences


def verify(run: RunFolder, source: Source, threads: int | None = None) -> Verification:
    """Train two copies of a run in a temporary folder, one with an interruption in the middle.

    The run itself is only read. The copies use its number of threads, or the one that is given,
    begin with the weights that it began with, and end where it was ended by hand.

    Raises:
        UsageError: the run's config.yaml was edited.
        RunError: a file of the run is missing or damaged, or the weights that it began with are
            not to be had any more.
        DataError: the data can't be had, or aren't those of the run.
        Diverged: the run diverges.

    """
    before = resume_point(run, ())
    settings, checkpoint = before.settings, before.checkpoint
    weights = None if checkpoint is None else read_origin(run, checkpoint)
    data = datasets.load(settings.data.dataset, source, parts=before.parts)
    check_same_data(before, data)
    threads = threads or before.threads
    used = checkpoint and (checkpoint.versions, checkpoint.threads)
    comparable = before.summary is not None and used == (versions(), threads)
    end: float = math.inf
    if before.summary is not None and checkpoint is not None:
        by_hand = before.summary.status == "early_stopped" and not settings.training.early_stopping
        end = checkpoint.snapshot.progress.step if by_hand else end
    with TemporaryDirectory(prefix="nnctl-verify-") as folder:
        whole, parted = RunFolder(Path(folder, "whole")), RunFolder(Path(folder, "parted"))
        steps, steps_per_epoch = _train(settings, data, threads, whole, weights, end)
        # Where the most can go wrong: in the middle of an epoch.
        epochs = steps // 2 // steps_per_epoch
        middle = epochs * steps_per_epoch + max(steps_per_epoch // 2, 1)
        middle = min(middle, max(steps - 1, 1))  # at its end nothing would be left to go on with
        step, _ = _train(settings, data, threads, parted, weights, middle)
        _train(settings, data, threads, parted, None, end)
        differences = [f"the interrupted copy's {what}" for what in _differences(whole, parted)]
        if comparable:
            differences += [f"the run's own {what}" for what in _differences(whole, run)]
        return Verification(
            uninterrupted=sha256_of(whole.last),
            interrupted=sha256_of(parted.last),
            recorded=sha256_of(run.last) if comparable else None,
            step=step,
            steps=steps,
            differences=tuple(differences),
        )


def _differences(whole: RunFolder, other: RunFolder) -> Iterator[str]:
    """Yield what differs in a run from the `whole` one: last checkpoint, metrics, batch losses.

    Times are left out, and of a file only its first difference is named.
    """
    if sha256_of(whole.last) != sha256_of(other.last):
        yield "last.safetensors"
    for file, rows in (("metrics.jsonl", _metrics), ("steps.jsonl", _steps)):
        both = zip_longest(rows(whole), rows(other))
        for line, (row, others) in enumerate(both, 1):
            if row is None or others is None:
                yield f"{file}: {'one line more' if row is None else 'ends'} at line {line}"
            elif changed := next((key for key in row if row[key] != others[key]), None):
                yield f"{file}: {changed} is {others[changed]} in line {line}, not {row[changed]}"
            else:
                continue
            break


def _metrics(run: RunFolder) -> list[dict[str, Any]]:
    return [{key: row[key] for key in row if key not in TIMINGS} for row in read_metrics(run)]


def _steps(run: RunFolder) -> list[dict[str, Any]]:
    kept = read_steps(run) if exists(run.steps) else []
    return [{"batch_loss": row.batch_loss} for row in kept]


def _train(
    settings: Settings,
    data: DataSet,
    threads: int,
    run: RunFolder,
    weights: InitialWeights | None,
    end: float,
) -> tuple[int, int]:
    """Train in `run`, with `weights` or from where it was left, until step `end` at most.

    Return the steps done, and how many an epoch has.
    """
    with ExitStack() as stack:
        before = None
        if exists(run.config):
            before = resume_point(run, ())
        else:
            stack.enter_context(new_run(run.path, run.path.parent, settings.name))
        step = steps_per_epoch = 0
        events = train(
            settings,
            data,
            run,
            threads=threads,
            before=before,
            weights=weights,
            stop=lambda: step >= end,
        )
        for event in events:
            if isinstance(event, RunStarted):
                steps_per_epoch = event.steps_per_epoch
            step = getattr(event, "step", step)
        return step, steps_per_epoch
