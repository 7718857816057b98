"""Layers: numbers worked by hand, and what holds for every entry of the registry."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnctl.nn.functions import Array
from nnctl.nn.initializers import Normal, XavierUniform, Zeros
from nnctl.nn.layers import (
    GELU,
    LAYERS,
    Affine,
    BatchNorm,
    Dropout,
    Layer,
    LeakyReLU,
    ReLU,
    Sigmoid,
    Tanh,
)
from nnctl.nn.network import Network

INPUTS, BATCH = 4, 6
# One or more of each layer; the tests below run over them all.
SAMPLES: dict[str, list[Callable[[], Layer]]] = {
    "affine": [lambda: Affine(3), lambda: Affine(5, XavierUniform())],
    "relu": [ReLU],
    "leaky_relu": [LeakyReLU, lambda: LeakyReLU(slope=0.2)],
    "sigmoid": [Sigmoid],
    "tanh": [Tanh],
    "gelu": [GELU],
    "dropout": [lambda: Dropout(0.5), lambda: Dropout(0.0)],
    "batch_norm": [BatchNorm, lambda: BatchNorm(momentum=0.5, epsilon=1e-3)],
}
MAKERS = [maker for makers in SAMPLES.values() for maker in makers]
NAMES = [f"{kind}-{index}" for kind, makers in SAMPLES.items() for index in range(len(makers))]
every_layer = pytest.mark.parametrize("make", MAKERS, ids=NAMES)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def mount(layer: Layer, inputs: int = INPUTS, dtype: Any = np.float64) -> Network:
    """Give the layer its memory and its first weights."""
    network = Network([layer], inputs, dtype=dtype)
    network.initialize(0)
    return network


def normal(*shape: int, dtype: Any = np.float64, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def test_every_layer_has_a_sample() -> None:
    assert set(SAMPLES) == set(LAYERS)
    for kind, makers in SAMPLES.items():
        assert {type(make()) for make in makers} == {LAYERS[kind]}


# What holds for every layer.


@every_layer
@both_dtypes
@pytest.mark.parametrize("training", [True, False])
def test_dtype_in_is_dtype_out_and_shapes_are_as_promised(
    make: Callable[[], Layer], dtype: Any, training: bool
) -> None:
    layer = make()
    network = mount(layer, dtype=dtype)
    y = layer.forward(normal(BATCH, INPUTS, dtype=dtype), training)
    assert (y.shape, y.dtype) == ((BATCH, layer.output_units(INPUTS)), dtype)
    if training:
        dx = layer.backward(normal(*y.shape, dtype=dtype))
        assert (dx.shape, dx.dtype) == ((BATCH, INPUTS), dtype)
        assert {array.dtype for array in layer.gradients.values()} <= {np.dtype(dtype)}
    assert {array.dtype for array in network.named_arrays().values()} <= {np.dtype(dtype)}


@every_layer
def test_arguments_and_weights_are_left_as_they_are(make: Callable[[], Layer]) -> None:
    layer = make()
    network = mount(layer)
    weights = network.parameters.copy()
    x, dout = normal(BATCH, INPUTS), normal(BATCH, layer.output_units(INPUTS), seed=2)
    before = x.copy(), dout.copy()
    layer.forward(x)
    layer.forward(x, training=True)
    layer.backward(dout)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(dout, before[1])
    np.testing.assert_array_equal(network.parameters, weights)


@every_layer
def test_layer_in_use_changes_nothing_and_gives_the_same_again(
    make: Callable[[], Layer],
) -> None:
    layer = make()
    network = mount(layer)
    layer.forward(normal(BATCH, INPUTS, seed=3), training=True)
    statistics = {name: array.copy() for name, array in network.statistics.items()}
    x = normal(BATCH, INPUTS)
    first = layer.forward(x).copy()
    layer.forward(normal(BATCH, INPUTS, seed=4))
    np.testing.assert_array_equal(layer.forward(x), first)
    np.testing.assert_equal(network.statistics, statistics)


@every_layer
def test_sample_in_use_does_not_feel_the_rest_of_its_batch(make: Callable[[], Layer]) -> None:
    layer = make()
    mount(layer)
    layer.forward(normal(BATCH, INPUTS, seed=3), training=True)
    x = normal(BATCH, INPUTS)
    together = layer.forward(x).copy()
    alone = np.concatenate([layer.forward(x[i : i + 1]).copy() for i in range(BATCH)])
    np.testing.assert_allclose(alone, together, rtol=1e-12, atol=1e-15)


@every_layer
def test_layer_says_whether_samples_are_coupled_in_training(make: Callable[[], Layer]) -> None:
    x = normal(BATCH, INPUTS)
    changed = x.copy()
    changed[0] += 1
    outputs = []
    for batch in (x, changed):
        layer = make()
        mount(layer)
        outputs.append(layer.forward(batch, training=True)[1:].copy())
    assert layer.couples_samples is not np.array_equal(outputs[0], outputs[1])


@every_layer
def test_nothing_stays_from_a_batch_of_another_size(make: Callable[[], Layer]) -> None:
    """The last batch of an epoch may be smaller, and the first of the next is whole again."""
    used, fresh = make(), make()
    networks = [mount(layer) for layer in (used, fresh)]
    units = used.output_units(INPUTS)
    used.forward(normal(BATCH, INPUTS, seed=5), training=True)
    used.backward(normal(BATCH, units, seed=6))
    for network in networks:
        network.initialize(0)  # the running averages, too
    for layer in (used, fresh):
        if isinstance(layer, Dropout):
            layer.rng = np.random.default_rng(7)
    x, dout = normal(2, INPUTS), normal(2, units, seed=2)
    np.testing.assert_array_equal(used.forward(x, training=True), fresh.forward(x, training=True))
    np.testing.assert_array_equal(used.backward(dout), fresh.backward(dout))
    np.testing.assert_array_equal(networks[0].gradients, networks[1].gradients)


@every_layer
def test_gradients_are_set_and_not_added_to(make: Callable[[], Layer]) -> None:
    layer = make()
    network = mount(layer)
    x, dout = normal(BATCH, INPUTS), normal(BATCH, layer.output_units(INPUTS), seed=2)
    network.gradients[...] = np.nan
    layer.forward(x, training=True)
    layer.parameter_gradients(dout)
    first = network.gradients.copy()
    assert np.isfinite(first).all()
    layer.parameter_gradients(dout)
    np.testing.assert_array_equal(network.gradients, first)


@every_layer
@both_dtypes
def test_huge_inputs_give_finite_outputs_and_gradients(
    make: Callable[[], Layer], dtype: Any
) -> None:
    layer = make()
    network = mount(layer, dtype=dtype)
    x = np.array([[1e4, -1e4, 1e4, 0], [-1e4, 1e4, 0, 1e4]], dtype)
    y = layer.forward(x, training=True)
    dx = layer.backward(np.ones_like(y))
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    assert np.isfinite(network.gradients).all()


# What each one computes.


def test_affine_and_its_chain_rule_worked_by_hand() -> None:
    layer = Affine(3)
    mount(layer, 2)
    layer.weight[...] = [[1, 0, -1], [2, 1, 0]]
    layer.bias[...] = [0.5, 0, 1]
    y = layer.forward(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert y.tolist() == [[5.5, 2, 0], [11.5, 4, -2]]
    dx = layer.backward(np.array([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]]))
    assert layer.gradients["weight"].tolist() == [[1, 3, -1], [2, 4, 0]]
    assert layer.gradients["bias"].tolist() == [1, 1, 1]
    assert dx.tolist() == [[-1, 2], [1, 1]]


def test_affine_starts_with_its_initializer_and_no_bias() -> None:
    layer = Affine(400)
    mount(layer, 800)
    assert layer.weight.std() == pytest.approx(math.sqrt(2 / 800), rel=0.01)  # he_normal
    assert not layer.bias.any()
    zeros = Affine(3, Zeros())
    mount(zeros)
    assert not zeros.weight.any()


# Layer, x, y and dy/dx; exact at the corners of ReLU: what lies at 0 counts as below it.
WORKED: list[tuple[Layer, list[float], list[float], list[float]]] = [
    (ReLU(), [-1, 0, 2], [0, 0, 2], [0, 0, 1]),
    (LeakyReLU(), [-1, 0, 2], [-0.01, 0, 2], [0.01, 0.01, 1]),
    (LeakyReLU(slope=0.2), [-1, 0, 2], [-0.2, 0, 2], [0.2, 0.2, 1]),
    (LeakyReLU(slope=0), [-1, 0, 2], [0, 0, 2], [0, 0, 1]),
    (Sigmoid(), [-math.log(3), 0, math.log(3)], [0.25, 0.5, 0.75], [0.1875, 0.25, 0.1875]),
    (Tanh(), [-math.log(2), 0, math.log(3)], [-0.6, 0, 0.8], [0.64, 1, 0.36]),
]


@pytest.mark.parametrize(("layer", "x", "y", "slopes"), WORKED)
def test_activation_and_its_derivative_worked_by_hand(
    layer: Layer, x: list[float], y: list[float], slopes: list[float]
) -> None:
    np.testing.assert_allclose(layer.forward(np.array([x], float)), [y])
    dout = np.array([[3.0, -2.0, 5.0]])
    np.testing.assert_allclose(layer.backward(dout), slopes * dout)


def gelu(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def test_gelu_is_the_published_formula_and_near_the_exact_one() -> None:
    x = np.linspace(-6, 6, 241)
    y = GELU().forward(x[None])[0]
    np.testing.assert_allclose(y, [gelu(value) for value in x], atol=1e-14)
    exact = [value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in x]
    np.testing.assert_allclose(y, exact, atol=1e-3)


def test_gelu_has_the_slope_of_its_formula() -> None:
    x, h = np.linspace(-6, 6, 241), 1e-5
    layer = GELU()
    layer.forward(x[None])
    slopes = [(gelu(value + h) - gelu(value - h)) / (2 * h) for value in x]
    np.testing.assert_allclose(layer.backward(np.ones((1, 241)))[0], slopes, atol=1e-9)


@given(st.floats(-30, 30))
def test_gelu_and_its_mirror_image_differ_by_x(x: float) -> None:
    up, down = (float(GELU().forward(np.array([[value]]))[0, 0]) for value in (x, -x))
    assert up - down == pytest.approx(x, abs=1e-12)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@both_dtypes
def test_dropout_zeroes_its_rate_and_scales_the_rest(rate: float, dtype: Any) -> None:
    layer, x = Dropout(rate), np.ones((400, 500), dtype)
    y = layer.forward(x, training=True)
    kept = y != 0
    np.testing.assert_allclose(y[kept], 1 / (1 - rate), rtol=1e-6)
    five_errors = 5 * math.sqrt(rate * (1 - rate) / x.size)
    assert kept.mean() == pytest.approx(1 - rate, abs=five_errors)
    assert y.mean(dtype=np.float64) == pytest.approx(1, abs=five_errors / (1 - rate))
    # No row and no column is favoured.
    for axis, size in ((0, 400), (1, 500)):
        spread = math.sqrt(rate * (1 - rate) / size)
        assert np.abs(kept.mean(axis=axis) - (1 - rate)).max() < 5 * spread
    np.testing.assert_array_equal(layer.backward(x), y)  # the way back takes the same mask


def test_dropout_draws_a_new_mask_each_time_from_its_own_generator() -> None:
    def masks(seed: int) -> list[Array]:
        layer = Dropout(0.5)
        layer.rng = np.random.default_rng(seed)
        return [layer.forward(np.ones((8, 8)), training=True).copy() for _ in range(2)]

    first, second = masks(1)
    assert (first != second).any()
    np.testing.assert_array_equal(masks(1), [first, second])
    assert (masks(2)[0] != first).any()


def test_dropout_in_use_is_the_identity() -> None:
    x = normal(BATCH, INPUTS)
    np.testing.assert_array_equal(Dropout(0.9).forward(x), x)


def test_batch_norm_in_training_is_the_direct_computation() -> None:
    layer = BatchNorm(epsilon=1e-3)
    mount(layer)
    layer.weight[...], layer.bias[...] = [1, 2, 3, -1], [0, 5, -5, 1]
    x = 10 + 3 * normal(BATCH, INPUTS)
    expected = np.empty_like(x)
    for unit in range(INPUTS):
        column = x[:, unit]
        mean = sum(column) / BATCH
        variance = sum((value - mean) ** 2 for value in column) / BATCH
        for sample in range(BATCH):
            x_hat = (column[sample] - mean) / math.sqrt(variance + 1e-3)
            expected[sample, unit] = layer.weight[unit] * x_hat + layer.bias[unit]
    np.testing.assert_allclose(layer.forward(x, training=True), expected)


def test_batch_norm_keeps_running_averages_with_the_unbiased_variance() -> None:
    layer = BatchNorm()
    mount(layer, 1)
    layer.forward(np.array([[1.0], [3.0]]), training=True)  # mean 2, variance 1, unbiased 2
    assert layer.running_mean == pytest.approx(0.1 * 2)
    assert layer.running_variance == pytest.approx(0.9 * 1 + 0.1 * 2)
    layer.forward(np.array([[0.0], [0.0], [6.0]]), training=True)  # 2, 8, unbiased 12
    assert layer.running_mean == pytest.approx(0.9 * 0.2 + 0.1 * 2)
    assert layer.running_variance == pytest.approx(0.9 * 1.1 + 0.1 * 12)


def test_batch_norm_in_use_goes_by_the_running_averages() -> None:
    layer = BatchNorm(epsilon=0.75)
    mount(layer, 1)
    layer.running_mean[...], layer.running_variance[...] = 3, 15.25  # plus epsilon: 16
    layer.weight[...], layer.bias[...] = 2, 1
    assert layer.forward(np.array([[7.0], [-1.0]])).tolist() == [[3], [-1]]


def test_batch_norm_of_a_single_sample_is_its_bias() -> None:
    layer = BatchNorm()
    mount(layer, 1)
    layer.bias[...] = 4
    assert layer.forward(np.array([[17.0]]), training=True).tolist() == [[4]]
    assert layer.running_variance == pytest.approx(0.9)
    assert layer.backward(np.array([[1.0]])).tolist() == [[0]]


@given(st.floats(0.01, 100), st.floats(-100, 100))
def test_batch_norm_does_not_feel_scale_and_shift_of_its_inputs(scale: float, shift: float) -> None:
    outputs = []
    for x in (normal(BATCH, INPUTS), scale * normal(BATCH, INPUTS) + shift):
        layer = BatchNorm(epsilon=1e-12)
        mount(layer)
        outputs.append(layer.forward(x, training=True))
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-6)


def test_batch_norm_sends_nothing_back_along_the_batchs_mean_and_spread() -> None:
    layer = BatchNorm(epsilon=1e-12)
    mount(layer)
    x = normal(BATCH, INPUTS)
    layer.forward(x, training=True)
    dx = layer.backward(normal(BATCH, INPUTS, seed=2))
    np.testing.assert_allclose(dx.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose((dx * x).sum(axis=0), 0, atol=1e-9)
    assert np.abs(dx).max() > 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Affine(0), "units must be at least 1"),
        (lambda: LeakyReLU(slope=-0.1), "slope must be at least 0"),
        (lambda: Dropout(1.0), "rate must be below 1"),
        (lambda: Dropout(-0.1), "rate must be at least 0"),
        (lambda: BatchNorm(momentum=1), "momentum must be below 1"),
        (lambda: BatchNorm(epsilon=1e-40), "epsilon must be at least 1e-30"),
        (lambda: BatchNorm(epsilon=math.nan), "epsilon must be at least 1e-30"),
    ],
)
def test_option_outside_its_limits_is_refused(make: Callable[[], Layer], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_weights_beyond_float32_are_drawn_without_a_warning() -> None:
    network = Network([Affine(2, Normal(std=1e300))], 3)
    network.initialize(0)
    assert np.isinf(network.parameters).any()


def test_options_have_the_defaults_that_configs_rely_on() -> None:
    assert LeakyReLU().slope == 0.01
    assert (BatchNorm().momentum, BatchNorm().epsilon) == (0.9, 1e-5)
