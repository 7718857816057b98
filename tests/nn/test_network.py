"""A network: views into flat vectors, names, and the chain rule over its layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from nnctl.nn.functions import Array
from nnctl.nn.layers import Affine, BatchNorm, Dropout, Layer, ReLU, Sigmoid
from nnctl.nn.losses import SoftmaxWithLoss
from nnctl.nn.network import Network


def example(dtype: Any = np.float32) -> Network:
    """Six inputs, 5, 4 and 3 units; the first layer has no parameters."""
    layers: list[Layer] = [Sigmoid(), Affine(5), BatchNorm(), ReLU(), Affine(4), Affine(3)]
    network = Network(layers, 6, dtype=dtype)
    network.initialize(0)
    return network


def inputs(batch: int = 7, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(1).normal(size=(batch, 6)).astype(dtype)


NAMES = [
    "1.affine.weight",
    "1.affine.bias",
    "2.batch_norm.weight",
    "2.batch_norm.bias",
    "4.affine.weight",
    "4.affine.bias",
    "5.affine.weight",
    "5.affine.bias",
]
SIZE = (6 * 5 + 5) + (5 + 5) + (5 * 4 + 4) + (4 * 3 + 3)


def test_parameters_are_named_by_position_kind_and_role_in_order() -> None:
    network = example()
    assert list(network.named_parameters()) == NAMES
    assert list(network.named_arrays()) == [
        *NAMES,
        "2.batch_norm.running_mean",
        "2.batch_norm.running_variance",
    ]
    shapes = [array.shape for array in network.named_parameters().values()]
    assert shapes == [(6, 5), (5,), (5,), (5,), (5, 4), (4,), (4, 3), (3,)]
    assert [name for name, _ in network.named_gradients()] == NAMES


def test_parameters_keep_the_order_of_the_network_past_ten_layers() -> None:
    network = Network([Affine(2) for _ in range(12)], 2)
    positions = [int(name.split(".")[0]) for name in network.named_parameters()]
    assert positions == sorted(positions)
    assert positions[-1] == 11


def test_widths_are_those_of_the_input_and_of_every_output() -> None:
    assert example().widths == [6, 6, 5, 5, 5, 4, 3]


def test_every_number_of_the_flat_vectors_belongs_to_one_view() -> None:
    network = example()
    assert network.size == SIZE == len(network.parameters) == len(network.gradients)
    for vector, views in (
        (network.parameters, network.named_parameters().values()),
        (network.gradients, dict(network.named_gradients()).values()),
    ):
        vector[...] = 0
        for view in views:
            assert np.shares_memory(view, vector)
            view += 1
        np.testing.assert_array_equal(vector, 1)


def test_views_stay_views_while_the_network_is_used() -> None:
    network = example()
    for _ in range(2):
        network.backward(network.forward(inputs(), training=True).copy())
        network.initialize(1)
    for layer in network.layers:
        for name in layer.gradients:
            assert np.shares_memory(getattr(layer, name), network.parameters)
            assert np.shares_memory(layer.gradients[name], network.gradients)
    network.parameters[...] = 0
    assert not network.forward(inputs()).any()


def test_bind_moves_every_view_to_other_vectors() -> None:
    network = example()
    outputs = network.forward(inputs()).copy()
    old = network.parameters
    network.bind(old.copy(), np.zeros_like(old))
    old[...] = np.nan
    np.testing.assert_array_equal(network.forward(inputs()), outputs)
    network.backward(outputs)
    assert all(array.any() for _, array in network.named_gradients())
    assert np.shares_memory(network.named_parameters()["5.affine.bias"], network.parameters)
    network.bind(np.zeros_like(old), np.zeros_like(old))
    assert not network.forward(inputs()).any()


def test_memory_comes_from_the_allocator_that_is_given() -> None:
    vectors: list[Array] = []

    def allocate(size: int, dtype: Any) -> Array:
        vectors.append(np.zeros(size, dtype))
        return vectors[-1]

    network = Network([Affine(3)], 2, dtype=np.float64, allocate=allocate)
    assert network.parameters is vectors[0]
    assert network.gradients is vectors[1]
    assert {(len(vector), vector.dtype.name) for vector in vectors} == {(9, "float64")}


def test_decayed_parameters_come_first_and_are_the_affine_weights() -> None:
    network = example()
    assert network.decayed == 6 * 5 + 5 * 4 + 4 * 3
    network.parameters[: network.decayed] = 7
    network.parameters[network.decayed :] = 3
    for name, array in network.named_parameters().items():
        decayed = name.endswith("affine.weight")
        np.testing.assert_array_equal(array, 7 if decayed else 3)


def test_initialization_is_a_function_of_seed_and_position() -> None:
    one, other = example(), example()
    np.testing.assert_array_equal(one.parameters, other.parameters)
    other.initialize(1)
    assert (one.layers[1].weight != other.layers[1].weight).all()
    # Two layers of the same shape start apart, and a layer does not feel what follows it.
    twins = Network([Affine(4), Affine(4)], 4)
    twins.initialize(0)
    assert (twins.layers[0].weight != twins.layers[1].weight).all()
    longer = Network([Affine(4), Affine(4), Affine(2)], 4)
    longer.initialize(0)
    np.testing.assert_array_equal(longer.layers[1].weight, twins.layers[1].weight)


def test_initialization_restarts_statistics() -> None:
    network = example()
    network.forward(inputs(), training=True)
    network.initialize(0)
    assert not network.statistics["2.batch_norm.running_mean"].any()
    assert (network.statistics["2.batch_norm.running_variance"] == 1).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_forward_and_backward_are_the_layers_one_after_the_other(dtype: Any) -> None:
    network, by_hand = example(dtype), example(dtype)
    x = inputs(dtype=dtype)
    outputs = network.forward(x, training=True)
    y = x
    for layer in by_hand.layers:
        y = layer.forward(y, training=True)
    np.testing.assert_array_equal(outputs, y)
    assert (outputs.shape, outputs.dtype) == ((7, 3), dtype)
    dout = np.ones((7, 3), dtype)
    network.backward(dout)
    for layer in reversed(by_hand.layers):
        dout = layer.backward(dout)
    np.testing.assert_array_equal(network.gradients, by_hand.gradients)
    assert network.gradients.dtype == dtype
    assert all(gradient.any() for _, gradient in network.named_gradients())


@dataclass(eq=False)
class Probe(Layer):
    """Passes everything on, and writes down what is asked of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.asked: list[str] = []

    def forward(self, x: Array, training: bool = False) -> Array:
        return x

    def parameter_gradients(self, dout: Array) -> None:
        self.asked.append("parameters")

    def input_gradient(self, dout: Array) -> Array:
        self.asked.append("input")
        return dout


