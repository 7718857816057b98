"""The operations of a graph: what each computes on the way forward, and its local derivatives.

z is the value, x and y are the inputs. An operation that is added to one of the two tables below
is known to the language at once.
"""

from __future__ import annotations

import math

import numpy as np

from nnctl.graph.graph import Leaf, Operation
from nnctl.nn import functions


class Add(Operation):
    """z = x + y. Both local derivatives are 1: the gradient passes on unchanged.

    >>> node = Add()
    >>> node.forward(200, 450)
    650
    >>> node.backward(1.1)
    (1.1, 1.1)
    """

    word, arity, formulas = "+", 2, ("1", "1")

    def forward(self, x: float, y: float) -> float:
        """Return x + y."""
        return x + y

    def local_derivatives(self) -> tuple[float, ...]:
        return 1.0, 1.0


class Multiply(Operation):
    """z = x y. The local derivatives are the inputs, swapped: dz/dx = y, dz/dy = x.

    >>> node = Multiply()
    >>> node.forward(100, 2)
    200
    >>> node.backward(1.5)
    (3.0, 150.0)
    """

    word, arity, formulas = "*", 2, ("y", "x")

    def forward(self, x: float, y: float) -> float:
        """Return x y."""
        self.x, self.y = x, y
        return x * y

    def local_derivatives(self) -> tuple[float, ...]:
        return self.y, self.x


class Divide(Operation):
    """z = x / y, with dz/dx = 1/y and dz/dy = -x/y^2."""

    word, arity, formulas = "/", 2, ("1/y", "-x/y^2")

    def forward(self, x: float, y: float) -> float:
        """Return x / y."""
        if y == 0:
            raise ValueError("division by 0")
        self.x, self.y = x, y
        return x / y

    def local_derivatives(self) -> tuple[float, ...]:
        return 1 / self.y, -self.x / self.y / self.y


class Power(Operation):
    """z = x^y, with dz/dx = y x^(y-1) and dz/dy = z log x, which needs an x above 0."""

    word, arity, formulas = "^", 2, ("y x^(y-1)", "z log x")

    def forward(self, x: float, y: float) -> float:
        """Return x^y."""
        if x == 0 and y < 0:
            raise ValueError("0 to a negative power divides by 0")
        if x < 0 and not y.is_integer():
            raise ValueError("a negative number has only powers whose exponent is whole")
        self.x, self.y, self.z = x, y, math.pow(x, y)
        return self.z

    def local_derivatives(self) -> tuple[float, ...]:
        x, y = self.x, self.y
        dz_dx = y * math.pow(x, y - 1) if y else 0.0
        if x > 0:
            return dz_dx, self.z * math.log(x)
        return dz_dx, 0.0 if x == 0 < y else math.nan

    def kink(self) -> str | None:
        constant = isinstance(self.inputs[1], Leaf) and not self.inputs[1].name
        if constant or self.x > 0 or self.x == 0 < self.y:
            return None
        return f"({self.x:g})^y has no derivative by y: it has values where y is whole, no others"


class Exp(Operation):
    """z = exp(x), its own derivative: dz/dx = z."""

    word, arity, formulas = "exp", 1, ("z",)

    def forward(self, x: float) -> float:
        """Return exp(x)."""
        self.z = math.exp(x)
        return self.z

    def local_derivatives(self) -> tuple[float, ...]:
        return (self.z,)


class Log(Operation):
    """z = log(x), the natural logarithm, with dz/dx = 1/x."""

    word, arity, formulas = "log", 1, ("1/x",)

    def forward(self, x: float) -> float:
        """Return log(x)."""
        if x <= 0:
            raise ValueError(f"log of {x:g}: it needs a number above 0")
        self.x = x
        return math.log(x)

    def local_derivatives(self) -> tuple[float, ...]:
        return (1 / self.x,)


class Sqrt(Operation):
    """z = sqrt(x), with dz/dx = 1/(2z)."""

    word, arity, formulas = "sqrt", 1, ("1/(2z)",)

    def forward(self, x: float) -> float:
        """Return the square root of x."""
        if x < 0:
            raise ValueError(f"sqrt of {x:g}: it needs a number that is not negative")
        self.z = math.sqrt(x)
        return self.z

    def local_derivatives(self) -> tuple[float, ...]:
        return (1 / (2 * self.z),)


class Sigmoid(Operation):
    """z = 1 / (1 + exp(-x)), with dz/dx = z (1 - z)."""

    word, arity, formulas = "sigmoid", 1, ("z(1-z)",)

    def forward(self, x: float) -> float:
        """Return sigmoid(x)."""
        self.z = float(functions.sigmoid(np.array([x]))[0])
        return self.z

    def local_derivatives(self) -> tuple[float, ...]:
        return (self.z * (1 - self.z),)


class Tanh(Operation):
    """z = tanh(x), with dz/dx = 1 - z^2."""

    word, arity, formulas = "tanh", 1, ("1-z^2",)

    def forward(self, x: float) -> float:
        """Return tanh(x)."""
        self.z = math.tanh(x)
        return self.z

    def local_derivatives(self) -> tuple[float, ...]:
        return (1 - self.z * self.z,)


class ReLU(Operation):
    """z = max(x, 0): dz/dx is 1 where x > 0, and 0 elsewhere."""

    word, arity, formulas = "relu", 1, ("x>0",)

    def forward(self, x: float) -> float:
        """Return x, or 0 if that is larger."""
        self.x = x
        return max(x, 0.0)

    def local_derivatives(self) -> tuple[float, ...]:
        return (float(self.x > 0),)

    def kink(self) -> str | None:
        if self.x:
            return None
        return "relu has a kink at 0: its slope is 0 on the left, 1 on the right; 0 is used"


class Max(Operation):
    """z = max(x, y): the gradient goes to the larger input alone."""

    word, arity, formulas = "max", 2, ("x>=y", "x<y")

    def forward(self, x: float, y: float) -> float:
        """Return the larger of x and y."""
        self.x, self.y = x, y
        return max(x, y)

    def local_derivatives(self) -> tuple[float, ...]:
        return float(self.x >= self.y), float(self.x < self.y)

    def kink(self) -> str | None:
        if self.x != self.y:
            return None
        return (
            f"max has a kink where its inputs are equal, here {self.x:g}: "
            "the first one gets the whole gradient"
        )


OPERATORS: dict[str, type[Operation]] = {kind.word: kind for kind in (Add, Multiply, Divide, Power)}
FUNCTIONS: dict[str, type[Operation]] = {
    kind.word: kind for kind in (Exp, Log, Sqrt, Sigmoid, Tanh, ReLU, Max)
}
