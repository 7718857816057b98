"""Gradient check: backpropagation against central differences, and why they differ.

Every layer is used as it is, through its own `forward` and its own two halves of the way back;
nothing of it is written a second time. Each is checked alone, on the inputs it meets, so that a
wrong one is named and not all that lies below it; then all of them together, down to the loss.

A layer of your own is checked in three lines:

>>> from nnctl.nn.layers import ReLU
>>> class LeftReLU(ReLU):
...     def input_gradient(self, dout):
...         return -super().input_gradient(dout)
>>> x = np.random.default_rng(0).normal(size=(4, 3))
>>> print(check_layer(ReLU(), x))
relu: right
>>> print(check_layer(LeftReLU(), x))
LeftReLU: wrong. The input gradient has the wrong sign: it is exactly -1 times the numerical one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from nnctl.nn.causes import explain
from nnctl.nn.differences import (
    EPSILON,
    ROUNDING,
    TOLERANCE,
    Comparison,
    Dependence,
    H,
    Verdict,
    compare,
    same,
    shaken,
)
from nnctl.nn.functions import Array
from nnctl.nn.layers import Layer
from nnctl.nn.losses import LOSSES, Loss
from nnctl.nn.network import KINDS, Network
from nnctl.nn.randomness import Concern, generator

SAMPLES = 8
PER_PARAMETER = 64
MOST_KINKS = 0.01  # of an array's checked entries may remain kinks

GROUPS = 256  # of entries moved together: at most so many an array, unless all are asked for
CHUNK = 2**17  # numbers in a batch of moved outputs: what fits the cache is quickest
LOSS_KINDS = {loss: kind for kind, loss in LOSSES.items()}


@dataclass(frozen=True, kw_only=True)
class Worst:
    """The entry with the largest relative error."""

    index: list[int]
    analytic: float
    numerical: float


@dataclass(frozen=True, kw_only=True)
class ParameterCheck:
    """One parameter array's gradient of the loss; kinks and rounding have no part in errors."""

    name: str
    shape: list[int]
    checked: int
    failed: int
    kinks: int
    rounding: int
    max_relative_error: float | None
    worst: Worst | None

    @property
    def passed(self) -> bool:
        """True if nothing failed and kinks left enough to judge by."""
        return not self.failed and self.kinks <= MOST_KINKS * self.checked


@dataclass(frozen=True, kw_only=True)
class LayerCheck:
    """One layer alone, or the loss; an error is None where there was nothing to judge."""

    name: str
    input_gradient_error: float | None
    parameter_gradient_error: float | None
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Report:
    """The fields of `nnctl gradcheck --json`."""

    passed: bool
    tolerance: float
    h: float
    samples: int
    checked: int
    failed: int
    kinks: int
    rounding: int
    parameters: list[ParameterCheck]
    layers: list[LayerCheck]
    cause: str | None
    seconds: float


@dataclass(frozen=True)
class LayerReport:
    """What `check_layer` found: a `ParameterCheck` for the input and for each parameter."""

    name: str
    gradients: list[ParameterCheck]
    cause: str | None

    @property
    def passed(self) -> bool:
        """True if every gradient is right."""
        return self.cause is None

    def __str__(self) -> str:
        """Say it in one line."""
        if self.cause is None:
            return f"{self.name}: right"
        return f"{self.name}: wrong. {self.cause[0].upper()}{self.cause[1:]}."


def check_layer(
    layer: Layer, x: Array, *, h: float = H, tolerance: float = TOLERANCE, seed: int = 0
) -> LayerReport:
    """Check the gradients of `layer` for the inputs `x` (batch, inputs), every entry of them.

    The layer gets new weights, in float64.
    """
    network = Network([layer], x.shape[1], dtype=np.float64)
    network.initialize(seed)
    alone = Alone(layer, x, generator(seed, Concern.SAMPLE))
    comparisons, cause = alone.check(None, h, tolerance)
    return LayerReport(_kind(layer), [_parameter_check(c) for c in comparisons], cause)


