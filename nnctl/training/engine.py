"""One step of training, or one measurement, computed by a team of processes.

Each member has its share of a mini-batch's samples on the way forward and back, and its share of
the parameters in the update. What they share lies in memory that all of them see.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnctl.config import Settings, build
from nnctl.datasets import DataSet, Samples
from nnctl.datasets.batches import Gatherer, Split, split
from nnctl.errors import ConfigError
from nnctl.nn.functions import Array
from nnctl.nn.layers import LAYERS, Dropout
from nnctl.nn.losses import LOSSES
from nnctl.nn.network import Network
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.nn.randomness import Concern, generator
from nnctl.training.evaluation import Evaluation, chunks, evaluate_chunk
from nnctl.training.threads import choose_threads, usable_cores
from nnctl.training.workers import Team, share

CURVE_SAMPLES = 10_000  # at most so many training samples are measured each epoch

LEARN, MEASURE = range(2)  # the team's tasks


def build_network(settings: Settings, inputs: int, **options: Any) -> Network:
    """Return the network that `settings` describe, all parameters zero."""
    return Network([build(LAYERS, choice) for choice in settings.network], inputs, **options)


def split_data(settings: Settings, data: DataSet) -> Split:
    """Return which training images `settings` train on, and which they hold out.

    Raises:
        ConfigError: more images are asked for than there are.

    """
    wanted = settings.data
    try:
        return split(
            data.train.labels,
            validation=wanted.validation,
            train_size=wanted.train_size,
            seed=wanted.split_seed,
        )
    except ValueError as error:
        raise ConfigError(
            f"data: {error}\ndata.validation is drawn first, data.train_size from the rest"
        ) from None


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
        allocate = self.team.allocate
        self.network = build_network(settings, inputs, allocate=allocate)
        self.network.initialize(settings.seed)
        self.loss = build(LOSSES, settings.loss)
        self.optimizer = build(OPTIMIZERS, settings.optimizer)
        self.seed, self.clip_norm = settings.seed, settings.training.clip_norm

        size = self.network.size
        self.state = {name: allocate(size, np.float32) for name in self.optimizer.state_names}
        self.order = allocate(len(split.train), np.intp)  # of the samples in this epoch
        self._gradients = [self.network.gradients]  # of each member's share of the batch
        self._gradients += [allocate(size, np.float32) for _ in range(1, self.team.size)]
        self._losses = allocate(self.team.size, np.float64)  # each member's share of the loss
        self._squares = allocate(self.team.size, np.float64)  # and of the squared gradient norm
        self.labels = data.train.labels.astype(np.intp)
        self.gather = Gatherer(data.train.images)

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
        self.team.start([self._learn, self._measure])

    def close(self) -> None:
        """End the workers."""
        self.team.close()

    def learn(self, start: int, stop: int, step: int, learning_rate: float) -> float:
        """Learn from the samples `order[start:stop]`; return their mean loss before that.

        The update may still be under way in other members: `settle` before reading weights.
        """
        self.team.run(LEARN, start, stop, step, learning_rate)
        return float(self._losses.sum())

    def settle(self) -> None:
        """Wait until no member computes."""
        self.team.settle()

    def measure(self, part: str) -> Evaluation:
        """Measure the network on `train` (some of it), `validation` or `test`."""
        self.team.run(MEASURE, list(self._measured).index(part))
        self.team.settle()
        return self.measured(part)

    def measured(self, part: str) -> Evaluation:
        """Return what `measure` found last; it is overwritten by the next measurement."""
        return self._measured[part][2]

    # What every member of the team does at the same time, each on its share.

    def _learn(self, start: float, stop: float, step: float, learning_rate: float) -> None:
        """Learn from one mini-batch: forward, loss, backward, update."""
        rank, batch = self.team.rank, int(stop - start)
        gradients = self._gradients[rank]
        if self.network.gradients is not gradients:  # a worker's first step
            self.network.bind(self.network.parameters, gradients)
        mine = share(batch, rank, self.team.size)
        indices = self.order[int(start) : int(stop)][mine]
        weight = len(indices) / batch  # of this share's mean loss in the batch's
        with np.errstate(all="ignore"):  # divergence is found in the loss
            if len(indices):
                self._set_dropout(int(step))
                outputs = self.network.forward(self.gather(indices), training=True)
                self._losses[rank] = weight * self.loss.forward(outputs, self.labels[indices])
                self.network.backward(self.loss.backward(weight))
            else:
                self._losses[rank] = gradients[...] = 0
            self.team.barrier()
            self._update(int(step), learning_rate)

    def _update(self, step: int, learning_rate: float) -> None:
        """Add the members' gradients up and update the weights: each member its part of both."""
        mine = self._mine()
        dw = self.network.gradients[mine]
        for other in self._gradients:
            if other is not self.network.gradients:
                dw += other[mine]
        if self.clip_norm:
            self._squares[self.team.rank] = np.dot(dw, dw)
            self.team.barrier()
            norm = math.sqrt(self._squares.sum())
            if norm > self.clip_norm:
                dw *= self.clip_norm / norm
        self.update_weights(step, learning_rate)

    def update_weights(self, step: int, learning_rate: float) -> None:
        """Apply the optimizer to this member's part of the weights."""
        mine = self._mine()
        w, dw = self.network.parameters[mine], self.network.gradients[mine]
        state = {name: vector[mine] for name, vector in self.state.items()}
        self.optimizer.decay(w[: max(self.network.decayed - mine.start, 0)], learning_rate)
        self.optimizer.update(w, dw, state, learning_rate, step)

    def _mine(self) -> slice:
        return share(self.network.size, self.team.rank, self.team.size)

    def _set_dropout(self, step: int) -> None:
        """Give each dropout layer the random numbers of this step and this member."""
        for index, layer in enumerate(self.network.layers):
            if isinstance(layer, Dropout):
                layer.rng = generator(self.seed, Concern.DROPOUT, index, step, self.team.rank)

    def _measure(self, which: float) -> None:
        """Measure the samples of this member's share of the chunks."""
        gather, indices, result = list(self._measured.values())[int(which)]
        parts = chunks(len(indices))
        with np.errstate(all="ignore"):
            for part in parts[share(len(parts), self.team.rank, self.team.size)]:
                evaluate_chunk(self.network, self.loss, gather, indices, result, part)
