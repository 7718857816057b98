"""A batch and a sample followed through networks, and what is found wrong in them."""

import math
from typing import Any

import numpy as np
import pytest

from nnctl.config import build, bundled_configs, load_settings
from nnctl.datasets import DataSet, Source, load
from nnctl.datasets.batches import Gatherer
from nnctl.inspection.diagnosis import Finding, diagnose
from nnctl.inspection.trace import LayerTrace, Trace, trace_batch, trace_sample
from nnctl.nn.functions import Array
from nnctl.nn.initializers import HeNormal, Initializer, Normal, XavierNormal, Zeros
from nnctl.nn.layers import (
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
from nnctl.nn.losses import LOSSES, Loss, MeanSquaredError, SoftmaxWithLoss
from nnctl.nn.network import Network
from nnctl.nn.optimizers import OPTIMIZERS, SGD, Adam, Optimizer
from nnctl.nn.step import Step
from nnctl.training.engine import build_network

INPUTS, CLASSES, BATCH = 60, 10, 64


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def x(rng: np.random.Generator) -> Array:
    return rng.random((BATCH, INPUTS))


LABELS = np.arange(BATCH) % CLASSES


def network(*layers: Layer, inputs: int = INPUTS, seed: int = 0) -> Network:
    result = Network(layers, inputs, dtype=np.float64)
    result.initialize(seed)
    return result


def follow(
    network: Network,
    loss: Loss,
    optimizer: Optimizer,
    x: Array,
    labels: Array,
    clip_norm: float | None = None,
) -> Trace:
    """Trace a training step on `x` with its `labels`."""

    def gather(samples: Array) -> tuple[Array, Array]:
        return x[samples], labels[samples]

    step = Step(network, loss, optimizer, gather, clip_norm=clip_norm)
    return trace_batch(step, np.arange(len(x)))


def by_hand(values: list[list[float]], *layers: Layer) -> LayerTrace:
    """Return the trace of the last of `layers`, to which one input column comes as it is."""
    result = network(Affine(1, Zeros()), *layers, Affine(2), inputs=1)
    result.layers[0].weight[...] = 1
    x = np.array(values, float)
    labels = np.zeros(len(x), int)
    return follow(result, SoftmaxWithLoss(), SGD(), x, labels).layers[len(layers)]


def test_trace_figures_are_those_of_the_arrays(x: Array) -> None:
    net, loss = network(Affine(20), ReLU(), Affine(CLASSES)), SoftmaxWithLoss()
    traced = follow(net, loss, SGD(learning_rate=0.5), x, LABELS)
    first, _, last = net.layers
    h = np.maximum(x @ first.weight, 0)
    logits = h @ last.weight
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    dz = (p - np.eye(CLASSES)[LABELS]) / BATCH
    dh = dz @ last.weight.T
    dw = x.T @ (dh * (h > 0))
    db = (dh * (h > 0)).sum(axis=0)
    assert traced.batch_size == BATCH
    assert traced.loss == pytest.approx(-np.log(p[np.arange(BATCH), LABELS]).mean())
    assert [layer.name for layer in traced.layers] == ["0.affine", "1.relu", "2.affine"]
    assert [layer.output_shape for layer in traced.layers] == [(64, 20), (64, 20), (64, 10)]
    assert [layer.parameters for layer in traced.layers] == [1220, 0, 210]
    middle = traced.layers[1]
    assert middle.activation_mean == pytest.approx(h.mean())
    assert middle.activation_std == pytest.approx(h.std())
    assert middle.zero_fraction == (h == 0).mean()
    assert middle.activation_gradient_norm == pytest.approx(np.linalg.norm(dh))
    assert traced.layers[2].activation_gradient_norm == pytest.approx(np.linalg.norm(dz))
    assert traced.layers[0].gradient_norm == pytest.approx(math.hypot(*dw.flat, *db))
    ratio = 0.5 * np.linalg.norm(dw) / np.linalg.norm(first.weight)
    assert traced.layers[0].update_ratio == pytest.approx(ratio)


def test_trace_leaves_out_what_has_no_meaning_for_a_layer(x: Array) -> None:
    net = network(ReLU(), Affine(CLASSES))
    relu, affine = follow(net, SoftmaxWithLoss(), SGD(), x, LABELS).layers
    assert relu.gradient_norm is relu.update_ratio is relu.saturated_fraction is None
    assert relu.activation_gradient_norm is None  # nothing below it is trained
    assert relu.dead_units == 0
    assert affine.dead_units is affine.saturated_fraction is None
    assert affine.activation_gradient_norm


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_trace_puts_the_parameters_back(kind: str, x: Array) -> None:
    net = network(Affine(8), BatchNorm(), Tanh(), Affine(CLASSES))
    before = net.parameters.copy()
    optimizer = OPTIMIZERS[kind]()
    traced = follow(net, SoftmaxWithLoss(), optimizer, x, LABELS)
    np.testing.assert_array_equal(net.parameters, before)
    assert traced.learning_rate == optimizer.learning_rate
    assert all(traced.layers[index].update_ratio for index in (0, 1, 3))


def test_trace_update_is_the_optimizers_own_first_step(x: Array) -> None:
    net = network(Affine(CLASSES))
    (layer,) = follow(
        net, SoftmaxWithLoss(), Adam(learning_rate=0.01), x, LABELS
    ).layers  # Adam's first step is the learning rate for every weight
    weight = net.layers[0].weight
    step = 0.01 * math.sqrt(weight.size)
    assert layer.update_ratio == pytest.approx(step / np.linalg.norm(weight), rel=1e-3)


def test_trace_update_feels_the_clipping(x: Array) -> None:
    net, loss = network(Affine(CLASSES)), SoftmaxWithLoss()
    (free,) = follow(net, loss, SGD(), x, LABELS).layers
    assert free.gradient_norm is not None
    assert free.update_ratio is not None
    (clipped,) = follow(net, loss, SGD(), x, LABELS, free.gradient_norm / 4).layers
    (unclipped,) = follow(net, loss, SGD(), x, LABELS, free.gradient_norm * 4).layers
    assert clipped.update_ratio == pytest.approx(free.update_ratio / 4)
    assert clipped.gradient_norm == free.gradient_norm
    assert unclipped == free


@pytest.mark.parametrize("layer", [Sigmoid(), Tanh()])
def test_trace_counts_saturated_outputs(layer: Layer) -> None:
    assert by_hand([[-9], [0], [0.5], [9]], layer).saturated_fraction == 0.5


def test_trace_counts_units_that_are_off_for_the_whole_batch() -> None:
    assert by_hand([[-1], [-2]], ReLU()).dead_units == 1
    assert by_hand([[-1], [2]], ReLU()).dead_units == 0
    assert by_hand([[-1], [-2]], LeakyReLU()).dead_units == 0
    assert by_hand([[-1], [2], [3], [-4]], ReLU()).zero_fraction == 0.5


OPTIONS: dict[str, dict[str, Any]] = {"affine": {"units": 6}, "dropout": {"rate": 0.5}}


@pytest.mark.parametrize("loss", [kind() for kind in LOSSES.values()])
@pytest.mark.parametrize("kind", LAYERS)
def test_trace_takes_every_layer_and_loss(kind: str, loss: Loss, x: Array) -> None:
    layer = LAYERS[kind](**OPTIONS.get(kind, {}))
    traced = follow(network(Affine(6), layer, Affine(CLASSES)), loss, SGD(), x, LABELS)
    assert traced.layers[1].name == f"1.{kind}"
    assert all(np.isfinite(layer.activation_std) for layer in traced.layers)


def test_trace_of_one_sample_reports_the_same_loss_twice(x: Array) -> None:
    traced = follow(network(Affine(CLASSES)), SoftmaxWithLoss(), SGD(), x[:1], LABELS[:1])
    assert traced.loss == pytest.approx(traced.batch_loss)


def test_sample_gradient_is_softmax_minus_target(x: Array) -> None:
    net, loss = network(Affine(20), ReLU(), Affine(CLASSES)), SoftmaxWithLoss()
    sample = trace_sample(net, loss, x[0], 3)
    logits = net.forward(x[:1])[0]
    p = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(sample.outputs, logits)
    assert sample.probabilities is not None
    np.testing.assert_allclose(sample.probabilities, p)
    assert sample.target == pytest.approx(np.eye(CLASSES)[3])
    np.testing.assert_allclose(sample.gradient, p - np.eye(CLASSES)[3])
    assert sample.loss == pytest.approx(-math.log(p[3])) == sample.batch_loss
    assert (sample.label, sample.prediction) == (3, p.argmax())


def test_sample_gradient_is_the_derivative_of_the_loss(x: Array) -> None:
    for loss in (SoftmaxWithLoss(0.1), MeanSquaredError()):
        sample = trace_sample(network(Affine(CLASSES)), loss, x[0], 3)
        outputs, labels, h = np.array([sample.outputs]), np.array([3]), 1e-6
        for k in range(CLASSES):
            up, down = outputs.copy(), outputs.copy()
            up[0, k] += h
            down[0, k] -= h
            slope = (loss.forward(up, labels) - loss.forward(down, labels)) / (2 * h)
            assert sample.gradient[k] == pytest.approx(slope, abs=1e-8)


def test_sample_target_feels_label_smoothing(x: Array) -> None:
    sample = trace_sample(network(Affine(CLASSES)), SoftmaxWithLoss(0.1), x[0], 3)
    assert sample.target == pytest.approx([0.01] * 3 + [0.91] + [0.01] * 6)
    assert sample.loss != pytest.approx(sample.batch_loss)


def test_sample_with_mean_squared_error_has_no_probabilities(x: Array) -> None:
    sample = trace_sample(network(Affine(CLASSES)), MeanSquaredError(), x[0], 3)
    assert sample.probabilities is None
    assert sample.target == pytest.approx(np.eye(CLASSES)[3])


def test_sample_goes_through_the_network_in_use(x: Array) -> None:
    net = network(Affine(20), BatchNorm(), Dropout(0.9), Affine(CLASSES))
    sample = trace_sample(net, SoftmaxWithLoss(), x[0], 3)
    np.testing.assert_array_equal(sample.outputs, net.forward(x[:1])[0])


# What looks wrong.


def perceptron(kind: type[Layer], hidden: int, initializer: Initializer) -> list[Layer]:
    layers: list[Layer] = []
    for _ in range(hidden):
        layers += [Affine(50, initializer), kind()]
    return [*layers, Affine(CLASSES, initializer)]


def findings(
    layers: list[Layer], x: Array, *, learning_rate: float = 0.1, fresh: bool = True
) -> list[Finding]:
    net, loss = network(*layers), SoftmaxWithLoss()
    traced = follow(net, loss, SGD(learning_rate), x, LABELS[: len(x)])
    return diagnose(traced, net, loss, fresh=fresh)


def kinds(found: list[Finding]) -> list[str]:
    return sorted({finding.kind for finding in found})


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (perceptron(ReLU, 1, Zeros()), ["same_units"]),
        (perceptron(Sigmoid, 1, Zeros()), ["same_units"]),
        (perceptron(ReLU, 1, Normal(1.0)), ["initial_loss"]),
        (perceptron(ReLU, 6, Normal(1.0)), ["initial_loss"]),
        (perceptron(ReLU, 5, Normal(0.01)), ["vanishing_gradients"]),
        (perceptron(Sigmoid, 6, XavierNormal()), ["vanishing_gradients"]),
        (perceptron(Tanh, 1, Normal(1.0)), ["saturated_units"]),
        (perceptron(ReLU, 1, Normal(1e200)), ["not_finite"]),
    ],
)
def test_badly_made_network_brings_out_its_findings(
    layers: list[Layer], expected: list[str], x: Array
) -> None:
    found = findings(layers, x)
    assert kinds(found) == expected
    assert all(finding.message and finding.remedy for finding in found)


