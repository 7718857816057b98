"""The training step as several processes share it, against the step that one process takes.

`nnctl.training.shared_step` is run as it is, with the shards of all processes in this one, each
to the next barrier in turn. Its gradients must equal the plain step's but for rounding.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np

from nnctl.datasets import Samples
from nnctl.datasets.batches import Gatherer
from nnctl.gradcheck.causes import describe
from nnctl.gradcheck.finite_differences import Comparison, Status, jittered
from nnctl.gradcheck.layer import said
from nnctl.gradcheck.network import copied
from nnctl.gradcheck.thresholds import SHARED_TOLERANCE
from nnctl.nn.functions import Array
from nnctl.nn.layers import Dropout
from nnctl.nn.losses import Loss
from nnctl.nn.network import Network
from nnctl.nn.optimizers import SGD
from nnctl.nn.step import Step
from nnctl.training.process_group import in_lockstep
from nnctl.training.shared_step import Exchange, SharedStep, can_be_shared

PROCESSES = 3  # so that the shards of most batches differ in size, which shows a wrong weight


def check_shared(
    network: Network, loss: Loss, x: Array, labels: Array, rng: np.random.Generator
) -> tuple[list[Comparison], str | None]:
    """Compare the gradients of a shared step with those of a plain one, all entries of them.

    Both take the same step at jittered parameters and images, after one with another batch. Of a
    network whose step can't be shared nothing is compared. What is wrong is returned as well, as
    a sentence. Dropout is off, for each process draws masks of its own.
    """
    if not can_be_shared(network) or _draws_otherwise(network):
        return [], None
    plain, *ranks = (copied(network) for _ in range(1 + PROCESSES))
    parameters = np.concatenate(
        [jittered(part, rng) for part in np.split(network.parameters, [network.decayed])]
    )
    for each in (plain, *ranks):
        each.bind(parameters, each.gradients)
        for layer in each.layers:
            if isinstance(layer, Dropout):
                layer.rate = 0.0
    batch = len(labels)
    samples = Samples(
        np.concatenate([jittered(x, rng), jittered(x[::-1], rng)]) * 255,
        np.concatenate([labels, np.roll(labels, 1)]),
    )
    step = Step(plain, deepcopy(loss), SGD(), Gatherer(samples, dtype=np.float64))
    exchange = Exchange.allocate(PROCESSES, batch, network, np.zeros)
    shards = [
        SharedStep(rank, ranks, deepcopy(loss), SGD, {}, samples, exchange)
        for rank in range(PROCESSES)
    ]
    try:
        for chosen in (np.arange(batch, 2 * batch), np.arange(batch)):
            value = step.backpropagate(chosen, 1)
            in_lockstep([shared.backpropagate(chosen, 1) for shared in shards])
    except Exception as error:  # a finding, as in LayerUnderTest.backward
        return [], said("the step that several processes share", error)
    plain_gradients = dict(plain.named_gradients())
    plain.bind(parameters, _gathered(shards, parameters))
    size = float(np.abs(np.concatenate([g.ravel() for g in plain_gradients.values()])).max())
    comparisons = [
        _compare(name, gradient, plain_gradients[name], SHARED_TOLERANCE * size)
        for name, gradient in plain.named_gradients()
    ]
    wrong = [found for found in comparisons if found.failed.any()]
    shared_value = float(exchange.losses.sum())
    if wrong:
        found = ", ".join(f"that of {found.name} {describe(found)}" for found in wrong)
        return comparisons, f"shared by several processes, the step gives other gradients: {found}"
    if not np.isclose(shared_value, value, rtol=SHARED_TOLERANCE):
        return comparisons, (
            f"shared by several processes, the step reports a loss of {shared_value:.9g}, taken "
            f"by one {value:.9g}"
        )
    return comparisons, None


def _gathered(shards: list[SharedStep], parameters: Array) -> Array:
    """Return the whole gradient: each process has completed that of its part of `parameters`."""
    gradients = np.full_like(parameters, np.nan)
    for part in (part for shared in shards for part in shared.parameters):
        start = (part.w.ctypes.data - parameters.ctypes.data) // parameters.itemsize
        gradients[start : start + len(part.w)] = part.dw
    return gradients


def _compare(name: str, shared: Array, plain: Array, error: float) -> Comparison:
    agrees = np.abs(shared - plain) <= error
    status = np.where(agrees, Status.AGREES, Status.FAILED).reshape(-1)
    places = np.arange(shared.size)
    return Comparison(name, shared, places, shared.reshape(-1), plain.reshape(-1), status)


def _draws_otherwise(network: Network) -> bool:
    """Return whether a layer but dropout draws random numbers, which differ in each process."""
    return any(
        isinstance(value, np.random.Generator)
        for layer in network.layers
        if not isinstance(layer, Dropout)
        for value in vars(layer).values()
    )
