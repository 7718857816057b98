"""The gradient check passes what is right, whatever the layer, weights and seed.

NNCTL_TEST_CYCLES=50 checks every layer on all 50 seeds, the default of 20 on a fifth of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from nnctl.gradcheck.check import check, check_layer, sweep
from nnctl.gradcheck.finite_differences import Perturbation, Status, judge
from nnctl.gradcheck.network import SEED, NetworkUnderTest
from nnctl.gradcheck.report import Report
from nnctl.nn.functions import Array, softmax
from nnctl.nn.layers import (
    GELU,
    LAYERS,
    Activation,
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
from nnctl.nn.numerical_gradient import numerical_gradient

SEEDS = 50
CYCLES = int(os.environ.get("NNCTL_TEST_CYCLES") or 20)
INPUTS, CLASSES, BATCH = 6, 3, 8

LAYER_SAMPLES: dict[str, Callable[[], Layer]] = {
    "affine": lambda: Affine(5),
    "relu": ReLU,
    "leaky_relu": lambda: LeakyReLU(slope=0.2),
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "gelu": GELU,
    "dropout": lambda: Dropout(0.5),
    "batch_norm": BatchNorm,
}
LOSS_SAMPLES: dict[str, list[Callable[[], Loss]]] = {
    "softmax_cross_entropy": [SoftmaxWithLoss, lambda: SoftmaxWithLoss(label_smoothing=0.1)],
    "mean_squared_error": [MeanSquaredError],
}
LOSS_LIST = [loss for losses in LOSS_SAMPLES.values() for loss in losses]


def network_of(*layers: Layer, seed: int = 0) -> Network:
    network = Network(layers, INPUTS, dtype=np.float64)
    network.initialize(seed)
    return network


def batch_of(seed: int, batch: int = BATCH) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, INPUTS)), rng.integers(0, CLASSES, batch)


def train(network: Network, loss: Loss, steps: int) -> None:
    for step in range(steps):
        x, labels = batch_of(1000 + step)
        loss.forward(network.forward(x, training=True), labels)
        network.backward(loss.backward())
        network.parameters -= 0.1 * network.gradients


def explain(report: Report) -> str:
    return f"{report.cause} {[p for p in report.parameters if p.failed or p.kinks]}"


def test_samples_cover_every_registered_layer_and_loss() -> None:
    assert LAYER_SAMPLES.keys() == LAYERS.keys()
    assert LOSS_SAMPLES.keys() == LOSSES.keys()


@pytest.mark.parametrize("kind", LAYERS)
def test_check_passes_every_layer_and_loss_on_fifty_seeds_fresh_and_trained(kind: str) -> None:
    # Five apart, a layer's seeds still meet each loss fresh and trained, and the layers all seeds.
    first, apart = (0, 1) if CYCLES > 20 else ([*LAYERS].index(kind) % 5, 5)
    for seed in range(first, SEEDS, apart):
        loss = LOSS_LIST[seed % len(LOSS_LIST)]()
        network = network_of(Affine(4), LAYER_SAMPLES[kind](), Affine(CLASSES), seed=seed)
        train(network, loss, steps=20 * (seed % 2))
        report = check(network, loss, *batch_of(seed), seed=seed)
        assert report.passed, f"seed {seed}: {explain(report)}"
        assert report.cause is None
        assert report.checked == network.size
        assert report.rounding <= report.checked / 5  # a bias below batch_norm counts


def test_check_passes_a_deep_network_of_all_layers_fresh_and_trained() -> None:
    layers: list[Layer] = [Affine(8), BatchNorm(), ReLU(), Dropout(0.2), Affine(7), GELU()]
    layers += [Affine(6), LeakyReLU(), BatchNorm(), Tanh(), Affine(CLASSES), Sigmoid()]
    network, loss = network_of(*layers), MeanSquaredError()
    for _ in range(3):
        report = check(network, loss, *batch_of(1))
        assert report.passed, explain(report)
        train(network, loss, 20)


@pytest.mark.parametrize("step", [1e-2, 1e-3, 1e-4, 1e-6, 1e-7])
def test_check_passes_for_steps_that_cross_kinks_or_drown_in_rounding(step: float) -> None:
    for seed in range(10):
        network = network_of(Affine(20), ReLU(), Affine(CLASSES), seed=seed)
        report = check(network, SoftmaxWithLoss(), *batch_of(seed), h=step, seed=seed)
        assert report.passed, f"seed {seed}: {explain(report)}"


def test_slopes_are_those_of_moving_one_weight_at_a_time_through_the_whole_network() -> None:
    layers = [Affine(5), BatchNorm(), ReLU(), Dropout(0.4), Affine(4), Tanh(), Affine(CLASSES)]
    network, loss = network_of(*layers), SoftmaxWithLoss(label_smoothing=0.1)
    x, labels = batch_of(3)

    def value() -> float:
        network.draw_dropout(SEED, 1)
        return loss.forward(network.forward(x, training=True), labels)

    expected = {
        name: numerical_gradient(value, array) for name, array in network.named_parameters().items()
    }
    tested = NetworkUnderTest(network, loss, x, labels, np.random.default_rng(0))
    seen = set()
    for parameter in tested.parameters():
        places = np.arange(parameter.gradient.size)
        right, left = parameter.slopes(places)(places, 1e-5)
        np.testing.assert_allclose((right + left) / 2, expected[parameter.name].ravel(), atol=1e-9)
        seen.add(parameter.name)
    assert seen == expected.keys()


def test_check_leaves_weights_statistics_and_random_numbers_as_they_were() -> None:
    dropout = Dropout(0.5)
    network = network_of(Affine(5), BatchNorm(), dropout, Affine(CLASSES))
    train(network, SoftmaxWithLoss(), 3)
    before = {name: array.copy() for name, array in network.named_arrays().items()}
    state = dropout.rng.bit_generator.state
    check(network, SoftmaxWithLoss(), *batch_of(0))
    for name, array in network.named_arrays().items():
        np.testing.assert_array_equal(array, before[name])
    assert dropout.rng.bit_generator.state == state
    x, _ = batch_of(0)
    before_x = x.copy()
    check_layer(BatchNorm(), x)
    np.testing.assert_array_equal(x, before_x)


def test_check_gives_the_same_numbers_for_the_same_seed_and_other_entries_for_another() -> None:
    def report(seed: int) -> list[object]:
        network = network_of(Affine(30), ReLU(), Affine(CLASSES))
        found = check(network, SoftmaxWithLoss(), *batch_of(0), seed=seed, per_parameter=5)
        return [(p.name, p.worst, p.max_relative_error) for p in found.parameters]

    assert report(1) == report(1)
    assert report(1) != report(2)


def test_check_counts_at_most_per_parameter_entries_and_none_means_all() -> None:
    network = network_of(Affine(30), ReLU(), Affine(CLASSES))
    few = check(network, SoftmaxWithLoss(), *batch_of(0), per_parameter=20)
    assert [p.checked for p in few.parameters] == [20, 20, 20, 3]
    told: list[int] = []
    every = check(
        network, SoftmaxWithLoss(), *batch_of(0), per_parameter=None, progress=told.append
    )
    assert every.checked == network.size <= sum(told)
    assert [p.shape for p in every.parameters] == [[6, 30], [30], [30, 3], [3]]


def test_check_refuses_a_float32_network() -> None:
    network = Network([Affine(CLASSES)], INPUTS)
    with pytest.raises(ValueError, match="float64"):
        check(network, SoftmaxWithLoss(), *batch_of(0))


def test_check_works_on_a_single_sample() -> None:
    network = network_of(Affine(4), BatchNorm(), Affine(CLASSES))
    assert check(network, SoftmaxWithLoss(), *batch_of(0, batch=1)).passed


def test_check_passes_a_network_whose_units_all_lie_on_a_kink() -> None:
    network = network_of(Affine(4), ReLU(), Affine(CLASSES))
    network.layers[0].weight[...] = 0  # every unit at exactly 0, on the edge of its ReLU
    report = check(network, SoftmaxWithLoss(), *batch_of(0))
    assert (report.verdict, report.passed, report.cause) == ("right", True, None)
    assert (report.failed, report.kinks) == (0, 0)
    assert all((p.max_relative_error or 0) <= 1e-6 for p in report.parameters)


@pytest.mark.parametrize(("h", "tolerance"), [(1e-2, 1e-6), (1e-8, 1e-6), (1e-5, 1e-9)])
def test_check_never_blames_a_network_on_kinks_for_the_step_or_tolerance(
    h: float, tolerance: float
) -> None:
    for seed in range(5):
        network = network_of(Affine(6), ReLU(), Affine(5), LeakyReLU(), Affine(CLASSES), seed=seed)
        x, labels = batch_of(seed)
        x[:4] = 0  # every unit at exactly 0
        report = check(network, SoftmaxWithLoss(), x, labels, h=h, tolerance=tolerance)
        assert report.verdict != "wrong", report.cause


def test_check_blames_nothing_that_a_large_step_causes() -> None:
    network = network_of(Affine(20), Tanh(), Affine(CLASSES))
    network.parameters *= 20
    assert check(network, MeanSquaredError(), *batch_of(0)).passed
    report = check(network, MeanSquaredError(), *batch_of(0), h=1e-2, tolerance=1e-9)
    assert report.verdict == "undecided"
    assert report.cause is not None
    assert "smaller --h" in report.cause or "the step asked for is too large" in report.cause


def test_check_counts_gradients_that_vanish_as_rounding() -> None:
    network = network_of(Affine(4), BatchNorm(), Affine(CLASSES))
    report = check(network, SoftmaxWithLoss(), *batch_of(0))
    bias = next(p for p in report.parameters if p.name == "0.affine.bias")
    assert report.passed
    assert bias.rounding > 0
    assert report.rounding == bias.rounding


def test_sweep_draws_a_v() -> None:
    network = network_of(Affine(5), Tanh(), Affine(CLASSES))
    wide, good, fine = sweep(network, SoftmaxWithLoss(), *batch_of(0), [1e-1, 1e-5, 1e-10])
    assert wide > 1e-5
    assert good < 1e-8
    assert fine > 1e-8
    half, whole = sweep(network, SoftmaxWithLoss(), *batch_of(0), [5e-3, 1e-2])
    assert whole / half == pytest.approx(4, rel=0.05)  # truncation grows as h^2


# The judge of single entries, on functions of known slopes.


def judged(function: Callable[[float], float], x: float, analytic: float) -> tuple[float, Status]:
    def slopes(entries: Array, h: float) -> tuple[Array, Array]:
        right, left = function(x + h) - function(x), function(x) - function(x - h)
        return np.full(len(entries), right / h), np.full(len(entries), left / h)

    noise = np.array([20 * np.finfo(float).eps * abs(function(x))])
    numerical, status = judge(np.array([analytic]), slopes, noise, 1e-5, 1e-6)
    return float(numerical[0]), Status(status[0])


def test_judge_agrees_with_the_derivative_and_fails_anything_else() -> None:
    numerical, status = judged(np.sin, 1.0, np.cos(1.0))
    assert numerical == pytest.approx(np.cos(1.0))
    assert status is Status.AGREES
    for wrong in (-np.cos(1.0), 0.0, np.cos(1.0) * (1 + 1e-5), np.nan, np.inf):
        assert judged(np.sin, 1.0, wrong)[1] is Status.FAILED


@pytest.mark.parametrize(("left", "right"), [(0.0, 1.0), (-2.0, 3.0), (1.0, 0.0)])
def test_judge_takes_any_slope_between_those_to_both_sides_of_a_kink(
    left: float, right: float
) -> None:
    def bent(x: float) -> float:
        return left * x if x < 0 else right * x

    low, high = sorted((left, right))
    for slope in (low, high, 0.7 * low + 0.3 * high):
        numerical, status = judged(bent, 0.0, slope)
        assert numerical == pytest.approx(slope, abs=1e-9)
        assert status is Status.SUBGRADIENT
    for slope, nearest in ((low - 1e-4, low), (high + 1e-4, high), (-9.0, low), (9.0, high)):
        numerical, status = judged(bent, 0.0, slope)
        assert numerical == pytest.approx(nearest, abs=1e-9)
        assert status is Status.OUTSIDE


def test_judge_fails_a_wrong_slope_however_strongly_the_function_curves() -> None:
    assert judged(lambda x: 100 * x * x, 0.0, 1e-2)[1] is Status.FAILED
    assert judged(lambda x: np.cosh(10 * x), 0.0, 1e-1)[1] is Status.FAILED


@pytest.mark.parametrize("distance", [-6e-6, -4e-7, 3e-7, 8e-6])
def test_judge_leaves_a_kink_nearby_behind(distance: float) -> None:
    slope = 1.0 if distance > 0 else 0.0
    numerical, status = judged(lambda x: max(x, 0.0), distance, slope)
    assert numerical == pytest.approx(slope)
    assert status is Status.AGREES
    assert judged(lambda x: max(x, 0.0), distance, 1 - slope)[1] is Status.FAILED


def test_judge_tells_a_gradient_below_the_noise_from_a_wrong_one() -> None:
    assert judged(lambda x: 1e3 + 1e-12 * x, 1.0, 1e-12)[1] is Status.ROUNDING
    assert judged(lambda x: 1e3 + 1e-12 * x, 1.0, 1e-3)[1] is Status.FAILED


# Layers that somebody adds: nothing is known of them.


@dataclass(eq=False)
class Scale(Layer):
    """y = exp(s) x, one parameter for all units."""

    def shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        return {"weight": ()}

    def initialize(self, rng: np.random.Generator) -> None:
        self.weight[...] = 0.3

    def forward(self, x: Array, training: bool = False) -> Array:
        self.y: Array = np.exp(self.weight) * x
        return self.y

    def parameter_gradients(self, dout: Array) -> None:
        self.gradients["weight"][...] = (dout * self.y).sum()

    def input_gradient(self, dout: Array) -> Array:
        dx: Array = dout * np.exp(self.weight)
        return dx


@dataclass(eq=False)
class SoftmaxLayer(Layer):
    """Every unit feels the others of its sample."""

    def forward(self, x: Array, training: bool = False) -> Array:
        self.y = softmax(x)
        return self.y

    def input_gradient(self, dout: Array) -> Array:
        dx: Array = self.y * (dout - (dout * self.y).sum(axis=1, keepdims=True))
        return dx


@dataclass(eq=False)
class Centre(Layer):
    """Every sample feels the others, and the class forgot to say so."""

    def forward(self, x: Array, training: bool = False) -> Array:
        y: Array = x - x.mean(axis=0)
        return y

    def input_gradient(self, dout: Array) -> Array:
        dx: Array = dout - dout.mean(axis=0)
        return dx


@dataclass(eq=False)
class Noise(Layer):
    """Multiplies by random numbers of another distribution than dropout's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.source = np.random.default_rng(3)

    def forward(self, x: Array, training: bool = False) -> Array:
        self.factor = self.source.normal(size=x.shape)
        y: Array = x * self.factor
        return y

    def input_gradient(self, dout: Array) -> Array:
        dx: Array = dout * self.factor
        return dx


