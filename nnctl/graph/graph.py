"""The computational graph: values flow forward through its nodes, gradients flow back.

A node computes one number z from two inputs, x and y, and knows two local derivatives, dz/dx and
dz/dy. Of the rest of the graph it knows nothing. With L the value of the whole graph, the chain
rule is all that is needed to find every derivative of L, one node at a time:

    dL/dx = dL/dz dz/dx

dL/dz, the upstream gradient, arrives from the node's output as `dout`; dL/dx leaves by its input.
A layer of a network does the same with matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nnctl.nn.numerical_gradient import numerical_gradient


class Node:
    """A place in a graph that has a value and, after the way back, a gradient dL/dvalue."""

    symbol: str  # how an expression writes it
    value = 0.0
    gradient = 0.0


class Leaf(Node):
    """Where a graph begins: a variable, or a number if it has no name."""

    def __init__(self, value: float, name: str | None = None) -> None:
        self.value = value
        self.name = name
        self.symbol = name or f"{value:g}"


class Operation(Node):
    """A node that computes its value z from two inputs, x and y."""

    inputs: tuple[Node, Node]  # set by the graph that the node is in

    def forward(self, x: float, y: float) -> float:
        """Return z, and remember what the way back needs."""
        raise NotImplementedError

    def local_derivatives(self) -> tuple[float, float]:
        """Return dz/dx and dz/dy at the inputs of the last `forward`."""
        raise NotImplementedError

    def backward(self, dout: float) -> tuple[float, float]:
        """Return dx and dy: the upstream gradient `dout` times each local derivative."""
        dz_dx, dz_dy = self.local_derivatives()
        return dout * dz_dx, dout * dz_dy


class Add(Operation):
    """z = x + y. Both local derivatives are 1: the gradient passes on unchanged.

    >>> node = Add()
    >>> node.forward(200, 450)
    650
    >>> node.backward(1.1)
    (1.1, 1.1)
    """

    symbol = "+"

    def forward(self, x: float, y: float) -> float:
        """Return x + y."""
        return x + y

    def local_derivatives(self) -> tuple[float, float]:
        """Return 1 and 1."""
        return 1.0, 1.0


class Multiply(Operation):
    """z = x y. The local derivatives are the inputs, swapped: dz/dx = y, dz/dy = x.

    >>> node = Multiply()
    >>> node.forward(100, 2)
    200
    >>> node.backward(1.5)
    (3.0, 150.0)
    """

    symbol = "*"

    def forward(self, x: float, y: float) -> float:
        """Return x y."""
        self.x, self.y = x, y
        return x * y

    def local_derivatives(self) -> tuple[float, float]:
        """Return y and x."""
        return self.y, self.x


class Edge(NamedTuple):
    """One use of a node as an input: what the way back brings it from there."""

    source: Node
    target: Operation
    local_derivative: float  # of the target's value by the source's
    gradient: float  # the target's, times the local derivative


STEP = 2.0**-17  # of a central difference: about the cube root of the rounding error


class Graph:
    """Leaves, and operations in the order of evaluation: their inputs come before them.

    An operation is used once, a leaf any number of times; then its gradient is the sum over the
    uses.

    >>> graph = Graph()
    >>> apple = graph.leaf(100.0, "apple")
    >>> _ = graph.apply(Multiply(), apple, graph.leaf(2.0))
    >>> graph.forward()
    200.0
    >>> graph.backward()
    >>> apple.gradient
    2.0
    """

    def __init__(self) -> None:
        self.leaves: list[Leaf] = []
        self.operations: list[Operation] = []

    def leaf(self, value: float, name: str | None = None) -> Leaf:
        """Add a leaf, and return it."""
        self.leaves.append(Leaf(value, name))
        return self.leaves[-1]

    def apply(self, operation: Operation, x: Node, y: Node) -> Operation:
        """Add `operation` with the inputs `x` and `y`, and return it."""
        operation.inputs = x, y
        self.operations.append(operation)
        return operation

    @property
    def nodes(self) -> Sequence[Node]:
        """All of them, each one's inputs before it."""
        return [*self.leaves, *self.operations]

    @property
    def result(self) -> Node:
        """The node whose value is the graph's: the last."""
        return self.nodes[-1]

    def forward(self) -> float:
        """Set the value of every operation; return the result's, L."""
        for node in self.operations:
            x, y = node.inputs
            node.value = node.forward(x.value, y.value)
        return self.result.value

    def backward(self) -> None:
        """Set the gradient dL/dvalue of every node, in reverse order, from dL/dL = 1 on."""
        for node in self.nodes:
            node.gradient = 0.0
        self.result.gradient = 1.0
        for operation in reversed(self.operations):
            x, y = operation.inputs
            dx, dy = operation.backward(operation.gradient)
            x.gradient += dx
            y.gradient += dy

    def edges(self) -> Iterator[Edge]:
        """Yield every use of a node as an input, as `backward` left it."""
        for target in self.operations:
            parts = target.inputs, target.local_derivatives(), target.backward(target.gradient)
            for source, derivative, gradient in zip(*parts, strict=True):
                yield Edge(source, target, derivative, gradient)

    def numerical_gradient(self, leaf: Leaf) -> float:
        """Return dL/dleaf without the chain rule: (L(x + h) - L(x - h)) / 2h.

        The values are as before afterwards.
        """
        x = np.array([leaf.value])

        def value() -> float:
            leaf.value = float(x[0])
            return self.forward()

        gradient = numerical_gradient(value, x, STEP * max(abs(leaf.value), 1.0))
        value()  # at x again
        return float(gradient[0])