@pytest.mark.parametrize(
    ("dead", "poor", "found"), [(40, False, 0), (41, False, 1), (25, True, 0), (26, True, 1)]
)
def test_dead_units_are_found_with_their_layer(dead: int, poor: bool, found: int, x: Array) -> None:
    net, loss = network(Affine(50), ReLU(), Affine(CLASSES)), SoftmaxWithLoss()
    net.layers[0].bias[...] = [-100.0] * dead + [3.0] * (50 - dead)
    traced = follow(net, loss, SGD(), x, LABELS)
    findings = diagnose(traced, net, loss, fresh=False, poor=poor)
    assert len(findings) == found
    for finding in findings:
        assert (finding.kind, finding.layer) == ("dead_units", "1.relu")
        assert f"{dead} of 50 units of 1.relu are dead" in finding.message
        assert finding.remedy == "use a smaller learning rate"  # he_normal it has


@pytest.mark.parametrize(
    ("std", "loss", "place"),
    [
        ([1e20, 1e20], SoftmaxWithLoss(), "the outputs of 2.affine"),
        ([1e20, 1e10], MeanSquaredError(), "the loss"),
    ],
)
def test_overflow_is_found_where_it_happens_first(
    std: list[float], loss: Loss, place: str, x: Array
) -> None:
    layers = [Affine(50, Normal(std[0])), ReLU(), Affine(CLASSES, Normal(std[1]))]
    net = Network(layers, INPUTS)
    net.initialize(0)
    traced = follow(net, loss, SGD(), x.astype(np.float32), LABELS)
    found = diagnose(traced, net, loss, fresh=True)
    assert [finding.message for finding in found] == [f"numbers overflow in {place}"]


