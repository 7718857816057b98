"""A team computes what one process computes, to rounding, and the same bytes each time."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import numpy as np
import pytest

from nnctl.config import Settings
from nnctl.datasets import DataSet
from nnctl.nn.functions import Array
from nnctl.nn.losses import SoftmaxWithLoss
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.training.engine import FIRST, NORM, REST, Engine, build_network, split_data
from nnctl.training.evaluation import chunks

Start = Callable[..., Engine]


@pytest.fixture
def start(tiny_settings: Callable[..., Settings], tiny_data: DataSet) -> Iterator[Start]:
    """Return what starts an engine that will learn from the first 80 training images in order."""
    with ExitStack() as stack:

        def engine(threads: int, **changes: Any) -> Engine:
            network = [{"affine": 6}, "tanh", {"affine": 5}]
            settings = tiny_settings(**{"network": network} | changes)
            parts = split_data(settings, tiny_data)
            made = stack.enter_context(closing(Engine(settings, tiny_data, parts, 25, threads)))
            made.order[:] = parts.train
            made.start()
            return made

        yield engine


def gradient(engine: Engine, start: int, stop: int) -> Array:
    """Return the gradient of the samples' mean loss, of all ranks together."""
    engine.team.run([FIRST, REST, NORM], start, stop, 1, 0.0)
    engine.settle()
    whole = np.full(engine.network.size, np.nan, np.float32)
    for member in engine.members:
        for part in member.parts:
            place = place_of(part.w, engine.network.parameters)
            assert np.isnan(whole[place]).all()  # nobody else has it
            whole[place] = part.dw
    return whole


def place_of(part: Array, whole: Array) -> slice:
    """Return where in `whole` the view `part` of it lies."""
    start = (part.ctypes.data - whole.ctypes.data) // whole.itemsize
    return slice(start, start + len(part))


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize(("start_at", "stop"), [(0, 25), (75, 80), (40, 42), (7, 8)])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "mean_squared_error"])
def test_gradients_of_a_team_add_up_to_those_of_one_process(
    start: Start, threads: int, start_at: int, stop: int, loss: str
) -> None:
    alone, team = start(1, loss=loss), start(threads, loss=loss)
    gradients = [gradient(engine, start_at, stop) for engine in (alone, team)]
    assert np.abs(gradients[0]).max() > 0.01
    np.testing.assert_allclose(gradients[1], gradients[0], rtol=1e-4, atol=1e-7)
    losses = [engine.learn(start_at, stop, 1, 0.1) for engine in (alone, team)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "network",
    [
        [{"affine": 5}],
        ["relu", {"affine": 6}, "gelu", {"affine": 4}, "relu", {"affine": 5}],
        [{"dropout": 0.0}, {"affine": 6}, "batch_norm", "relu", {"affine": 5}],
        ["batch_norm", {"affine": 6}, "relu", {"affine": 5}],
    ],
)
def test_gradient_is_that_of_the_network_in_one_piece(
    start: Start,
    tiny_settings: Callable[..., Settings],
    tiny_data: DataSet,
    network: list[Any],
    threads: int,
) -> None:
    engine = start(threads, network=network)
    whole, loss = build_network(tiny_settings(network=network), 12), SoftmaxWithLoss()
    whole.parameters[:] = engine.network.parameters
    samples = engine.order[:25]
    x = tiny_data.train.images[samples] / np.float32(255)
    loss.forward(whole.forward(x, training=True), tiny_data.train.labels[samples])
    whole.backward(loss.backward())
    np.testing.assert_allclose(gradient(engine, 0, 25), whole.gradients, rtol=1e-4, atol=1e-6)


def test_member_without_a_sample_adds_nothing_that_it_still_has(start: Start) -> None:
    alone, team = start(1), start(3)
    gradient(team, 0, 25)  # now each member has a gradient, and a loss
    np.testing.assert_allclose(gradient(team, 7, 8), gradient(alone, 7, 8), rtol=1e-4, atol=1e-7)
    losses = [engine.learn(7, 8, 1, 0.1) for engine in (alone, team)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def parameters(engine: Engine, steps: int = 4) -> Array:
    """Return all parameters after some steps, the last of them a small one."""
    for step in range(1, steps + 1):
        engine.learn(25 * step - 25, min(25 * step, 80), step, 0.05)
    engine.settle()
    return engine.network.parameters.copy()


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_parts_of_the_update_make_up_the_whole(start: Start, kind: str, threads: int) -> None:
    # The weights decay, the biases behind them don't: no part may mistake its place.
    optimizer = {"kind": kind, "weight_decay": 0.5}
    alone, team = (start(n, optimizer=optimizer) for n in (1, threads))
    before = alone.network.parameters.copy()
    expected = parameters(alone)
    assert np.abs(expected - before).max() > 0.01
    np.testing.assert_allclose(parameters(team), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("threads", [2, 3])
def test_clipping_knows_the_norm_of_the_whole_gradient(start: Start, threads: int) -> None:
    options = {"optimizer": {"kind": "sgd"}, "training": {"clip_norm": 0.01}}
    ways = []
    for count in (1, threads):
        engine = start(count, **options)
        before = engine.network.parameters.copy()
        engine.learn(0, 25, 1, 1.0)
        engine.settle()
        ways.append(before - engine.network.parameters)
    assert math.sqrt(float(ways[0] @ ways[0])) == pytest.approx(0.01, rel=1e-3)
    np.testing.assert_allclose(ways[1], ways[0], atol=1e-6)


@pytest.mark.parametrize("clip_norm", [None, 0.1])
@pytest.mark.parametrize("threads", [2, 3])
def test_who_does_a_share_changes_no_byte(
    start: Start, threads: int, clip_norm: float | None
) -> None:
    """The caller does it when workers are late, which is nobody's choice."""

    def weights(alone: Callable[[], bool]) -> bytes:
        network = [{"affine": 6}, "gelu", {"dropout": 0.3}, {"affine": 5}]
        engine = start(threads, network=network, training={"clip_norm": clip_norm})
        run = engine.team.run

        def sometimes_alone(tasks: Sequence[int], *numbers: float, overlap: bool = False) -> None:
            engine.team._alone_until = time.monotonic() + 60 if alone() else 0.0
            run(tasks, *numbers, overlap=overlap)

        engine.team.run = sometimes_alone  # type: ignore[method-assign]
        return parameters(engine).tobytes()

    together = weights(lambda: False)
    assert weights(lambda: True) == together
    dice = random.Random(3)
    for _ in range(5):
        assert weights(lambda: dice.random() < 0.5) == together


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_measuring_does_not_depend_on_the_team(
    start: Start, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With the usual chunks, all of the tiny data set is one.
    monkeypatch.setattr("nnctl.training.engine.chunks", partial(chunks, size=13))
    measured = [start(threads).measure(part) for threads in (1, 2, 3)]
    for other in measured[1:]:
        assert other.losses.tobytes() == measured[0].losses.tobytes()
        assert other.predictions.tobytes() == measured[0].predictions.tobytes()
        assert other.probabilities.tobytes() == measured[0].probabilities.tobytes()
    assert measured[0].losses.min() > 0  # each sample was measured
