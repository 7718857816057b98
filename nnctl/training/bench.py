"""Where the time of a training step goes.

Everything is timed in blocks of many steps, as training takes them, and the blocks of all that is
compared take turns: a machine that gets busy is so for each of them. The phases are clocked
inside steps, because work that is repeated apart from a step finds its data in the cache and
looks faster than it is. These steps tell only how their time is divided; how long a step takes
is measured without the clocks, which cost a few microseconds.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnctl.config import Settings
from nnctl.datasets import DataSet
from nnctl.datasets.batches import shuffled
from nnctl.nn.functions import Array
from nnctl.nn.layers import Affine
from nnctl.nn.network import Network
from nnctl.training.engine import Engine, split_data
from nnctl.training.process_group import shard
from nnctl.training.shared_step import can_be_shared
from nnctl.training.threads import usable_cores

BLOCK_SECONDS = 0.05
BLOCKS = 7  # of which the median counts
LARGER = 4  # times the batch size: what a larger one is tried with

Work = Callable[[int], None]  # does something so many times


@dataclass(frozen=True, kw_only=True)
class Phases:
    """Seconds of one step in the process that leads it, by what is done; they make up the step.

    `rest` is waiting for the other processes, adding up what they computed, and the loop itself.
    """

    gather: float
    forward: float
    loss: float
    backward: float
    optimizer: float
    rest: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How fast the network learns with other threads, or in other batches."""

    threads: int
    batch_size: int
    samples_per_second: float


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The fields of `nnctl bench --json`."""

    threads: int
    processes: int  # that share a step: as many as threads, but one with batch_norm
    batch_size: int
    parameters: int
    step_seconds: float
    samples_per_second: float
    gflops: float  # of the matrix products, over the whole step
    phases: Phases
    products_seconds: float  # the bare matrix products of a process's share
    products_gflops: float
    ratio: float  # step_seconds / products_seconds
    alternatives: list[Trial]  # each with one thing changed: the threads, or a larger batch


def benchmark(settings: Settings, data: DataSet, threads: int | None) -> Benchmark:
    """Measure steps of the network that `settings` describe; without `threads` the rule decides.

    Raises:
        ConfigError: the settings ask for more images than there are, or leave none.

    """
    split = split_data(settings, data)
    samples = len(split.train)
    batch_size = min(settings.training.batch_size, samples)
    order = shuffled(split.train, settings.seed, 1)
    with ExitStack() as stack:

        def steps(batch_size: int, threads: int | None) -> Steps:
            engine = Engine(settings, data, split, batch_size, threads)
            stack.enter_context(closing(engine))
            return Steps(engine, batch_size, order)

        plain, clocked = (steps(batch_size, threads) for _ in range(2))
        engine = plain.engine
        others: list[Steps] = []
        if can_be_shared(engine.network):  # else it is computed in one piece anyway
            counts = _counts(min(usable_cores(), batch_size))
            others += [steps(batch_size, count) for count in counts if count != engine.threads]
        if (larger := min(LARGER * batch_size, samples)) > batch_size:
            others.append(steps(larger, threads))

        whole_step = [*_products(engine.network, batch_size)]
        of_a_process = [*_products(engine.network, batch_size, engine.group.size)]
        fractions: dict[str, list[float]] = {}
        bare, whole, _, *seconds = _take_turns(
            [_bare(of_a_process), plain, _clocked(clocked, fractions), *others]
        )

    phases = {phase: whole * statistics.median(parts) for phase, parts in fractions.items()}
    return Benchmark(
        threads=engine.threads,
        processes=engine.group.size,
        batch_size=batch_size,
        parameters=engine.network.size,
        step_seconds=whole,
        samples_per_second=batch_size / whole,
        gflops=_operations(whole_step) / whole / 1e9,
        phases=Phases(**phases, rest=whole - sum(phases.values())),
        products_seconds=bare,
        products_gflops=_operations(of_a_process) / bare / 1e9,
        ratio=whole / bare,
        alternatives=[
            Trial(
                threads=other.engine.threads,
                batch_size=other.batch_size,
                samples_per_second=other.batch_size / each,
            )
            for other, each in zip(others, seconds, strict=True)
        ],
    )


def _counts(most: int) -> Iterator[int]:
    """Yield the numbers of threads that are tried: 1, 2, 4, ... and `most`."""
    count = 1
    while count < most:
        yield count
        count *= 2
    yield most


class Steps:
    """Steps of training, but with a learning rate of 0: they cost the same and never diverge."""

    def __init__(self, engine: Engine, batch_size: int, order: Array) -> None:
        """Get ready for steps of `batch_size` of the samples in `order`, one after the other."""
        self.engine, self.batch_size = engine, batch_size
        engine.order[:] = order
        engine.start()
        self._starts = itertools.cycle(range(0, len(order) - batch_size + 1, batch_size))
        self._numbers = itertools.count(1)

    def __call__(self, calls: int) -> None:
        """Take so many steps, and wait until they are done."""
        for start in itertools.islice(self._starts, calls):
            self.engine.learn(start, start + self.batch_size, next(self._numbers), 0.0)


def _clocked(steps: Steps, fractions: dict[str, list[float]]) -> Work:
    """Return what takes `steps` and appends each phase's part of their time to `fractions`.

    Clocked is what this process does of a step.
    """
    seconds: dict[str, float] = {}
    clock = time.perf_counter

    def timed(work: Callable[..., Any], phase: str) -> Any:
        def timed_work(*args: Any, **kwargs: Any) -> Any:
            start = clock()
            result = work(*args, **kwargs)
            seconds[phase] += clock() - start
            return result

        return timed_work

    engine = steps.engine
    layers = engine.network.layers
    owners: Sequence[tuple[str, Sequence[Any], Sequence[str]]] = [
        ("gather", [engine.step.gather], ["images", "labels"]),
        ("forward", layers, ["forward"]),
        ("loss", [engine.losses[0]], ["forward", "backward"]),
        ("backward", layers, ["parameter_gradients", "input_gradient"]),
        ("optimizer", [engine.step.parameters.optimizer], ["decay", "update"]),
    ]
    if engine.shards:
        shared = engine.shards[0]
        optimizers = [part.optimizer for part in shared.parameters]
        owners = [
            ("gather", [shared.gather], ["images", "labels"]),
            *owners[1:4],
            ("optimizer", optimizers, ["decay", "update"]),
            ("forward", [shared], ["multiply"]),
            ("backward", [shared], ["differentiate"]),
        ]
        if shared.augment is not None:
            owners = [*owners, ("gather", [shared], ["augment"])]
    for phase, things, methods in owners:
        fractions[phase] = []
        for owner, method in itertools.product(things, methods):
            setattr(owner, method, timed(getattr(owner, method), phase))

    def take(calls: int) -> None:
        seconds.update(dict.fromkeys(fractions, 0.0))
        start = clock()
        steps(calls)
        whole = clock() - start
        for phase, parts in fractions.items():
            parts.append(seconds[phase] / whole)

    return take


def _take_turns(works: Sequence[Work]) -> list[float]:
    """Return the seconds of one call of each work: the median over blocks of many calls."""
    calls = []
    for work in works:
        work(1)
        start = time.perf_counter()
        work(1)
        calls.append(max(1, round(BLOCK_SECONDS / max(time.perf_counter() - start, 1e-7))))
    blocks: list[list[float]] = [[] for _ in works]
    for _ in range(BLOCKS):
        for work, count, block in zip(works, calls, blocks, strict=True):
            start = time.perf_counter()
            work(count)
            block.append((time.perf_counter() - start) / count)
    return [statistics.median(block) for block in blocks]


def _products(
    network: Network, batch: int, processes: int = 1
) -> Iterator[tuple[int, int, int, int]]:
    """Yield rows, inputs, units, and the number of matrix products in a step, layer by layer.

    They are those of one of the `processes`, the one with the most: the first affine layer is
    shared by its inputs, and needs no input gradient; the others are by the samples.
    """
    last = processes - 1
    for index, layer in enumerate(network.layers):
        if not isinstance(layer, Affine):
            continue
        inputs, units = layer.weight.shape
        if index == network.first_trained:
            pixels = shard(inputs, last, processes)
            yield batch, pixels.stop - pixels.start, units, 2
        else:
            yield math.ceil(batch / processes), inputs, units, 3


def _operations(products: Iterable[tuple[int, int, int, int]]) -> int:
    """Return the floating-point operations of matrix products."""
    return sum(2 * rows * inputs * units * count for rows, inputs, units, count in products)


def _bare(products: Iterable[tuple[int, int, int, int]]) -> Work:
    """Return what does only these matrix products."""
    rng = np.random.default_rng(0)
    operands = []
    for rows, inputs, units, count in products:
        shapes = (rows, inputs), (inputs, units), (rows, units)
        x, w, y = (rng.random(shape, dtype=np.float32) for shape in shapes)
        operands += [(x, w, y), (x.T, y.copy(), w.copy()), (y.copy(), w.T, x.copy())][:count]

    def multiply(calls: int) -> None:
        for _ in range(calls):
            for a, b, out in operands:
                np.dot(a, b, out=out)

    return multiply
