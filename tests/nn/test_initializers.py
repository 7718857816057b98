"""Initializers: the deviation that each promises, and where the numbers come from."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnctl.nn.functions import Array
from nnctl.nn.initializers import INITIALIZERS, Initializer, Normal, Shape

SHAPE = Shape(fan_in=400, fan_out=100)
# The standard deviations for 400 inputs and 100 units, worked by hand.
DEVIATIONS = {
    "he_normal": math.sqrt(2 / 400),
    "he_uniform": math.sqrt(2 / 400),
    "xavier_normal": math.sqrt(2 / 500),
    "xavier_uniform": math.sqrt(2 / 500),
    "normal": 0.01,
    "zeros": 0.0,
}


def draw(initializer: Initializer, seed: int = 0) -> Array:
    return initializer(SHAPE, np.random.default_rng(seed))


def test_every_initializer_has_its_deviation_here() -> None:
    assert set(DEVIATIONS) == set(INITIALIZERS)


@pytest.mark.parametrize("kind", DEVIATIONS)
def test_initializer_draws_with_the_deviation_it_promises(kind: str) -> None:
    initializer, deviation = INITIALIZERS[kind](), DEVIATIONS[kind]
    assert initializer.deviation(SHAPE) == pytest.approx(deviation)
    values = draw(initializer)
    assert values.shape == SHAPE
    # Of 40,000 values: five standard errors of the deviation and of the mean.
    assert values.std() == pytest.approx(deviation, rel=5 / math.sqrt(2 * values.size))
    assert abs(values.mean()) <= 5 * deviation / math.sqrt(values.size)


@pytest.mark.parametrize("kind", ["he_uniform", "xavier_uniform"])
def test_uniform_initializer_fills_its_interval_evenly(kind: str) -> None:
    values, bound = draw(INITIALIZERS[kind]()), math.sqrt(3) * DEVIATIONS[kind]
    assert 0.99 * bound < np.abs(values).max() <= bound
    quarters, _ = np.histogram(values, 4, (-bound, bound))
    np.testing.assert_allclose(quarters, values.size / 4, rtol=0.05)


@pytest.mark.parametrize("kind", ["he_normal", "xavier_normal", "normal"])
def test_normal_initializer_has_the_tails_of_a_normal_distribution(kind: str) -> None:
    beyond = np.abs(draw(INITIALIZERS[kind]())) > 2 * DEVIATIONS[kind]
    assert beyond.mean() == pytest.approx(0.0455, abs=0.005)


def test_normal_takes_its_deviation_as_an_option() -> None:
    assert draw(Normal(std=0.5)).std() == pytest.approx(0.5, rel=0.02)
    with pytest.raises(ValueError, match="std must be at least 0"):
        Normal(std=-1)


def test_initializer_is_a_function_of_its_generator() -> None:
    for kind in set(INITIALIZERS) - {"zeros"}:
        initializer = INITIALIZERS[kind]()
        np.testing.assert_array_equal(draw(initializer, 7), draw(initializer, 7))
        assert (draw(initializer, 7) != draw(initializer, 8)).all()
