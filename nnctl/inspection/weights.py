"""The weights of a network as they are looked at: one picture for each unit that sees pixels."""

from __future__ import annotations

import numpy as np

from nnctl.nn.functions import Array
from nnctl.nn.network import Network

TYPICAL = 0.99  # so many of the weights are no larger than what is shown as largest


def unit_images(network: Network, image_shape: tuple[int, int]) -> Array | None:
    """Return the first layer's weights (units, rows, columns); None without a layer of weights.

    A unit's picture has its weight for each pixel: W (pixels, units), transposed.
    """
    for layer in network.layers:
        weight = getattr(layer, "weight", None)
        if weight is not None and weight.ndim == 2:
            images: Array = weight.T.reshape(-1, *image_shape)
            return images
    return None


def reach(weights: Array) -> float:
    """Return the size that nearly all of the weights stay within, for the ends of a scale."""
    sizes = np.abs(weights[np.isfinite(weights)])
    return float(np.quantile(sizes, TYPICAL)) or float(sizes.max()) if sizes.size else 0.0
