"""The functions of the equations, written so that no finite input overflows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def log_sum_exp(z: Array, axis: int = -1) -> Array:
    """Return log(sum(exp(z))) along `axis`, which is kept with length 1.

    The largest entry is taken out first: log sum exp(z) = m + log sum exp(z - m).
    """
    m = z.max(axis=axis, keepdims=True)
    total: Array = m + np.log(np.exp(z - m).sum(axis=axis, keepdims=True))
    return total


def softmax(z: Array, axis: int = -1) -> Array:
    """Return exp(z) / sum(exp(z)) along `axis`: probabilities that do not feel a shift of z.

    >>> softmax(np.array([[1000.0, 1000.0]]))
    array([[0.5, 0.5]])
    """
    y: Array = np.exp(z - z.max(axis=axis, keepdims=True))
    y /= y.sum(axis=axis, keepdims=True)
    return y


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), exact in both tails.

    Where exp(-x) exceeds the largest number it becomes infinite, and its reciprocal is the
    right answer, 0.

    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    y: Array = np.negative(x)
    with np.errstate(over="ignore"):
        np.exp(y, out=y)
    y += 1
    return np.reciprocal(y, out=y)


def one_hot(labels: Array, classes: int, dtype: Any = np.float32) -> Array:
    """Return the targets (batch, classes) of `labels` (batch,): 1 at the label, 0 elsewhere.

    >>> one_hot(np.array([2, 0]), 3)
    array([[0., 0., 1.],
           [1., 0., 0.]], dtype=float32)
    """
    targets = np.zeros((len(labels), classes), dtype)
    targets[np.arange(len(labels)), labels] = 1
    return targets
