"""The training step, shared by several processes: the equations of `nnctl.nn.step`, in shards.

x W is a sum over pixels, and the first affine layer holds most of the weights. So first each
process takes its pixels of all samples through its rows of W, which nobody else reads or writes.
Then each takes its samples through the other layers, forward and back. Last, each computes the
gradient of its rows of W, and adds up its part of all other gradients. So what is large stays in
the cache of one core, and only what is small goes from core to core. Shoeybi et al. 2019,
"Megatron-LM", call the first a row-parallel layer; the second is data parallelism.

Images that are to be augmented are made before that, each by the process whose sample it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnctl.datasets import Samples
from nnctl.datasets.batches import Gatherer
from nnctl.nn.functions import Array
from nnctl.nn.layers import Affine
from nnctl.nn.losses import Loss
from nnctl.nn.network import Network
from nnctl.nn.optimizers import Optimizer, ParameterSlice, State
from nnctl.training.process_group import shard


def can_be_shared(network: Network) -> bool:
    """Return whether several processes can share a step of `network`."""
    first = network.layers[network.first_trained]
    return isinstance(first, Affine) and not network.couples_samples


@dataclass(frozen=True)
class Exchange:
    """What goes from process to process in a step; all in shared memory."""

    products: Array  # (processes, batch, units): each one's pixels times its rows of W
    douts: Array  # (batch, units): the gradient that arrives at the first affine layer
    losses: Array  # (processes,): of each one's samples, by their weight in the batch
    squared_norms: Array  # (processes,): each one's part of the squared norm of the gradient
    images: Array  # (batch, pixels), uint8: as they are augmented; (0, pixels) if they are not

    @classmethod
    def allocate(
        cls,
        processes: int,
        batch: int,
        network: Network,
        allocate: Callable[[int, Any], Array],
        *,
        augmented: bool = False,
    ) -> Exchange:
        """Return an exchange for batches of at most `batch` samples."""
        units = network.widths[network.first_trained + 1]
        return cls(
            products=allocate(processes * batch * units, network.dtype).reshape(-1, batch, units),
            douts=allocate(batch * units, network.dtype).reshape(batch, units),
            losses=allocate(processes, np.float64),
            squared_norms=allocate(processes, np.float64),
            images=allocate(augmented * batch * network.inputs, np.uint8).reshape(
                -1, network.inputs
            ),
        )


class SharedStep:
    """What the process of one rank computes of a step."""

    def __init__(
        self,
        rank: int,
        networks: Sequence[Network],
        loss: Loss,
        new_optimizer: Callable[[], Optimizer],
        state: State,
        samples: Samples,
        exchange: Exchange,
        *,
        augment: Callable[[Array, Array], object] | None = None,
        seed: int = 0,
        clip_norm: float | None = None,
    ) -> None:
        """Take the part of `rank`.

        The networks, one for each rank, share their parameters and have gradients of their own;
        `state` holds the optimizer's vectors for all parameters. `augment` is given the indices of
        samples and writes the images to learn from in their place.
        """
        self.rank, self.size = rank, len(networks)
        self.network = network = networks[rank]
        self.loss, self.exchange = loss, exchange
        self.seed, self.clip_norm = seed, clip_norm
        self.index = network.first_trained  # of the first affine layer
        affine = network.layers[self.index]
        assert isinstance(affine, Affine)
        pixels = shard(network.inputs, rank, self.size)
        self.augment = augment
        if augment is not None:
            samples = Samples(exchange.images, samples.labels)
        self.gather = Gatherer(samples, pixels=pixels, dtype=network.dtype)
        self.affine = affine
        self.weight = affine.weight[pixels]  # (pixels, units), and its gradient
        self.weight_gradient = affine.gradients["weight"][pixels]

        # The parameters begin with W. What comes after it concerns all processes; each completes
        # and updates a part of it. From back to front: the last one's part then follows its rows
        # of W, and is one with them.
        start, stop, _ = pixels.indices(network.inputs)
        rows = slice(start * affine.units, stop * affine.units)
        rest = shard(network.size - affine.weight.size, self.size - 1 - rank, self.size)
        rest = slice(affine.weight.size + rest.start, affine.weight.size + rest.stop)
        places = [rows, rest] if rows.stop < rest.start else [slice(rows.start, rest.stop)]
        self.parameters = [
            ParameterSlice(
                w=network.parameters[place],
                decayed=network.parameters[: network.decayed][place],
                dw=network.gradients[place],
                state={name: vector[place] for name, vector in state.items()},
                optimizer=new_optimizer(),
            )
            for place in places
        ]
        self._shared = network.gradients[affine.weight.size :]
        self._sum = network.gradients[rest]
        self._others = [other.gradients[rest] for other in networks if other is not network]

    def __call__(self, samples: Array, step: int, learning_rate: float) -> Iterator[None]:
        """Learn from the samples at these indices; their loss is left in the exchange.

        Each `yield` is a barrier: on with it when all ranks have come so far.
        """
        yield from self.backpropagate(samples, step)
        if self.clip_norm:
            self.exchange.squared_norms[self.rank] = sum(p.squared_norm for p in self.parameters)
            yield
            norm = math.sqrt(self.exchange.squared_norms.sum())
            for part in self.parameters:
                part.clip(norm, self.clip_norm)
        for part in self.parameters:
            part.update(step, learning_rate)

    def backpropagate(self, samples: Array, step: int) -> Iterator[None]:
        """Complete the gradients of `parameters` for the samples' mean loss."""
        batch = len(samples)
        products, douts = self.exchange.products[:, :batch], self.exchange.douts[:batch]
        self.network.draw_dropout(self.seed, step, self.rank)

        mine = shard(batch, self.rank, self.size)
        where = samples  # their images are
        if self.augment is not None:
            self.augment(samples[mine], self.exchange.images[mine])
            where = np.arange(batch)
            yield

        # x W, the part of these pixels
        images = self.gather.images(where)
        x = self.network.forward(images, training=True, layers=slice(self.index))
        self.multiply(x, products[self.rank])
        yield

        if mine.start < mine.stop:
            self._learn(products[:, mine], samples[mine], batch, douts[mine])
        else:
            self._shared[...] = 0
            self.exchange.losses[self.rank] = 0
        yield

        self.differentiate(x, douts)
        for other in self._others:
            self._sum += other

    def multiply(self, x: Array, out: Array) -> None:
        """Set x W, for the rows of W that belong to this rank's pixels."""
        np.dot(x, self.weight, out=out)

    def differentiate(self, x: Array, dout: Array) -> None:
        """Set dW = x^T dout, for the same rows."""
        np.dot(x.T, dout, out=self.weight_gradient)

    def _learn(self, products: Array, samples: Array, batch: int, douts: Array) -> None:
        """Take these samples through the layers above x W, forward and back to their `douts`."""
        y = products[self.rank]
        for other in range(self.size):
            if other != self.rank:
                y += products[other]
        y += self.affine.bias
        outputs = self.network.forward(y, training=True, layers=slice(self.index + 1, None))
        weight = len(samples) / batch  # of their mean loss in that of the batch
        loss = self.loss.forward(outputs, self.gather.labels(samples))
        self.exchange.losses[self.rank] = weight * loss
        dout = self.network.backward(self.loss.backward(weight), above=self.index)
        np.add.reduce(dout, axis=0, out=self.affine.gradients["bias"])  # db = sum of dout
        douts[...] = dout
