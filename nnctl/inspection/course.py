"""What looks wrong in how training has gone: what it made of the weights, and of the loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nnctl.inspection.diagnosis import Finding, affine_layers
from nnctl.inspection.trace import SATURATED, STEEPEST
from nnctl.nn.functions import Array, one_hot
from nnctl.nn.layers import Activation, BatchNorm
from nnctl.nn.network import Network
from nnctl.nn.optimizers import Optimizer

JUMP = 0.08  # of the initial loss; healthy: at most 0.065, broken by their rate: from 0.099
SMALL_MOVE = 0.01  # of a weight, in all of training; healthy: from 0.26, broken: at most 0.0015
SHRUNK_WEIGHTS = 0.1  # of the initial size
LAGGING = 0.1  # of accuracy, lost by running averages
STUCK = 0.9  # of a unit's outputs that are far off


@dataclass(frozen=True, kw_only=True)
class TrainingCourse:
    """How training has gone: a figure for each finished epoch."""

    initial_loss: float | None  # of the first batch
    batch_losses: Sequence[float]  # mean over the epoch
    learning_rates: Sequence[float]  # of its last step


def shrunk_weights(start: Network, network: Network, optimizer: Optimizer) -> Iterator[Finding]:
    """Yield the first weight that weight decay has all but removed since `start`."""
    if not optimizer.weight_decay:
        return
    for index, layer in affine_layers(network):
        before = np.linalg.norm(start.layers[index].weight)
        if before and (share := np.linalg.norm(layer.weight) / before) < SHRUNK_WEIGHTS:
            name = network.layer_name(index)
            yield Finding(
                "shrunk_weights",
                name,
                f"weight decay has shrunk the weight of {name} to {share:.2g} of its initial size",
                "use a smaller optimizer.weight_decay; 0.0001 to 0.01 are usual",
            )
            return


def small_move(
    course: TrainingCourse,
    start: Network,
    network: Network,
    optimizer: Optimizer,
    clip_norm: float | None,
    gradient_norm: float,
) -> Iterator[Finding]:
    """Yield what is wrong if the weights of `network` are still those of `start`.

    `gradient_norm` is that of all parameters, on a batch.
    """
    moves = [
        float(np.linalg.norm(layer.weight - start.layers[index].weight)) / size
        for index, layer in affine_layers(network)
        if (size := float(np.linalg.norm(start.layers[index].weight)))
    ]
    if not moves or max(moves) >= SMALL_MOVE:
        return
    peak = max(course.learning_rates, default=0.0)
    if peak < optimizer.learning_rate / 2:
        remedy = f"use a shorter schedule.warmup: the learning rate has only come to {peak:.2g}"
    elif clip_norm and clip_norm < gradient_norm / 2:
        remedy = f"use a larger training.clip_norm: gradients are scaled down to {clip_norm:g}"
    else:
        remedy = "use a larger learning rate"
    yield Finding(
        "small_move",
        None,
        f"training has moved no weight by more than {max(moves):.1g} of its size: the steps are "
        "too small",
        remedy,
    )


def loss_jumped(course: TrainingCourse) -> Iterator[Finding]:
    """Yield the first epoch whose mean batch loss lies far above the best before it."""
    if course.initial_loss is None:
        return
    lowest = course.initial_loss
    rows = zip(course.batch_losses, course.learning_rates, strict=True)
    for epoch, (loss, rate) in enumerate(rows, 1):
        if loss > lowest + JUMP * course.initial_loss:
            yield Finding(
                "loss_jumped",
                None,
                f"the batch loss jumped from {lowest:.3g} to {loss:.3g} in epoch {epoch}, at "
                f"learning rate {rate:.3g}: the steps are too large",
                "use a smaller learning rate",
            )
            return
        lowest = min(lowest, loss)


def narrow_layer(network: Network) -> Iterator[Finding]:
    """Yield the first hidden layer with fewer units than bits in the number of classes."""
    affine = affine_layers(network)
    needed = math.ceil(math.log2(network.widths[-1]))
    for index, layer in affine[:-1]:
        if layer.units < needed:
            name = network.layer_name(index)
            yield Finding(
                "narrow_layer",
                name,
                f"all that is known of an image must pass the {layer.units} "
                f"{'unit' if layer.units == 1 else 'units'} of {name}, too few to tell "
                f"{network.widths[-1]} classes apart",
                f"give {name} more units",
            )
            return


def stuck_outputs(network: Network, outputs: Array, labels: Array) -> Iterator[Finding]:
    """Yield the output units that are flat where they are wrong, so that they stay so.

    `outputs` (n, classes) are what `network` has just computed in training mode.
    """
    layer = network.layers[-1]
    if not isinstance(layer, Activation):
        return
    steepest = STEEPEST.get(type(layer), 1.0)
    flat = layer.derivative() < SATURATED * steepest
    wrong = np.abs(outputs - one_hot(labels, outputs.shape[1], outputs.dtype)) > 0.5
    counts = wrong.sum(axis=0)
    stuck = (counts > 0) & ((wrong & flat).sum(axis=0) > STUCK * counts)
    # A unit that is wrong for a few hard images alone has learnt its class.
    own = np.bincount(labels, minlength=outputs.shape[1])
    stuck &= counts >= own / 2
    if units := int(stuck.sum()):
        name = network.layer_name(len(network.layers) - 1)
        yield Finding(
            "stuck_outputs",
            name,
            f"{units} of {len(stuck)} units of {name} are saturated at the wrong end: the "
            "function is flat there, so that hardly any gradient passes",
            "use a smaller learning rate",
        )


def lagging_averages(network: Network, images: Array, labels: Array) -> Iterator[Finding]:
    """Yield the batch_norm whose running averages spoil what the batch's own would give.

    `network` is changed: its running averages take the batch in.
    """
    norms = [n for n, layer in enumerate(network.layers) if isinstance(layer, BatchNorm)]
    if not norms:
        return
    in_use = float((network.forward(images).argmax(axis=1) == labels).mean())
    in_training = float((network.forward(images, training=True).argmax(axis=1) == labels).mean())
    if in_training - in_use > LAGGING:
        name = network.layer_name(norms[0])
        yield Finding(
            "lagging_averages",
            name,
            f"with the running averages of {name} {in_use:.0%} of {len(images):,} images come out "
            f"right, with the batch's own mean and variance {in_training:.0%}: the averages lag "
            "behind",
            "use a smaller batch_norm momentum (0.9 is usual)",
        )