def check(
    network: Network,
    loss: Loss,
    x: Array,
    labels: Array,
    *,
    per_parameter: int | None = PER_PARAMETER,
    h: float = H,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    progress: Callable[[int], None] = lambda checked: None,
) -> Report:
    """Check `network`, which is float64, and `loss` on the samples `x` with their `labels`.

    At most `per_parameter` entries of each parameter array are checked down to the loss, None:
    all; `seed` chooses them. `progress` is told how many more have been. Weights and statistics
    are afterwards what they were before.
    """
    start = time.perf_counter()
    rng = generator(seed, Concern.SAMPLE, 1)
    groups = None if per_parameter is None else max(per_parameter, GROUPS)
    layers, causes, parameters = [], {}, []
    with np.errstate(all="ignore"):
        whole = Whole(network, loss, x, labels, rng)
        suspects = [whole.alone(index) for index in range(len(network.layers))]
        end = LossLayer(loss, whole.labels)
        outputs = whole.inputs[-1]
        suspects.append((_loss_kind(loss), Alone(end, outputs, rng)))
        for name, alone in suspects:
            comparisons, cause = alone.check(groups, h, tolerance)
            if alone.layer is end:
                cause = end.complaint(outputs) or cause
            layers.append(_layer_check(name, comparisons, passed=cause is None))
            if cause is not None:
                causes[name] = cause
        for name, index, gradient, dependence in whole.parameters():
            places = _choose(gradient.reshape(-1), per_parameter, rng)
            slopes = whole.slopes(index, dependence, places, progress)
            noise = np.full(len(places), whole.noise)
            found = compare(gradient.reshape(-1)[places], slopes, noise, h, tolerance)
            parameters.append(_parameter_check(Comparison(name, gradient, places, *found)))
        whole.restore()
    passed = not causes and all(parameter.passed for parameter in parameters)
    return Report(
        passed=passed,
        tolerance=tolerance,
        h=h,
        samples=len(x),
        checked=sum(p.checked for p in parameters),
        failed=sum(p.failed for p in parameters),
        kinks=sum(p.kinks for p in parameters),
        rounding=sum(p.rounding for p in parameters),
        parameters=parameters,
        layers=layers,
        cause=None if passed else _verdict(causes, parameters, whole.complaint),
        seconds=time.perf_counter() - start,
    )


