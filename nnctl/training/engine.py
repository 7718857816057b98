"""One step of training, or one measurement, computed by a team of processes.

A step is two tasks. First each rank takes its share of the mini-batch's samples forward and back;
then each adds up its part of everybody's gradients and updates that part of the parameters.
What the ranks share lies in memory that all processes see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnctl.config import Settings, build
from nnctl.datasets import DataSet, Samples
from nnctl.datasets.batches import Gatherer, Split, split
from nnctl.nn.functions import Array
from nnctl.nn.layers import LAYERS, Dropout
from nnctl.nn.losses import LOSSES, Loss
from nnctl.nn.network import Network
from nnctl.nn.optimizers import OPTIMIZERS, Optimizer, State
from nnctl.nn.randomness import Concern, generator
from nnctl.training.evaluation import Evaluation, chunks, evaluate_share
from nnctl.training.threads import choose_threads, usable_cores
from nnctl.training.workers import Team, share

CURVE_SAMPLES = 10_000  # at most so many training samples are measured each epoch

LEARN, ADD_UP, UPDATE, MEASURE = range(4)  # the team's tasks


def build_network(settings: Settings, inputs: int, **options: Any) -> Network:
    """Return the network that `settings` describe, all parameters zero."""
    return Network([build(LAYERS, choice) for choice in settings.network], inputs, **options)


def split_data(settings: Settings, data: DataSet) -> Split:
    """Return which training images `settings` train on, and which they hold out.

    Raises:
        ConfigError: more images are asked for than there are, or none are left to train on.

    """
    wanted = settings.data
    try:
        parts = split(
            data.train.labels,
            validation=wanted.validation,
            train_size=wanted.train_size,
            seed=wanted.split_seed,
        )
    except ValueError as error:
        key = "train_size" if wanted.validation <= len(data.train.labels) else "validation"
        raise settings.error(
            f"data.{key}",
            f"data.{key}: {error}; data.validation is drawn first, data.train_size from the rest",
        ) from None
    if not len(parts.train):
        raise settings.error(
            "data.validation", "data.validation leaves no images to train on; hold out fewer"
        )
    return parts


@dataclass(frozen=True)
class Member:
    """What one rank computes with: its own arrays, and its part of what all ranks share."""

    gather: Gatherer
    network: Network  # over the shared parameters, with gradients of its own
    loss: Loss
    optimizer: Optimizer
    w: Array  # its part of the parameters ...
    decayed: Array  # ... and of those that weight decay acts on
    dw: Array  # its part of its own gradients ...
    others: list[Array]  # ... and of every other rank's
    state: State  # its part of the optimizer's vectors

    def learn(self, indices: Array, labels: Array, weight: float) -> float:
        """Go forward and back with the samples at `indices`; return their mean loss.

        Loss and gradients are multiplied by `weight`, the samples' share of the batch.
        """
        outputs = self.network.forward(self.gather(indices), training=True)
        loss = self.loss.forward(outputs, labels)
        self.network.backward(self.loss.backward(weight))
        return weight * loss

    def add_up(self) -> None:
        """Add the other ranks' gradients to `dw`."""
        dw = self.dw
        for other in self.others:
            dw += other

    def update(self, step: int, learning_rate: float) -> None:
        """Apply the optimizer to this part of the parameters."""
        self.optimizer.decay(self.decayed, learning_rate)
        self.optimizer.update(self.w, self.dw, self.state, learning_rate, step)


