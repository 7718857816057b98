"""The network, its optimizer, and the team that takes their steps and measures them."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from nnctl.config import Settings, build
from nnctl.datasets import DataSet, Samples
from nnctl.datasets.batches import Gatherer, Split, split
from nnctl.nn.functions import Array
from nnctl.nn.layers import LAYERS
from nnctl.nn.losses import LOSSES
from nnctl.nn.network import Network
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.nn.randomness import Concern, generator
from nnctl.training.evaluation import Evaluation, chunks, evaluate_share
from nnctl.training.member import Member, divisible
from nnctl.training.process_group import Team, share
from nnctl.training.threads import choose_threads, usable_cores

CURVE_SAMPLES = 10_000  # at most so many training samples are measured each epoch

FIRST, REST, NORM, UPDATE, MEASURE = range(5)  # the team's tasks


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


class Engine:
    """A network, its optimizer and the team that runs them."""

    def __init__(
        self, settings: Settings, data: DataSet, split: Split, batch_size: int, threads: int | None
    ) -> None:
        """Lay the memory out; without `threads` the rule decides."""
        inputs = data.train.images.shape[1]
        plan = build_network(settings, inputs)
        several = divisible(plan)
        self.threads = threads or choose_threads(plan.size, batch_size, several, usable_cores())
        self.team = Team(self.threads if several else 1)
        allocate = self.team.allocate
        networks = [build_network(settings, inputs, allocate=allocate) for _ in self.team.ranks]
        self.network = networks[0]
        self.network.initialize(settings.seed)
        for network in networks[1:]:
            network.bind(self.network.parameters, network.gradients)
        new_optimizer = partial(build, OPTIMIZERS, settings.optimizer)
        self.optimizer = new_optimizer()
        self.state = {name: allocate(plan.size, np.float32) for name in self.optimizer.state_names}
        self.members = [
            Member(
                rank,
                networks,
                data.train.images,
                build(LOSSES, settings.loss),
                new_optimizer,
                self.state,
            )
            for rank in self.team.ranks
        ]
        # What goes from member to member in a step.
        units = plan.widths[len(self.members[0].head)]
        shape = self.team.size, batch_size, units
        self._sums = allocate(math.prod(shape), np.float32).reshape(shape)  # each one's `first`
        self._douts = allocate(math.prod(shape[1:]), np.float32).reshape(shape[1:])
        self._losses = allocate(self.team.size, np.float64)  # of each one's samples
        self._squares = allocate(self.team.size, np.float64)  # each one's part of the norm
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
            self.team.start([self._first, self._rest, self._norm, self._update, self._measure])

    def close(self) -> None:
        """End the workers."""
        self.team.close()

    def learn(self, start: int, stop: int, step: int, learning_rate: float) -> float:
        """Learn from the samples `order[start:stop]`; return their mean loss before that.

        The update may still be under way in other members: `settle` before reading weights.
        """
        with np.errstate(all="ignore"):  # divergence is found in the loss
            tasks = [FIRST, REST, NORM, UPDATE] if self.clip_norm else [FIRST, REST, UPDATE]
            self.team.run(tasks, start, stop, step, learning_rate, overlap=True)
        return math.fsum(self._losses.tolist())

    def settle(self) -> None:
        """Wait until no member computes."""
        self.team.settle()

    def measure(self, part: str) -> Evaluation:
        """Measure the network on `train` (some of it), `validation` or `test`."""
        with np.errstate(all="ignore"):
            self.team.run([MEASURE], list(self._measured).index(part))
            self.team.settle()
        return self.measured(part)

    def measured(self, part: str) -> Evaluation:
        """Return what `measure` found last; it is overwritten by the next measurement."""
        return self._measured[part][2]

    # The team's tasks: what is done for one rank. Those of a step get the same numbers.

    def _first(self, rank: int, start: float, stop: float, step: float, _: float) -> None:
        """Take a part of the pixels of all samples through the first layer."""
        member, samples = self.members[rank], self.order[int(start) : int(stop)]
        member.draw_dropout(self.seed, int(step))
        self._sums[rank, : len(samples)] = member.first(samples)

    def _rest(self, rank: int, start: float, stop: float, *_: float) -> None:
        """Take a share of the samples through the other layers, forward and back."""
        member, samples = self.members[rank], self.order[int(start) : int(stop)]
        part = share(len(samples), rank, self.team.size)
        if part.start == part.stop:
            member.skip()
            self._losses[rank] = 0
            return
        y = self._sums[rank, part]
        for other in self.team.ranks:
            if other != rank:
                y += self._sums[other, part]
        labels = self.labels[samples[part]]
        loss, self._douts[part] = member.rest(y, labels, len(labels) / len(samples))
        self._losses[rank] = loss

    def _norm(self, rank: int, start: float, stop: float, *_: float) -> None:
        """Compute the gradients of some parameters; leave their share of the squared norm."""
        member = self.members[rank]
        member.gradients(self._douts[: int(stop - start)])
        self._squares[rank] = sum(np.dot(part.dw, part.dw) for part in member.parts)

    def _update(
        self, rank: int, start: float, stop: float, step: float, learning_rate: float
    ) -> None:
        """Update some parameters."""
        member = self.members[rank]
        if not self.clip_norm:
            member.gradients(self._douts[: int(stop - start)])
        elif (norm := math.sqrt(self._squares.sum())) > self.clip_norm:
            for part in member.parts:
                np.multiply(part.dw, self.clip_norm / norm, out=part.dw)
        member.update(int(step), learning_rate)

    def _measure(self, rank: int, which: float) -> None:
        """Measure a share of the samples, in whole chunks."""
        gather, indices, result = list(self._measured.values())[int(which)]
        member, parts = self.members[rank], chunks(len(indices))
        mine = parts[share(len(parts), rank, self.team.size)]
        evaluate_share(member.network, member.loss, gather, indices, result, mine)
