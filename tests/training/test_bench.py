from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from nnctl.config import Settings
from nnctl.datasets import DataSet
from nnctl.datasets.augmentation import Augmenter
from nnctl.datasets.batches import Gatherer
from nnctl.nn.optimizers import Optimizer
from nnctl.training import bench, process_group
from nnctl.training.bench import benchmark
from nnctl.training.engine import Engine, split_data
from nnctl.training.shared_step import SharedStep

Make = Callable[..., Settings]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BLOCK_SECONDS", 0.001)
    monkeypatch.setattr(bench, "BLOCKS", 3)
    monkeypatch.setattr(bench, "usable_cores", lambda: 1)


def test_figures_of_a_step_agree_with_each_other(tiny_settings: Make, tiny_data: DataSet) -> None:
    result = benchmark(tiny_settings(), tiny_data, threads=1)
    assert (result.threads, result.processes, result.batch_size) == (1, 1, 25)
    assert result.parameters == 12 * 6 + 6 + 6 * 5 + 5
    assert result.samples_per_second == pytest.approx(25 / result.step_seconds)
    assert result.ratio == pytest.approx(result.step_seconds / result.products_seconds)
    # Two products of the first layer, three of the second; each a multiplication and an addition.
    operations = 2 * 25 * (2 * 12 * 6 + 3 * 6 * 5)
    assert result.gflops == pytest.approx(operations / result.step_seconds / 1e9)
    assert result.products_gflops == pytest.approx(operations / result.products_seconds / 1e9)


@pytest.mark.parametrize("threads", [1, 2])
def test_phases_and_rest_make_up_the_step(
    tiny_settings: Make, tiny_data: DataSet, threads: int
) -> None:
    result = benchmark(tiny_settings(), tiny_data, threads)
    phases = asdict(result.phases)
    assert list(phases) == ["gather", "forward", "loss", "backward", "optimizer", "rest"]
    assert all(seconds > 0 for phase, seconds in phases.items() if phase != "rest")
    assert sum(phases.values()) == pytest.approx(result.step_seconds)


@pytest.mark.parametrize(
    ("owner", "method", "phase"),
    [
        (Gatherer, "images", "gather"),
        (Augmenter, "__call__", "gather"),
        (Optimizer, "decay", "optimizer"),
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_what_takes_long_is_seen_in_its_phase(
    tiny_settings: Make,
    tiny_data: DataSet,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    method: str,
    phase: str,
    threads: int,
) -> None:
    work = getattr(owner, method)

    def slow(*arguments: Any) -> Any:
        time.sleep(0.002)
        return work(*arguments)

    monkeypatch.setattr(owner, method, slow)
    settings = tiny_settings(data={"augment": {"shift": 1}})
    result = benchmark(settings, tiny_data, threads)
    phases = asdict(result.phases)
    del phases["rest"]  # the caller waits for a worker that is as slow
    assert max(phases, key=lambda name: phases[name]) == phase
    assert result.step_seconds > 0.002


def test_waiting_for_another_process_is_in_the_rest(
    tiny_settings: Make, tiny_data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    multiply = SharedStep.multiply

    def late(shared: SharedStep, *arguments: Any) -> None:
        if shared.rank:
            time.sleep(0.002)
        multiply(shared, *arguments)

    monkeypatch.setattr(SharedStep, "multiply", late)
    monkeypatch.setattr(process_group, "BLOCK", math.inf)  # never without the other one
    result = benchmark(tiny_settings(), tiny_data, threads=2)
    phases = asdict(result.phases)
    assert max(phases, key=lambda name: phases[name]) == "rest"


def test_bare_products_are_those_of_the_largest_share(
    tiny_settings: Make, tiny_data: DataSet
) -> None:
    result = benchmark(tiny_settings(training={"batch_size": 2}), tiny_data, threads=3)
    assert (result.processes, result.batch_size) == (3, 2)
    # Both samples with four of twelve pixels in the first layer, one of them in the second.
    share = 2 * (2 * 2 * 4 * 6 + 3 * 1 * 6 * 5)
    assert result.products_gflops == pytest.approx(share / result.products_seconds / 1e9)
    operations = 2 * 2 * (2 * 12 * 6 + 3 * 6 * 5)
    assert result.gflops == pytest.approx(operations / result.step_seconds / 1e9)


def tried(settings: Settings, data: DataSet, threads: int | None) -> list[tuple[int, int]]:
    result = benchmark(settings, data, threads)
    assert all(trial.samples_per_second > 0 for trial in result.alternatives)
    return [(trial.threads, trial.batch_size) for trial in result.alternatives]


def test_other_threads_and_a_larger_batch_are_tried_where_they_can_be_used(
    tiny_settings: Make, tiny_data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tiny_settings(training={"batch_size": 10})
    whole = tiny_settings(training={"batch_size": 1000})
    assert tried(small, tiny_data, None) == [(1, 40)]
    assert tried(tiny_settings(), tiny_data, 1) == [(1, 80)]  # there are no more
    assert tried(whole, tiny_data, 1) == []
    monkeypatch.setattr(bench, "usable_cores", lambda: 3)
    assert tried(whole, tiny_data, 1) == [(2, 80), (3, 80)]
    assert tried(whole, tiny_data, 2) == [(1, 80), (3, 80)]
    assert tried(tiny_settings(training={"batch_size": 1}), tiny_data, 1) == [(1, 4)]


def test_batch_norm_is_measured_in_one_process(
    tiny_settings: Make, tiny_data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "usable_cores", lambda: 3)
    settings = tiny_settings(network=[{"affine": 6}, "batch_norm", {"affine": 5}])
    result = benchmark(settings, tiny_data, threads=2)
    assert (result.threads, result.processes) == (2, 1)
    assert [trial.batch_size for trial in result.alternatives] == [80]


def test_few_of_many_cores_are_tried() -> None:
    assert [list(bench._counts(most)) for most in (1, 2, 6, 64)] == [
        [1],
        [1, 2],
        [1, 2, 4, 6],
        [1, 2, 4, 8, 16, 32, 64],
    ]


def test_steps_leave_the_weights_alone_whatever_the_learning_rate(
    tiny_settings: Make, tiny_data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that diverged, or stopped learning, might take another time."""
    engines: list[Engine] = []
    start = Engine.start

    def remember(engine: Engine) -> None:
        engines.append(engine)
        start(engine)

    monkeypatch.setattr(Engine, "start", remember)
    settings = tiny_settings(optimizer={"kind": "adamw", "learning_rate": 1e30})
    benchmark(settings, tiny_data, threads=1)
    assert len(engines) == 3
    fresh = Engine(settings, tiny_data, split_data(settings, tiny_data), 25, 1)
    for engine in engines:
        assert (engine.network.parameters == fresh.network.parameters).all()
