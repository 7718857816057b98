"""The numerical gradient: f'(x) = (f(x + h) - f(x - h)) / 2h, by central differences.

It needs no backward pass, so it can judge one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nnctl.nn.functions import Array

H = 1e-5  # between truncation, which grows as h^2, and rounding, which grows as 1 / h


def numerical_gradient(function: Callable[[], float], x: Array, h: float = H) -> Array:
    """Return df/dx for each entry of `x` by central differences, (f(x + h) - f(x - h)) / 2h.

    `function` takes nothing and reads `x`, which is changed in place and put back.

    >>> x = np.array([3.0, -1.0])
    >>> numerical_gradient(lambda: x[0] ** 2 * x[1], x).round(6)
    array([-6.,  9.])
    """
    gradient = np.empty_like(x)
    for place in np.ndindex(x.shape):
        before = x[place]
        x[place] = before + h
        above = function()
        x[place] = before - h
        below = function()
        x[place] = before
        gradient[place] = (above - below) / (2 * h)
    return gradient


def relative_error(analytic: Array, numerical: Array) -> Array:
    """Return |a - n| / max(|a|, |n|) for each entry, 0 where both are 0.

    >>> relative_error(np.array([1.0, 0.0, -2.0]), np.array([1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    scale = np.maximum(np.abs(analytic), np.abs(numerical))
    with np.errstate(invalid="ignore"):  # infinities give nan
        error: Array = np.abs(analytic - numerical) / np.where(scale == 0, 1, scale)
    return error
