"""A network: layers in order, over one vector of parameters and one of gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nnctl.nn.functions import Array
from nnctl.nn.hyperparameters import kind_of
from nnctl.nn.layers import LAYERS, Dropout, Layer
from nnctl.nn.randomness import Concern, generator

# Called with a layer's position, and its output or the gradient that arrives at it.
Observer = Callable[[int, Array], None]


class Network:
    """Layers in order; every parameter and gradient is a view into a flat vector.

    Optimizers, clipping and norms then need no loop over layers. The parameters that weight
    decay acts on come first: `parameters[:decayed]`.

    Names are `POSITION.KIND.NAME`, such as `0.affine.weight`.
    """

    parameters: Array  # (size,)
    gradients: Array  # (size,)

    def __init__(
        self,
        layers: Sequence[Layer],
        inputs: int,
        *,
        dtype: Any = np.float32,
        allocate: Callable[[int, Any], Array] = np.zeros,
    ) -> None:
        """Lay the layers out for rows of `inputs` numbers; all parameters are zero."""
        self.layers = list(layers)
        self.inputs = inputs
        self.dtype = np.dtype(dtype)
        widths = [inputs]
        for layer in self.layers:
            widths.append(layer.output_units(widths[-1]))
        self.widths = widths  # of the input and of every layer's output
        self._places = sorted(  # stable: what is decayed first, then in order
            (
                (index, layer, name, shape)
                for index, layer in enumerate(self.layers)
                for name, shape in layer.shapes(widths[index]).items()
            ),
            key=lambda place: place[2] not in place[1].decayed,
        )
        sizes = [int(np.prod(shape)) for _, _, _, shape in self._places]
        self.size = sum(sizes)
        self.decayed = sum(
            size
            for size, (_, layer, name, _) in zip(sizes, self._places, strict=True)
            if name in layer.decayed
        )
        self.first_trained = min((index for index, *_ in self._places), default=len(layers))
        self._dropouts = [(i, x) for i, x in enumerate(self.layers) if isinstance(x, Dropout)]
        self.statistics: dict[str, Array] = {}
        for index, layer in enumerate(self.layers):
            for name, shape in layer.statistics(widths[index]).items():
                array = np.zeros(shape, self.dtype)
                setattr(layer, name, array)
                self.statistics[self._name(index, name)] = array
        self.bind(allocate(self.size, self.dtype), allocate(self.size, self.dtype))

    def bind(self, parameters: Array, gradients: Array) -> None:
        """Use these two vectors of `size` from now on: point every layer's views at them."""
        self.parameters, self.gradients = parameters, gradients
        start = 0
        for _, layer, name, shape in self._places:
            end = start + int(np.prod(shape))
            setattr(layer, name, parameters[start:end].reshape(shape))
            layer.gradients[name] = gradients[start:end].reshape(shape)
            start = end

    def initialize(self, seed: int) -> None:
        """Set every parameter and statistic to where training starts."""
        for index, layer in enumerate(self.layers):
            layer.initialize(generator(seed, Concern.INITIALIZATION, index))

    def forward(
        self,
        x: Array,
        training: bool = False,
        *,
        layers: slice = slice(None),
        observe: Observer | None = None,
    ) -> Array:
        """Return the outputs (batch, classes) of `x` (batch, inputs).

        `layers` runs some of them alone. `observe` sees each layer's output.
        """
        for index in range(len(self.layers))[layers]:
            x = self.layers[index].forward(x, training)
            if observe:
                observe(index, x)
        return x

    def backward(self, dout: Array, *, above: int = -1, observe: Observer | None = None) -> Array:
        """Fill `gradients`: the chain rule, layer by layer in reverse order.

        `dout` (batch, classes) is the gradient of the loss with respect to the outputs. Only the
        layers `above` a position take part; what is returned is the gradient with respect to the
        input of the lowest of them. `observe` sees the gradient that arrives at each layer.
        """
        for index in range(len(self.layers) - 1, max(above, self.first_trained - 1), -1):
            layer = self.layers[index]
            if observe:
                observe(index, dout)
            layer.parameter_gradients(dout)
            if index > self.first_trained:  # nothing below needs a gradient
                dout = layer.input_gradient(dout)
        return dout

    def draw_dropout(self, seed: int, step: int, shard: int = 0) -> None:
        """Let each dropout layer draw the mask of this step, and of this shard of its batch."""
        for index, layer in self._dropouts:
            layer.rng = generator(seed, Concern.DROPOUT, index, step, shard)

    def named_parameters(self) -> dict[str, Array]:
        """Return the views of the parameters by name, in the order of the network."""
        return {
            self._name(index, name): getattr(layer, name)
            for index, layer in enumerate(self.layers)
            for name in layer.gradients
        }

    def named_arrays(self) -> dict[str, Array]:
        """Return all that a checkpoint keeps of the network: parameters and statistics."""
        return self.named_parameters() | self.statistics

    def load(self, arrays: Mapping[str, Array]) -> None:
        """Set all parameters and statistics to the values of `arrays`, by name."""
        for name, array in self.named_arrays().items():
            array[...] = arrays[name]

    def named_gradients(self) -> Iterator[tuple[str, Array]]:
        """Yield each parameter's name and the view of its gradient."""
        for index, layer in enumerate(self.layers):
            for name, gradient in layer.gradients.items():
                yield self._name(index, name), gradient

    @property
    def couples_samples(self) -> bool:
        """True if a sample's output depends, in training, on the batch it is in."""
        return any(layer.couples_samples for layer in self.layers)

    def layer_name(self, index: int) -> str:
        """Return `POSITION.KIND` of the layer at `index`."""
        return f"{index}.{kind_of(LAYERS, self.layers[index])}"

    def _name(self, index: int, name: str) -> str:
        return f"{self.layer_name(index)}.{name}"
