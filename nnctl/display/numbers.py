"""Every number of one training step, in blocks that say what they are and how they came about."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from rich.columns import Columns
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from nnctl.inspection.numbers import FEW, LayerNumbers, Numbers
from nnctl.nn.functions import Array
from nnctl.nn.losses import Loss, SoftmaxWithLoss
from nnctl.nn.optimizers import Optimizer

GAP = 4  # cells between two blocks
FIRST = 6  # rows and columns that are shown of an array with more numbers than can be read
LARGE, SMALL = 1e4, 1e-2  # beyond these, an array's numbers are written with an exponent


class Equations(NamedTuple):
    """How a kind of layer computes, in the names that its blocks have."""

    forward: str
    dx: str
    slope: str = ""  # the name of dy/dx, or of the mask
    weight: str = "weight"
    bias: str = "bias"
    dweight: str = ""
    dbias: str = "sum of dy over the batch"


EQUATIONS = {
    "affine": Equations(
        "y = x W + b", "dy W^T", weight="W", bias="b", dweight="x^T dy", dbias="sum of dy"
    ),
    "relu": Equations("y = x * mask; the mask is 1 where x > 0, else 0", "dy * mask", "mask"),
    "leaky_relu": Equations(
        "y = x * mask; the mask is 1 where x > 0, else the slope", "dy * mask", "mask"
    ),
    "sigmoid": Equations("y = 1 / (1 + exp(-x))", "dy * y(1-y)", "y(1-y)"),
    "tanh": Equations("y = tanh(x)", "dy * (1-y^2)", "1-y^2"),
    "gelu": Equations(
        "y = x (1 + tanh(u)) / 2, u = sqrt(2/pi) (x + 0.044715 x^3)", "dy * y'", "y' = dy/dx"
    ),
    "dropout": Equations("y = x * mask; the mask is 0 or 1 / (1 - rate)", "dy * mask", "mask"),
    "batch_norm": Equations(
        "y = weight x_hat + bias, x_hat = (x - mean) / sqrt(variance + epsilon)",
        "weight / std (dy - mean(dy) - x_hat mean(dy x_hat))",
        dweight="sum of dy x_hat",
        dbias="sum of dy",
    ),
}


@dataclass(frozen=True)
class NumbersView:
    """One step of training, number by number.

    `optimizer` is the one whose rule makes the update.
    """

    title: str
    numbers: Numbers
    loss: Loss
    optimizer: Optimizer

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the forward pass, the loss, the backward pass, and the update."""
        numbers = self.numbers
        trained = [layer for layer in numbers.layers if layer.dy is not None]
        count = len(numbers.x)
        yield Text(f"{self.title}, number by number\n")
        yield from _part("Forward", "x = pixel / 255, an image a row", options)
        yield from _blocks([("x", numbers.x), ("label", numbers.labels)], options)
        for layer in numbers.layers:
            yield from _forward(layer, options)
        yield from self._loss(options)
        yield from _part(
            "\nBackward", "each layer gets dy = dL/dy, and passes dx = dL/dx on", options
        )
        for layer in reversed(trained):
            yield from _backward(layer, options)
        rule = (type(self.optimizer).__doc__ or "").partition("\n")[0].rstrip(".")
        before = ""
        if numbers.clip_factor < 1:
            before = f"; first all gradients times {numbers.clip_factor:.4g} (clip_norm)"
        if decay := self.optimizer.weight_decay:
            before += f"; first W -= learning_rate {decay:g} W (weight_decay)"
        yield from _part(
            "\nUpdate", f"{rule}, with learning_rate {numbers.learning_rate:g}{before}", options
        )
        for layer in trained:
            if layer.updated:
                yield Text(layer.name, style="bold")
                yield from _blocks(_named(layer, layer.updated), options)
        images = "image has" if count == 1 else f"{count} images have"
        yield Text(
            f"\nThe same {images} a loss of {numbers.new_batch_loss:.4f} now; before the update it "
            f"was {numbers.batch_loss:.4f}."
        )

    def _loss(self, options: ConsoleOptions) -> RenderResult:
        numbers = self.numbers
        batch, classes = numbers.scores.shape
        last = len(numbers.layers) - 1
        y = f"the y of {numbers.layers[last].name}"
        if isinstance(self.loss, SoftmaxWithLoss):
            yield from _part("softmax_cross_entropy", f"p = exp(y) / sum(exp(y)), y {y}", options)
            blocks = [
                ("p", numbers.scores),
                ("t", numbers.targets),
                ("-ln p[label]", numbers.losses),
            ]
            gradient = f"the gradient of y is (p - t) / {batch}"
        else:
            yield from _part("mean_squared_error", f"mean of (y - t)^2, y {y}", options)
            blocks = [("t", numbers.targets), ("mean of (y - t)^2", numbers.losses)]
            gradient = f"the gradient of y is 2 (y - t) / {batch * classes}"
        yield from _blocks(blocks, options)
        smoothed = getattr(self.loss, "label_smoothing", 0)
        of = "mean of -sum(t ln p)" if smoothed else f"mean over {batch}"
        yield Text(f"loss = {numbers.batch_loss:.4f}, the {of}; {gradient}")


