"""Schedules: the fraction of the learning rate at steps that are worked by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnctl.nn.schedules import SCHEDULES, Constant, Cosine, OneCycle, Schedule, Step

EPOCH, STEPS = 10, 100  # ten epochs of ten steps


def fractions(schedule: Schedule, steps: int = STEPS, per_epoch: int = EPOCH) -> list[float]:
    return [schedule.fraction(step, per_epoch, steps) for step in range(steps)]


# Schedule, and the fraction at some of the steps 0..99.
WORKED: dict[str, list[tuple[Schedule, dict[int, float]]]] = {
    "constant": [
        (Constant(), {0: 1, 50: 1, 99: 1}),
        (Constant(warmup=0.5), {0: 0.2, 1: 0.4, 3: 0.8, 4: 1, 5: 1, 99: 1}),
        (Constant(warmup=2), {0: 1 / 20, 9: 0.5, 19: 1, 20: 1}),
    ],
    "step": [
        (Step(), {0: 1, 99: 1}),  # every 10 epochs
        (Step(every=2, factor=0.5), {0: 1, 19: 1, 20: 0.5, 39: 0.5, 40: 0.25, 99: 0.0625}),
        (Step(every=2, factor=0.5, warmup=1), {0: 0.1, 9: 1, 29: 1, 30: 0.5, 50: 0.25}),
    ],
    "cosine": [
        (Cosine(), {0: 1, 25: (1 + math.sqrt(0.5)) / 2, 50: 0.5, 75: (1 - math.sqrt(0.5)) / 2}),
        (Cosine(final=0.2), {0: 1, 50: 0.6}),
        (Cosine(warmup=2), {0: 0.05, 19: 1, 20: 1, 60: 0.5}),
    ],
    "one_cycle": [
        (OneCycle(), {0: 1 / 30, 14: 0.5, 29: 1, 30: 1, 65: 0.5, 99: 1 / 70}),
        (OneCycle(rise=0), {0: 1, 50: 0.5, 99: 0.01}),
        # Two epochs of warm-up over the rise of the 80 steps that follow: 0.25 * 80 = 20.
        (OneCycle(rise=0.25, warmup=2), {0: 0.05 * 0.05, 19: 0.05, 39: 1, 40: 1, 70: 0.5}),
    ],
}


def test_every_schedule_is_worked_here() -> None:
    assert set(WORKED) == set(SCHEDULES)
    for kind, samples in WORKED.items():
        assert {type(schedule) for schedule, _ in samples} == {SCHEDULES[kind]}


@pytest.mark.parametrize(
    ("schedule", "expected"), [sample for samples in WORKED.values() for sample in samples]
)
def test_schedule_gives_the_fractions_worked_by_hand(
    schedule: Schedule, expected: dict[int, float]
) -> None:
    found = fractions(schedule)
    assert {step: found[step] for step in expected} == pytest.approx(expected)


def test_options_have_the_defaults_that_configs_rely_on() -> None:
    assert Constant() == Constant(warmup=0)
    assert Step() == Step(every=10, factor=0.1, warmup=0)
    assert Cosine() == Cosine(final=0, warmup=0)
    assert OneCycle() == OneCycle(rise=0.3, warmup=0)


def test_cosine_falls_and_ends_near_its_final_fraction() -> None:
    found = fractions(Cosine(final=0.1))
    assert found == sorted(found, reverse=True)
    assert 0.1 < found[-1] < 0.101


def test_one_cycle_rises_once_and_falls_once() -> None:
    found = fractions(OneCycle())
    top = found.index(max(found))
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert max(found) == 1


def test_step_that_grows_beyond_all_numbers_is_infinite() -> None:
    found = fractions(Step(every=1, factor=1e200))
    assert found[EPOCH - 1 : EPOCH + 1] == [1, 1e200]
    assert found[2 * EPOCH] == math.inf  # at which training diverges, and says so


@given(
    st.sampled_from(list(SCHEDULES.values())),
    st.floats(0, 12),
    st.integers(1, 40),
    st.integers(1, 200),
)
def test_fraction_stays_above_zero_and_at_most_one(
    kind: type[Schedule], warmup: float, per_epoch: int, steps: int
) -> None:
    """Whatever the lengths: a warm-up longer than training, epochs of one step."""
    schedule = kind(warmup=warmup)  # type: ignore[call-arg]
    for fraction in fractions(schedule, steps, per_epoch):
        assert 0 < fraction <= 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Constant, {"warmup": -1}),
        (Constant, {"warmup": 1e308}),
        (Step, {"every": 0}),
        (Step, {"factor": 0}),
        (Cosine, {"final": 1}),
        (Cosine, {"final": -0.1}),
        (OneCycle, {"rise": 1}),
        (OneCycle, {"rise": math.nan}),
    ],
)
def test_option_outside_its_limits_is_refused(
    kind: type[Schedule], options: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        kind(**options)
