"""One step of training: a mini-batch forward, its loss, the gradients back, and the update.

`nnctl train`, `trace`, `bench` and `gradcheck` all run this code.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nnctl.nn.functions import Array
from nnctl.nn.losses import Loss
from nnctl.nn.network import Network, Observer
from nnctl.nn.optimizers import Optimizer, ParameterSlice, State

# Returns the images (batch, inputs) and labels (batch,) of the samples at some indices (batch,).
Gather = Callable[[Array], tuple[Array, Array]]


class Step:
    """A training step that one process takes."""

    def __init__(
        self,
        network: Network,
        loss: Loss,
        optimizer: Optimizer,
        gather: Gather,
        *,
        state: State | None = None,
        seed: int = 0,
        clip_norm: float | None = None,
    ) -> None:
        """Train `network` by `optimizer`, whose vectors in `state` are zero by default.

        `seed` is that of the dropout masks. Gradients longer than `clip_norm` are shortened to it.
        """
        self.network, self.loss, self.gather = network, loss, gather
        self.seed, self.clip_norm = seed, clip_norm
        if state is None:
            state = {name: np.zeros_like(network.parameters) for name in optimizer.state_names}
        self.parameters = ParameterSlice(
            w=network.parameters,
            decayed=network.parameters[: network.decayed],
            dw=network.gradients,
            state=state,
            optimizer=optimizer,
        )

    def __call__(self, samples: Array, step: int, learning_rate: float) -> float:
        """Learn from the samples at these indices; return their mean loss before that.

        `step` counts from 1.
        """
        batch_loss = self.backpropagate(samples, step)
        self.update(step, learning_rate)
        return batch_loss

    def backpropagate(
        self,
        samples: Array,
        step: int,
        *,
        see_output: Observer | None = None,
        see_gradient: Observer | None = None,
    ) -> float:
        """Fill the network's gradients with those of the samples' mean loss; return that loss.

        The observers see each layer's output, and the gradient that arrives at it.
        """
        self.network.draw_dropout(self.seed, step)
        x, labels = self.gather(samples)
        outputs = self.network.forward(x, training=True, observe=see_output)
        batch_loss = self.loss.forward(outputs, labels)
        self.network.backward(self.loss.backward(), observe=see_gradient)
        return batch_loss

    def update(self, step: int, learning_rate: float) -> None:
        """Clip the gradients, decay the weights, and apply the optimizer."""
        if self.clip_norm:
            self.parameters.clip(math.sqrt(self.parameters.squared_norm), self.clip_norm)
        self.parameters.update(step, learning_rate)
