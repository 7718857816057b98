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
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nnctl.gradcheck.causes import ASKED_TOO_MUCH, explain
from nnctl.gradcheck.finite_differences import (
    TOLERANCE,
    Comparison,
    Verdict,
    agrees_by_default,
    compare,
)
from nnctl.gradcheck.layer import Alone, LossLayer
from nnctl.gradcheck.network import Whole
from nnctl.nn.functions import Array
from nnctl.nn.hyperparameters import kind_of
from nnctl.nn.layers import LAYERS, Layer
from nnctl.nn.losses import LOSSES, Loss
from nnctl.nn.network import Network
from nnctl.nn.numerical_gradient import H
from nnctl.nn.randomness import Concern, generator

PER_PARAMETER = 64
MOST_KINKS = 0.01  # of an array's checked entries may remain kinks

GROUPS = 256  # of entries moved together: at most so many an array, unless all are asked for


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
    comparisons = alone.compare(None, h, tolerance)
    cause = explain(alone, comparisons)
    return LayerReport(kind_of(LAYERS, layer), [_parameter_check(c) for c in comparisons], cause)


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
    with np.errstate(all="ignore"):
        whole = Whole(network, loss, x, labels, rng)
        layers, causes = _check_alone(whole, groups, h, tolerance)
        parameters, wrong = [], []
        for name, index, gradient, dependence in whole.parameters():
            places = _choose(gradient.reshape(-1), per_parameter, rng)
            slopes = whole.slopes(index, dependence, places, progress)
            noise = np.full(len(places), whole.noise)
            judged = compare(gradient.reshape(-1)[places], slopes, noise, h, tolerance)
            found = Comparison(name, gradient, places, *judged)
            parameters.append(_parameter_check(found))
            if found.failed.any() and not agrees_by_default(found, slopes):
                wrong.append(name)
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
        cause=None if passed else _verdict(causes, parameters, wrong, whole.complaint),
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


def _check_alone(
    whole: Whole, groups: int | None, h: float, tolerance: float
) -> tuple[list[LayerCheck], dict[str, str]]:
    """Check each layer of `whole` and its loss alone; return the causes of those that are wrong.

    At most `groups` groups of entries of each array are compared, None: all.
    """
    outputs, end = whole.inputs[-1], LossLayer(whole.loss, whole.labels)
    suspects = [whole.alone(index) for index in range(len(whole.network.layers))]
    suspects.append((kind_of(LOSSES, whole.loss), Alone(end, outputs, whole.rng)))
    layers, causes = [], {}
    for name, alone in suspects:
        comparisons = alone.compare(groups, h, tolerance)
        cause = explain(alone, comparisons)
        if alone.layer is end:
            cause = end.complaint(outputs) or cause
        layers.append(_layer_check(name, comparisons, passed=cause is None))
        if cause is not None:
            causes[name] = cause
    return layers, causes


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
    causes: dict[str, str],
    parameters: list[ParameterCheck],
    wrong: list[str],
    complaint: str | None,
) -> str:
    """Return one sentence on what is wrong.

    `causes` are those of the layers that fail alone, `wrong` names the parameters that fail by
    the default step and tolerance too.
    """
    if causes:
        names: dict[str, list[str]] = {}
        for name, cause in causes.items():
            names.setdefault(cause, []).append(name)
        return "; ".join(f"{' and '.join(layers)}: {cause}" for cause, layers in names.items())
    if complaint or wrong:
        what = complaint or f"the gradient of {', '.join(wrong)} is wrong"
        return f"every layer is right alone, but not the network that joins them: {what}"
    if any(p.failed for p in parameters):
        return ASKED_TOO_MUCH
    kinks = ", ".join(p.name for p in parameters if not p.passed)
    return (
        f"{kinks}: too many entries lie on a kink, where there is no derivative to compare with, "
        "or where the loss bends too much for h; try a smaller --h, more --samples, another --seed "
        "or a trained network"
    )