class Engine:
    """A network, its optimizer and the team that runs them."""

    def __init__(
        self, settings: Settings, data: DataSet, split: Split, batch_size: int, threads: int | None
    ) -> None:
        """Lay the memory out; without `threads` the rule decides."""
        inputs = data.train.images.shape[1]
        plan = build_network(settings, inputs)
        self.threads = threads or choose_threads(
            plan.size, batch_size, plan.couples_samples, usable_cores()
        )
        self.team = Team(1 if plan.couples_samples else self.threads)
        allocate, size = self.team.allocate, plan.size
        networks = [build_network(settings, inputs, allocate=allocate) for _ in self.team.ranks]
        self.network = networks[0]
        self.network.initialize(settings.seed)
        for network in networks[1:]:
            network.bind(self.network.parameters, network.gradients)
        self.optimizer = build(OPTIMIZERS, settings.optimizer)
        self.state = {name: allocate(size, np.float32) for name in self.optimizer.state_names}
        self.members = []
        for rank, network in enumerate(networks):
            part = share(size, rank, self.team.size)
            member = Member(
                gather=Gatherer(data.train.images),
                network=network,
                loss=build(LOSSES, settings.loss),
                optimizer=build(OPTIMIZERS, settings.optimizer),
                w=network.parameters[part],
                decayed=network.parameters[: network.decayed][part],
                dw=network.gradients[part],
                others=[other.gradients[part] for other in networks if other is not network],
                state={name: vector[part] for name, vector in self.state.items()},
            )
            self.members.append(member)
        self._losses = allocate(self.team.size, np.float64)  # of each share
        self._squares = allocate(self.team.size, np.float64)  # of each part of the gradient norm
        self.order = allocate(len(split.train), np.intp)  # of the samples in this epoch
        self.labels = data.train.labels.astype(np.intp)
        self.seed, self.clip_norm = settings.seed, settings.training.clip_norm

        curve = split.train
        if len(curve) > CURVE_SAMPLES:
            rng = generator(settings.data.split_seed, Concern.SAMPLE)
            curve = np.sort(rng.choice(curve, CURVE_SAMPLES, replace=False))
        self._measured = {
            "train": self._samples(data.train, curve),
            "validation": self._samples(data.train, split.validation),
            "test": self._samples(data.test, np.arange(len(data.test.labels))),
        }

    def _samples(self, samples: Samples, indices: Array) -> tuple[Gatherer, Array, Evaluation]:
        labels = samples.labels[indices].astype(np.intp)
        return Gatherer(samples.images), indices, Evaluation.empty(labels, self.team.allocate)

    def start(self) -> None:
        """Fork the workers."""
        with np.errstate(all="ignore"):  # for their whole life
            self.team.start([self._learn, self._add_up, self._update, self._measure])

    def close(self) -> None:
        """End the workers."""
        self.team.close()

    def learn(self, start: int, stop: int, step: int, learning_rate: float) -> float:
        """Learn from the samples `order[start:stop]`; return their mean loss before that.

        The update may still be under way in other members: `settle` before reading weights.
        """
        with np.errstate(all="ignore"):  # divergence is found in the loss
            self.team.run(LEARN, start, stop, step)
            if self.clip_norm:
                self.team.run(ADD_UP)
            self.team.run(UPDATE, step, learning_rate)
        return math.fsum(self._losses.tolist())

    def settle(self) -> None:
        """Wait until no member computes."""
        self.team.settle()

    def measure(self, part: str) -> Evaluation:
        """Measure the network on `train` (some of it), `validation` or `test`."""
        with np.errstate(all="ignore"):
            self.team.run(MEASURE, list(self._measured).index(part))
            self.team.settle()
        return self.measured(part)

    def measured(self, part: str) -> Evaluation:
        """Return what `measure` found last; it is overwritten by the next measurement."""
        return self._measured[part][2]

    # The team's tasks: what is done for one rank.

    def _learn(self, rank: int, start: float, stop: float, step: float) -> None:
        """Take a share of the mini-batch forward and back."""
        member, batch = self.members[rank], int(stop - start)
        part = share(batch, rank, self.team.size)
        indices = self.order[int(start) + part.start : int(start) + part.stop]
        if not len(indices):
            self._losses[rank] = member.network.gradients[...] = 0
            return
        for index, layer in enumerate(member.network.layers):
            if isinstance(layer, Dropout):
                layer.rng = generator(self.seed, Concern.DROPOUT, index, int(step), rank)
        self._losses[rank] = member.learn(indices, self.labels[indices], len(indices) / batch)

    def _add_up(self, rank: int) -> None:
        """Add a part of the gradients up; leave its share of the squared norm."""
        member = self.members[rank]
        member.add_up()
        self._squares[rank] = np.dot(member.dw, member.dw)

    def _update(self, rank: int, step: float, learning_rate: float) -> None:
        """Update a part of the parameters."""
        member = self.members[rank]
        if not self.clip_norm:
            member.add_up()
        elif (norm := math.sqrt(self._squares.sum())) > self.clip_norm:
            np.multiply(member.dw, self.clip_norm / norm, out=member.dw)
        member.update(int(step), learning_rate)

    def _measure(self, rank: int, which: float) -> None:
        """Measure a share of the samples, in whole chunks."""
        gather, indices, result = list(self._measured.values())[int(which)]
        member, parts = self.members[rank], chunks(len(indices))
        mine = parts[share(len(parts), rank, self.team.size)]
        evaluate_share(member.network, member.loss, gather, indices, result, mine)
