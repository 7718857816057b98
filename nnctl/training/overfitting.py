"""The verdict on overfitting, from the curves and the losses of single samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from nnctl.nn.functions import Array

if TYPE_CHECKING:
    from nnctl.training.events import EpochFinished

ENOUGH_EPOCHS = 3  # fewer say nothing about where the curves are going
ENOUGH_SAMPLES = 30  # the mean of fewer has no standard error worth the name
STANDARD_ERRORS = 3.0  # a rise must be beyond chance ...
RELATIVE_RISE = 0.05  # ... and matter, as a fraction of the best loss ...
LASTING_EPOCHS = 3  # ... at the end of so many epochs in a row
POOR_TRAIN_ACCURACY = 0.8  # below it the network has not learnt even what it was shown


@dataclass(frozen=True)
class Evidence:
    """What the verdict rests on; None before the first epoch, or after a loss was not finite."""

    best_epoch: int | None  # of the lowest watched loss
    loss_rise: float | None  # of the watched loss since then, mean over its samples
    standard_error: float | None  # of that mean, from the paired differences; None: too few samples


@dataclass(frozen=True)
class Verdict:
    """The `overfitting` object of `run_finished`."""

    verdict: str  # none, overfitting, underfitting or undecided
    since_epoch: int | None  # when overfitting: from here on the loss has stayed above its best
    gap: float | None  # watched loss - training loss at the last epoch
    evidence: Evidence


def watched_loss(row: EpochFinished) -> float:
    """Return the validation loss, or without a validation set the test loss."""
    loss = row.test_loss if row.validation_loss is None else row.validation_loss
    assert loss is not None
    return loss


def judge(history: Sequence[EpochFinished], best_losses: Array, last_losses: Array) -> Verdict:
    """Return the verdict on a run.

    `best_losses` and `last_losses` are the losses (n,) of the same watched samples at the best
    and at the last epoch. A rise of their mean is overfitting if it is

    - large enough to matter: with thousands of samples chance alone is soon beaten,
    - beyond chance, for which the paired differences give the standard error,
    - lasting: one epoch after the minimum every curve has risen,
    - not shared by the training loss, which also rises where large steps make both curves bounce.

    A rise that matters and exceeds its standard error, but not beyond chance or not for long yet,
    leaves it undecided.
    """
    if not history:
        return Verdict("undecided", None, None, Evidence(None, None, None))
    best, last = min(history, key=watched_loss), history[-1]
    gap = watched_loss(last) - last.train_loss
    if not np.isfinite(last_losses).all():  # the run diverged when it was measured
        return Verdict("undecided", None, gap, Evidence(best.epoch, None, None))
    rises = last_losses.astype(np.float64) - best_losses
    rise, samples = float(rises.mean()), len(rises)
    error = float(rises.std(ddof=1)) / math.sqrt(samples) if samples >= ENOUGH_SAMPLES else None
    evidence = Evidence(best.epoch, rise, error)

    matters = (1 + RELATIVE_RISE) * watched_loss(best)
    risen = list(takewhile(lambda row: watched_loss(row) > matters, reversed(history)))
    shared = bool(risen) and median(row.train_loss for row in risen) >= best.train_loss
    verdict, since = "none", None
    if len(history) < ENOUGH_EPOCHS:
        verdict = "undecided"
    elif risen and not shared and (error is None or rise > error):
        beyond_chance = error is not None and rise > STANDARD_ERRORS * error
        if beyond_chance and len(risen) >= LASTING_EPOCHS:
            verdict, since = "overfitting", risen[-1].epoch
        else:
            verdict = "undecided"
    elif last.train_accuracy < POOR_TRAIN_ACCURACY:
        verdict = "underfitting"
    return Verdict(verdict, since, gap, evidence)
