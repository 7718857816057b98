"""Where training starts: an initializer turns a weight's shape into its first values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nnctl.nn.functions import Array
from nnctl.nn.hyperparameters import Hyperparameters, NotNegative


class Shape(NamedTuple):
    """The shape of a weight, by the names that the formulas use."""

    fan_in: int
    fan_out: int


class Initializer(Hyperparameters):
    """Draws a weight; a subclass says with which standard deviation."""

    def deviation(self, shape: Shape) -> float:
        """Return the standard deviation of the values."""
        raise NotImplementedError

    def __call__(self, shape: Shape, rng: np.random.Generator) -> Array:
        """Return new normally distributed values, float64, of `shape`."""
        return rng.normal(0, self.deviation(shape), shape)


@dataclass(frozen=True)
class HeNormal(Initializer):
    """sqrt(2 / fan_in) keeps the signal's size through ReLU layers.

    He et al. 2015, "Delving deep into rectifiers", equation 10.
    """

    def deviation(self, shape: Shape) -> float:
        """Return sqrt(2 / fan_in)."""
        return math.sqrt(2 / shape.fan_in)


@dataclass(frozen=True)
class XavierNormal(Initializer):
    """sqrt(2 / (fan_in + fan_out)), for sigmoid and tanh layers.

    Glorot and Bengio 2010, "Understanding the difficulty of training", equation 12.
    """

    def deviation(self, shape: Shape) -> float:
        """Return sqrt(2 / (fan_in + fan_out))."""
        return math.sqrt(2 / (shape.fan_in + shape.fan_out))


class _Uniform(Initializer):
    """The same standard deviation, drawn from U(-a, a), which has a / sqrt(3)."""

    def __call__(self, shape: Shape, rng: np.random.Generator) -> Array:
        a = math.sqrt(3) * self.deviation(shape)
        return rng.uniform(-a, a, shape)


@dataclass(frozen=True)
class HeUniform(_Uniform, HeNormal):
    """Uniform values with the deviation of `HeNormal`."""


@dataclass(frozen=True)
class XavierUniform(_Uniform, XavierNormal):
    """Uniform values with the deviation of `XavierNormal`."""


@dataclass(frozen=True)
class Normal(Initializer):
    """A fixed standard deviation, whatever the shape."""

    std: NotNegative = 0.01

    def deviation(self, shape: Shape) -> float:
        """Return `std`."""
        return self.std


@dataclass(frozen=True)
class Zeros(Initializer):
    """All zero: every unit of a hidden layer then learns the same, which is the lesson."""

    def deviation(self, shape: Shape) -> float:
        """Return 0."""
        return 0.0


INITIALIZERS: dict[str, type[Initializer]] = {
    "he_normal": HeNormal,
    "he_uniform": HeUniform,
    "xavier_normal": XavierNormal,
    "xavier_uniform": XavierUniform,
    "normal": Normal,
    "zeros": Zeros,
}
