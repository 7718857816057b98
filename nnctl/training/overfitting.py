"""The verdict on overfitting, from the curves and the losses of single samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile
from statistics import median

import numpy as np

from nnctl.nn.functions import Array
from nnctl.training.events import EpochFinished, Evidence, Judgement, Verdict

ENOUGH_EPOCHS = 3  # fewer say nothing about where the curves are going
ENOUGH_SAMPLES = 30  # the mean of fewer has no standard error worth the name
STANDARD_ERRORS = 3.0  # a rise must be beyond chance ...
RELATIVE_RISE = 0.05  # ... and matter, as a fraction of the best loss ...
LASTING_EPOCHS = 3  # ... at the end of so many epochs in a row
POOR_TRAIN_ACCURACY = 0.8  # below it the network has not learnt even what it was shown


def judge(history: Sequence[EpochFinished], best_losses: Array, last_losses: Array) -> Verdict:
    """Return the verdict on a run.

    `best_losses` and `last_losses` are the losses (n,) of the same monitored samples at the best
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
    best, last = min(history, key=lambda row: row.monitored_loss), history[-1]
    gap = last.monitored_loss - last.train_loss
    if not np.isfinite(last_losses).all():  # the run diverged when it was measured
        return Verdict("undecided", None, gap, Evidence(best.epoch, None, None))
    rises = last_losses.astype(np.float64) - best_losses
    rise, samples = float(rises.mean()), len(rises)
    error = float(rises.std(ddof=1)) / math.sqrt(samples) if samples >= ENOUGH_SAMPLES else None
    evidence = Evidence(best.epoch, rise, error)

    matters = (1 + RELATIVE_RISE) * best.monitored_loss
    risen = list(takewhile(lambda row: row.monitored_loss > matters, reversed(history)))
    shared = bool(risen) and median(row.train_loss for row in risen) >= best.train_loss
    verdict: Judgement = "none"
    since = None
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
