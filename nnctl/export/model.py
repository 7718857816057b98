"""What every export is made of: a trained network, and what it is about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnctl.datasets import Samples
from nnctl.datasets.batches import Gatherer
from nnctl.nn.functions import Array
from nnctl.nn.losses import Loss
from nnctl.nn.network import Network


@dataclass(frozen=True)
class Model:
    """A trained network with the shape of its images and the names of its classes."""

    network: Network
    loss: Loss
    image_shape: tuple[int, int]  # rows, columns
    class_names: tuple[str, ...] | None
    mnist_like: bool

    @property
    def output(self) -> str:
        """What the scores are called: probabilities, or with mean_squared_error outputs."""
        return "probabilities" if self.loss.has_probabilities else "outputs"

    @property
    def arrays(self) -> dict[str, Array]:
        """The weights and statistics by name, little-endian float32."""
        named = self.network.named_arrays()
        return {name: np.ascontiguousarray(named[name], "<f4") for name in sorted(named)}

    @property
    def summary(self) -> str:
        """The network in a few words."""
        kinds = [self.network.layer_name(i).split(".")[1] for i in range(len(self.network.layers))]
        widths = self.network.widths
        steps = [f"{k} {w}" if k == "affine" else k for k, w in zip(kinds, widths[1:], strict=True)]
        return f"{widths[0]} pixels, {', '.join(steps)}"

    def scores(self, images: Array) -> Array:
        """Return (n, classes) of `images` (n, pixels), uint8: what an export must give, too."""
        gather = Gatherer(Samples(images, np.zeros(len(images), np.uint8)))
        found = np.empty((len(images), self.network.widths[-1]), np.float32)
        with np.errstate(all="ignore"):
            for start in range(0, len(images), 250):
                chunk = np.arange(start, min(start + 250, len(images)))
                found[chunk] = self.loss.scores(self.network.forward(gather.images(chunk)))
        return found
