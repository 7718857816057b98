"""The layers: what each computes on the way forward, and its chain rule on the way back.

Shapes: x and dx are (batch, inputs), y and dout are (batch, units). A sample is a row.
`dout` is the gradient of the loss with respect to y, `dx` with respect to x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from nnctl.nn.functions import Array, sigmoid
from nnctl.nn.hyperparameters import Count, Epsilon, Fraction, Hyperparameters, NotNegative
from nnctl.nn.initializers import HeNormal, Initializer, Shape


class Layer(Hyperparameters):
    """One layer; a subclass is a dataclass whose fields are its config keys.

    A layer with parameters names them in `shapes`; whoever owns the memory (a `Network`) then
    sets the attributes of these names and the entries of `gradients` to views of it.

    The arrays that `forward` and `input_gradient` return belong to the layer and are
    overwritten by its next call; their arguments are never changed.
    """

    weight: Array
    bias: Array
    running_mean: Array
    running_variance: Array
    gradients: dict[str, Array]

    couples_samples: ClassVar[bool] = False  # does a sample's output depend on the others?
    decayed: ClassVar[tuple[str, ...]] = ()  # the parameters that weight decay acts on

    def __post_init__(self) -> None:
        """Check the options; start without memory."""
        super().__post_init__()
        self.gradients = {}
        self._arrays: dict[str, Array] = {}

    @property
    def parameter_count(self) -> int:
        """The number of parameters, once they have their memory."""
        return sum(gradient.size for gradient in self.gradients.values())

    def output_units(self, inputs: int) -> int:
        """Return the width of the output for an input that is `inputs` wide."""
        return inputs

    def shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter, by attribute name."""
        return {}

    def statistics(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array that is kept with the weights but not trained."""
        return {}

    def initialize(self, rng: np.random.Generator) -> None:
        """Set parameters and statistics to where training starts."""

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return y, and remember what the way back needs."""
        raise NotImplementedError

    def parameter_gradients(self, dout: Array) -> None:
        """Write the gradient of each parameter into `gradients`."""

    def input_gradient(self, dout: Array) -> Array:
        """Return dx: the local derivative times the upstream gradient `dout`."""
        raise NotImplementedError

    def backward(self, dout: Array) -> Array:
        """Do both halves of the way back; return dx."""
        self.parameter_gradients(dout)
        return self.input_gradient(dout)

    def _array(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return the array that is kept under `name`, made anew when its shape changes."""
        array = self._arrays.get(name)
        if array is None or array.shape != shape or array.dtype != dtype:
            array = self._arrays[name] = np.empty(shape, dtype)
        return array


@dataclass(eq=False)
class Affine(Layer):
    """y = x W + b. Back: dx = dout W^T, dW = x^T dout, db = sum of dout over the batch."""

    units: Count
    initializer: Initializer = field(default_factory=HeNormal)

    decayed = ("weight",)

    def output_units(self, inputs: int) -> int:
        """Return `units`."""
        return self.units

    def shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of W and b."""
        return {"weight": (inputs, self.units), "bias": (self.units,)}

    def initialize(self, rng: np.random.Generator) -> None:
        """Draw W; b starts at zero."""
        with np.errstate(over="ignore"):  # what float32 can't hold shows in the first loss
            self.weight[...] = self.initializer(Shape(*self.weight.shape), rng)
        self.bias[...] = 0

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return x W + b."""
        self.x = x
        y = np.dot(x, self.weight, out=self._array("y", (len(x), self.units), x.dtype))
        y += self.bias
        return y

    def parameter_gradients(self, dout: Array) -> None:
        """Set dW = x^T dout and db = sum of dout over the batch."""
        np.dot(self.x.T, dout, out=self.gradients["weight"])
        np.add.reduce(dout, axis=0, out=self.gradients["bias"])

    def input_gradient(self, dout: Array) -> Array:
        """Return dout W^T."""
        return np.dot(dout, self.weight.T, out=self._array("dx", self.x.shape, dout.dtype))


class Activation(Layer):
    """A function of each entry alone: dx = f'(x) dout."""

    def function(self, x: Array, y: Array) -> None:
        """Write f(x) into `y`, and remember what `derivative` needs."""
        raise NotImplementedError

    def derivative(self, dx: Array) -> Array:
        """Return f'(x), in `dx` if it isn't known already."""
        raise NotImplementedError

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return f(x)."""
        self.y = self._array("y", x.shape, x.dtype)
        self.function(x, self.y)
        return self.y

    def input_gradient(self, dout: Array) -> Array:
        """Return f'(x) dout."""
        dx = self._array("dx", dout.shape, dout.dtype)
        return np.multiply(self.derivative(dx), dout, out=dx)


@dataclass(eq=False)
class ReLU(Activation):
    """y = max(x, 0): the derivative, `mask`, is 1 where x > 0 and 0 elsewhere."""

    def function(self, x: Array, y: Array) -> None:
        """Write x mask."""
        self.mask = self._array("mask", x.shape, x.dtype)
        np.greater(x, 0, out=self.mask, casting="unsafe")
        np.multiply(x, self.mask, out=y)

    def derivative(self, dx: Array) -> Array:
        """Return `mask`."""
        return self.mask


@dataclass(eq=False)
class LeakyReLU(ReLU):
    """y = x where x > 0, slope x elsewhere: `mask` is 1 or `slope`."""

    slope: NotNegative = 0.01

    def function(self, x: Array, y: Array) -> None:
        """Write x mask."""
        self.mask = self._array("mask", x.shape, x.dtype)
        np.greater(x, 0, out=self.mask, casting="unsafe")
        self.mask *= 1 - self.slope
        self.mask += self.slope
        np.multiply(x, self.mask, out=y)


@dataclass(eq=False)
class Sigmoid(Activation):
    """y = 1 / (1 + exp(-x)), dy/dx = y (1 - y)."""

    def function(self, x: Array, y: Array) -> None:
        """Write sigmoid(x)."""
        sigmoid(x, out=y)

    def derivative(self, dx: Array) -> Array:
        """Return y (1 - y)."""
        np.subtract(1, self.y, out=dx)
        return np.multiply(dx, self.y, out=dx)


@dataclass(eq=False)
class Tanh(Activation):
    """y = tanh(x), dy/dx = 1 - y^2."""

    def function(self, x: Array, y: Array) -> None:
        """Write tanh(x)."""
        np.tanh(x, out=y)

    def derivative(self, dx: Array) -> Array:
        """Return 1 - y^2."""
        np.multiply(self.y, self.y, out=dx)
        return np.subtract(1, dx, out=dx)


@dataclass(eq=False)
class GELU(Activation):
    """y = x (1 + t) / 2 with t = tanh(u), u = sqrt(2 / pi) (x + 0.044715 x^3).

    The tanh form of Hendrycks and Gimpel 2016, "Gaussian error linear units", section 2.
    Its derivative is (1 + t) / 2 + x (1 - t^2) u' / 2.
    """

    A: ClassVar[float] = math.sqrt(2 / math.pi)
    B: ClassVar[float] = 0.044715

    def function(self, x: Array, y: Array) -> None:
        """Write x (1 + t) / 2."""
        self.x = x
        self.t = t = self._array("t", x.shape, x.dtype)
        np.multiply(x, x, out=t)  # u = A x (1 + B x^2)
        t *= self.A * self.B
        t += self.A
        t *= x
        np.tanh(t, out=t)
        np.add(t, 1, out=y)
        y *= x
        y *= 0.5

    def derivative(self, dx: Array) -> Array:
        """Return (1 + t) / 2 + x (1 - t^2) u' / 2, with u' = A (1 + 3 B x^2)."""
        x, t = self.x, self.t
        np.multiply(x, x, out=dx)
        dx *= 3 * self.A * self.B
        dx += self.A
        dx *= x
        dx *= 1 - t * t
        dx += 1 + t
        dx *= 0.5
        return dx


@dataclass(eq=False)
class Dropout(Layer):
    """In training, zero each entry with probability `rate` and divide the rest by 1 - rate.

    So the expected output is x, and in use (training=False) the layer is the identity.
    Srivastava et al. 2014, "Dropout", in the inverted form. `rng` draws the mask.
    """

    rate: Fraction

    def __post_init__(self) -> None:
        """Check the rate; draw from a fixed stream until another is set."""
        super().__post_init__()
        self.rng = np.random.default_rng(0)

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return x mask."""
        if not training:
            return x
        self.mask = self.draw_mask(x)
        return np.multiply(x, self.mask, out=self._array("y", x.shape, x.dtype))

    def draw_mask(self, x: Array) -> Array:
        """Return a new mask for `x`: 0 with probability `rate`, else 1 / (1 - rate)."""
        mask = self._array("mask", x.shape, x.dtype)
        self.rng.random(out=mask, dtype=mask.dtype.type)
        np.greater_equal(mask, self.rate, out=mask, casting="unsafe")
        mask *= 1 / (1 - self.rate)
        return mask

    def input_gradient(self, dout: Array) -> Array:
        """Return dout mask."""
        return np.multiply(dout, self.mask, out=self._array("dx", dout.shape, dout.dtype))


@dataclass(eq=False)
class BatchNorm(Layer):
    """y = weight x_hat + bias, with x_hat = (x - mean) / sqrt(variance + epsilon).

    In training, mean and variance are those of the batch, per unit, and their running averages
    are updated: running = momentum running + (1 - momentum) batch, with the variance made
    unbiased. In use, the running averages stand in for the batch's. Ioffe and Szegedy 2015,
    "Batch normalization", algorithms 1 and 2.
    """

    momentum: Fraction = 0.9
    epsilon: Epsilon = 1e-5

    couples_samples = True

    def shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of gamma (weight) and beta (bias)."""
        return {"weight": (inputs,), "bias": (inputs,)}

    def statistics(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the running averages."""
        return {"running_mean": (inputs,), "running_variance": (inputs,)}

    def initialize(self, rng: np.random.Generator) -> None:
        """Start as the identity on normalised inputs."""
        self.weight[...] = 1
        self.bias[...] = 0
        self.running_mean[...] = 0
        self.running_variance[...] = 1

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return weight x_hat + bias."""
        x_hat = self.x_hat = self._array("x_hat", x.shape, x.dtype)
        if training:
            mean = x.mean(axis=0)
            np.subtract(x, mean, out=x_hat)
            variance = np.einsum("ij,ij->j", x_hat, x_hat) / len(x)
            self._update(self.running_mean, mean)
            self._update(self.running_variance, variance * (len(x) / max(len(x) - 1, 1)))
        else:
            np.subtract(x, self.running_mean, out=x_hat)
            variance = self.running_variance
        self.inverse_std = 1 / np.sqrt(variance + self.epsilon)
        x_hat *= self.inverse_std
        y = np.multiply(x_hat, self.weight, out=self._array("y", x.shape, x.dtype))
        y += self.bias
        return y

    def _update(self, running: Array, batch: Array) -> None:
        running *= self.momentum
        running += (1 - self.momentum) * batch

    def parameter_gradients(self, dout: Array) -> None:
        """Set dweight = sum of dout x_hat and dbias = sum of dout, over the batch."""
        np.einsum("ij,ij->j", dout, self.x_hat, out=self.gradients["weight"])
        np.add.reduce(dout, axis=0, out=self.gradients["bias"])

    def input_gradient(self, dout: Array) -> Array:
        """Return weight / std (dout - mean(dout) - x_hat mean(dout x_hat)), means over the batch.

        The two means are there because each sample moves the batch's mean and variance.
        """
        projection = np.einsum("ij,ij->j", dout, self.x_hat) / len(dout)
        dx = self._array("dx", dout.shape, dout.dtype)
        np.multiply(self.x_hat, -projection, out=dx)
        dx += dout
        dx -= dout.mean(axis=0)
        dx *= self.weight * self.inverse_std
        return dx


LAYERS: dict[str, type[Layer]] = {
    "affine": Affine,
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "gelu": GELU,
    "dropout": Dropout,
    "batch_norm": BatchNorm,
}
