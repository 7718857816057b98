"""Networks to export: one for every kind of layer, and for both losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnctl.export.model import Model
from nnctl.nn.functions import Array
from nnctl.nn.layers import LAYERS, Affine, Layer
from nnctl.nn.losses import Loss, MeanSquaredError, SoftmaxWithLoss
from nnctl.nn.network import Network

OPTIONS: dict[str, dict[str, Any]] = {
    "affine": {"units": 7},
    "leaky_relu": {"slope": 0.2},
    "dropout": {"rate": 0.5},
    "batch_norm": {"epsilon": 1e-3},
}


def make(kinds: list[str], loss: Loss | None = None, shape: tuple[int, int] = (5, 4)) -> Model:
    """Return a model whose weights and statistics are nowhere 0 or 1."""
    rng = np.random.default_rng(0)
    layers: list[Layer] = [Affine(units=6)]
    layers += [LAYERS[kind](**OPTIONS.get(kind, {})) for kind in kinds]
    layers.append(Affine(units=3))
    network = Network(layers, shape[0] * shape[1])
    for name, array in network.named_arrays().items():
        array[...] = rng.normal(size=array.shape)
        if name.endswith("running_variance"):
            array[...] = rng.uniform(0.1, 3, array.shape)
    return Model(network, loss or SoftmaxWithLoss(), shape, ("a", "b 'c'", 'd"é'), mnist_like=False)


MODELS = {kind: make([kind]) for kind in LAYERS} | {
    "squared": make(["tanh"], MeanSquaredError()),
    "alone": make([]),
    "two": make(["batch_norm", "gelu", "batch_norm", "gelu"]),
}


@pytest.fixture
def images() -> Array:
    return np.random.default_rng(1).integers(0, 256, (600, 20), np.uint8)
