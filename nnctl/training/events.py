"""What a training run reports, as it happens.

The fields of `RunStarted`, `EpochFinished` and `RunFinished` are those of `nnctl train --json`.

Losses are means per sample (softmax_cross_entropy: in nats), accuracies fractions, times seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Status = Literal["completed", "early_stopped", "interrupted", "diverged"]
Judgement = Literal["none", "overfitting", "underfitting", "not_learning", "undecided"]
TIMINGS = ("seconds", "evaluation_seconds", "samples_per_second")  # of an epoch, by a clock


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """Everything is loaded; the next thing is a step."""

    run_dir: str
    name: str
    seed: int
    dataset: str
    train_samples: int
    validation_samples: int
    test_samples: int
    parameters: int
    threads: int
    step: int  # steps done so far; above 0 when a run is resumed
    batch_size: int
    steps_per_epoch: int
    epochs: int  # of the whole run
    monitored: str  # the set whose curve is judged: validation or test


@dataclass(frozen=True)
class Notice:
    """Something a person should know: the run goes on, but not quite as it was asked to."""

    message: str


@dataclass(frozen=True)
class EpochsRestored:
    """A resumed run has these epochs already."""

    epochs: tuple[EpochFinished, ...]


class StepFinished(NamedTuple):
    """One mini-batch was learnt from. A tuple: there are hundreds of these a second."""

    epoch: int  # from 1
    step: int  # from 1, over the whole run
    batch_loss: float  # running mean over the epoch so far
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class EpochFinished:
    """Every training sample was seen once more, and the curves have a new point.

    The validation figures are None without a validation set, the test figures None with one.
    """

    epoch: int  # from 1
    step: int
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    batch_loss: float
    learning_rate: float
    seconds: float
    evaluation_seconds: float
    samples_per_second: float

    @property
    def monitored_loss(self) -> float:
        """The validation loss, or without a validation set the test loss."""
        loss = self.test_loss if self.validation_loss is None else self.validation_loss
        assert loss is not None
        return loss

    @property
    def monitored_accuracy(self) -> float:
        """The validation accuracy, or without a validation set the test accuracy."""
        validation, test = self.validation_accuracy, self.test_accuracy
        accuracy = test if validation is None else validation
        assert accuracy is not None
        return accuracy


@dataclass(frozen=True)
class Evidence:
    """What the verdict rests on; None before the first epoch, or after a loss was not finite."""

    best_epoch: int | None  # of the lowest monitored loss
    loss_rise: float | None  # of the monitored loss since then, mean over its samples
    standard_error: float | None  # of that mean, from the paired differences; None: too few samples


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The `overfitting` object of `run_finished`; `training.overfitting` finds it.

    `since_epoch`: from here on the loss has stayed above its best (overfitting), or the network
    has guessed again after it had learnt (not_learning).
    """

    verdict: Judgement
    cause: str | None = None  # the kind of what `nnctl trace` finds, if nothing or little is learnt
    since_epoch: int | None = None
    gap: float | None = None  # monitored loss - training loss at the last epoch
    evidence: Evidence
    message: str | None = None  # what the cause is, in words
    remedy: str | None = None  # what to try


@dataclass(frozen=True)
class EpochJudged:
    """The verdict on overfitting after an epoch."""

    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class RunFinished:
    """The run's last word; figures are those of the best epoch (without validation: the last)."""

    status: Status
    epochs: int
    best_epoch: int | None
    train_loss: float | None
    train_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    parameters: int
    seed: int
    overfitting: Verdict
    seconds: float
    run_dir: str


Event = (
    RunStarted | Notice | EpochsRestored | StepFinished | EpochFinished | EpochJudged | RunFinished
)
