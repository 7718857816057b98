"""The weights of a network: as pictures, and how they and the activations are distributed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnctl.inspection.histogram import histogram
from nnctl.inspection.trace import look
from nnctl.nn.functions import Array
from nnctl.nn.network import Network

BINS = 20  # of a histogram
TYPICAL = 0.99  # so many of the weights are no larger than what is shown as largest


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Numbers in short; those that are not finite are left out of all but the mean and std."""

    mean: float
    std: float
    min: float | None  # None: not one is finite
    max: float | None
    histogram: tuple[int, ...]  # counts in equal parts from min to max


@dataclass(frozen=True, kw_only=True)
class LayerDistributions:
    """A layer's weights, and what it puts out for a mini-batch as training computes it."""

    name: str  # POSITION.KIND
    shape: tuple[int, ...] | None  # of the weight: (inputs, units); None: it has none
    weight: Distribution | None
    units: int
    activation: Distribution  # of the outputs, over batch and units
    zero_fraction: float  # of the outputs
    saturated_fraction: float | None  # of the outputs of a sigmoid or tanh
    dead_units: int | None  # of an activation: the derivative is 0 for every sample


def distributions(network: Network, x: Array) -> list[LayerDistributions]:
    """Return how weights are distributed, and the activations of a batch `x` (batch, inputs)."""
    found = []

    def observe(index: int, y: Array) -> None:
        layer = network.layers[index]
        weight = weight_of(network, index)
        seen = look(layer, y)
        found.append(
            LayerDistributions(
                name=network.layer_name(index),
                shape=None if weight is None else weight.shape,
                weight=None if weight is None else distribution(weight),
                units=network.widths[index + 1],
                activation=distribution(y),
                zero_fraction=seen.zero_fraction,
                saturated_fraction=seen.saturated_fraction,
                dead_units=seen.dead_units,
            )
        )

    with np.errstate(all="ignore"):  # what is not finite shows in the figures
        network.forward(x, training=True, observe=observe)
    return found


def distribution(values: Array) -> Distribution:
    """Return values in short."""
    finite = values[np.isfinite(values)]
    return Distribution(
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
        min=float(finite.min()) if finite.size else None,
        max=float(finite.max()) if finite.size else None,
        histogram=histogram(values, BINS),
    )


def weight_of(network: Network, index: int) -> Array | None:
    """Return the weight W (inputs, units) of the layer at `index`; None if it has no such."""
    weight: Array | None = getattr(network.layers[index], "weight", None)
    return weight if weight is not None and weight.ndim == 2 else None


def weighted_layers(network: Network) -> list[int]:
    """Return the positions of the layers that have a weight W (inputs, units)."""
    return [i for i in range(len(network.layers)) if weight_of(network, i) is not None]


def unit_images(network: Network, image_shape: tuple[int, int]) -> Array | None:
    """Return the first layer's weights (units, rows, columns); None without a layer of weights.

    A unit's picture has its weight for each pixel: W (pixels, units), transposed.
    """
    for index in weighted_layers(network)[:1]:
        weight = weight_of(network, index)
        assert weight is not None
        images: Array = weight.T.reshape(-1, *image_shape)
        return images
    return None


def reach(weights: Array) -> float:
    """Return the size that nearly all of the weights stay within, for the ends of a scale."""
    sizes = np.abs(weights[np.isfinite(weights)])
    return float(np.quantile(sizes, TYPICAL)) or float(sizes.max()) if sizes.size else 0.0