def test_saturated_layer_is_named_but_not_if_it_is_the_output(x: Array) -> None:
    wide = [Affine(50, Normal(5.0)), Sigmoid(), Affine(CLASSES)]
    (finding,) = [f for f in findings(wide, x) if f.kind == "saturated_units"]
    assert finding.layer == "1.sigmoid"
    assert "saturated_units" not in kinds(findings([Affine(CLASSES, Normal(5.0)), Sigmoid()], x))


def test_large_learning_rate_is_found(x: Array) -> None:
    layers = perceptron(ReLU, 1, HeNormal())
    (finding,) = findings(layers, x, learning_rate=100.0)
    assert finding.kind == "large_update"
    assert "learning rate 100" in finding.message
    assert findings(layers, x, learning_rate=0.1) == []


def test_initial_loss_is_judged_before_training_only(x: Array) -> None:
    layers = perceptron(ReLU, 1, Normal(1.0))
    assert kinds(findings(layers, x, fresh=False)) == []


def test_units_that_are_off_in_a_tiny_batch_are_not_called_dead(x: Array) -> None:
    layers = perceptron(ReLU, 1, HeNormal())
    net, loss = network(*layers), SoftmaxWithLoss()
    traced = follow(net, loss, SGD(), x[:1], LABELS[:1])
    assert (traced.layers[1].dead_units or 0) > 15
    assert diagnose(traced, net, loss, fresh=True) == []


