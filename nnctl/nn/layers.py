"""The layers: what each computes in the forward pass, and its chain rule in the backward one.

Shapes: x and dx are (batch, inputs), y and dout are (batch, units). A sample is a row.
`dout` is the gradient of the loss with respect to y, `dx` with respect to x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from nnctl.nn.functions import Array, sigmoid
from nnctl.nn.hyperparameters import Count, Epsilon, Fraction, Hyperparameters, NotNegative
from nnctl.nn.initializers import HeNormal, Initializer, Shape


class Layer(Hyperparameters):
    """One layer; a subclass is a dataclass whose fields are its config keys.

    A layer with parameters names them in `shapes`; whoever owns the memory (a `Network`) then
    sets the attributes of these names and the entries of `gradients` to views of it.

    `forward` and `input_gradient` return new arrays and never change their arguments.
    """

    weight: Array  # affine: W (inputs, units); batch_norm: gamma (units,)
    bias: Array  # affine: b (units,); batch_norm: beta (units,)
    running_mean: Array  # (units,)
    running_variance: Array  # (units,)
    gradients: dict[str, Array]  # by parameter, each of its shape

    couples_samples: ClassVar[bool] = False  # does a sample's output depend on the others?
    decayed: ClassVar[tuple[str, ...]] = ()  # the parameters that weight decay acts on

    def __post_init__(self) -> None:
        """Check the options; start without memory."""
        super().__post_init__()
        self.gradients = {}

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
        """Return y, and remember what the backward pass needs."""
        raise NotImplementedError

    def parameter_gradients(self, dout: Array) -> None:
        """Write the gradient of each parameter into `gradients`."""

    def input_gradient(self, dout: Array) -> Array:
        """Return dx: the local derivative times the upstream gradient `dout`."""
        raise NotImplementedError

    def backward(self, dout: Array) -> Array:
        """Do both halves of the backward pass; return dx."""
        self.parameter_gradients(dout)
        return self.input_gradient(dout)


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
        y: Array = np.dot(x, self.weight)
        y += self.bias
        return y

    def parameter_gradients(self, dout: Array) -> None:
        """Set dW = x^T dout and db = sum of dout over the batch."""
        np.dot(self.x.T, dout, out=self.gradients["weight"])
        np.add.reduce(dout, axis=0, out=self.gradients["bias"])

    def input_gradient(self, dout: Array) -> Array:
        """Return dout W^T."""
        dx: Array = np.dot(dout, self.weight.T)
        return dx


class Activation(Layer):
    """A function of each entry alone: dx = f'(x) dout."""

    def function(self, x: Array) -> Array:
        """Return y = f(x), and remember what `derivative` needs."""
        raise NotImplementedError

    def derivative(self) -> Array:
        """Return f'(x)."""
        raise NotImplementedError

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return f(x)."""
        self.y = self.function(x)
        return self.y

    def input_gradient(self, dout: Array) -> Array:
        """Return f'(x) dout."""
        dx: Array = self.derivative() * dout
        return dx


@dataclass(eq=False)
class ReLU(Activation):
    """y = max(x, 0): the derivative, `mask`, is 1 where x > 0 and 0 elsewhere."""

    def function(self, x: Array) -> Array:
        # Numbers, for NumPy takes thrice as long to multiply by booleans.
        self.mask = np.greater(x, 0, out=np.empty_like(x), casting="unsafe")
        y: Array = x * self.mask
        return y

    def derivative(self) -> Array:
        return self.mask


@dataclass(eq=False)
class LeakyReLU(ReLU):
    """y = x where x > 0, slope x elsewhere: `mask` is 1 or `slope`."""

    slope: NotNegative = 0.01

    def function(self, x: Array) -> Array:
        positive = np.greater(x, 0, out=np.empty_like(x), casting="unsafe")
        self.mask = positive * (1 - self.slope) + self.slope
        y: Array = x * self.mask
        return y


@dataclass(eq=False)
class Sigmoid(Activation):
    """y = 1 / (1 + exp(-x)), dy/dx = y (1 - y)."""

    def function(self, x: Array) -> Array:
        return sigmoid(x)

    def derivative(self) -> Array:
        return (1 - self.y) * self.y


@dataclass(eq=False)
class Tanh(Activation):
    """y = tanh(x), dy/dx = 1 - y^2."""

    def function(self, x: Array) -> Array:
        y: Array = np.tanh(x)
        return y

    def derivative(self) -> Array:
        return 1 - self.y * self.y


@dataclass(eq=False)
class GELU(Activation):
    """y = x (1 + t) / 2 with t = tanh(u), u = sqrt(2 / pi) (x + 0.044715 x^3).

    The tanh form of Hendrycks and Gimpel 2016, "Gaussian error linear units", section 2.
    Its derivative is (1 + t) / 2 + x (1 - t^2) u' / 2.
    """

    A: ClassVar[float] = math.sqrt(2 / math.pi)
    B: ClassVar[float] = 0.044715

    def function(self, x: Array) -> Array:
        self.x = x
        u = x * x * (self.A * self.B)  # u = A x (1 + B x^2)
        u += self.A
        u *= x
        self.t = np.tanh(u)
        y: Array = (self.t + 1) * x * 0.5
        return y

    def derivative(self) -> Array:
        x, t = self.x, self.t
        du = x * x * (3 * self.A * self.B) + self.A  # u' = A (1 + 3 B x^2)
        slope: Array = (du * x * (1 - t * t) + (1 + t)) * 0.5
        return slope


@dataclass(eq=False)
class Dropout(Layer):
    """In training, zero each entry with probability `rate` and divide the rest by 1 - rate.

    So the expected output is x, and at inference (training=False) the layer is the identity.
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
        y: Array = x * self.mask
        return y

    def draw_mask(self, x: Array) -> Array:
        """Return a new mask for `x`: 0 with probability `rate`, else 1 / (1 - rate)."""
        kept = self.rng.random(x.shape, dtype=x.dtype) >= self.rate
        mask: Array = kept.astype(x.dtype)
        mask *= 1 / (1 - self.rate)
        return mask

    def input_gradient(self, dout: Array) -> Array:
        """Return dout mask."""
        dx: Array = dout * self.mask
        return dx


@dataclass(eq=False)
class BatchNorm(Layer):
    """y = weight x_hat + bias, with x_hat = (x - mean) / sqrt(variance + epsilon).

    In training, mean and variance are those of the batch, per unit, and their running averages
    are updated: running = momentum running + (1 - momentum) batch, with the variance made
    unbiased. At inference the running averages stand in for the batch's. Ioffe and Szegedy 2015,
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
        if training:
            mean = x.mean(axis=0)
            x_hat = x - mean
            variance = np.einsum("ij,ij->j", x_hat, x_hat) / len(x)
            self._update(self.running_mean, mean)
            self._update(self.running_variance, variance * (len(x) / max(len(x) - 1, 1)))
        else:
            x_hat = x - self.running_mean
            variance = self.running_variance
        self.inverse_std = 1 / np.sqrt(variance + self.epsilon)
        x_hat *= self.inverse_std
        self.x_hat = x_hat
        y: Array = x_hat * self.weight + self.bias
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
        dx: Array = self.x_hat * -projection + dout - dout.mean(axis=0)
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