@dataclass(eq=False)
class Clip(Activation):
    """y = x between -1 and 1: two kinks."""

    def function(self, x: Array) -> Array:
        self.inside = np.abs(x) < 1
        return np.clip(x, -1, 1)

    def derivative(self) -> Array:
        return self.inside.astype(float)


@pytest.mark.parametrize("kind", [Scale, SoftmaxLayer, Centre, Noise, Clip])
def test_check_passes_layers_it_knows_nothing_of(kind: type[Layer]) -> None:
    for seed in range(10):
        layers = [Affine(5), kind(), Affine(4), BatchNorm(), kind(), Affine(CLASSES)]
        report = check(network_of(*layers, seed=seed), SoftmaxWithLoss(), *batch_of(seed))
        assert report.passed, explain(report)
        alone = check_layer(kind(), batch_of(seed)[0])
        assert alone.passed, alone.cause
        assert str(alone) == f"{kind.__name__}: right"
        assert alone.gradients[0].name == "input"
        assert alone.gradients[0].checked == BATCH * INPUTS


def test_perturbation_moves_a_whole_row_where_columns_are_felt_apart() -> None:
    calls = 0
    w, x = np.ones((7, 5)), np.random.default_rng(0).normal(size=(4, 7))

    def run() -> Array:
        nonlocal calls
        calls += 1
        y: Array = x @ w
        return y

    perturbation = Perturbation(run, w, np.random.default_rng(0), samples=False)
    calls = 0
    outputs = perturbation.outputs(np.arange(35), 0.5)
    assert calls == 7
    for place, y in enumerate(outputs):
        row, column = divmod(place, 5)
        expected = x @ np.ones((7, 5))
        expected[:, column] += 0.5 * x[:, row]
        np.testing.assert_allclose(y, expected)
    assert (w == 1).all()
