"""The verdict on overfitting, from the curves and the losses of single samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nnctl.nn.functions import Array

if TYPE_CHECKING:
    from nnctl.training.events import EpochFinished

ENOUGH_EPOCHS = 3  # fewer say nothing about where the curves are going
STANDARD_ERRORS = 3.0  # a rise must be beyond chance ...
RELATIVE_RISE = 0.05  # ... and matter, as a fraction of the best loss
POOR_TRAIN_ACCURACY = 0.8  # below it the network has not learnt even what it was shown


@dataclass(frozen=True)
class Evidence:
    """What the verdict rests on; None before the first epoch."""

    best_epoch: int | None  # of the lowest watched loss
    loss_rise: float | None  # of the watched loss since then, mean over its samples
    standard_error: float | None  # of that mean, over the paired differences


@dataclass(frozen=True)
class Verdict:
    """The `overfitting` object of `run_finished`."""

    verdict: str  # none, overfitting, underfitting or undecided
    since_epoch: int | None  # the first epoch after the best one, when overfitting
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
    and at the last epoch. The rise of their mean is overfitting if it is beyond chance, for which
    the paired differences give the standard error, and large enough to matter: with thousands
    of samples chance alone is soon beaten.
    """
    if not history:
        return Verdict("undecided", None, None, Evidence(None, None, None))
    best, last = min(history, key=watched_loss), history[-1]
    rise = last_losses.astype(np.float64) - best_losses
    mean = float(rise.mean())
    error = float(rise.std(ddof=1) / math.sqrt(len(rise))) if len(rise) > 1 else 0.0
    gap = watched_loss(last) - last.train_loss
    verdict, since = "none", None
    if len(history) < ENOUGH_EPOCHS:
        verdict = "undecided"
    elif mean > STANDARD_ERRORS * error and mean > RELATIVE_RISE * watched_loss(best):
        verdict, since = "overfitting", best.epoch + 1
    elif last.train_accuracy < POOR_TRAIN_ACCURACY:
        verdict = "underfitting"
    return Verdict(verdict, since, gap, Evidence(best.epoch, mean, error))
