"""A layer by itself: its own two halves of the way back against central differences.

The layer is used as it is; nothing of it is written a second time. In the place of a loss stands
sum(r y) with a random r, whose gradient with respect to the output y is r.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from nnctl.gradcheck.finite_differences import Comparison, Dependence, Slopes, compare, same, shaken
from nnctl.nn.functions import Array
from nnctl.nn.layers import Layer
from nnctl.nn.losses import Loss
from nnctl.nn.numerical_gradient import H


class Still:
    """A layer whose random numbers and statistics are held still: equal inputs, equal outputs."""

    def __init__(self, layer: Layer, inputs: int) -> None:
        """Remember where the layer's generators and statistics stand."""
        self.layer = layer
        found = [v for v in vars(layer).values() if isinstance(v, np.random.Generator)]
        self._generators = [(g.bit_generator, g.bit_generator.state) for g in found]
        arrays = [getattr(layer, name) for name in layer.statistics(inputs)]
        self._statistics = [(array, array.copy()) for array in arrays]

    def restore(self) -> None:
        """Put them back."""
        for bits, state in self._generators:
            bits.state = state
        for array, values in self._statistics:
            array[...] = values

    def forward(self, x: Array) -> Array:
        """Return the layer's output in training; it is overwritten by the next call."""
        self.restore()
        y = self.layer.forward(x, training=True)
        self.dtype = y.dtype
        return y.astype(np.float64, copy=False)

    def takes_copies(self, x: Array, other: Array) -> bool:
        """Return whether several batches, one below the other, come out as each does alone.

        They don't where samples feel each other (batch_norm), nor where a mask is drawn
        (dropout): each must get the same.
        """
        if self._generators:
            return False
        alone = np.concatenate([self.forward(x.copy()).copy(), self.forward(other.copy())])
        return same(self.forward(np.concatenate([x, other])), alone)


