"""One layer by itself: the two halves of its backward pass against central differences.

The layer is used as it is; nothing of it is written a second time. In the place of a loss stands
sum(r y) with a random r, whose gradient with respect to the output y is r.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnctl.gradcheck.finite_differences import (
    Comparison,
    Perturbation,
    Slopes,
    equal_but_for_rounding,
    jittered,
    judge,
)
from nnctl.gradcheck.thresholds import AMPLIFIED, DISTURBANCES, EPSILON, ROUNDING
from nnctl.nn.functions import Array
from nnctl.nn.layers import Layer
from nnctl.nn.losses import Loss
from nnctl.nn.numerical_gradient import H

NOT_SET_UP = (
    "the layer has not been set up: write @dataclass(eq=False) above its class, or call "
    "super().__post_init__() in its __init__"
)
NOT_FINITE = "the output is not finite, so that there is nothing to compare"


class LayerError(Exception):
    """What is wrong with a layer, where nothing can be computed."""


def said(what: str, error: Exception) -> str:
    """Return how the call of `what`, in somebody's code, has failed."""
    if isinstance(error, LayerError):
        return str(error)
    if type(error) is NotImplementedError and error.__traceback__:
        name = traceback.extract_tb(error.__traceback__)[-1].name
        return f"{what} calls {name}, which is not defined: look for a misspelt name"
    return f"{what} stops with {type(error).__name__}: {error}"


def kind(value: object) -> str:
    """Return what `value` is, in a word."""
    return "nothing" if value is None else f"a {type(value).__name__}"


def disturbed(array: Array, rng: np.random.Generator) -> Array:
    """Return `array` with every entry wrong by up to its own rounding error."""
    moved: Array = array * (1 + EPSILON * rng.uniform(-1, 1, array.shape))
    return moved


class DeterministicLayer:
    """A layer in training whose random numbers and statistics are reset before each use.

    So equal inputs give equal outputs, through dropout and batch_norm too.
    """

    def __init__(self, layer: Layer, inputs: int, units: int | None) -> None:
        """Remember the state of the layer's generators and statistics.

        `units` is how wide its output should be; None: a single number, as of a loss.
        """
        self.layer, self.units = layer, units
        self._generators = {
            name: value.bit_generator.state
            for name, value in vars(layer).items()
            if isinstance(value, np.random.Generator)
        }
        arrays = [getattr(layer, name) for name in layer.statistics(inputs)]
        self._statistics = [(array, array.copy()) for array in arrays]

    def reset(self) -> None:
        """Put generators and statistics back to that state."""
        for name, state in self._generators.items():
            getattr(self.layer, name).bit_generator.state = state
        for array, values in self._statistics:
            array[...] = values

    def forward(self, x: Array) -> Array:
        """Return the layer's output; it is overwritten by the next call.

        Raises:
            LayerError: there is none, or not such a one as the layer promises.

        """
        self.reset()
        try:
            y: Any = self.layer.forward(x, training=True)
        except Exception as error:  # whatever goes wrong in somebody's layer is a finding
            raise LayerError(said("forward", error)) from error
        if not isinstance(y, np.ndarray):
            raise LayerError(f"forward returns {kind(y)}, not an array: end it with return y")
        if self.units is not None and y.shape != (len(x), self.units):
            raise LayerError(
                f"forward returns an array of shape {y.shape}, where the batch and output_units "
                f"make {(len(x), self.units)}"
            )
        self.dtype = y.dtype
        return y.astype(np.float64, copy=False)

    def treats_samples_apart(self, x: Array, other: Array) -> bool:
        """Return whether several batches, one below the other, come out as each does by itself.

        They don't where a sample's output depends on the others (batch_norm), nor where a mask is
        drawn (dropout): each batch must get the same.
        """
        if self._generators:
            return False
        each = np.concatenate([self.forward(x.copy()).copy(), self.forward(other.copy())])
        return equal_but_for_rounding(self.forward(np.concatenate([x, other])), each)


