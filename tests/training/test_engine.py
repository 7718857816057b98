"""Several processes compute what one computes, to rounding, and the same bytes each time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import numpy as np
import pytest

from nnctl.config import Settings
from nnctl.datasets import DataSet
from nnctl.datasets.augmentation import Augmentation, Augmenter
from nnctl.datasets.batches import Gatherer
from nnctl.nn.functions import Array
from nnctl.nn.losses import SoftmaxWithLoss
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.training.engine import Engine, build_network, split_data
from nnctl.training.evaluation import chunks
from nnctl.training.process_group import Pace, in_lockstep
from nnctl.training.shared_step import SharedStep

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
    samples = engine.order[start:stop]
    if not engine.shards:
        engine.step.backpropagate(samples, 1)
        return engine.network.gradients.copy()
    in_lockstep([shared.backpropagate(samples, 1) for shared in engine.shards])
    whole = np.full(engine.network.size, np.nan, np.float32)
    for shared in engine.shards:
        for part in shared.parameters:
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
def test_shared_gradients_add_up_to_those_of_one_process(
    start: Start, threads: int, start_at: int, stop: int, loss: str
) -> None:
    alone, group = start(1, loss=loss), start(threads, loss=loss)
    gradients = [gradient(engine, start_at, stop) for engine in (alone, group)]
    assert np.abs(gradients[0]).max() > 0.01
    np.testing.assert_allclose(gradients[1], gradients[0], rtol=1e-4, atol=1e-7)
    losses = [engine.learn(start_at, stop, 1, 0.1) for engine in (alone, group)]
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


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("start_at", "stop"), [(0, 25), (7, 8)])
def test_gradient_is_that_of_the_images_which_the_epoch_sees(
    start: Start,
    tiny_settings: Callable[..., Settings],
    tiny_data: DataSet,
    threads: int,
    start_at: int,
    stop: int,
) -> None:
    engine = start(threads, data={"augment": {"shift": 1, "rotate": 20, "scale": 0.2}})
    change = Augmenter(Augmentation(1, 20, 0.2), tiny_data.train.images, (4, 3), seed=0)
    network = [{"affine": 6}, "tanh", {"affine": 5}]
    whole, loss = build_network(tiny_settings(network=network), 12), SoftmaxWithLoss()
    whole.parameters[:] = engine.network.parameters
    samples = engine.order[start_at:stop]
    for epoch in (1, 2):
        engine.epoch[:] = epoch
        x = change(epoch, samples) / np.float32(255)
        loss.forward(whole.forward(x, training=True), tiny_data.train.labels[samples])
        whole.backward(loss.backward())
        found = gradient(engine, start_at, stop)
        np.testing.assert_allclose(found, whole.gradients, rtol=1e-4, atol=1e-6)


def test_rank_without_a_sample_adds_nothing_that_it_still_has(start: Start) -> None:
    alone, group = start(1), start(3)
    gradient(group, 0, 25)  # now each rank has a gradient, and a loss
    np.testing.assert_allclose(gradient(group, 7, 8), gradient(alone, 7, 8), rtol=1e-4, atol=1e-7)
    losses = [engine.learn(7, 8, 1, 0.1) for engine in (alone, group)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def parameters(engine: Engine, steps: int = 4) -> Array:
    """Return all parameters after some steps, the last of them a small one."""
    for step in range(1, steps + 1):
        engine.learn(25 * step - 25, min(25 * step, 80), step, 0.05)
    return engine.network.parameters.copy()


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_parts_of_the_update_make_up_the_whole(start: Start, kind: str, threads: int) -> None:
    # The weights decay, the biases behind them don't: no part may mistake its place.
    optimizer = {"kind": kind, "weight_decay": 0.5}
    alone, group = (start(n, optimizer=optimizer) for n in (1, threads))
    before = alone.network.parameters.copy()
    expected = parameters(alone)
    assert np.abs(expected - before).max() > 0.01
    np.testing.assert_allclose(parameters(group), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("threads", [2, 3])
def test_clipping_knows_the_norm_of_the_whole_gradient(start: Start, threads: int) -> None:
    options = {"optimizer": {"kind": "sgd"}, "training": {"clip_norm": 0.01}}
    ways = []
    for count in (1, threads):
        engine = start(count, **options)
        before = engine.network.parameters.copy()
        engine.learn(0, 25, 1, 1.0)
        ways.append(before - engine.network.parameters)
    assert math.sqrt(float(ways[0] @ ways[0])) == pytest.approx(0.01, rel=1e-3)
    np.testing.assert_allclose(ways[1], ways[0], atol=1e-6)


@pytest.mark.parametrize(("clip_norm", "augment"), [(None, {"shift": 1}), (0.1, None)])
@pytest.mark.parametrize("threads", [2, 3])
def test_who_computes_a_shard_changes_no_byte(
    start: Start, threads: int, clip_norm: float | None, augment: dict[str, float] | None
) -> None:
    """The caller does it while waiting for the workers takes longer, which is nobody's choice."""

    def weights(together: Callable[[], bool]) -> bytes:
        network = [{"affine": 6}, "gelu", {"dropout": 0.3}, {"affine": 5}]
        training, data = {"clip_norm": clip_norm}, {"augment": augment}
        engine = start(threads, network=network, training=training, data=data)

        class Chosen(Pace):
            def note(self, seconds: float) -> None:
                self.together = together()

        engine.group.pace = Chosen()
        return parameters(engine).tobytes()

    always = weights(lambda: True)
    assert weights(lambda: False) == always
    dice = random.Random(3)
    for _ in range(5):
        assert weights(lambda: dice.random() < 0.5) == always


@pytest.mark.parametrize("planted", ["a lost shard", "a wrong batch size", "a stale label"])
def test_planted_fault_of_the_shared_step_shows_in_its_gradients(
    start: Start, planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, group = start(1), start(2)
    expected = gradient(alone, 0, 25)
    learn, labels = SharedStep._learn, Gatherer.labels

    def wrong(shared: SharedStep, y: Array, samples: Array, batch: int, dout: Array) -> None:
        learn(shared, y, samples, len(samples) if planted == "a wrong batch size" else batch, dout)
        if planted == "a lost shard" and shared.rank == 1:
            dout[...] = 0

    def stale(gather: Gatherer, indices: Array) -> Array:
        return labels(gather, np.roll(indices, 1) if planted == "a stale label" else indices)

    monkeypatch.setattr(SharedStep, "_learn", wrong)
    monkeypatch.setattr(Gatherer, "labels", stale)
    assert not np.allclose(gradient(group, 0, 25), expected, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_measuring_does_not_depend_on_the_processes(
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
