"""Student's t and McNemar's test, against tables, SciPy's numbers and what is worked by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnctl.runs.statistics import (
    estimate_mean,
    expected_maximum,
    mcnemar,
    selection_bias,
    t_probability,
    t_quantile,
)

# t, degrees of freedom, 2 * scipy.stats.t.sf(t, degrees) of SciPy 1.17
SCIPY = [
    (1.3, 1, 0.41742880032030544),
    (2.5, 4, 0.06676654481198814),
    (0.2, 4999, 0.8414887162274851),
    (3.3, 4999, 0.0009736226389892684),
    (40.0, 10, 2.2808577430857535e-12),
]


@pytest.mark.parametrize(("t", "degrees", "expected"), SCIPY)
def test_t_probability_is_scipys(t: float, degrees: int, expected: float) -> None:
    assert t_probability(t, degrees) == pytest.approx(expected, rel=1e-8)
    assert t_probability(-t, degrees) == t_probability(t, degrees)


def test_t_probability_in_closed_form() -> None:
    # One degree of freedom is Cauchy's distribution, two have an algebraic one.
    for t in (0.0, 0.3, 1.0, 7.0):
        assert t_probability(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t))
        assert t_probability(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert t_probability(math.inf, 3) == 0


@pytest.mark.parametrize(
    ("confidence", "degrees", "expected"),
    [(0.95, 1, 12.706205), (0.95, 4, 2.776445), (0.99, 30, 2.749996), (0.95, 4999, 1.960439)],
)
def test_t_quantile_is_that_of_the_tables(confidence: float, degrees: int, expected: float) -> None:
    assert t_quantile(confidence, degrees) == pytest.approx(expected, abs=1e-6)


@given(st.floats(0.01, 0.999), st.integers(1, 100_000))
def test_t_quantile_undoes_t_probability(confidence: float, degrees: int) -> None:
    assert t_probability(t_quantile(confidence, degrees), degrees) == pytest.approx(1 - confidence)


def test_estimate_of_a_mean_worked_by_hand() -> None:
    # Mean 3, deviations -2 -1 0 1 2: variance 10 / 4, standard error sqrt(2.5 / 5).
    found = estimate_mean(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert (found.n, found.mean) == (5, 3.0)
    assert found.standard_error == pytest.approx(math.sqrt(0.5))
    half = 2.7764451051977934 * math.sqrt(0.5)
    assert found.interval == pytest.approx((3 - half, 3 + half))
    assert found.p_value == pytest.approx(0.013235599, abs=1e-8)  # scipy.stats.ttest_1samp


def test_estimate_of_no_difference_and_of_a_constant_one() -> None:
    assert estimate_mean(np.zeros(10)).p_value == 1
    constant = estimate_mean(np.full(10, 0.25))
    assert (constant.p_value, constant.interval) == (0, (0.25, 0.25))


def test_interval_of_a_mean_holds_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    estimates = [estimate_mean(rng.normal(2.0, 3.0, 6), 0.9) for _ in range(2000)]
    held = sum(low <= 2.0 <= high for low, high in (found.interval for found in estimates))
    assert held / 2000 == pytest.approx(0.9, abs=0.02)


def test_expected_maximum_is_that_of_the_tables() -> None:
    # In closed form for one, two and three values; from Tippett's table (1925) beyond.
    assert expected_maximum(1) == pytest.approx(0, abs=1e-9)
    assert expected_maximum(2) == pytest.approx(1 / math.sqrt(math.pi))
    assert expected_maximum(3) == pytest.approx(1.5 / math.sqrt(math.pi))
    assert expected_maximum(100) == pytest.approx(2.50759, abs=1e-5)


@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_selection_bias_is_what_choosing_the_best_adds_in_simulations(shared: float) -> None:
    """Equally good models, that get a part of the samples right or wrong in common."""
    rng = np.random.default_rng(1)
    models, samples, accuracy = 8, 2000, 0.9
    gained, expected = [], []
    for _ in range(300):
        own = rng.random((models, samples)) < accuracy
        common = rng.random(samples) < accuracy
        right = np.where(rng.random(samples) < shared, common, own)
        means = right.mean(axis=1)
        gained.append(means.max() - means.mean())
        expected.append(selection_bias(right))
    assert np.mean(expected) == pytest.approx(np.mean(gained), rel=0.05)


def test_selection_bias_of_equal_models_is_none() -> None:
    assert selection_bias(np.array([[True, False, True]] * 3)) == 0


def test_mcnemar_worked_by_hand() -> None:
    # 2 (C(6,0) + C(6,1)) / 2^6
    assert mcnemar(1, 5) == pytest.approx(14 / 64)
    assert mcnemar(0, 5) == pytest.approx(2 / 32)


def test_mcnemar_of_models_that_never_disagree_or_disagree_evenly_is_one() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(7, 7) == 1


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_two_sided_binomial_tail(only_a: int, only_b: int) -> None:
    n = only_a + only_b
    tail = sum(math.comb(n, i) for i in range(min(only_a, only_b) + 1))
    expected = min(Fraction(1), Fraction(2 * tail, 2**n))
    assert mcnemar(only_a, only_b) == pytest.approx(float(expected), rel=1e-9)
    assert mcnemar(only_a, only_b) == mcnemar(only_b, only_a)


def test_mcnemar_of_large_counts_does_not_overflow() -> None:
    assert mcnemar(30_000, 30_500) == pytest.approx(0.0424, abs=5e-4)  # z = 499 / sqrt(60500)
    assert mcnemar(0, 60_000) == 0
