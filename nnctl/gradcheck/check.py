"""Gradient check: backpropagation against central differences, and why they differ.

Nothing that trains is written a second time: every layer goes through its own `forward` and its
own two halves of the backward pass, and the gradients of the whole network come from the step
that `nnctl train` takes. Each layer is checked by itself, on the inputs it meets, so that a wrong
one is named and not all that lies below it; then all of them together, down to the loss.

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

import numpy as np
import numpy.typing as npt

from nnctl.gradcheck.causes import ASKED_TOO_MUCH, agrees_by_default, describe, explain
from nnctl.gradcheck.finite_differences import Comparison, Status
from nnctl.gradcheck.layer import NOT_FINITE, NOT_SET_UP, LayerUnderTest, LossAsLayer
from nnctl.gradcheck.nearby import largest_gradient, look_nearby
from nnctl.gradcheck.network import NetworkUnderTest
from nnctl.gradcheck.report import (
    LayerCheck,
    LayerReport,
    Report,
    Verdict,
    layer_check,
    parameter_check,
)
from nnctl.gradcheck.shared import check_shared
from nnctl.gradcheck.thresholds import MOST_UNJUDGED, TOLERANCE
from nnctl.nn.functions import Array
from nnctl.nn.hyperparameters import kind_of
from nnctl.nn.layers import LAYERS, Layer
from nnctl.nn.losses import LOSSES, Loss
from nnctl.nn.network import Network
from nnctl.nn.numerical_gradient import H
from nnctl.nn.randomness import Concern, generator

PER_PARAMETER = 64

GROUPS = 256  # of entries perturbed together: at most so many an array, unless all are asked for

UNDECIDED = (NOT_FINITE, ASKED_TOO_MUCH)  # causes that leave open whether a layer is wrong


def check_layer(
    layer: Layer, x: npt.ArrayLike, *, h: float = H, tolerance: float = TOLERANCE, seed: int = 0
) -> LayerReport:
    """Check the gradients of `layer` for the inputs `x` (batch, inputs), every entry of them.

    The layer gets new weights, in float64.

    Raises:
        ValueError: `x` is not a table of numbers.

    """
    wanted = "x must be a table of numbers, (batch, inputs)"
    try:
        x = np.asarray(x, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(wanted) from error
    if x.ndim != 2 or not x.size:
        raise ValueError(f"{wanted}, not of shape {x.shape}")
    name = kind_of(LAYERS, layer)
    if not hasattr(layer, "gradients"):
        return LayerReport(name, [], "wrong", NOT_SET_UP)
    network = Network([layer], x.shape[1], dtype=np.float64)
    network.initialize(seed)
    rng = generator(seed, Concern.SAMPLE)
    tested = LayerUnderTest(layer, x, network.widths[1], rng)
    comparisons, cause = _check_layer(tested, None, h, tolerance)
    verdict: Verdict = "right" if cause is None else "wrong"
    if cause in UNDECIDED:
        verdict = "undecided"
    return LayerReport(name, [parameter_check(found) for found in comparisons], verdict, cause)


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
    all; `seed` chooses them. `progress` is called with how many more have been. `network` is left
    as it is.
    """
    start = time.perf_counter()
    rng = generator(seed, Concern.SAMPLE, 1)
    groups = None if per_parameter is None else max(per_parameter, GROUPS)
    excused: set[str] = set()  # parameters that fail only by the step or tolerance asked for
    comparisons: list[Comparison] = []
    with np.errstate(all="ignore"):
        tested = NetworkUnderTest(network, loss, x, labels, rng)
        layers, causes = _check_layers(tested, groups, h, tolerance)
        for parameter in tested.parameters():
            places = _choose(parameter.gradient.reshape(-1), per_parameter, rng)
            found = parameter.compare(places, h, tolerance, progress)
            comparisons.append(found)
            failed = (found.status == Status.FAILED).any()
            if failed and agrees_by_default(found, parameter.slopes(places)):
                excused.add(parameter.name)
        defect = tested.defect
        if tested.forward_works:
            look_nearby(tested, comparisons, tolerance, layers_right=not causes)
            wrong = {found.name for found in comparisons if found.failed.any()} - excused
            if not (causes or defect or wrong):
                shared, defect = check_shared(network, loss, tested.inputs[0], labels, rng)
                for found, other in zip(comparisons, shared, strict=bool(shared)):
                    found.fail_where(other)
        verdict, cause = conclude(causes, defect, comparisons, excused, tolerance)
    parameters = [parameter_check(found) for found in comparisons]
    return Report(
        verdict=verdict,
        passed=verdict == "right",
        tolerance=tolerance,
        h=h,
        samples=len(x),
        checked=sum(p.checked for p in parameters),
        failed=sum(p.failed for p in parameters),
        kinks=sum(p.kinks for p in parameters),
        rounding=sum(p.rounding for p in parameters),
        parameters=parameters,
        layers=layers,
        cause=cause,
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
        tested = NetworkUnderTest(network, loss, x, labels, rng)
        for parameter in tested.parameters():
            gradient = parameter.gradient.reshape(-1)
            places = _choose(gradient, per_parameter, rng)
            slopes, a = parameter.slopes(places), gradient[places]
            for row, h in zip(squares, steps, strict=True):
                right, left = slopes(np.arange(len(places)), h)
                n = (right + left) / 2
                row += [np.dot(a - n, a - n), np.dot(a, a), np.dot(n, n)]
        difference, analytic, numerical = np.sqrt(squares).T
        errors: list[float] = (difference / (analytic + numerical)).tolist()
    return errors


def _check_layers(
    tested: NetworkUnderTest, groups: int | None, h: float, tolerance: float
) -> tuple[list[LayerCheck], dict[str, str]]:
    """Check each layer and the loss by itself; return the causes of those that are wrong.

    At most `groups` groups of entries of each array are compared, None: all. Where the forward
    pass stops, so does this.
    """
    layers, causes = [], {}
    for index in range(min(len(tested.inputs), len(tested.layers))):
        name = tested.network.layer_name(index)
        comparisons, cause = _check_layer(tested.layer(index), groups, h, tolerance)
        layers.append(layer_check(name, comparisons, passed=cause is None))
        if cause is not None:
            causes[name] = cause
    if tested.forward_works:
        name, outputs = kind_of(LOSSES, tested.loss), tested.inputs[-1]
        end = LossAsLayer(tested.loss, tested.labels)
        comparisons, cause = _check_layer(
            LayerUnderTest(end, outputs, None, tested.rng), groups, h, tolerance
        )
        cause = end.defect(outputs) or cause
        layers.append(layer_check(name, comparisons, passed=cause is None))
        if cause is not None:
            causes[name] = cause
    return layers, causes


def _check_layer(
    tested: LayerUnderTest, groups: int | None, h: float, tolerance: float
) -> tuple[list[Comparison], str | None]:
    """Return what a layer's gradients came to, and why they are wrong if they are.

    The inputs that a layer meets may show little of it: all black, or all where a ReLU is off. So
    it is checked on random ones of the same size, too, unless it has no values there.
    """
    comparisons = tested.compare(groups, h, tolerance)
    if tested.defect is None:
        size = float(np.sqrt(np.mean(np.square(tested.x)))) or 1.0
        x = tested.rng.normal(scale=size, size=tested.x.shape)
        anywhere = LayerUnderTest(tested.layer, x, tested.deterministic.units, tested.rng)
        others = anywhere.compare(groups, h, tolerance)
        defined = bool(others) and anywhere.defect != NOT_FINITE
        failures = _failures(others)
        if defined and (anywhere.defect or (failures and failures >= _failures(comparisons))):
            return others, explain(anywhere, others)
    return comparisons, explain(tested, comparisons)


def _failures(comparisons: list[Comparison]) -> int:
    """Return how many entries failed elsewhere than at a kink, which shows best what is wrong."""
    return sum(found.count(Status.FAILED) for found in comparisons)


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


def conclude(
    causes: dict[str, str],
    defect: str | None,
    comparisons: list[Comparison],
    excused: set[str],
    tolerance: float,
) -> tuple[Verdict, str | None]:
    """Return the verdict, and one sentence on why it isn't "right".

    `causes` are those of the layers that fail by themselves, `defect` what is wrong with the step,
    `excused` names the parameters that agree by the default step and tolerance.
    """
    faults = {name: cause for name, cause in causes.items() if cause not in UNDECIDED}
    if faults:
        return "wrong", _by_cause(faults)
    wrong = [found for found in comparisons if found.failed.any() and found.name not in excused]
    if defect is None and wrong:
        how: dict[str, list[str]] = {}
        for found in wrong:
            how.setdefault(describe(found), []).append(found.name)
        defect = "; ".join(
            f"the gradient of {', '.join(names)} {what}" for what, names in how.items()
        )
    if defect is not None:
        return (
            "wrong",
            f"every layer is right by itself, but not the step that joins them: {defect}",
        )
    if causes:
        return "undecided", _by_cause(causes)
    if excused:
        return "undecided", f"{' and '.join(sorted(excused))}: {ASKED_TOO_MUCH}"
    largest = largest_gradient(comparisons)
    for found in comparisons:
        unjudged = found.unjudged(tolerance, largest)
        if unjudged.sum() > MOST_UNJUDGED * len(unjudged):
            return "undecided", _unjudged(found, unjudged)
    return "right", None


def _by_cause(causes: dict[str, str]) -> str:
    """Return all causes with the names of the layers that share them, as one sentence."""
    names: dict[str, list[str]] = {}
    for name, cause in causes.items():
        names.setdefault(cause, []).append(name)
    return "; ".join(f"{' and '.join(layers)}: {cause}" for cause, layers in names.items())


def _unjudged(found: Comparison, unjudged: Array) -> str:
    """Return what can't be said about an array, and why."""
    kinks = int((found.status[unjudged] == Status.KINK).sum())
    rounding = int(unjudged.sum()) - kinks
    reasons = []
    if kinks:
        reasons.append(
            f"{kinks:,} lie too near to a kink, or where the loss bends too much for h (try a "
            "smaller --h)"
        )
    if rounding:
        reasons.append(
            f"rounding errors of the loss hide {rounding:,} (try a larger --h or --tolerance, or "
            "smaller inputs or weights)"
        )
    return (
        f"{found.name}: {unjudged.sum():,} of {len(unjudged):,} entries can't be judged: "
        f"{', '.join(reasons)}"
    )
