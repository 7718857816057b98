"""The optimizers: update rules on flat vectors.

w is a vector of weights, dw the gradient of the loss with respect to it; each array of `state`
has the same length. A rule acts on each entry alone, so it may be given any slice of the whole.
Weight decay is decoupled (Loshchilov and Hutter 2019, "Decoupled weight decay"):
w -= learning_rate weight_decay w, before the rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nnctl.nn.functions import Array
from nnctl.nn.hyperparameters import Epsilon, Fraction, Hyperparameters, NotNegative, Positive

State = dict[str, Array]


class Optimizer(Hyperparameters):
    """An update rule; a subclass is a dataclass whose fields are its config keys."""

    learning_rate: float
    weight_decay: float

    state_names: ClassVar[tuple[str, ...]] = ()  # vectors that are remembered, zero at first

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        self._scratch = np.empty(0)

    def decay(self, w: Array, learning_rate: float) -> None:
        """Shrink the weights `w` in place."""
        if self.weight_decay:
            w *= 1 - learning_rate * self.weight_decay

    def update(self, w: Array, dw: Array, state: State, learning_rate: float, step: int) -> None:
        """Change `w` and `state` in place; `step` counts from 1; `dw` is used up."""
        raise NotImplementedError

    def _like(self, w: Array) -> Array:
        """Return a vector for intermediate results, shaped as `w` and kept between steps."""
        if self._scratch.shape != w.shape or self._scratch.dtype != w.dtype:
            self._scratch = np.empty_like(w)
        return self._scratch


FLUSH_EVERY = 16  # steps
TINY = 1e-28


def _discount(memory: Array, factor: float, step: int) -> None:
    """Multiply `memory` by `factor`; every few steps set what has become tiny to 0.

    The gradient of a pixel that is dark in every batch is 0. Its memory shrinks with every step,
    until it is below the normal floating-point numbers, where some processors compute a hundred
    times slower. Adding `TINY` and subtracting it again rounds what is far smaller to 0; it could
    never have moved a weight.
    """
    memory *= factor
    if step % FLUSH_EVERY == 0:
        memory += TINY
        memory -= TINY


@dataclass(eq=False)
class SGD(Optimizer):
    """w -= learning_rate dw."""

    learning_rate: Positive = 0.1
    weight_decay: NotNegative = 0.0

    def update(self, w: Array, dw: Array, state: State, learning_rate: float, step: int) -> None:
        """Go down the gradient."""
        dw *= learning_rate
        w -= dw


@dataclass(eq=False)
class Momentum(Optimizer):
    """v = momentum v - learning_rate dw, w += v.

    Polyak 1964, in the form of Sutskever et al. 2013, "On the importance of initialization and
    momentum", equations 1 and 2.
    """

    learning_rate: Positive = 0.1
    momentum: Fraction = 0.9
    weight_decay: NotNegative = 0.0

    state_names = ("velocity",)

    def update(self, w: Array, dw: Array, state: State, learning_rate: float, step: int) -> None:
        """Add the gradient to the velocity, and the velocity to the weights."""
        v = state["velocity"]
        _discount(v, self.momentum, step)
        dw *= learning_rate
        v -= dw
        w += v


@dataclass(eq=False)
class Nesterov(Momentum):
    """v = momentum v - learning_rate dw, w += momentum v - learning_rate dw.

    Nesterov's gradient at the point that the velocity leads to, written for weights that are
    already there: Bengio et al. 2013, "Advances in optimizing recurrent networks", equation 7.
    """

    def update(self, w: Array, dw: Array, state: State, learning_rate: float, step: int) -> None:
        """Take the gradient's step and the velocity's next one together."""
        v = state["velocity"]
        _discount(v, self.momentum, step)
        dw *= learning_rate
        v -= dw
        w -= dw
        w += np.multiply(v, self.momentum, out=dw)


@dataclass(eq=False)
class AdaGrad(Optimizer):
    """h += dw^2, w -= learning_rate dw / (sqrt(h) + epsilon).

    Duchi et al. 2011, "Adaptive subgradient methods", in the diagonal form.
    """

    learning_rate: Positive = 0.01
    epsilon: Epsilon = 1e-8
    weight_decay: NotNegative = 0.0

    state_names = ("square_sum",)

    def update(self, w: Array, dw: Array, state: State, learning_rate: float, step: int) -> None:
        """Divide each entry's step by the root of all its squared gradients."""
        h, t = state["square_sum"], self._like(w)
        h += np.multiply(dw, dw, out=t)
        np.sqrt(h, out=t)
        t += self.epsilon
        np.divide(dw, t, out=t)
        t *= learning_rate
        w -= t