class ProbedAffine(Affine):
    def input_gradient(self, dout: Array) -> Array:
        raise AssertionError("nothing below needs this gradient")


def test_nothing_is_computed_below_the_first_layer_with_parameters() -> None:
    below, above = Probe(), Probe()
    network = Network([below, ProbedAffine(3), above, Affine(2)], 6)
    network.initialize(0)
    assert network.first_trained == 1
    network.forward(inputs(), training=True)
    network.backward(np.ones((7, 2), np.float32))
    assert below.asked == []
    assert above.asked == ["parameters", "input"]
    assert all(gradient.any() for _, gradient in network.named_gradients())


def test_network_without_parameters_has_nothing_to_compute_backward() -> None:
    layer = Probe()
    network = Network([layer, ReLU()], 6)
    assert (network.size, network.first_trained, network.named_parameters()) == (0, 2, {})
    network.forward(inputs())
    network.backward(np.ones((7, 6), np.float32))
    assert layer.asked == []


def test_samples_are_coupled_if_one_layer_couples_them() -> None:
    assert example().couples_samples
    assert not Network([Affine(3), ReLU(), Dropout(0.5), Affine(2)], 6).couples_samples


def test_a_step_down_the_gradient_lowers_the_loss() -> None:
    network, loss = example(np.float64), SoftmaxWithLoss()
    x, labels = inputs(dtype=np.float64), np.arange(7) % 3
    before = loss.forward(network.forward(x, training=True), labels)
    network.backward(loss.backward())
    network.parameters -= 0.01 * network.gradients
    after = loss.forward(network.forward(x, training=True), labels)
    # To first order by the step times the gradient's squared norm.
    expected = 0.01 * float(network.gradients @ network.gradients)
    assert before - after == pytest.approx(expected, rel=0.05)
