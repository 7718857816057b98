"""A whole network, end to end: what a change of any parameter does to the loss of a batch.

Only what lies above the changed layer is computed again, for many changes at once where the layers
allow that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from nnctl.gradcheck.finite_differences import EPSILON, ROUNDING, Dependence, Slopes, shaken
from nnctl.gradcheck.layer import Alone, Still
from nnctl.nn.functions import Array
from nnctl.nn.losses import Loss
from nnctl.nn.network import Network

CHUNK = 2**17  # numbers in a batch of moved outputs: what fits the cache is quickest


class Whole:
    """A network with its loss and a batch: what a change in any layer does to the loss."""

    def __init__(
        self, network: Network, loss: Loss, x: Array, labels: Array, rng: np.random.Generator
    ) -> None:
        """Go forward and back once; remember every layer's input."""
        if network.dtype != np.float64:
            raise ValueError("gradients are checked in float64: Network(..., dtype=np.float64)")
        self.network, self.loss, self.labels, self.rng = network, loss, labels, rng
        self.stills = [
            Still(layer, inputs)
            for layer, inputs in zip(network.layers, network.widths, strict=False)
        ]
        self.inputs = [np.array(x, np.float64)]  # of every layer, and of the loss
        self.complaint: str | None = None
        self._gradients = self._backpropagate()
        for still in self.stills:
            self.inputs.append(still.forward(self.inputs[-1].copy()).copy())
        self._together = [
            still.takes_copies(a, shaken(a, rng))
            for still, a in zip(self.stills, self.inputs, strict=False)
        ]
        outputs = self.inputs[-1]
        self.value = float(self._losses(len(self.stills), outputs[None])[0])
        self.noise = ROUNDING * EPSILON * (abs(self.value) + float(np.abs(outputs).max()))

    def restore(self) -> None:
        """Leave random numbers and statistics as they were found."""
        for still in self.stills:
            still.restore()

    def _backpropagate(self) -> dict[str, Array]:
        """Return the network's own gradients by name, after it has seen another batch."""
        network, x = self.network, self.inputs[0]
        views = dict(network.named_gradients())
        weights = network.parameters.copy()
        network.gradients[...] = 0
        network.parameters[...] = shaken(weights, self.rng)
        try:
            self._forward_and_back(shaken(x[::-1], self.rng), np.roll(self.labels, 1))
            network.parameters[...] = weights
            self._forward_and_back(x, self.labels)
        except Exception as error:  # a finding, as in Alone.backward
            self.complaint = f"the way back stops with {type(error).__name__}: {error}"
            network.gradients[...] = np.nan
        finally:
            network.parameters[...] = weights
        return {name: view.copy() for name, view in views.items()}

    def _forward_and_back(self, x: Array, labels: Array) -> None:
        self.restore()
        self.loss.forward(self.network.forward(x, training=True), labels)
        self.network.backward(self.loss.backward())

    def alone(self, index: int) -> tuple[str, Alone]:
        """Return a layer's name and the check of it alone."""
        # A layer may have put gradients elsewhere, in arrays of its own.
        self.network.bind(self.network.parameters, self.network.gradients)
        alone = Alone(self.network.layers[index], self.inputs[index], self.rng)
        return self.network.layer_name(index), alone

    def parameters(self) -> Iterator[tuple[str, int, Array, Dependence]]:
        """Yield each parameter's name, layer, gradient, and how it moves the layer's output."""
        named = iter(self._gradients.items())
        for index, still in enumerate(self.stills):
            forward = partial(still.forward, self.inputs[index])
            for attribute in still.layer.gradients:
                name, gradient = next(named)
                array = getattr(still.layer, attribute)
                yield name, index, gradient, Dependence(forward, array, self.rng, samples=False)

    def slopes(
        self,
        index: int,
        dependence: Dependence,
        places: Array,
        progress: Callable[[int], None] = lambda checked: None,
    ) -> Slopes:
        """Return the slopes of the loss in the entries at `places` of a parameter of a layer."""
        numbers = max(self.network.widths[index + 1 :]) * len(self.labels)  # of a copy, at most
        size = max(1, CHUNK // numbers)

        def slopes(entries: Array, step: float) -> tuple[Array, Array]:
            right, left = np.empty(len(entries)), np.empty(len(entries))
            for start in range(0, len(entries), size):
                some = slice(start, start + size)
                these = places[entries[some]]
                above = self._losses(index + 1, dependence.outputs(these, step))
                below = self._losses(index + 1, dependence.outputs(these, -step))
                right[some] = (above - self.value) / step
                left[some] = (self.value - below) / step
                progress(len(these))
            return right, left

        return slopes

    def _losses(self, index: int, copies: Array) -> Array:
        """Return the loss of each of `copies` (n, batch, inputs) of the input of layer `index`."""
        n, batch, _ = copies.shape
        for still, together in zip(self.stills[index:], self._together[index:], strict=True):
            if together:
                copies = still.forward(copies.reshape(n * batch, -1)).reshape(n, batch, -1)
            else:
                copies = np.stack([still.forward(copy).copy() for copy in copies])
        return np.array([self.loss.forward(outputs, self.labels) for outputs in copies])
