from collections.abc import Callable
from dataclasses import asdict

import pytest

from nnctl.config import Settings
from nnctl.datasets import DataSet
from nnctl.display.bench import advice
from nnctl.training import bench
from nnctl.training.bench import Benchmark, Phases, benchmark


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BLOCK_SECONDS", 0.001)
    monkeypatch.setattr(bench, "BLOCKS", 3)


def test_phases_and_rest_make_up_the_step(
    tiny_settings: Callable[..., Settings], tiny_data: DataSet
) -> None:
    result = benchmark(tiny_settings(), tiny_data, threads=1)
    phases = asdict(result.phases)
    assert list(phases) == ["gather", "forward", "loss", "backward", "optimizer", "rest"]
    assert min(phases.values()) >= 0
    assert sum(phases.values()) >= result.step_seconds * 0.999
    assert (result.threads, result.batch_size, result.parameters) == (1, 25, 12 * 6 + 6 + 6 * 5 + 5)
    assert result.ratio == result.step_seconds / result.products_seconds
    assert result.samples_per_second == pytest.approx(25 / result.step_seconds)
    # Two products of the first layer, three of the second, two operations a multiplication.
    operations = 2 * 25 * (2 * 12 * 6 + 3 * 6 * 5)
    assert result.gflops == pytest.approx(operations / result.step_seconds / 1e9)


def test_other_numbers_of_threads_are_timed_too(
    tiny_settings: Callable[..., Settings],
    tiny_data: DataSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench, "usable_cores", lambda: 3)
    result = benchmark(tiny_settings(), tiny_data, threads=2)
    assert list(result.step_seconds_by_threads) == [1, 2, 3]
    assert result.step_seconds_by_threads[2] == result.step_seconds
    network = [{"affine": 6}, "batch_norm", {"affine": 5}]
    result = benchmark(tiny_settings(network=network), tiny_data, threads=1)
    assert list(result.step_seconds_by_threads) == [1]  # it is computed in one piece anyway


def made(step: float, products: float, by_threads: dict[int, float]) -> Benchmark:
    return Benchmark(
        threads=2,
        batch_size=100,
        parameters=1,
        step_seconds=step,
        samples_per_second=1.0,
        gflops=1.0,
        phases=Phases(gather=0, forward=0, loss=0, backward=0, optimizer=0, rest=0),
        products_seconds=products,
        products_gflops=1.0,
        ratio=step / products,
        step_seconds_by_threads=by_threads,
    )


def test_advice_names_what_would_help_most() -> None:
    assert advice(made(3.0, 1.0, {1: 2.0, 2: 3.0})) == "--threads 1 is 1.5 times as fast here."
    assert "batch_size" in advice(made(3.0, 1.0, {1: 4.0, 2: 3.0}))
    fine = advice(made(1.2, 1.0, {1: 1.8, 2: 1.2, 3: 2.4}))
    suits, compared = fine.split(": ")
    assert suits == "threads and batch size suit this machine"
    assert compared == (
        "a step takes 1.5 times as long with --threads 1, 2.0 times as long with --threads 3."
    )
    assert advice(made(1.2, 1.0, {2: 1.2})) == "threads and batch size suit this machine."