@dataclass(eq=False)
class RMSProp(Optimizer):
    """h = rho h + (1 - rho) dw^2, w -= learning_rate dw / (sqrt(h) + epsilon).

    Hinton 2012, lecture 6e. What is kept is the discounted sum h / (1 - rho): one pass over the
    vector less.
    """

    learning_rate: Positive = 0.01
    rho: Fraction = 0.9
    epsilon: Epsilon = 1e-8
    weight_decay: NotNegative = 0.0

    state_names = ("square_sum",)

    def update(self, w: Array, dw: Array, state: State, learning_rate: float, step: int) -> None:
        """Divide each entry's step by the root of its recent squared gradients."""
        h, t = state["square_sum"], self._like(w)
        _discount(h, self.rho, step)
        h += np.multiply(dw, dw, out=t)
        root = math.sqrt(1 - self.rho)
        np.sqrt(h, out=t)
        t += self.epsilon / root
        np.divide(dw, t, out=t)
        t *= learning_rate / root
        w -= t


@dataclass(eq=False)
class Adam(Optimizer):
    """w -= learning_rate m / (sqrt(v) + epsilon), m and v the recent means of dw and dw^2.

    Kingma and Ba 2015, "Adam", algorithm 1. What is kept are the discounted sums M and V, whose
    weights add up to (1 - beta^step) / (1 - beta): divided by that they are the paper's
    bias-corrected means, and the division happens on two numbers instead of two vectors.
    """

    learning_rate: Positive = 0.001
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: Epsilon = 1e-8
    weight_decay: NotNegative = 0.0

    state_names = ("gradient_sum", "square_sum")

    def update(self, w: Array, dw: Array, state: State, learning_rate: float, step: int) -> None:
        """Go down the mean gradient, each entry in units of its root mean square."""
        M, V = state["gradient_sum"], state["square_sum"]
        _discount(M, self.beta1, step)
        M += dw
        _discount(V, self.beta2, step)
        V += np.multiply(dw, dw, out=dw)
        total1 = (1 - self.beta1**step) / (1 - self.beta1)
        root2 = math.sqrt((1 - self.beta2**step) / (1 - self.beta2))
        # (M / total1) / (sqrt(V) / root2 + epsilon)
        t = np.sqrt(V, out=dw)
        t += self.epsilon * root2
        np.divide(M, t, out=t)
        t *= learning_rate * root2 / total1
        w -= t


@dataclass(eq=False)
class AdamW(Adam):
    """`Adam` with weight decay by default, as its authors set it."""

    weight_decay: NotNegative = 0.01


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": AdaGrad,
    "rmsprop": RMSProp,
    "adam": Adam,
    "adamw": AdamW,
}


@dataclass(frozen=True)
class ParameterSlice:
    """Some of a network's parameters, and all that one process needs to update them."""

    w: Array  # (n,)
    decayed: Array  # those of them that weight decay acts on
    dw: Array  # (n,)
    state: State
    optimizer: Optimizer

    @property
    def squared_norm(self) -> float:
        """The sum of the squares of dw."""
        return float(np.dot(self.dw, self.dw))

    def clip(self, norm: float, limit: float) -> None:
        """Shorten dw as much as a whole gradient of length `norm` must be to have `limit`.

        Pascanu et al. 2013, "On the difficulty of training recurrent neural networks", algorithm 1.
        """
        if norm > limit:
            np.multiply(self.dw, limit / norm, out=self.dw)

    def update(self, step: int, learning_rate: float) -> None:
        """Decay the weights, then apply the optimizer; `step` counts from 1. dw is used up."""
        self.optimizer.decay(self.decayed, learning_rate)
        self.optimizer.update(self.w, self.dw, self.state, learning_rate, step)
