"""What one member of the team computes of a step.

First each takes its part of the pixels, of all samples, through the first affine layer: x W is
a sum over pixels, so a member needs the rows of W that its pixels meet, and nobody else reads or
writes them. Then each takes its share of the samples through the other layers, forward and back.
Last, each computes the gradient of its rows of W and updates them, and adds up and updates its
part of all other parameters. So what is large stays in the cache of one core, and only what is
small goes from core to core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nnctl.datasets.batches import Gatherer
from nnctl.nn.functions import Array
from nnctl.nn.layers import Affine, Dropout
from nnctl.nn.losses import Loss
from nnctl.nn.network import Network
from nnctl.nn.optimizers import Optimizer, State
from nnctl.nn.randomness import Concern, generator
from nnctl.training.process_group import share


def divisible(network: Network) -> bool:
    """Return whether several members can compute a step of `network`."""
    first = network.layers[network.first_trained]
    return isinstance(first, Affine) and not network.couples_samples


@dataclass(frozen=True)
class Part:
    """Parameters that one member updates."""

    w: Array
    decayed: Array  # those of them that weight decay acts on
    dw: Array
    state: State  # the optimizer's vectors for them
    optimizer: Optimizer

    def update(self, step: int, learning_rate: float) -> None:
        """Apply the optimizer."""
        self.optimizer.decay(self.decayed, learning_rate)
        self.optimizer.update(self.w, self.dw, self.state, learning_rate, step)


class Member:
    """One member's layers and parts of the parameters."""

    def __init__(
        self,
        rank: int,
        networks: Sequence[Network],
        images: Array,
        loss: Loss,
        new_optimizer: Callable[[], Optimizer],
        state: State,
    ) -> None:
        """Take the work of `rank`.

        The networks, one for each rank, share their parameters and have gradients of their own;
        `state` are the optimizer's vectors, for all parameters.
        """
        self.rank, self.loss = rank, loss
        self.network = network = networks[rank]
        index = network.first_trained
        pixels = share(network.inputs, rank, len(networks))
        self.gather = Gatherer(images[:, pixels])
        self.head, self.tail = network.layers[:index], network.layers[index:]
        rows = slice(0)
        shared = 0  # parameters from here on concern all members
        if isinstance(affine := network.layers[index], Affine):
            linear, bias = affine.split(pixels)
            self.head, self.tail = [*self.head, linear], [bias, *self.tail[1:]]
            rows = slice(pixels.start * affine.units, pixels.stop * affine.units)
            shared = affine.weight.size

        # From back to front: the last member's part then follows its rows, and is one with them.
        mine = share(network.size - shared, len(networks) - 1 - rank, len(networks))
        rest = slice(shared + mine.start, shared + mine.stop)
        places = [rows, rest] if rows.stop < rest.start else [slice(rows.start, rest.stop)]
        self.parts = [
            Part(
                w=network.parameters[place],
                decayed=network.parameters[: network.decayed][place],
                dw=network.gradients[place],
                state={name: vector[place] for name, vector in state.items()},
                optimizer=new_optimizer(),
            )
            for place in places
        ]
        self._shared = network.gradients[shared:]
        self._sum = network.gradients[rest]
        layers = enumerate(network.layers)
        self._dropouts = [(i, layer) for i, layer in layers if isinstance(layer, Dropout)]
        self._others = [other.gradients[rest] for other in networks if other is not network]

    def first(self, samples: Array) -> Array:
        """Return what this member's pixels add to the first affine layer's output, without b."""
        x = self.gather(samples)
        for layer in self.head:
            x = layer.forward(x, training=True)
        return x

    def rest(self, y: Array, labels: Array, weight: float) -> tuple[float, Array]:
        """Go on from `y`, the sum of what `first` returned: to the loss, and back.

        Return the loss and its gradient with respect to `y`, both times `weight`: the samples'
        share of the batch.
        """
        for layer in self.tail:
            y = layer.forward(y, training=True)
        loss = self.loss.forward(y, labels)
        dout = self.loss.backward(weight)
        for layer in reversed(self.tail):
            dout = layer.backward(dout)
        return weight * loss, dout

    def skip(self) -> None:
        """Do as `rest` without samples."""
        self._shared[...] = 0

    def gradients(self, dout: Array) -> None:
        """Complete the gradients of `parts`; `dout` is what `rest` returned, of all samples."""
        for layer in self.head[-1:]:  # its rows of the first W; none if batch_norm comes first
            layer.parameter_gradients(dout)
        for other in self._others:
            self._sum += other

    def update(self, step: int, learning_rate: float) -> None:
        """Update `parts`."""
        for part in self.parts:
            part.update(step, learning_rate)

    def draw_dropout(self, seed: int, step: int) -> None:
        """Have each dropout layer draw what belongs to this member and step."""
        for index, layer in self._dropouts:
            layer.rng = generator(seed, Concern.DROPOUT, index, step, self.rank)
