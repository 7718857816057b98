"""What is checked is the step that trains: faults planted in it are caught."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nnctl.datasets.batches import Gatherer
from nnctl.gradcheck.check import check
from nnctl.gradcheck.report import Report
from nnctl.gradcheck.shared import check_shared
from nnctl.nn.functions import Array
from nnctl.nn.layers import Affine, BatchNorm, Dropout, Layer, ReLU, Tanh
from nnctl.nn.losses import Loss, MeanSquaredError, SoftmaxWithLoss
from nnctl.nn.network import Network
from nnctl.nn.step import Step
from nnctl.training.shared_step import SharedStep

INPUTS, CLASSES, BATCH = 6, 3, 8

Patch = pytest.MonkeyPatch


def checked(*, black: int = 0, layers: list[Layer] | None = None, batch: int = BATCH) -> Report:
    network = Network(layers or [Affine(5), ReLU(), Affine(CLASSES)], INPUTS, dtype=np.float64)
    network.initialize(0)
    x, labels = batch_of(batch)
    x[:black] = 0
    return check(network, SoftmaxWithLoss(), x, labels)


def batch_of(batch: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.uniform(size=(batch, INPUTS)), rng.integers(0, CLASSES, batch)


# Faults of the step that one process takes.


def zeroed_backward(patch: Patch) -> None:
    def backward(self: Network, dout: Array, **options: Any) -> Array:
        self.gradients[...] = 0
        return dout

    patch.setattr(Network, "backward", backward)


def flipped_sign(patch: Patch) -> None:
    backward = Network.backward
    patch.setattr(Network, "backward", lambda self, dout, **o: backward(self, -dout, **o))


def flipped_sign_between_layers(patch: Patch) -> None:
    backward = Network.backward

    def flipped(self: Network, dout: Array, **options: Any) -> Array:
        dout = backward(self, dout, **options)
        self.layers[self.first_trained].parameter_gradients(-dout)
        return dout

    patch.setattr(Network, "backward", flipped)


def missing_bias_gradient(patch: Patch) -> None:
    backward = Network.backward

    def without(self: Network, dout: Array, **options: Any) -> Array:
        dout = backward(self, dout, **options)
        self.layers[self.first_trained].gradients["bias"][...] = 0
        return dout

    patch.setattr(Network, "backward", without)


def stale_label(patch: Patch) -> None:
    labels = Gatherer.labels
    kept: list[Array] = []

    def stale(self: Gatherer, indices: Array) -> Array:
        kept.append(labels(self, indices))
        return kept[-2] if len(kept) > 1 and len(kept[-2]) == len(indices) else kept[-1]

    patch.setattr(Gatherer, "labels", stale)


def labels_of_other_samples(patch: Patch) -> None:
    labels = Gatherer.labels
    patch.setattr(Gatherer, "labels", lambda self, indices: labels(self, np.roll(indices, 1)))


def stale_images(patch: Patch) -> None:
    images = Gatherer.images
    patch.setattr(Gatherer, "images", lambda self, indices: images(self, np.zeros_like(indices)))


def gradient_of_the_step_before(patch: Patch) -> None:
    backpropagate = Step.backpropagate

    def late(self: Step, samples: Array, step: int, **options: Any) -> float:
        before = self.network.gradients.copy()
        loss = backpropagate(self, samples, step, **options)
        self.network.gradients[...] = before
        return loss

    patch.setattr(Step, "backpropagate", late)


def misreported_loss(patch: Patch) -> None:
    backpropagate = Step.backpropagate
    patch.setattr(Step, "backpropagate", lambda *args, **o: 2 * backpropagate(*args, **o))


# Black images put all units on their kinks and leave nearly all gradients 0.
@pytest.mark.parametrize("black", [0, 3, BATCH])
@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (zeroed_backward, "2.affine.bias is left at 0"),
        (flipped_sign, "has the wrong sign"),
        (flipped_sign_between_layers, "has the wrong sign"),
        (missing_bias_gradient, "0.affine.bias is left at 0"),
        (stale_label, "the step reports a loss of"),
        (labels_of_other_samples, "the step reports a loss of"),
        (stale_images, "the step reports a loss of"),
        (gradient_of_the_step_before, "is left at 0"),
        (misreported_loss, "the step reports a loss of"),
    ],
)
def test_check_catches_a_fault_of_the_step_though_every_layer_is_right(
    plant: Callable[[Patch], None], words: str, black: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checked(black=black).verdict == "right"
    plant(monkeypatch)
    report = checked(black=black)
    assert report.verdict == "wrong"
    assert all(layer.passed for layer in report.layers)
    assert report.cause is not None
    assert report.cause.startswith("every layer is right by itself, but not the step")
    if black < BATCH:  # else mixed up samples are as good as the right ones, but for the labels
        assert words in report.cause


def test_check_looks_nearby_where_all_of_a_gradient_is_0(monkeypatch: Patch) -> None:
    backward = Network.backward

    def flipped(self: Network, dout: Array, **options: Any) -> Array:
        dout = backward(self, dout, **options)
        self.layers[0].gradients["weight"][...] *= -1  # on black images, -0
        return dout

    monkeypatch.setattr(Network, "backward", flipped)
    layers: list[Layer] = [Affine(5), BatchNorm(), Tanh(), Affine(CLASSES)]
    report = checked(black=BATCH, layers=layers)
    assert report.verdict == "wrong"
    assert report.cause is not None
    assert "the gradient of 0.affine.weight has the wrong sign" in report.cause


# Faults of the step that several processes share.


def lost_shard(patch: Patch) -> None:
    learn = SharedStep._learn

    def lost(self: SharedStep, y: Array, samples: Array, batch: int, douts: Array) -> None:
        learn(self, y, samples, batch, douts)
        if self.rank == 1:
            douts[...] = 0

    patch.setattr(SharedStep, "_learn", lost)


def sum_without_the_others(patch: Patch) -> None:
    init = SharedStep.__init__

    def alone(self: SharedStep, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        self._others = []

    patch.setattr(SharedStep, "__init__", alone)


def wrong_batch_size(patch: Patch) -> None:
    learn = SharedStep._learn
    patch.setattr(
        SharedStep, "_learn", lambda self, y, s, batch, d: learn(self, y, s, len(s) * 3, d)
    )


def flipped_sign_of_a_shard(patch: Patch) -> None:
    differentiate = SharedStep.differentiate
    patch.setattr(SharedStep, "differentiate", lambda self, x, d: differentiate(self, x, -d))


def missing_bias_of_a_shard(patch: Patch) -> None:
    learn = SharedStep._learn

    def without(self: SharedStep, y: Array, samples: Array, batch: int, douts: Array) -> None:
        learn(self, y, samples, batch, douts)
        self.affine.gradients["bias"][...] = 0

    patch.setattr(SharedStep, "_learn", without)


def stale_products(patch: Patch) -> None:
    multiply = SharedStep.multiply
    seen: set[int] = set()

    def once(self: SharedStep, x: Array, out: Array) -> None:
        if id(self) not in seen:
            multiply(self, x, out)
        seen.add(id(self))

    patch.setattr(SharedStep, "multiply", once)


@pytest.mark.parametrize("black", [0, BATCH])
@pytest.mark.parametrize(
    "plant",
    [
        lost_shard,
        sum_without_the_others,
        wrong_batch_size,
        flipped_sign_of_a_shard,
        missing_bias_of_a_shard,
        stale_products,
    ],
)
def test_check_catches_a_fault_of_the_shared_step_alone(
    plant: Callable[[Patch], None], black: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    report = checked(black=black)
    assert report.verdict == "wrong"
    assert report.failed > 0
    assert all(layer.passed for layer in report.layers)
    assert report.cause is not None
    assert "shared by several processes, the step gives other gradients: " in report.cause


@pytest.mark.parametrize("batch", [1, 2, 5, 8])
@pytest.mark.parametrize("loss", [SoftmaxWithLoss(0.1), MeanSquaredError()])
def test_shared_step_agrees_with_the_plain_one_to_rounding(loss: Loss, batch: int) -> None:
    layers: list[Layer] = [ReLU(), Affine(5), Dropout(0.5), Tanh(), Affine(CLASSES)]
    network = Network(layers, INPUTS, dtype=np.float64)
    network.initialize(0)
    x, labels = batch_of(batch)
    comparisons, defect = check_shared(network, loss, x, labels, np.random.default_rng(0))
    assert defect is None
    assert [found.name for found in comparisons] == list(network.named_parameters())
    for found in comparisons:
        assert found.analytic.any()
        np.testing.assert_allclose(found.analytic, found.numerical, rtol=1e-10, atol=1e-15)


def test_step_of_a_network_with_batch_norm_is_never_shared() -> None:
    network = Network([Affine(5), BatchNorm(), Affine(CLASSES)], INPUTS, dtype=np.float64)
    network.initialize(0)
    found = check_shared(network, SoftmaxWithLoss(), *batch_of(4), np.random.default_rng(0))
    assert found == ([], None)