def sweep(
    network: Network,
    loss: Loss,
    x: Array,
    labels: Array,
    steps: Sequence[float],
    *,
    per_parameter: int = PER_PARAMETER,
    seed: int = 0,
) -> list[float]:
    """Return, for each step h, |a - n| / (|a| + |n|), norms over entries chosen as by `check`.

    Truncation makes it grow as h^2, rounding as 1 / h: on logarithmic axes, a V.
    """
    rng = generator(seed, Concern.SAMPLE, 1)
    squares = np.zeros((len(steps), 3))
    with np.errstate(all="ignore"):
        whole = Whole(network, loss, x, labels, rng)
        for _, index, gradient, dependence in whole.parameters():
            places = _choose(gradient.reshape(-1), per_parameter, rng)
            slopes = whole.slopes(index, dependence, places)
            a = gradient.reshape(-1)[places]
            for row, h in zip(squares, steps, strict=True):
                right, left = slopes(np.arange(len(places)), h)
                n = (right + left) / 2
                row += [np.dot(a - n, a - n), np.dot(a, a), np.dot(n, n)]
        whole.restore()
        difference, analytic, numerical = np.sqrt(squares).T
        errors: list[float] = (difference / (analytic + numerical)).tolist()
    return errors


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

    What is derived is sum(r y). Its weights are shaken first, for a weight of exactly 1 or 0, as
    batch_norm has at the start, hides whether it stands in the equations. Before, the layer has
    seen another batch, forward and back, so that what it has kept of that one shows.
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

    def check(
        self, groups: int | None, h: float, tolerance: float
    ) -> tuple[list[Comparison], str | None]:
        """Compare the gradients of the input and of each parameter; say why if one is wrong.

        At most `groups` groups of entries of each are compared, None: all.
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
                slopes = partial(self._slopes, dependence, places)
                full = analytic[name].reshape(array.shape)
                found = compare(full.reshape(-1)[places], slopes, noise, h, tolerance)
                comparisons.append(Comparison(name, full, places, *found))
            wrong = [c for c in comparisons if c.failed.any()]
            cause = self.complaint or (explain(self, wrong) if wrong else None)
        return comparisons, cause

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

    def _slopes(
        self, dependence: Dependence, places: Array, entries: Array, step: float
    ) -> tuple[Array, Array]:
        return dependence.slopes(places[entries], step, self.r)

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
        layer = self.stills[index].layer
        return f"{index}.{_kind(layer)}", Alone(layer, self.inputs[index], self.rng)

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
    ) -> Callable[[Array, float], tuple[Array, Array]]:
        """Return the slopes that `compare` asks for: of the loss, in a parameter of a layer."""
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


def _kind(layer: Layer) -> str:
    return KINDS.get(type(layer), type(layer).__name__)


def _loss_kind(loss: Loss) -> str:
    return LOSS_KINDS.get(type(loss), type(loss).__name__)


def _choose(gradient: Array, count: int | None, rng: np.random.Generator) -> Array:
    """Return the places of `count` entries, half of them where the gradient isn't 0.

    Most pixels are dark in all samples, and their weights teach nothing; but a gradient of 0 may
    also be what is wrong.
    """
    if count is None or count >= len(gradient):
        return np.arange(len(gradient))
    live = rng.permutation(np.flatnonzero(gradient))[: count // 2]
    rest = np.setdiff1d(np.arange(len(gradient)), live, assume_unique=True)
    chosen = rng.choice(rest, count - len(live), replace=False)
    return np.sort(np.concatenate([live, chosen]))


def _parameter_check(found: Comparison) -> ParameterCheck:
    errors = found.errors()
    judged = np.flatnonzero(~np.isnan(errors))
    top, worst = None, None
    if len(judged):
        top = float(errors[judged].max())
        # Of those equally wrong, the one that shows it best.
        size = np.fmax(np.abs(found.analytic), np.abs(found.numerical))
        at = max(judged[errors[judged] >= top * (1 - 1e-6)], key=lambda entry: float(size[entry]))
        worst = Worst(
            index=[int(i) for i in np.unravel_index(found.places[at], found.full.shape)],
            analytic=float(found.analytic[at]),
            numerical=float(found.numerical[at]),
        )
    return ParameterCheck(
        name=found.name,
        shape=list(found.full.shape),
        checked=len(found.places),
        failed=found.count(Verdict.FAILED),
        kinks=found.count(Verdict.KINK),
        rounding=found.count(Verdict.ROUNDING),
        max_relative_error=top,
        worst=worst,
    )


def _layer_check(name: str, comparisons: list[Comparison], *, passed: bool) -> LayerCheck:
    worst = [float(np.fmax.reduce(c.errors(), initial=-1)) for c in comparisons]
    return LayerCheck(
        name=name,
        input_gradient_error=worst[0] if worst[0] >= 0 else None,
        parameter_gradient_error=max((e for e in worst[1:] if e >= 0), default=None),
        passed=passed,
    )


def _verdict(
    causes: dict[str, str], parameters: list[ParameterCheck], complaint: str | None
) -> str:
    """Return one sentence on what is wrong; `causes` are those of the layers that fail alone."""
    if causes:
        names: dict[str, list[str]] = {}
        for name, cause in causes.items():
            names.setdefault(cause, []).append(name)
        return "; ".join(f"{' and '.join(layers)}: {cause}" for cause, layers in names.items())
    failed = ", ".join(p.name for p in parameters if p.failed)
    if complaint or failed:
        what = complaint or f"the gradient of {failed} is wrong"
        return f"every layer is right alone, but not the network that joins them: {what}"
    kinks = ", ".join(p.name for p in parameters if not p.passed)
    return (
        f"{kinks}: too many entries lie on a kink, where there is no derivative to compare with; "
        "try another --seed, or a trained network"
    )
