"""A whole network: the gradients of its training step, and what a change of any parameter does.

The gradients come from `nnctl.nn.step`, the code that trains. For the numerical ones, only what
lies above the perturbed layer is computed again, for many entries at once where the layers allow
that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np

from nnctl.datasets import Samples
from nnctl.datasets.batches import Gatherer
from nnctl.gradcheck.finite_differences import (
    Comparison,
    Perturbation,
    Slopes,
    jittered,
    judge,
)
from nnctl.gradcheck.layer import (
    NOT_SET_UP,
    DeterministicLayer,
    LayerError,
    LayerUnderTest,
    disturbed,
    said,
)
from nnctl.gradcheck.thresholds import AMPLIFIED, DISTURBANCES, EPSILON, ROUNDING
from nnctl.nn.functions import Array
from nnctl.nn.losses import Loss
from nnctl.nn.network import Network
from nnctl.nn.optimizers import SGD
from nnctl.nn.step import Step

CHUNK = 2**17  # numbers in a batch of perturbed outputs: what fits the cache is quickest
SEED = 0  # of the dropout masks


def copied(network: Network) -> Network:
    """Return a network of its own memory that equals `network`."""
    copy = deepcopy(network)
    copy.bind(network.parameters.copy(), np.zeros_like(network.gradients))
    return copy


class NetworkUnderTest:
    """A copy of a network with its loss and a batch to check it on.

    The step first sees another batch, with other parameters: what is kept from that is wrong for
    this one.
    """

    def __init__(
        self, network: Network, loss: Loss, x: Array, labels: Array, rng: np.random.Generator
    ) -> None:
        """Take the step's gradients; remember every layer's input as far as forward works."""
        if network.dtype != np.float64:
            raise ValueError("gradients are checked in float64: Network(..., dtype=np.float64)")
        for each in network.layers:
            if not hasattr(each, "gradients"):
                raise ValueError(f"{type(each).__name__}: {NOT_SET_UP}")
        self.network, self.loss, self.labels, self.rng = copied(network), loss, labels, rng
        network = self.network
        network.draw_dropout(SEED, 1)
        self.layers = [
            DeterministicLayer(layer, inputs, units)
            for layer, inputs, units in zip(
                network.layers, network.widths, network.widths[1:], strict=False
            )
        ]
        self.inputs = [np.array(x, np.float64)]  # of every layer, and of the loss
        self.defect: str | None = None  # what is wrong with the step besides numbers
        self.forward_works = True  # as far as a finite loss
        self.gradients = self._backpropagate()
        try:
            for layer in self.layers:
                self.inputs.append(layer.forward(self.inputs[-1].copy()).copy())
        except LayerError:  # LayerUnderTest says more
            self.forward_works = False
            return
        self._apart = [
            layer.treats_samples_apart(a, jittered(a, rng))
            for layer, a in zip(self.layers, self.inputs, strict=False)
        ]
        outputs = self.inputs[-1]
        self.value = float(self.losses(len(self.layers), outputs[None])[0])
        if not np.isfinite(self.value):
            self.forward_works = False
            return
        self.noise = self._noise()
        if self.defect is None and not np.isclose(
            self.reported, self.value, rtol=1e-9, atol=self.noise, equal_nan=True
        ):
            self.defect = (
                f"the step reports a loss of {self.reported:.9g}, but that of the network's "
                f"outputs is {self.value:.9g}"
            )

    def reset(self) -> None:
        """Put random numbers and statistics back to where they were."""
        for layer in self.layers:
            layer.reset()

    def _backpropagate(self) -> dict[str, Array]:
        """Return the gradients that the training step computes, by name."""
        network, x, batch = self.network, self.inputs[0], len(self.labels)
        samples = Samples(
            np.concatenate([x, jittered(x[::-1], self.rng)]) * 255,
            np.concatenate([self.labels, np.roll(self.labels, 1)]),
        )
        step = Step(network, self.loss, SGD(), Gatherer(samples, dtype=np.float64), seed=SEED)
        views = dict(network.named_gradients())
        weights = network.parameters.copy()
        network.gradients[...] = 0
        network.parameters[...] = jittered(weights, self.rng)
        try:
            self.reset()
            step.backpropagate(np.arange(batch, 2 * batch), 1)
            network.parameters[...] = weights
            self.reset()
            self.reported = step.backpropagate(np.arange(batch), 1)
        except Exception as error:  # a finding, as in LayerUnderTest.backward
            self.defect = said("the step", error)
            network.gradients[...] = np.nan
        finally:
            network.parameters[...] = weights
        return {name: view.copy() for name, view in views.items()}

    def _noise(self) -> float:
        """Return a bound of the rounding error of the loss."""
        change = 0.0
        for _ in range(DISTURBANCES):
            y = self.inputs[0]
            for layer in self.layers:
                y = layer.forward(disturbed(y, self.rng)).copy()
            loss = self.loss.forward(disturbed(y, self.rng), self.labels)
            change = max(change, abs(loss - self.value))
        scale = abs(self.value) + float(np.abs(self.inputs[-1]).max())
        return ROUNDING * EPSILON * scale + AMPLIFIED * change

    def layer(self, index: int) -> LayerUnderTest:
        """Return the layer at `index`, to be checked by itself on the inputs it meets."""
        # A layer may have put gradients elsewhere, in arrays of its own.
        self.network.bind(self.network.parameters, self.network.gradients)
        layer, units = self.network.layers[index], self.network.widths[index + 1]
        return LayerUnderTest(layer, self.inputs[index], units, self.rng)

    def parameters(self) -> Iterator[ParameterUnderTest]:
        """Yield each parameter with its gradient; none if forward doesn't work."""
        if not self.forward_works:
            return
        named = iter(self.gradients.items())
        for index, layer in enumerate(self.layers):
            forward = partial(layer.forward, self.inputs[index])
            for attribute in layer.layer.gradients:
                name, gradient = next(named)
                array = getattr(layer.layer, attribute)
                perturbation = Perturbation(forward, array, self.rng, samples=False)
                yield ParameterUnderTest(self, index, name, gradient, perturbation)

    def losses(self, index: int, copies: Array) -> Array:
        """Return the loss of each of `copies` (n, batch, inputs) of the input of layer `index`."""
        n, batch, _ = copies.shape
        for layer, apart in zip(self.layers[index:], self._apart[index:], strict=True):
            if apart:
                copies = layer.forward(copies.reshape(n * batch, -1)).reshape(n, batch, -1)
            else:
                copies = np.stack([layer.forward(copy).copy() for copy in copies])
        return np.array([self.loss.forward(outputs, self.labels) for outputs in copies])