class LayerUnderTest:
    """A layer with inputs to check it on, and a random gradient r in the place of a loss.

    The function to differentiate is sum(r y). Two things are done so that faults show:

    - The parameters are jittered. A weight of exactly 1 or 0, as batch_norm has at the start,
      would hide that an equation forgets it.
    - The layer first sees another batch, forward and backward. A value kept from that one is
      wrong for this one.
    """

    def __init__(self, layer: Layer, x: Array, units: int | None, rng: np.random.Generator) -> None:
        """Prepare to check `layer`, whose memory is laid out already, on `x` (batch, inputs)."""
        self.layer, self.rng = layer, rng
        self.deterministic = DeterministicLayer(layer, x.shape[1], units)
        self.x = np.array(x, np.float64, order="C")
        self.other = jittered(self.x[::-1], rng)
        self.memory = dict(layer.gradients)
        self.weights = {name: getattr(layer, name) for name in self.memory}
        self.earlier = {name: array.copy() for name, array in self.weights.items()}
        self.jittered = {name: jittered(array, rng) for name, array in self.weights.items()}
        self.defect: str | None = None  # what is wrong besides numbers

    def compare(self, groups: int | None, h: float, tolerance: float) -> list[Comparison]:
        """Compare the gradients of the input and of each parameter with the numerical ones.

        At most `groups` groups of entries of each are compared, None: all. What is wrong besides
        is left in `defect`; where forward doesn't work, nothing is compared.
        """
        try:
            with np.errstate(all="ignore"), self.set_to(self.x.copy(), self.jittered):
                return self._compare(groups, h, tolerance)
        except LayerError as error:
            self.defect = str(error)
            return []

    def _compare(self, groups: int | None, h: float, tolerance: float) -> list[Comparison]:
        forward, x = self.deterministic.forward, self.x.copy()
        forward(self.other.copy())  # what is kept from the very first call shows
        y = forward(self.x).copy()
        if self.deterministic.dtype != np.float64:
            self.defect = (
                f"the output is {self.deterministic.dtype} for a float64 input: too coarse to judge"
            )
        elif not np.isfinite(y).all():
            self.defect = NOT_FINITE
        elif not np.array_equal(self.x, x, equal_nan=True):
            self.defect = "x is changed: it belongs to the layer below, copy it first"
            self.x[...] = x
        elif not equal_but_for_rounding(y, forward(self.x)):
            self.defect = (
                "the output is another each time: keep the random Generator as an attribute, "
                "so that it can be reset"
            )
        self.r = self.rng.normal(size=y.shape)
        analytic = self.backpropagate()
        uncertainty = self._uncertainty(y)
        comparisons = []
        for name, array in {"input": self.x, **self.weights}.items():
            perturbation = self.perturbation(name)
            places = perturbation.sample(groups, self.rng)
            noise = perturbation.noise(places, self.r, uncertainty)
            slopes = self.slopes(perturbation, places)
            full = analytic[name].reshape(array.shape)
            flat = full.reshape(-1)[places]
            found = judge(flat, slopes, noise, h, tolerance)
            comparisons.append(Comparison(name, full, places, flat, *found))
        return comparisons

    def _uncertainty(self, y: Array) -> Array:
        """Return a bound of the rounding error of each output, shaped as `y`."""
        x = self.x.copy()
        change = np.zeros_like(y)
        for _ in range(DISTURBANCES):
            moved = self.deterministic.forward(disturbed(x, self.rng))
            change = np.fmax(change, np.abs(moved - y))
        scale = np.abs(y).max() + np.abs(x).max()
        bound: Array = ROUNDING * EPSILON * scale + AMPLIFIED * change
        return bound

    @contextmanager
    def set_to(self, x: Array, weights: dict[str, Array]) -> Iterator[None]:
        """Set input and parameters to these, and put them back at the end."""
        arrays = [self.x, *self.weights.values()]
        before = [array.copy() for array in arrays]
        try:
            for array, values in zip(arrays, [x, *weights.values()], strict=True):
                array[...] = values
            yield
        finally:
            for array, values in zip(arrays, before, strict=True):
                array[...] = values
            self.deterministic.reset()

    def perturbation(self, name: str) -> Perturbation:
        """Return what perturbs the input or a parameter."""
        array = self.x if name == "input" else self.weights[name]
        return Perturbation(
            lambda: self.deterministic.forward(self.x), array, self.rng, samples=name == "input"
        )

    def slopes(self, perturbation: Perturbation, places: Array) -> Slopes:
        """Return the slopes of sum(r y) in the entries at `places` of the input or a parameter."""
        return lambda entries, step: perturbation.slopes(places[entries], step, self.r)

    def numerical(self, name: str, places: Array, h: float = H) -> Array:
        """Return the central differences of sum(r y) for some entries, as things now are."""
        right, left = self.perturbation(name).slopes(places, h, self.r)
        result: Array = (right + left) / 2
        return result

    def backpropagate(self) -> dict[str, Array]:
        """Return the layer's own gradients, after it has seen the other batch."""
        for array in self.memory.values():
            array[...] = 0
        with self.set_to(self.other, self.earlier):
            self.deterministic.forward(self.x)
            self.backward()
        self.deterministic.forward(self.x)
        return self.backward()

    def backward(self) -> dict[str, Array]:
        """Go backward from r, in the network's order; return the gradients by name."""
        r = self.r.copy()
        dx = np.full(self.x.shape, np.nan)
        half = "parameter_gradients"
        try:
            self.layer.parameter_gradients(r)
            half = "input_gradient"
            returned: Any = self.layer.input_gradient(r)
            if not isinstance(returned, np.ndarray):
                self.defect = (
                    f"input_gradient returns {kind(returned)}, not an array: end it with return dx"
                )
            elif returned.shape != dx.shape:
                self.defect = (
                    f"the input gradient has the shape {returned.shape}, the input {dx.shape}"
                )
            else:
                dx = returned.astype(np.float64)
        except Exception as error:  # as in DeterministicLayer.forward
            self.defect = said(half, error)
        if not np.array_equal(r, self.r):
            self.defect = "dout is changed: it belongs to the layer above, copy it first"
        return {"input": dx} | {name: array.copy() for name, array in self.memory.items()}


@dataclass(eq=False)
class LossAsLayer(Layer):
    """A loss as the layer that it is: its output, one number, as y (1, 1)."""

    loss: Loss
    labels: Array

    def forward(self, x: Array, training: bool = False) -> Array:
        return np.array([[self.loss.forward(x, self.labels)]])

    def input_gradient(self, dout: Array) -> Array:
        return self.loss.backward(float(dout[0, 0]))

    def defect(self, x: Array) -> str | None:
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
