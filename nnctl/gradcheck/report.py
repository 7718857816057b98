"""What a gradient check came to: plain data, the fields of `nnctl gradcheck --json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from nnctl.gradcheck.finite_differences import Comparison, Status

Verdict = Literal["right", "wrong", "undecided"]


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


@dataclass(frozen=True, kw_only=True)
class LayerCheck:
    """One layer by itself, or the loss; an error is None where there was nothing to judge."""

    name: str
    input_gradient_error: float | None
    parameter_gradient_error: float | None
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Report:
    """The fields of `nnctl gradcheck --json`."""

    verdict: Verdict
    passed: bool  # is the verdict "right"?
    tolerance: float
    h: float
    samples: int
    checked: int
    failed: int
    kinks: int
    rounding: int
    parameters: list[ParameterCheck]
    layers: list[LayerCheck]
    cause: str | None  # of any verdict but "right"
    seconds: float


@dataclass(frozen=True)
class LayerReport:
    """What `check_layer` found: a `ParameterCheck` for the input and for each parameter."""

    name: str
    gradients: list[ParameterCheck]
    verdict: Verdict
    cause: str | None

    @property
    def passed(self) -> bool:
        """True if every gradient is right."""
        return self.verdict == "right"

    def __str__(self) -> str:
        """Say it in one line."""
        if self.cause is None:
            return f"{self.name}: {self.verdict}"
        cause = self.cause.replace("the ", "The ", 1) if self.cause[:4] == "the " else self.cause
        return f"{self.name}: {self.verdict}. {cause}."


def parameter_check(found: Comparison) -> ParameterCheck:
    """Return what the comparison of a parameter array, or of a layer's input, came to."""
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
        failed=int(np.count_nonzero(found.failed)),
        kinks=found.count(Status.KINK),
        rounding=found.count(Status.ROUNDING),
        max_relative_error=top,
        worst=worst,
    )


def layer_check(name: str, comparisons: list[Comparison], *, passed: bool) -> LayerCheck:
    """Return what the comparisons of a layer's input and parameters came to."""
    worst = [float(np.fmax.reduce(found.errors(), initial=-1)) for found in comparisons]
    return LayerCheck(
        name=name,
        input_gradient_error=max((e for e in worst[:1] if e >= 0), default=None),
        parameter_gradient_error=max((e for e in worst[1:] if e >= 0), default=None),
        passed=passed,
    )
