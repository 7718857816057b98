"""Metrics, against numbers worked by hand and against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnctl.nn.metrics import confusion_matrix, per_class, wilson_interval


def test_wilson_interval_of_81_in_263_is_wilsons() -> None:
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_wilson_interval_ends_where_the_data_are_z_standard_errors_off() -> None:
    """Its ends are by definition the p at which |right/n - p| = z sqrt(p (1 - p) / n)."""
    for right, samples in [(1, 10), (7, 9), (9712, 10000)]:
        for p in wilson_interval(right, samples, z=2.0):
            off = abs(right / samples - p) / math.sqrt(p * (1 - p) / samples)
            assert off == pytest.approx(2.0, rel=1e-9)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_wilson_interval_stays_within_bounds_and_holds_the_estimate(right: int, wrong: int) -> None:
    low, high = wilson_interval(right, right + wrong)
    assert 0 <= low < high <= 1
    if right + wrong:
        assert low - 1e-12 <= right / (right + wrong) <= high + 1e-12


def test_wilson_interval_of_all_right_is_not_certainty() -> None:
    low, high = wilson_interval(10, 10)
    z2 = 1.959964**2
    assert high == 1
    assert low == pytest.approx(10 / (10 + z2))


def test_confusion_matrix_counts_true_classes_in_rows() -> None:
    labels = np.array([0, 0, 1, 2, 2, 2], np.uint8)
    predictions = np.array([0, 1, 1, 0, 2, 0], np.uint8)
    confusion = confusion_matrix(labels, predictions, 4)
    assert confusion.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [2, 0, 1, 0], [0, 0, 0, 0]]


def test_confusion_matrix_of_many_classes_does_not_overflow_bytes() -> None:
    labels = np.array([255, 255, 17], np.uint8)
    confusion = confusion_matrix(labels, np.array([255, 3, 17], np.uint8), 256)
    assert (confusion[255, 255], confusion[255, 3], confusion[17, 17]) == (1, 1, 1)
    assert confusion.sum() == 3


def test_per_class_figures_worked_by_hand() -> None:
    zero, one, two, three = per_class(
        np.array([[1, 1, 0, 0], [0, 1, 0, 0], [2, 0, 1, 0], [0, 0, 0, 0]])
    )
    assert (zero.label, zero.precision, zero.recall, zero.support) == (0, 1 / 3, 1 / 2, 2)
    assert zero.f1 == pytest.approx(2 / (3 + 2))  # 2 / (1/precision + 1/recall)
    assert (one.precision, one.recall, one.support) == (1 / 2, 1.0, 1)
    assert (two.precision, two.recall, two.f1) == (1.0, 1 / 3, 1 / 2)
    assert (three.precision, three.recall, three.f1, three.support) == (None, None, None, 0)


def test_per_class_that_is_never_right_has_ratios_of_zero() -> None:
    zero, one = per_class(np.array([[0, 3], [0, 5]]))
    assert (zero.precision, zero.recall, zero.f1) == (None, 0.0, 0.0)
    assert (one.precision, one.recall) == (5 / 8, 1.0)
