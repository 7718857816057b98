"""The verdict, on curves and sample losses whose figures can be worked by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nnctl.config import settings_from_dict
from nnctl.nn.functions import Array
from nnctl.nn.losses import MeanSquaredError, SoftmaxWithLoss
from nnctl.training.events import EpochFinished, Verdict
from nnctl.training.overfitting import Guessing, beats, explain, guessing, judge

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


# Against guessing, and the gap that remains.


def test_guessing_knows_how_frequent_the_classes_are_and_no_more() -> None:
    labels = np.array([0, 0, 0, 1])
    guess = guessing(SoftmaxWithLoss(), labels, 3)
    assert guess.accuracy == 0.75
    np.testing.assert_allclose(guess.losses, -np.log([0.75, 0.75, 0.75, 0.25]))
    squares = guessing(MeanSquaredError(), labels, 2)
    np.testing.assert_allclose(squares.losses, [0.0625, 0.0625, 0.0625, 0.5625])


EVEN = Guessing(0.1, np.full(SAMPLES, math.log(10)))


def test_accuracy_beats_guessing_by_three_standard_errors() -> None:
    # 0.1 of 1,000 samples: a standard error of 0.0095
    assert not beats(EVEN, 0.128, around(3.0, 0.1))
    assert beats(EVEN, 0.129, around(3.0, 0.1))


@pytest.mark.parametrize(
    ("share", "deviation", "expected"),
    [(0.949, 0.1, True), (0.951, 0.1, False), (0.9, 2.4, True), (0.9, 2.5, False)],
)
def test_loss_beats_guessing_if_the_lead_matters_and_is_beyond_chance(
    share: float, deviation: float, expected: bool
) -> None:
    # A lead of 0.230 nats, three standard errors at a deviation of 2.43.
    assert beats(EVEN, 0.1, around(share * math.log(10), deviation)) == expected


def guessed(rows: Sequence[EpochFinished], accuracies: Sequence[float]) -> list[EpochFinished]:
    pairs = zip(rows, accuracies, strict=True)
    return [replace(row, validation_accuracy=accuracy) for row, accuracy in pairs]


def test_verdict_on_a_result_no_better_than_guessing_is_not_learning_at_once() -> None:
    flat = history([2.3] * 2, [2.3] * 2, accuracy=0.1)
    losses = around(2.3, 0.0)
    verdict = judge(guessed(flat, [0.1, 0.12]), losses, losses, EVEN)
    assert (verdict.verdict, verdict.since_epoch) == ("not_learning", None)
    verdict = judge(guessed(flat, [0.1, 0.2]), losses, losses, EVEN)
    assert verdict.verdict == "undecided"  # two epochs are too few for more
    few = Guessing(0.1, EVEN.losses[:29])
    assert judge(guessed(flat, [0.1, 0.1]), losses[:29], losses[:29], few).verdict == "undecided"


def test_verdict_on_what_is_lost_again_names_the_epoch() -> None:
    rows = history([1.0, 0.5, 2.3, 2.3], [1.0, 0.5, 2.3, 2.3], accuracy=0.1)
    rows = guessed(rows, [0.7, 0.8, 0.1, 0.11])
    verdict = judge(rows, around(0.5, 0.1), around(2.3, 0.0), EVEN)
    assert (verdict.verdict, verdict.since_epoch) == ("not_learning", 3)


NOTHING: Any = None  # what is not looked at


def explained(verdict: Verdict, rows: list[EpochFinished], samples: int, **changes: Any) -> Verdict:
    settings = settings_from_dict({"name": "t", "network": [{"affine": 10}], **changes})
    return explain(verdict, settings, NOTHING, rows, None, {}, samples)


@pytest.mark.parametrize(
    ("accuracy", "samples", "told"),
    [(0.921, 5000, False), (0.919, 5000, True), (0.85, 51, False), (0.85, 52, True)],
)
def test_gap_is_told_if_it_is_large_and_beyond_chance(
    accuracy: float, samples: int, told: bool
) -> None:
    # A gap of 0.15 at 0.85: three standard errors over 51 samples.
    rows = guessed(history(FALLING, [0.5, 0.4, 0.3, 0.2, 0.2, 0.2, 0.2], 1.0), [accuracy] * 7)
    verdict = judge(rows, around(0.2, 0.0), around(0.2, 0.0))
    found = explained(verdict, rows, samples)
    assert found.verdict == "none"
    assert bool(found.message) == bool(found.remedy) == told
    if told:
        assert f"{accuracy:.1%} of the validation images" in (found.message or "")


def test_nothing_is_recommended_that_the_config_has() -> None:
    rows = guessed(history(FALLING, [0.5, 0.4, 0.41, 0.43, 0.45, 0.5, 0.6], 1.0), [0.8] * 7)
    verdict = judge(rows, around(0.4, 0.0), around(0.6, 0.1))
    everything = {"early_stopping", "data.augment", "dropout", "weight_decay", "more images"}
    assert {
        word for word in everything if word in (explained(verdict, rows, 1000).remedy or "")
    } == (everything)
    taken = explained(
        verdict,
        rows,
        1000,
        network=[{"dropout": 0.5}, {"affine": 10}],
        optimizer={"kind": "sgd", "weight_decay": 0.1},
        data={"augment": {"shift": 1}},
        training={"early_stopping": {"patience": 3}},
    )
    assert taken.remedy == "more images"