class Alone:
    """A layer by itself, on the inputs it meets, with a random gradient r instead of a loss.

    The function to derive is sum(r y). Two things are done so that faults show:

    - The weights are shaken. A weight of exactly 1 or 0, as batch_norm has at the start, would
      hide that an equation forgets it.
    - The layer first sees another batch, forward and back. A value kept from that one is wrong
      for this one.
    """

    def __init__(self, layer: Layer, x: Array, rng: np.random.Generator) -> None:
        """Prepare to check `layer`, whose memory is laid out already."""
        self.layer, self.rng = layer, rng
        self.still = Still(layer, x.shape[1])
        self.x = np.array(x, np.float64, order="C")
        self.other = shaken(self.x[::-1], rng)
        self.memory = dict(layer.gradients)
        self.weights = {name: getattr(layer, name) for name in self.memory}
        self.earlier = {name: array.copy() for name, array in self.weights.items()}
        self.shaken = {name: shaken(array, rng) for name, array in self.weights.items()}
        self.complaint: str | None = None  # about anything but a number

    def compare(self, groups: int | None, h: float, tolerance: float) -> list[Comparison]:
        """Compare the gradients of the input and of each parameter with the numerical ones.

        At most `groups` groups of entries of each are compared, None: all. What is wrong besides
        is left in `complaint`.
        """
        x = self.x.copy()
        with np.errstate(all="ignore"), self.seeing(x, self.shaken):
            self.still.forward(self.other.copy())  # what is kept from the very first call shows
            y = self.still.forward(self.x).copy()
            if self.still.dtype != np.float64:
                self.complaint = (
                    f"the output is {self.still.dtype} for a float64 input: too coarse to judge"
                )
            elif not np.isfinite(y).all():
                self.complaint = "the output is not finite"
            elif not np.array_equal(self.x, x, equal_nan=True):
                self.complaint = "x is changed: it belongs to the layer below, copy it first"
                self.x[...] = x
            elif not same(y, self.still.forward(self.x)):
                self.complaint = (
                    "the output is another each time: keep the random Generator as an attribute, "
                    "so that it can be held still"
                )
            self.r = self.rng.normal(size=y.shape)
            analytic = self.backpropagate()
            comparisons = []
            for name, array in {"input": self.x, **self.weights}.items():
                dependence = self.dependence(name)
                places = dependence.sample(groups, self.rng)
                noise = dependence.noise(places, self.r, np.abs(y).max() + np.abs(self.x).max())
                slopes = self.slopes(dependence, places)
                full = analytic[name].reshape(array.shape)
                found = compare(full.reshape(-1)[places], slopes, noise, h, tolerance)
                comparisons.append(Comparison(name, full, places, *found))
        return comparisons

    @contextmanager
    def seeing(self, x: Array, weights: dict[str, Array]) -> Iterator[None]:
        """Set input and weights to these, and put them back at the end."""
        arrays = [self.x, *self.weights.values()]
        before = [array.copy() for array in arrays]
        try:
            for array, values in zip(arrays, [x, *weights.values()], strict=True):
                array[...] = values
            yield
        finally:
            for array, values in zip(arrays, before, strict=True):
                array[...] = values
            self.still.restore()

    def dependence(self, name: str) -> Dependence:
        """Return how the output moves with the input or a parameter."""
        array = self.x if name == "input" else self.weights[name]
        return Dependence(
            lambda: self.still.forward(self.x), array, self.rng, samples=name == "input"
        )

    def slopes(self, dependence: Dependence, places: Array) -> Slopes:
        """Return the slopes of sum(r y) in the entries at `places` of the input or a parameter."""
        return lambda entries, step: dependence.slopes(places[entries], step, self.r)

    def numerical(self, name: str, places: Array, h: float = H) -> Array:
        """Return the central differences of sum(r y) for some entries, as things now are."""
        right, left = self.dependence(name).slopes(places, h, self.r)
        result: Array = (right + left) / 2
        return result

    def backpropagate(self) -> dict[str, Array]:
        """Return the layer's own gradients, after it has seen the other batch."""
        for array in self.memory.values():
            array[...] = 0
        with self.seeing(self.other, self.earlier):
            self.still.forward(self.x)
            self.backward()
        self.still.forward(self.x)
        return self.backward()

    def backward(self) -> dict[str, Array]:
        """Go back from r, in the network's order; return the gradients of input and parameters."""
        r = self.r.copy()
        dx = np.full(self.x.shape, np.nan)
        try:
            self.layer.parameter_gradients(r)
            returned = self.layer.input_gradient(r)
            if returned.shape == dx.shape:
                dx = returned.astype(np.float64)
            else:
                self.complaint = (
                    f"the input gradient has the shape {returned.shape}, the input {dx.shape}"
                )
        except Exception as error:  # whatever goes wrong in somebody's layer is a finding
            self.complaint = f"the way back stops with {type(error).__name__}: {error}"
        if not np.array_equal(r, self.r):
            self.complaint = "dout is changed: it belongs to the layer above, copy it first"
        return {"input": dx} | {name: array.copy() for name, array in self.memory.items()}


@dataclass(eq=False)
class LossLayer(Layer):
    """A loss as the layer that it is: its output, one number, as y (1, 1)."""

    loss: Loss
    labels: Array

    def forward(self, x: Array, training: bool = False) -> Array:
        return np.array([[self.loss.forward(x, self.labels)]])

    def input_gradient(self, dout: Array) -> Array:
        return self.loss.backward(float(dout[0, 0]))

    def complaint(self, x: Array) -> str | None:
        """Return what is wrong if the loss of the batch isn't the mean of its samples' losses."""
        n = len(x)
        losses = [self.loss.forward(x[i : i + 1], self.labels[i : i + 1]) for i in range(n)]
        whole, mean = self.loss.forward(x, self.labels), float(np.mean(losses))
        if np.isclose(whole, mean, rtol=1e-9, atol=1e-12, equal_nan=True):
            return None
        if np.isclose(whole, mean * n, rtol=1e-9):
            return "forward returns the sum of the samples' losses where their mean belongs"
        return (
            "forward mixes the samples: the loss of a batch is not the mean of its samples' "
            "losses, as if a softmax were taken over the whole batch"
        )
