"""The learning rate range test: the batch loss while the learning rate grows from step to step.

Smith 2017, "Cyclical learning rates for training neural networks", section 3.3, with a rate that
grows exponentially: small rates learn nothing, good ones let the loss fall, and large ones make
it grow.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from nnctl.config import Settings
from nnctl.datasets import DataSet
from nnctl.datasets.batches import shuffled
from nnctl.errors import Diverged
from nnctl.nn.functions import Array
from nnctl.training.engine import Engine, split_data

LOWEST, HIGHEST = 1e-5, 10.0
STEPS = 200  # from the one to the other
RATES = [LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1)) for step in range(STEPS)]
SEEDS = 3
SMOOTHING = 0.9  # of a running mean, that what one batch happens to be does not decide
EXPLODED = 2.0  # times the loss of the first steps: larger rates are not tried
BELOW = 3.0  # the suggestion is the rate with the lowest loss, divided by this


@dataclass(frozen=True, kw_only=True)
class RatePoint:
    """What the loss was when the learning rate had grown so far."""

    learning_rate: float
    loss: float | None  # the median over the seeds; None: for most of them it had exploded


@dataclass(frozen=True, kw_only=True)
class RateCurve:
    """The fields of `nnctl lr-find --json`."""

    name: str
    dataset: str
    seeds: list[int]
    batch_size: int
    suggestion: float
    lowest: RatePoint
    points: list[RatePoint]


def find_learning_rate(settings: Settings, data: DataSet, threads: int | None) -> RateCurve:
    """Train three fresh networks while the learning rate grows; the schedule takes no part.

    Raises:
        ConfigError: the settings ask for more images than there are, or leave none.
        Diverged: not even the smallest rate has a loss.

    """
    seeds = [settings.seed + offset for offset in range(SEEDS)]
    curves = [_losses(replace(settings, seed=seed), data, threads) for seed in seeds]
    points = []
    for rate, losses in zip(RATES, zip(*curves, strict=True), strict=True):
        median = statistics.median(losses)
        loss = median if math.isfinite(median) else None
        points.append(RatePoint(learning_rate=rate, loss=loss))
    finite = [point for point in points if point.loss is not None]
    if not finite:
        raise Diverged(
            f"the loss is not finite even at learning rate {LOWEST:g}\n"
            "start with smaller weights (he_normal)"
        )
    lowest = min(finite, key=lambda point: point.loss or 0.0)
    return RateCurve(
        name=settings.name,
        dataset=data.name,
        seeds=seeds,
        batch_size=settings.training.batch_size,
        suggestion=float(f"{lowest.learning_rate / BELOW:.2g}"),  # it is no more exact
        lowest=lowest,
        points=points,
    )


def _losses(settings: Settings, data: DataSet, threads: int | None) -> list[float]:
    """Return the smoothed batch loss at each rate, infinity from where it has exploded."""
    split = split_data(settings, data)
    batch_size = min(settings.training.batch_size, len(split.train))
    smoothed: list[float] = []
    mean = weight = 0.0
    with closing(Engine(settings, data, split, batch_size, threads)) as engine:
        engine.start()
        batches = _batches(engine, split.train, settings.seed, batch_size)
        for step, (rate, (start, stop)) in enumerate(zip(RATES, batches, strict=False), 1):
            loss = engine.learn(start, stop, step, rate)
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            weight = SMOOTHING * weight + (1 - SMOOTHING)
            smoothed.append(mean / weight)
            if not smoothed[-1] <= EXPLODED * smoothed[0]:
                smoothed[-1] = math.inf
                break
    return smoothed + [math.inf] * (len(RATES) - len(smoothed))


def _batches(engine: Engine, train: Array, seed: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of one mini-batch after another, in the order of training."""
    epoch = 0
    while True:
        epoch += 1
        engine.order[:] = shuffled(train, seed, epoch)
        for start in range(0, len(train), batch_size):
            yield start, min(start + batch_size, len(train))