@dataclass(frozen=True)
class ParameterUnderTest:
    """A parameter array of a network: its gradient, and how the loss depends on it."""

    network: NetworkUnderTest
    index: int  # of the layer
    name: str
    gradient: Array
    perturbation: Perturbation

    def compare(
        self,
        places: Array,
        h: float,
        tolerance: float,
        progress: Callable[[int], None] = lambda checked: None,
    ) -> Comparison:
        """Compare the gradient's entries at `places` with the slopes of the loss."""
        analytic = self.gradient.reshape(-1)[places]
        noise = np.full(len(places), self.network.noise)
        judged = judge(analytic, self.slopes(places, progress), noise, h, tolerance)
        return Comparison(self.name, self.gradient, places, analytic, *judged)

    def slopes(
        self, places: Array, progress: Callable[[int], None] = lambda checked: None
    ) -> Slopes:
        """Return the slopes of the loss in the entries at `places`."""
        tested, above = self.network, self.index + 1
        numbers = max(tested.network.widths[above:]) * len(tested.labels)  # of a copy, at most
        size = max(1, CHUNK // numbers)

        def slopes(entries: Array, step: float) -> tuple[Array, Array]:
            right, left = np.empty(len(entries)), np.empty(len(entries))
            for start in range(0, len(entries), size):
                some = slice(start, start + size)
                these = places[entries[some]]
                up = tested.losses(above, self.perturbation.outputs(these, step))
                down = tested.losses(above, self.perturbation.outputs(these, -step))
                right[some] = (up - tested.value) / step
                left[some] = (tested.value - down) / step
                progress(len(these))
            return right, left

        return slopes
