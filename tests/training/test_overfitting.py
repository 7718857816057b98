"""The verdict, on curves and sample losses whose figures can be worked by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from nnctl.nn.functions import Array
from nnctl.training.events import EpochFinished, Verdict
from nnctl.training.overfitting import judge

SAMPLES = 1000


def history(
    train: Sequence[float],
    monitored: Sequence[float],
    accuracy: float = 0.99,
    part: str = "validation",
) -> list[EpochFinished]:
    other = "test" if part == "validation" else "validation"
    rows = []
    for epoch, (train_loss, loss) in enumerate(zip(train, monitored, strict=True), 1):
        figures = {
            **{f"{part}_loss": loss, f"{part}_accuracy": 0.9},
            **{f"{other}_loss": None, f"{other}_accuracy": None},
        }
        row = EpochFinished(
            epoch=epoch,
            step=epoch * 10,
            train_loss=train_loss,
            train_accuracy=accuracy,
            **figures,
            batch_loss=train_loss,
            learning_rate=0.1,
            seconds=1.0,
            evaluation_seconds=0.1,
            samples_per_second=1000.0,
        )
        rows.append(row)
    return rows


def around(mean: float, deviation: float, samples: int = SAMPLES) -> Array:
    """Return losses of that mean, half of them `deviation` above it and half below."""
    signs = np.resize([1.0, -1.0], samples)
    return (mean + deviation * signs).astype(np.float32)


def verdict_on(
    train: Sequence[float],
    monitored: Sequence[float],
    accuracy: float = 0.99,
    deviation: float = 0.1,
    samples: int = SAMPLES,
) -> Verdict:
    """Judge curves whose per-sample rises have that standard deviation."""
    best, last = around(min(monitored), 0, samples), around(monitored[-1], deviation, samples)
    if min(monitored) == monitored[-1]:
        best = last
    return judge(history(train, monitored, accuracy), best, last)


FALLING = [0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01]


def test_verdict_finds_the_curves_that_part() -> None:
    verdict = verdict_on(FALLING, [0.5, 0.4, 0.41, 0.43, 0.45, 0.5, 0.6])
    assert verdict.verdict == "overfitting"
    assert verdict.evidence.best_epoch == 2
    assert verdict.since_epoch == 4  # epoch 3 was within 5 % of the best
    assert verdict.gap == pytest.approx(0.59)
    assert verdict.evidence.loss_rise == pytest.approx(0.2)
    # Rises of 0.3 and 0.1 in turn: a variance of 0.1^2 n / (n - 1).
    assert verdict.evidence.standard_error == pytest.approx(0.1 / math.sqrt(SAMPLES - 1), rel=1e-5)


def test_verdict_is_none_where_the_loss_ends_at_its_lowest() -> None:
    verdict = verdict_on(FALLING, [0.5, 0.4, 0.3, 0.25, 0.22, 0.21, 0.2])
    assert (verdict.verdict, verdict.since_epoch) == ("none", None)
    assert (verdict.evidence.best_epoch, verdict.evidence.loss_rise) == (7, 0)


def test_verdict_ignores_a_rise_that_is_beyond_chance_but_does_not_matter() -> None:
    verdict = verdict_on(FALLING, [0.5, 0.3, 0.2, 0.207, 0.208, 0.209, 0.209], deviation=0.01)
    rise, error = verdict.evidence.loss_rise, verdict.evidence.standard_error
    assert rise is not None
    assert error is not None
    assert rise > 20 * error
    assert verdict.verdict == "none"


@pytest.mark.parametrize(
    ("deviation", "expected"),
    [(1.0, "overfitting"), (1.1, "undecided"), (3.1, "undecided"), (3.3, "none")],
)
def test_verdict_needs_three_standard_errors(deviation: float, expected: str) -> None:
    # A rise of 0.1 over 1,000 samples: three standard errors at a deviation of 1.05, one at 3.16.
    monitored = [0.5, 0.4, 0.42, 0.45, 0.47, 0.48, 0.5]
    assert verdict_on(FALLING, monitored, deviation=deviation).verdict == expected


def test_verdict_waits_until_a_rise_has_lasted() -> None:
    monitored = [0.5, 0.4, 0.3, 0.3, 0.4, 0.5, 0.6]
    verdicts = [verdict_on(FALLING[:n], monitored[:n]).verdict for n in range(1, 8)]
    assert verdicts == [
        *("undecided", "undecided", "none", "none"),
        *("undecided", "undecided", "overfitting"),
    ]


def test_verdict_is_not_led_astray_by_large_steps_that_move_both_curves() -> None:
    train = [0.3, 0.1, 0.05, 0.04, 0.09, 0.08, 0.1]
    monitored = [0.4, 0.2, 0.15, 0.14, 0.19, 0.18, 0.2]
    assert verdict_on(train, monitored).verdict == "none"


def test_verdict_on_a_noisy_curve_that_overfits_is_found() -> None:
    """One epoch in which both curves jump hides nothing."""
    train = [*FALLING[:4], 0.05, 0.04, 0.35]
    assert verdict_on(train, [0.5, 0.4, 0.41, 0.45, 0.5, 0.55, 0.9]).verdict == "overfitting"


def test_verdict_on_a_network_that_learnt_nothing_is_underfitting() -> None:
    assert verdict_on([2.3, 2.2, 2.1], [2.3, 2.2, 2.1], accuracy=0.3).verdict == "underfitting"
    assert verdict_on([2.3, 2.2, 2.1], [2.3, 2.2, 2.1], accuracy=0.81).verdict == "none"


def test_verdict_on_too_few_epochs_is_undecided() -> None:
    assert verdict_on([0.5, 0.1], [0.3, 0.6]).verdict == "undecided"
    nothing = judge([], around(0, 0), around(0, 0))
    assert (nothing.verdict, nothing.gap, nothing.evidence.best_epoch) == ("undecided", None, None)


@pytest.mark.parametrize("samples", [1, 2, 29])
def test_verdict_trusts_no_standard_error_of_a_handful_of_samples(samples: int) -> None:
    monitored = [0.5, 0.4, 0.41, 0.43, 0.45, 0.5, 0.6]
    verdict = verdict_on(FALLING, monitored, deviation=0.0, samples=samples)
    assert (verdict.verdict, verdict.evidence.standard_error) == ("undecided", None)
    assert verdict_on(FALLING, monitored, deviation=0.0, samples=30).verdict == "overfitting"


def test_verdict_without_a_validation_set_watches_the_test_loss() -> None:
    rows = history(FALLING, [0.5, 0.4, 0.41, 0.43, 0.45, 0.5, 0.6], part="test")
    verdict = judge(rows, around(0.4, 0), around(0.6, 0.1))
    assert verdict.verdict == "overfitting"
    assert verdict.gap == pytest.approx(0.59)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_verdict_on_losses_that_are_not_finite_claims_nothing(bad: float) -> None:
    last = around(0.6, 0.1)
    last[3] = bad
    verdict = judge(history(FALLING, [0.5, 0.4, 0.4, 0.4, 0.5, 0.5, 0.6]), around(0.4, 0), last)
    assert verdict.verdict == "undecided"
    assert (verdict.evidence.loss_rise, verdict.evidence.standard_error) == (None, None)
