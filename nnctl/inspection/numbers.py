"""Every number of one training step: forward, back, one update, and the loss after it.

The step itself is the one that trains; here its arrays are only looked at and copied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nnctl.nn.functions import Array
from nnctl.nn.layers import Activation, Dropout
from nnctl.nn.network import Network
from nnctl.nn.step import Step

FEW = 60  # numbers of a layer that can be read one by one


@dataclass(frozen=True, kw_only=True)
class LayerNumbers:
    """What one layer computes: y from x and its parameters; from dy all the other gradients.

    dx, the gradient that leaves, is None where nothing below is trained; dy is None for a layer
    that lies below the first with parameters.
    """

    name: str  # POSITION.KIND
    parameters: Mapping[str, Array]  # by name, before the update
    slope: Array | None  # dy/dx of an activation, the mask of dropout: (batch, units)
    y: Array  # (batch, units)
    dy: Array | None  # (batch, units)
    gradients: Mapping[str, Array]  # of the parameters, by name
    dx: Array | None  # (batch, inputs)
    updated: Mapping[str, Array]  # the parameters after the step, by name


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """One step on one batch. The last layer's dy is the gradient of `batch_loss`."""

    x: Array  # (batch, inputs)
    labels: Array  # (batch,)
    targets: Array  # (batch, classes), one-hot but for label smoothing
    layers: tuple[LayerNumbers, ...]
    scores: Array  # (batch, classes): softmax of the outputs, or the outputs
    losses: Array  # (batch,), as reported: without label smoothing
    batch_loss: float  # their mean, with label smoothing if there is any: what is minimised
    clip_factor: float  # that all gradients are multiplied by before the update
    learning_rate: float
    new_batch_loss: float  # of the same batch after the step


def is_small(network: Network, batch_size: int) -> bool:
    """Return whether no layer has more than `FEW` numbers, parameters or outputs."""
    rows = min(batch_size, FEW + 1)
    outputs = (rows * width for width in network.widths)
    return max(*outputs, *(layer.parameter_count for layer in network.layers)) <= FEW


def step_numbers(step: Step, samples: Array, learning_rate: float) -> Numbers:
    """Take the first step on the samples at these indices, and return its numbers.

    The network keeps the updated parameters.
    """
    network, loss = step.network, step.loss
    x, labels = (array.copy() for array in step.gather(samples))
    ys: list[Array] = []
    slopes: list[Array | None] = []
    dys: dict[int, Array] = {}

    def see_output(index: int, y: Array) -> None:
        layer = network.layers[index]
        ys.append(y.copy())
        if isinstance(layer, Activation):
            slopes.append(layer.derivative())
        else:
            slopes.append(layer.mask.copy() if isinstance(layer, Dropout) else None)

    def see_gradient(index: int, dout: Array) -> None:
        dys[index] = dout.copy()

    with np.errstate(all="ignore"):  # what is not finite shows
        batch_loss = step.backpropagate(
            samples, 1, see_output=see_output, see_gradient=see_gradient
        )
        parameters = [_copies(layer.gradients, layer) for layer in network.layers]
        gradients = [_copies(layer.gradients) for layer in network.layers]
        scores, losses = loss.scores(ys[-1]).copy(), loss.per_sample(ys[-1], labels).copy()
        norm, longest = math.sqrt(step.parameters.squared_norm), step.clip_norm or math.inf
        step.update(1, learning_rate)
        updated = [_copies(layer.gradients, layer) for layer in network.layers]
        new_batch_loss = step.backpropagate(samples, 1)
    return Numbers(
        x=x,
        labels=labels,
        targets=loss.targets(labels, network.widths[-1]),
        layers=tuple(
            LayerNumbers(
                name=network.layer_name(index),
                parameters=parameters[index],
                slope=slopes[index],
                y=ys[index],
                dy=dys.get(index),
                gradients=gradients[index],
                dx=dys.get(index - 1),
                updated=updated[index],
            )
            for index in range(len(network.layers))
        ),
        scores=scores,
        losses=losses,
        batch_loss=batch_loss,
        clip_factor=longest / norm if norm > longest else 1.0,
        learning_rate=learning_rate,
        new_batch_loss=new_batch_loss,
    )


def _copies(gradients: Mapping[str, Array], layer: object = None) -> dict[str, Array]:
    """Return copies of `gradients`, or of the attributes of `layer` that have their names."""
    arrays = {n: getattr(layer, n) for n in gradients} if layer else gradients
    return {name: array.copy() for name, array in arrays.items()}
