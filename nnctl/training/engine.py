"""A network, its optimizer, and the processes that take their steps and measure them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from nnctl.config import Settings, build, with_counts
from nnctl.datasets import DataSet, Samples
from nnctl.datasets.augmentation import Augmenter
from nnctl.datasets.batches import Gatherer, Split, shuffled, split
from nnctl.nn.functions import Array
from nnctl.nn.layers import LAYERS
from nnctl.nn.losses import LOSSES
from nnctl.nn.network import Network
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.nn.randomness import Concern, generator
from nnctl.nn.step import Step
from nnctl.training.evaluation import Evaluation, chunks, evaluate_chunks
from nnctl.training.process_group import ProcessGroup, shard
from nnctl.training.shared_step import Exchange, SharedStep, can_be_shared
from nnctl.training.threads import choose_threads, usable_cores

CURVE_SAMPLES = 10_000  # at most so many training samples are measured each epoch


def build_network(settings: Settings, inputs: int, **options: Any) -> Network:
    """Return the network that `settings` describe, all parameters zero."""
    return Network([build(LAYERS, choice) for choice in settings.network], inputs, **options)


@dataclass(frozen=True)
class InitialWeights:
    """Weights from elsewhere that a run begins with, in the place of those of its seed."""

    arrays: Mapping[str, Array] | None  # by the network's names; None: not to be had any more
    path: str | None  # of their checkpoint; None: not known
    sha256: str  # of the file


def initial_network(
    settings: Settings, inputs: int, weights: InitialWeights | None = None
) -> Network | None:
    """Return the network as training begins: with `weights`, without them with those of the seed.

    Return None where the weights are not to be had any more.
    """
    network = build_network(settings, inputs)
    if weights is None:
        network.initialize(settings.seed)
    elif weights.arrays is None:
        return None
    else:
        network.load(weights.arrays)
    return network


def build_augmenter(settings: Settings, data: DataSet) -> Augmenter | None:
    """Return what changes the training images, if `settings` ask for it."""
    amounts = settings.data.augment
    if amounts is None:
        return None
    return Augmenter(amounts, data.train.images, data.image_shape, settings.seed)


def split_data(settings: Settings, data: DataSet) -> Split:
    """Return which training images `settings` train on, and which they hold out.

    Raises:
        ConfigError: more images are asked for than there are, or none are left to train on.

    """
    samples = len(data.train.labels)
    wanted = with_counts(settings, samples).data
    return split(
        data.train.labels,
        validation=wanted.held_out(samples),
        train_size=wanted.train_size,
        seed=wanted.split_seed,
    )


def first_batch(settings: Settings, train: Array) -> Array:
    """Return which of the images at `train` the first step learns from."""
    return shuffled(train, settings.seed, 1)[: settings.training.batch_size]


def split_samples(settings: Settings, data: DataSet, part: str) -> tuple[Samples, Array]:
    """Return the samples of a data set's file, and which of them are train, validation or test.

    Raises:
        ConfigError: as `split_data`.

    """
    if part == "test":
        return data.test, np.arange(len(data.test.labels))
    return data.train, getattr(split_data(settings, data), part)


class Engine:
    """A network, its optimizer, and the processes that take their steps and measure them."""

    def __init__(
        self, settings: Settings, data: DataSet, split: Split, batch_size: int, threads: int | None
    ) -> None:
        """Lay the memory out; without `threads` the rule decides."""
        inputs = data.train.images.shape[1]
        plan = build_network(settings, inputs)
        several = can_be_shared(plan)
        self.threads = threads or choose_threads(plan.size, batch_size, several, usable_cores())
        self.group = ProcessGroup(self.threads if several else 1)
        allocate, ranks = self.group.allocate, self.group.ranks
        self.networks = [build_network(settings, inputs, allocate=allocate) for _ in ranks]
        self.network = self.networks[0]
        self.network.initialize(settings.seed)
        for network in self.networks[1:]:
            network.bind(self.network.parameters, network.gradients)
        self.losses = [build(LOSSES, settings.loss) for _ in ranks]
        new_optimizer = partial(build, OPTIMIZERS, settings.optimizer)
        self.optimizer = new_optimizer()
        self.state = {name: allocate(plan.size, np.float32) for name in self.optimizer.state_names}
        self.epoch = allocate(1, np.intp)
        self.order = allocate(len(split.train), np.intp)  # of the samples in this epoch
        self.augmenter = build_augmenter(settings, data)
        augment = None if self.augmenter is None else self._augment
        options: dict[str, Any] = {"seed": settings.seed, "clip_norm": settings.training.clip_norm}
        self.step = Step(
            self.network,
            self.losses[0],
            self.optimizer,
            Gatherer(data.train, augment=augment),
            state=self.state,
            **options,
        )
        self.shards: list[SharedStep] = []
        if self.group.size > 1:
            self.exchange = Exchange.allocate(
                self.group.size, batch_size, plan, allocate, augmented=augment is not None
            )
            self.shards = [
                SharedStep(
                    rank,
                    self.networks,
                    self.losses[rank],
                    new_optimizer,
                    self.state,
                    data.train,
                    self.exchange,
                    augment=augment,
                    **options,
                )
                for rank in ranks
            ]

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
        gather = Gatherer(samples)
        return gather, indices, Evaluation.empty(gather.labels(indices), self.group.allocate)

    def _augment(self, indices: Array, out: Array | None = None) -> Array:
        """Return the training images at `indices` as this epoch sees them."""
        assert self.augmenter is not None
        return self.augmenter(int(self.epoch[0]), indices, out)

    def start(self) -> None:
        """Fork the workers."""
        with np.errstate(all="ignore"):  # for their whole life
            self.group.start({"learn": self._learn, "measure": self._measure})

    def close(self) -> None:
        """End the workers."""
        self.group.close()

    def learn(self, start: int, stop: int, step: int, learning_rate: float) -> float:
        """Learn from the samples `order[start:stop]`; return their mean loss before that."""
        with np.errstate(all="ignore"):  # divergence is found in the loss
            if not self.shards:
                return self.step(self.order[start:stop], step, learning_rate)
            self.group.run_paced("learn", start, stop, step, learning_rate)
            return math.fsum(self.exchange.losses.tolist())

    def measure(self, part: str) -> Evaluation:
        """Measure the network on `train` (some of it), `validation` or `test`."""
        with np.errstate(all="ignore"):
            self.group.run("measure", part)
        return self.measured(part)

    def measured(self, part: str) -> Evaluation:
        """Return what `measure` found last; it is overwritten by the next measurement."""
        return self._measured[part][2]

    # The group's tasks: what one rank does.

    def _learn(
        self, rank: int, start: int, stop: int, step: int, learning_rate: float
    ) -> Iterator[None]:
        return self.shards[rank](self.order[start:stop], step, learning_rate)

    def _measure(self, rank: int, part: str) -> Iterator[None]:
        """Measure a shard of the samples, in whole chunks."""
        gather, indices, result = self._measured[part]
        parts = chunks(len(indices))
        mine = parts[shard(len(parts), rank, self.group.size)]
        evaluate_chunks(self.networks[rank], self.losses[rank], gather, indices, result, mine)
        yield from ()