def _part(title: str, text: str, options: ConsoleOptions) -> Iterator[Text]:
    yield Text.assemble((title, "bold"), f": {text}")


def _forward(layer: LayerNumbers, options: ConsoleOptions) -> RenderResult:
    equations = _equations(layer)
    yield from _part(layer.name, equations.forward, options)
    blocks = _named(layer, layer.parameters)
    if layer.slope is not None:
        blocks.append((equations.slope, layer.slope))
    yield from _blocks([*blocks, ("y", layer.y)], options)


def _backward(layer: LayerNumbers, options: ConsoleOptions) -> RenderResult:
    equations = _equations(layer)
    yield Text(layer.name, style="bold")
    blocks = [("dy", layer.dy)]
    for name, gradient in layer.gradients.items():
        title = f"d{getattr(equations, name)} = {getattr(equations, f'd{name}')}"
        blocks.append((title, gradient))
    if layer.dx is not None:
        blocks.append((f"dx = {equations.dx}", layer.dx))
    yield from _blocks([(title, array) for title, array in blocks if array is not None], options)


def _equations(layer: LayerNumbers) -> Equations:
    return EQUATIONS[layer.name.partition(".")[2]]


def _named(layer: LayerNumbers, arrays: object) -> list[tuple[str, Array]]:
    """Return arrays of a layer's parameters by the names that its equations give them."""
    assert isinstance(arrays, dict)
    return [(getattr(_equations(layer), name), array) for name, array in arrays.items()]


def _blocks(named: Sequence[tuple[str, Array]], options: ConsoleOptions) -> RenderResult:
    """Yield arrays side by side as far as there is room, each below its name and shape."""
    blocks = []
    for name, array in named:
        shape = ", ".join(map(str, array.shape)) + ("," if array.ndim == 1 else "")
        blocks.append(Text("\n".join([f"{name} ({shape})", *_rows(array, options.max_width - 2)])))
    yield Columns(blocks, padding=(0, GAP, 0, 2))


def _rows(array: Array, width: int) -> Iterator[str]:
    """Yield the lines of a matrix, or of a vector as one row; of a large one its first numbers."""
    matrix = array if array.ndim == 2 else array[None]
    rows, columns = matrix.shape
    if array.size > FEW:
        matrix = matrix[:FIRST, :FIRST]
    cells = _cells(matrix)
    wide = max((len(cell) for row in cells for cell in row), default=0) + 2
    for row in cells:
        line = "".join(f"{cell:>{wide}}" for cell in row)
        for start in range(0, len(line), max(width // wide, 1) * wide):
            yield line[start : start + max(width // wide, 1) * wide]
    words = ("rows", "columns" if array.ndim == 2 else "numbers")
    left = [
        f"{count - shown:,} more {what}"
        for count, shown, what in zip((rows, columns), matrix.shape, words, strict=True)
        if count > shown
    ]
    if left:
        yield f"  ... {', '.join(left)}"


def _cells(matrix: Array) -> list[list[str]]:
    """Return the numbers of a matrix, all in one form."""
    largest = float(np.abs(matrix).max(initial=0))
    if (matrix == matrix.astype(np.int64)).all() if math.isfinite(largest) else False:
        form = ".0f"
    else:
        form = ".4f" if SMALL <= largest < LARGE else ".3e"
    return [[f"{value + 0.0:{form}}" for value in row] for row in matrix.tolist()]


def plain(numbers: Numbers) -> dict[str, Any]:
    """Return the `numbers` of `nnctl trace --json`."""

    def lists(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: lists(each) for name, each in value.items()}
        if isinstance(value, tuple):
            return [lists(each) for each in value]
        return value.tolist() if isinstance(value, np.ndarray) else value

    found: dict[str, Any] = lists(asdict(numbers))
    return found
