"""Where the time of a training step goes, measured without slowing the step down.

The whole step is timed as training runs it, in blocks of many steps. Its phases and the bare
matrix products are timed apart, each in blocks of its own, on one member's share of a batch; so
no clock ticks inside a step. What the phases leave of the whole is the rest: waiting for the
other members, adding their gradients up, and the loop itself.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from nnctl.config import Settings
from nnctl.datasets import DataSet
from nnctl.nn.layers import Affine
from nnctl.nn.network import Network
from nnctl.training.engine import Engine, split_data
from nnctl.training.threads import usable_cores
from nnctl.training.workers import share

BLOCK_SECONDS = 0.05
BLOCKS = 7  # of which the median counts
SLOWLY = 1e-3  # times the learning rate: does not diverge, and costs the same


@dataclass(frozen=True, kw_only=True)
class Phases:
    """Seconds of one step, by what is done."""

    gather: float
    forward: float
    loss: float
    backward: float
    optimizer: float
    rest: float


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The fields of `nnctl bench --json`."""

    threads: int
    batch_size: int
    parameters: int
    step_seconds: float
    samples_per_second: float
    gflops: float  # of the matrix products, over the whole step
    phases: Phases
    products_seconds: float  # the bare matrix products of a member's share
    products_gflops: float
    ratio: float  # step_seconds / products_seconds
    step_seconds_by_threads: dict[int, float]  # with the counts that could be asked for instead


def benchmark(settings: Settings, data: DataSet, threads: int | None) -> Benchmark:
    """Measure steps of the network that `settings` describe; without `threads` the rule decides.

    Raises:
        ConfigError: the settings ask for more images than there are.

    """
    split = split_data(settings, data)
    batch_size = min(settings.training.batch_size, len(split.train))

    def engine(threads: int | None) -> Engine:
        return Engine(settings, data, split, batch_size, threads)

    with closing(engine(threads)) as chosen:
        result = _measure(chosen, batch_size)
    others = {}
    if chosen.team.size > 1 or not chosen.network.couples_samples:
        for count in range(1, usable_cores() + 1):
            if count != chosen.threads:
                with closing(engine(count)) as other:
                    others[count] = _median(_steps(other, batch_size))
                    other.settle()
    by_threads = {chosen.threads: result.step_seconds, **others}
    return replace(result, step_seconds_by_threads=dict(sorted(by_threads.items())))


def _steps(engine: Engine, batch_size: int) -> Callable[[], None]:
    """Return what takes the next step of `engine`; the steps spoil its weights."""
    engine.order[:] = np.random.default_rng(0).permutation(len(engine.order))
    engine.start()
    starts = itertools.cycle(range(0, len(engine.order) - batch_size + 1, batch_size))
    steps = itertools.count(1)
    rate = engine.optimizer.learning_rate * SLOWLY

    def step() -> None:
        start = next(starts)
        engine.learn(start, start + batch_size, next(steps), rate)

    return step


def _measure(engine: Engine, batch_size: int) -> Benchmark:
    """Time whole steps of `engine`, and then each phase of them alone."""
    whole = _median(_steps(engine, batch_size))
    engine.settle()
    member = engine.members[0]
    indices = engine.order[:batch_size][share(batch_size, 0, engine.team.size)].copy()
    network, loss = member.network, member.loss
    labels = engine.labels[indices]
    x = member.gather(indices)
    outputs = network.forward(x, training=True)
    loss.forward(outputs, labels)
    dout = loss.backward()

    def forward_and_back() -> None:
        loss.forward(outputs, labels)
        loss.backward()

    steps = itertools.count(1)
    rate = engine.optimizer.learning_rate * SLOWLY
    phases = {
        "gather": _median(lambda: member.gather(indices)),
        "forward": _median(lambda: network.forward(x, training=True)),
        "loss": _median(forward_and_back),
        "backward": _median(lambda: network.backward(dout)),
        "optimizer": _median(lambda: member.update(next(steps), rate)),
    }
    products, operations = _products(network, len(indices))
    bare = _median(products)
    return Benchmark(
        threads=engine.threads,
        batch_size=batch_size,
        parameters=network.size,
        step_seconds=whole,
        samples_per_second=batch_size / whole,
        gflops=operations * batch_size / len(indices) / whole / 1e9,
        phases=Phases(**phases, rest=max(whole - sum(phases.values()), 0.0)),
        products_seconds=bare,
        products_gflops=operations / bare / 1e9,
        ratio=whole / bare,
        step_seconds_by_threads={},
    )


def _median(work: Callable[[], object]) -> float:
    """Return the seconds of one call of `work`: the median over blocks of many."""
    work()
    start = time.perf_counter()
    work()
    once = max(time.perf_counter() - start, 1e-7)
    calls = max(1, round(BLOCK_SECONDS / once))
    blocks = []
    for _ in range(BLOCKS):
        start = time.perf_counter()
        for _ in range(calls):
            work()
        blocks.append((time.perf_counter() - start) / calls)
    return statistics.median(blocks)


def _products(network: Network, batch: int) -> tuple[Callable[[], None], int]:
    """Return what does only the matrix products of a step, and their floating-point operations."""
    rng = np.random.default_rng(0)
    calls = []
    operations = 0
    for index, layer in enumerate(network.layers):
        if not isinstance(layer, Affine):
            continue
        inputs, units = layer.weight.shape
        shapes = (batch, inputs), (inputs, units), (batch, units)
        x, w, y = (rng.random(shape, dtype=np.float32) for shape in shapes)
        calls += [(x, w, y), (x.T, y.copy(), w.copy())]
        if index > network.first_trained:
            calls += [(y.copy(), w.T, x.copy())]
        operations += 2 * batch * inputs * units * (3 if index > network.first_trained else 2)

    def products() -> None:
        for a, b, out in calls:
            np.dot(a, b, out=out)

    return products, operations
