"""Losses: numbers worked by hand, and what holds for any batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnctl.nn.functions import Array, softmax
from nnctl.nn.losses import LOSSES, Loss, MeanSquaredError, SoftmaxWithLoss

# One or more of each loss; the tests below run over them all.
SAMPLES: dict[str, list[Loss]] = {
    "softmax_cross_entropy": [SoftmaxWithLoss(), SoftmaxWithLoss(label_smoothing=0.1)],
    "mean_squared_error": [MeanSquaredError()],
}
ALL = [loss for samples in SAMPLES.values() for loss in samples]
DTYPES = [np.float32, np.float64]


def batch(dtype: Any = np.float64, size: int = 6) -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(size, 4)).astype(dtype), rng.integers(0, 4, size)


def test_every_loss_has_a_sample() -> None:
    assert set(SAMPLES) == set(LOSSES)
    for kind, samples in SAMPLES.items():
        assert {type(loss) for loss in samples} == {LOSSES[kind]}


# Probabilities 1/4 and 3/4.
Z = [0.0, math.log(3)]


def test_cross_entropy_of_one_sample_is_minus_the_log_of_its_probability() -> None:
    loss = SoftmaxWithLoss()
    assert loss.forward(np.array([Z]), np.array([1])) == pytest.approx(math.log(4 / 3))
    np.testing.assert_allclose(loss.backward(), [[0.25, -0.25]])
    assert loss.forward(np.array([Z]), np.array([0])) == pytest.approx(math.log(4))
    np.testing.assert_allclose(loss.backward(), [[-0.75, 0.75]])


def test_cross_entropy_of_a_batch_is_the_mean_and_its_gradient_a_share() -> None:
    loss = SoftmaxWithLoss()
    found = loss.forward(np.array([Z, Z]), np.array([1, 0]))
    assert found == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    np.testing.assert_allclose(loss.backward(), [[0.125, -0.125], [-0.375, 0.375]])


def test_label_smoothing_moves_a_share_of_the_target_to_every_class() -> None:
    loss = SoftmaxWithLoss(label_smoothing=0.2)  # targets 0.9 and 0.1
    expected = -0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4)
    assert loss.forward(np.array([Z]), np.array([1])) == pytest.approx(expected)
    np.testing.assert_allclose(loss.backward(), [[0.25 - 0.1, 0.75 - 0.9]])


def test_label_smoothing_is_not_in_the_reported_loss() -> None:
    outputs, labels = batch()
    smoothed, plain = (SoftmaxWithLoss(label_smoothing=s) for s in (0.3, 0.0))
    np.testing.assert_array_equal(
        smoothed.per_sample(outputs, labels), plain.per_sample(outputs, labels)
    )
    np.testing.assert_allclose(plain.per_sample(np.array([Z]), np.array([0])), [math.log(4)])


def test_cross_entropy_of_equal_logits_is_the_log_of_the_number_of_classes() -> None:
    for smoothing in (0.0, 0.1):
        found = SoftmaxWithLoss(smoothing).forward(np.full((3, 10), 7.0), np.array([0, 4, 9]))
        assert found == pytest.approx(math.log(10))


def test_squared_error_of_one_sample_is_a_mean_over_the_classes_without_a_half() -> None:
    loss = MeanSquaredError()
    outputs = np.array([[0.5, 0.5, 1.0, 0.0]])  # off by -0.5, 0.5, 1 and 0
    assert loss.forward(outputs, np.array([0])) == pytest.approx(1.5 / 4)
    np.testing.assert_allclose(loss.backward(), [[-0.25, 0.25, 0.5, 0]])


def test_squared_error_of_a_batch_is_a_mean_over_batch_and_classes() -> None:
    loss = MeanSquaredError()
    outputs = np.array([[0.5, 0.5], [0.0, 3.0]])  # off by -0.5, 0.5; 0, 2
    assert loss.forward(outputs, np.array([0, 1])) == pytest.approx(4.5 / 4)
    np.testing.assert_allclose(loss.backward(), [[-0.25, 0.25], [0.0, 1.0]])
    np.testing.assert_allclose(loss.per_sample(outputs, np.array([0, 1])), [0.25, 2])


def test_scores_are_probabilities_for_cross_entropy_and_the_outputs_for_squared_error() -> None:
    outputs, _ = batch()
    np.testing.assert_allclose(SoftmaxWithLoss().scores(outputs), softmax(outputs))
    np.testing.assert_array_equal(MeanSquaredError().scores(outputs), outputs)


@given(
    hnp.arrays(np.float64, (5, 3), elements=st.floats(-30, 30)),
    hnp.arrays(np.int64, 5, elements=st.integers(0, 2)),
)
def test_loss_of_a_batch_is_the_mean_of_its_samples(outputs: Array, labels: Array) -> None:
    for loss in (SoftmaxWithLoss(), MeanSquaredError()):
        mean = loss.per_sample(outputs, labels).mean()
        assert loss.forward(outputs, labels) == pytest.approx(mean, abs=1e-12)


@given(
    hnp.arrays(np.float64, (5, 3), elements=st.floats(-30, 30)),
    hnp.arrays(np.int64, 5, elements=st.integers(0, 2)),
    st.floats(-1e3, 1e3),
)
def test_cross_entropy_does_not_feel_a_shift_of_the_logits(
    outputs: Array, labels: Array, shift: float
) -> None:
    for loss in SAMPLES["softmax_cross_entropy"]:
        expected, gradient = loss.forward(outputs, labels), loss.backward().copy()
        assert loss.forward(outputs + shift, labels) == pytest.approx(expected, abs=1e-9)
        np.testing.assert_allclose(loss.backward(), gradient, atol=1e-9)
        np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy_is_stable_at_huge_logits(dtype: Any) -> None:
    outputs = np.array([[1e4, -1e4], [-1e4, 1e4]], dtype)
    labels = np.array([0, 0])
    loss = SoftmaxWithLoss()
    np.testing.assert_allclose(loss.per_sample(outputs, labels), [0, 2e4])
    assert loss.forward(outputs, labels) == pytest.approx(1e4)
    np.testing.assert_array_equal(loss.backward(), [[0, 0], [-0.5, 0.5]])
    smooth = SoftmaxWithLoss(label_smoothing=0.1)
    assert smooth.forward(outputs, labels) == pytest.approx(1e4)  # (0.05 + 0.95) 2e4 / 2
    assert np.isfinite(smooth.backward()).all()


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_in_is_dtype_out(loss: Loss, dtype: Any) -> None:
    outputs, labels = batch(dtype)
    assert type(loss.forward(outputs, labels)) is float
    assert loss.backward().dtype == dtype
    assert loss.per_sample(outputs, labels).dtype == dtype
    assert loss.scores(outputs).dtype == dtype


@pytest.mark.parametrize("loss", ALL)
def test_arguments_are_left_as_they_are(loss: Loss) -> None:
    outputs, labels = batch()
    before = outputs.copy(), labels.copy()
    loss.forward(outputs, labels)
    loss.backward()
    loss.per_sample(outputs, labels)
    loss.scores(outputs)
    np.testing.assert_array_equal(outputs, before[0])
    np.testing.assert_array_equal(labels, before[1])


@pytest.mark.parametrize("loss", ALL)
def test_backward_scales_with_the_upstream_gradient(loss: Loss) -> None:
    loss.forward(*batch())
    gradient = loss.backward().copy()
    assert gradient.shape == (6, 4)
    np.testing.assert_allclose(loss.backward(0.25), 0.25 * gradient)
    np.testing.assert_allclose(loss.backward(), gradient)


@pytest.mark.parametrize("loss", ALL)
def test_nothing_stays_from_a_batch_of_another_size(loss: Loss) -> None:
    outputs, labels = batch()
    expected = loss.forward(outputs[:2], labels[:2]), loss.backward().copy()
    loss.forward(outputs, labels)
    loss.backward()
    assert loss.forward(outputs[:2], labels[:2]) == expected[0]
    np.testing.assert_array_equal(loss.backward(), expected[1])


@pytest.mark.parametrize("loss", ALL)
def test_labels_may_be_the_bytes_of_a_data_set(loss: Loss) -> None:
    outputs, labels = batch()
    expected = loss.forward(outputs, labels), loss.backward().copy()
    assert loss.forward(outputs, labels.astype(np.uint8)) == expected[0]
    np.testing.assert_array_equal(loss.backward(), expected[1])


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_label_smoothing_outside_its_limits_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        SoftmaxWithLoss(label_smoothing=smoothing)
