"""The functions of the equations: what they compute, and that no finite input breaks them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnctl.nn.functions import Array, log_sum_exp, one_hot, sigmoid, softmax

logits = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 5), st.integers(1, 12)), elements=st.floats(-50, 50)
)
HUGE = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]])


@given(logits)
def test_softmax_is_a_distribution_in_the_order_of_the_logits(z: Array) -> None:
    y = softmax(z)
    np.testing.assert_allclose(y.sum(axis=1), 1)
    assert (y >= 0).all()
    for logit, probability in zip(z, y, strict=True):
        assert (np.diff(probability[np.argsort(logit)]) >= 0).all()


@given(logits, st.floats(-1e4, 1e4))
def test_softmax_does_not_feel_a_shift(z: Array, shift: float) -> None:
    np.testing.assert_allclose(softmax(z + shift), softmax(z), rtol=1e-8, atol=1e-12)


@given(logits, st.floats(-1e4, 1e4))
def test_log_sum_exp_moves_with_a_shift(z: Array, shift: float) -> None:
    np.testing.assert_allclose(log_sum_exp(z + shift), log_sum_exp(z) + shift, atol=1e-8)


def test_softmax_of_logarithms_is_their_numbers_as_shares() -> None:
    np.testing.assert_allclose(softmax(np.log([[1.0, 2.0, 5.0]])), [[0.125, 0.25, 0.625]])


def test_log_sum_exp_of_logarithms_is_the_logarithm_of_the_sum() -> None:
    z = np.log([[1.0, 2.0, 5.0], [0.5, 0.25, 0.25]])
    np.testing.assert_allclose(log_sum_exp(z), [[math.log(8)], [0.0]], atol=1e-15)


def test_softmax_and_log_sum_exp_work_along_the_axis_that_is_named() -> None:
    z = np.random.default_rng(0).normal(size=(3, 4))
    np.testing.assert_array_equal(softmax(z, axis=0), softmax(z.T).T)
    np.testing.assert_array_equal(log_sum_exp(z, axis=0), log_sum_exp(z.T).T)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits_give_exact_limits(dtype: Any) -> None:
    z = HUGE.astype(dtype)
    third = dtype(1) / dtype(3)
    np.testing.assert_array_equal(softmax(z), np.array([[1, 0, 0], [third] * 3], dtype))
    expected = np.array([[1e4], [-1e4 + math.log(3)]], dtype)
    np.testing.assert_allclose(log_sum_exp(z), expected, rtol=1e-6)
    assert softmax(z).dtype == log_sum_exp(z).dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_is_exact_in_the_middle_and_in_both_tails(dtype: Any) -> None:
    x = np.array([-1e4, -math.log(3), 0, math.log(3), 1e4], dtype)
    y = sigmoid(x)
    np.testing.assert_allclose(y, [0, 0.25, 0.5, 0.75, 1], rtol=1e-6)
    assert y.dtype == dtype
    # A tail of its own, where 1 - sigmoid(-x) would be 0.
    np.testing.assert_allclose(sigmoid(np.array([-40.0])), [math.exp(-40)])


@given(hnp.arrays(np.float64, 9, elements=st.floats(-700, 700)))
def test_sigmoid_is_symmetric_about_one_half(x: Array) -> None:
    np.testing.assert_allclose(sigmoid(x) + sigmoid(-x), 1)


@pytest.mark.parametrize("function", [softmax, log_sum_exp, sigmoid])
def test_functions_leave_their_argument(function: Callable[[Array], Array]) -> None:
    z = np.array([[1.0, 2.0]])
    function(z)
    assert z.tolist() == [[1, 2]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_one_hot_has_its_one_at_the_label(dtype: Any) -> None:
    targets = one_hot(np.array([3, 0, 3], dtype), 4, np.float64)
    assert targets.tolist() == [[0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert targets.dtype == np.float64
