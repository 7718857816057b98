"""Right networks of any make are never called wrong, and no planted fault is lost in them.

NNCTL_TEST_CYCLES=20 takes 150 networks with 20 seeds each, which takes the better part of an hour.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest

from nnctl.gradcheck.check import check
from nnctl.gradcheck.report import Report
from nnctl.nn.functions import Array
from nnctl.nn.initializers import HeNormal, Zeros
from nnctl.nn.layers import (
    GELU,
    Affine,
    BatchNorm,
    Dropout,
    Layer,
    LeakyReLU,
    ReLU,
    Sigmoid,
    Tanh,
)
from nnctl.nn.losses import Loss, MeanSquaredError, SoftmaxWithLoss
from nnctl.nn.network import Network
from tests.gradcheck.test_faults import FAULTS, Fault

INPUTS, CLASSES, BATCH = 6, 5, 8
CYCLES = int(os.environ.get("NNCTL_TEST_CYCLES") or 0)
NETWORKS, SEEDS = (150, CYCLES) if CYCLES else (24, 1)

LOSSES: list[Callable[[], Loss]] = [
    SoftmaxWithLoss,
    lambda: SoftmaxWithLoss(label_smoothing=0.1),
    MeanSquaredError,
]


def random_layers(rng: np.random.Generator) -> list[Layer]:
    """Return one to four small layers, with biases of 0 and now and then weights of 0."""
    kinds: list[Callable[[], Layer]] = [
        *(lambda: Affine(int(rng.integers(1, 9))) for _ in range(3)),
        lambda: Affine(int(rng.integers(1, 9)), Zeros() if rng.random() < 0.5 else HeNormal()),
        *(ReLU, ReLU, Sigmoid, Tanh, GELU, BatchNorm),
        lambda: LeakyReLU(slope=0.2),
        lambda: Dropout(float(rng.choice([0.2, 0.5, 0.9]))),
    ]
    return [kinds[rng.integers(len(kinds))]() for _ in range(rng.integers(1, 5))]


def batch_of(rng: np.random.Generator, images: int) -> tuple[Array, Array]:
    """Return a batch of ordinary images (0, 1), with black ones among them (2), or of those (3)."""
    x = rng.normal(size=(BATCH, INPUTS))
    if images:
        x = np.abs(x)
    x[: [0, 0, 3, BATCH][images]] = 0
    return x, rng.integers(0, CLASSES, BATCH)


def checked(layers: list[Layer], loss: Loss, number: int, seed: int, steps: int) -> Report:
    """Check the network after so many steps."""
    network = Network([*layers, Affine(CLASSES)], INPUTS, dtype=np.float64)
    network.initialize(seed)
    rng = np.random.default_rng([number, seed])
    images = int(rng.integers(0, 4))
    for _ in range(steps):
        x, labels = batch_of(rng, images)
        loss.forward(network.forward(x, training=True), labels)
        network.backward(loss.backward())
        network.parameters -= 0.05 * network.gradients
    return check(network, loss, *batch_of(rng, images), seed=seed)


@pytest.mark.parametrize("number", range(NETWORKS))
def test_random_network_is_right_fresh_and_trained(number: int) -> None:
    for seed in range(SEEDS):
        for steps in (0, 100):
            layers = random_layers(np.random.default_rng(number))
            report = checked(layers, LOSSES[number % 3](), number, seed, steps)
            assert report.verdict == "right", (seed, steps, layers, report.cause)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault.plant()).__name__)
def test_fault_planted_in_a_random_network_is_caught(fault: Fault) -> None:
    for number in range(SEEDS):
        planted = fault.plant()
        rng = np.random.default_rng(number)
        layers, loss = random_layers(rng), LOSSES[number % 3]()
        if isinstance(planted, Loss):
            loss, name = planted, type(planted).__name__
        else:
            place = int(rng.integers(len(layers) + 1))
            layers[place:place] = [Affine(12), planted]
            name = f"{place + 1}.{type(planted).__name__}"
        report = checked(layers, loss, number, seed=number, steps=0)
        assert report.verdict == "wrong", (number, layers)
        assert name in [layer.name for layer in report.layers if not layer.passed]
