"""The computational graph: values flow forward through its nodes, gradients flow back.

A node computes one number z from its inputs, x and perhaps y, and knows a local derivative for
each, dz/dx and dz/dy. Of the rest of the graph it knows nothing. With L the value of the whole
graph, the chain rule is all that is needed to find every derivative of L, one node at a time:

    dL/dx = dL/dz dz/dx

dL/dz, the upstream gradient, arrives from the node's output as `dout`; dL/dx leaves by its input.
A value that is used several times gets a gradient from each use, and they add up. A layer of a
network does the same with matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from nnctl.nn.numerical_gradient import numerical_gradient


class Node:
    """A place in a graph that has a value and, after the backward pass, a gradient dL/dvalue."""

    name: str | None = None
    value = 0.0
    gradient = 0.0

    @property
    def symbol(self) -> str:
        """How an expression writes it."""
        raise NotImplementedError


class Leaf(Node):
    """Where a graph begins: a variable, or a number if it has no name."""

    def __init__(self, value: float, name: str | None = None) -> None:
        self.value = value
        self.name = name

    @property
    def symbol(self) -> str:
        """The name, or the number."""
        return self.name or f"{self.value:g}"


class Operation(Node):
    """A node that computes its value z from its inputs, x and perhaps y."""

    word: ClassVar[str]  # + or exp
    arity: ClassVar[int]  # the number of its inputs
    formulas: ClassVar[tuple[str, ...]]  # of dz/dx and dz/dy, in x, y and z
    inputs: tuple[Node, ...]  # set by the graph that the node is in

    forward: Callable[..., float]
    """Return z, and remember what the backward pass needs; ValueError: there is none."""

    @property
    def symbol(self) -> str:
        """The operator or function."""
        return self.word

    def local_derivatives(self) -> tuple[float, ...]:
        """Return dz/dx, and dz/dy if there is a y, at the inputs of the last `forward`.

        nan stands for a derivative that does not exist.
        """
        raise NotImplementedError

    def backward(self, dout: float) -> tuple[float, ...]:
        """Return dx, and dy if there is a y: the upstream gradient `dout` times each local one."""
        return tuple(dout * derivative for derivative in self.local_derivatives())

    def kink(self) -> str | None:
        """Say what has no derivative at the inputs of the last `forward`, if anything has none."""
        return None


class Edge(NamedTuple):
    """One use of a node as an input: the gradient that the backward pass brings it from there."""

    source: Node
    target: Operation
    position: int  # among the target's inputs
    local_derivative: float  # of the target's value by the source's
    gradient: float  # the target's, times the local derivative

    @property
    def formula(self) -> str:
        """How the local derivative is computed."""
        return self.target.formulas[self.position]


class Undefined(ArithmeticError):
    """A value or gradient of `node` does not exist, or is larger than a number can be."""

    def __init__(self, node: Node, what: str) -> None:
        super().__init__(what)
        self.node = node


STEP = 2.0**-17  # of a central difference: about the cube root of the rounding error
SMALLER = 2.0**-4  # of the step before, where that one leaves the function's domain
TRIES = 8


class Graph:
    """Leaves, and operations in the order of evaluation: their inputs come before them.

    A node can be used any number of times; its gradient is the sum over the uses.

    >>> from nnctl.graph.operations import Multiply
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

    def apply(self, operation: Operation, *inputs: Node) -> Operation:
        """Add `operation` with its `inputs`, and return it."""
        operation.inputs = inputs
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
        """Set the value of every operation; return the result's, L.

        Raises:
            Undefined: an operation has no value at its inputs, or too large a one.

        """
        for node in self.operations:
            try:
                node.value = node.forward(*(source.value for source in node.inputs))
            except OverflowError:
                node.value = math.inf
            except ValueError as error:
                raise Undefined(node, str(error)) from None
            if not math.isfinite(node.value):
                raise Undefined(node, "the value is too large for a floating-point number")
        return self.result.value

    def backward(self) -> None:
        """Set the gradient dL/dvalue of every node, in reverse order, from dL/dL = 1 on.

        Raises:
            Undefined: a derivative is infinite.

        """
        for node in self.nodes:
            node.gradient = 0.0
        self.result.gradient = 1.0
        for operation in reversed(self.operations):
            try:
                gradients = operation.backward(operation.gradient)
            except OverflowError:
                gradients = (math.inf,)
            except (ZeroDivisionError, ValueError):
                at = ", ".join(f"{source.value:g}" for source in operation.inputs)
                message = f"the derivative of {operation.symbol} is infinite at {at}"
                raise Undefined(operation, message) from None
            if any(map(math.isinf, gradients)):
                raise Undefined(operation, "the gradient is too large for a floating-point number")
            for source, gradient in zip(operation.inputs, gradients, strict=True):
                source.gradient += gradient

    def edges(self) -> Iterator[Edge]:
        """Yield every use of a node as an input, as `backward` left it."""
        for target in self.operations:
            parts = target.inputs, target.local_derivatives(), target.backward(target.gradient)
            for position, (source, local, gradient) in enumerate(zip(*parts, strict=True)):
                yield Edge(source, target, position, local, gradient)

    def numerical_gradient(self, leaf: Leaf) -> float:
        """Return dL/dleaf without the chain rule: (L(x + h) - L(x - h)) / 2h.

        It is nan where the function has no value on one of the sides, however small h is. The
        values are as before afterwards.
        """
        x = np.array([leaf.value], np.float64)

        def value() -> float:
            leaf.value = float(x[0])
            return self.forward()

        before, h = leaf.value, STEP * max(abs(leaf.value), 1.0)
        try:
            for _ in range(TRIES):
                try:
                    return float(numerical_gradient(value, x, h)[0])
                except Undefined:
                    x[0], h = before, h * SMALLER
            return math.nan
        finally:
            leaf.value = before
            self.forward()