def test_batch_norm_over_one_sample_is_found(x: Array) -> None:
    layers = [Affine(20), BatchNorm(), ReLU(), Affine(CLASSES)]
    (finding,) = findings(layers, x[:1])
    assert (finding.kind, finding.layer) == ("single_sample", "1.batch_norm")
    assert "training.batch_size" in finding.remedy
    assert findings(layers, x) == []


@pytest.fixture(scope="module")
def sample_set() -> DataSet:
    return load("mnist-sample", Source(offline=True))


# The three units of tiny may well all be off for two images; the test of its numbers looks at it.
@pytest.mark.parametrize("name", sorted({config.name for config in bundled_configs()} - {"tiny"}))
def test_bundled_configs_bring_out_no_finding(name: str, sample_set: DataSet) -> None:
    settings = load_settings(name)
    loss, optimizer = build(LOSSES, settings.loss), build(OPTIMIZERS, settings.optimizer)
    for seed in range(3):
        batch = np.random.default_rng(seed).choice(10_000, settings.training.batch_size)
        net = build_network(settings, 784)
        net.initialize(seed)
        step = Step(net, loss, optimizer, Gatherer(sample_set.train), seed=seed)
        traced = trace_batch(step, batch)
        assert diagnose(traced, net, loss, fresh=True) == []
