"""Gradient descent on the variables of an expression."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from nnctl.errors import Diverged, UsageError
from nnctl.graph.expression import Expression


class DescentStep(NamedTuple):
    """Where the descent stands before its step `step` + 1."""

    step: int
    value: float
    variables: dict[str, float]
    gradients: dict[str, float]


def descend(expression: Expression, steps: int, learning_rate: float) -> Iterator[DescentStep]:
    """Yield the start and the place after each step of v -= learning_rate dL/dv.

    All variables take their step at once. Numbers that the expression names stay.

    Raises:
        UsageError: there is nothing to descend on.
        Diverged: a step leads where the expression has no value or no gradient.

    """
    variables = expression.variables
    if not variables:
        raise UsageError("the expression has no variable to descend on; write one, as in w * 2")
    for step in range(steps + 1):
        try:
            value = expression.solve()
        except UsageError as error:
            if step == 0:
                raise
            raise Diverged(f"after step {step}: {error}\ntry a smaller --lr") from None
        gradients = {name: leaf.gradient for name, leaf in variables.items()}
        values = {name: leaf.value for name, leaf in variables.items()}
        yield DescentStep(step, value, values, gradients)
        if undefined := [name for name in variables if math.isnan(gradients[name])]:
            raise UsageError(f"there is no derivative by {undefined[0]} to step along")
        for name, leaf in variables.items():
            leaf.value -= learning_rate * gradients[name]
