import io
import sys
from dataclasses import replace

import pytest

from nnctl.display.bench import advice, print_benchmark
from nnctl.training.bench import Benchmark, Phases, Trial


def measured(*alternatives: Trial) -> Benchmark:
    """Return what was measured with two threads and batches of 100: 1,000 images a second."""
    return Benchmark(
        threads=2,
        processes=2,
        batch_size=100,
        parameters=39_760,
        step_seconds=0.1,
        samples_per_second=1000.0,
        gflops=0.25,
        phases=Phases(
            gather=0.01, forward=0.03, loss=0.01, backward=0.03, optimizer=0.015, rest=0.005
        ),
        products_seconds=0.05,
        products_gflops=0.5,
        ratio=2.0,
        alternatives=list(alternatives),
    )


def threads(count: int, rate: float) -> Trial:
    return Trial(threads=count, batch_size=100, samples_per_second=rate)


def batches(size: int, rate: float) -> Trial:
    return Trial(threads=2, batch_size=size, samples_per_second=rate)


FINE = "threads and batch size suit this machine."


def test_advice_leaves_well_alone() -> None:
    assert advice(measured()) == FINE
    assert advice(measured(threads(1, 500), threads(4, 1050), batches(400, 1400))) == FINE


def test_advice_names_faster_threads() -> None:
    assert advice(measured(threads(1, 1500))) == "--threads 1 is 1.5 times as fast here."
    several = measured(threads(1, 1200), threads(4, 2000), batches(400, 1400))
    assert advice(several) == "--threads 4 is 2.0 times as fast here."


def test_advice_names_a_larger_batch_and_its_price() -> None:
    text = advice(measured(threads(1, 1200), batches(400, 2500)))
    assert text.startswith("--batch-size 400 takes 2.5 times as many images a second")
    assert "fewer updates" in text
    assert "learning rate" in text


def test_advice_is_the_change_that_helps_most() -> None:
    assert "--batch-size" in advice(measured(threads(1, 1200), batches(400, 1600)))
    assert "--threads" in advice(measured(threads(1, 1700), batches(400, 1600)))
    # The larger batch is faster still, but not by enough to pay for fewer updates.
    assert "--threads" in advice(measured(threads(1, 1200), batches(400, 1400)))


def printed(result: Benchmark, monkeypatch: pytest.MonkeyPatch, columns: int) -> str:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", str(columns))
    print_benchmark(result)
    return stream.getvalue()


@pytest.mark.parametrize("columns", [30, 40, 80])
def test_table_fits_and_needs_no_unicode(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    text = printed(measured(threads(1, 500), batches(400, 1400)), monkeypatch, columns)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= columns
    lines = [line.split() for line in text.splitlines()]
    assert ["forward", "30,000", "30", "%"] in lines
    assert ["rest", "5,000", "5", "%"] in lines
    assert ["whole", "step", "100,000", "100", "%"] in lines
    assert ["1", "100", "500"] in lines
    assert ["2", "400", "1,400"] in lines
    words = " ".join(text.split())
    assert "39,760 parameters, batch size 100, threads 2 " in words
    assert "1,000 images a second, 0.2 GFLOP/s" in words
    assert "2.00 times the bare matrix products of a thread's share of the step" in words
    assert words.endswith(f"Advice: {FINE}")


def test_table_says_when_batch_norm_leaves_threads_unused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = printed(replace(measured(), processes=1), monkeypatch, 80)
    assert "threads 2 (batch_norm can use 1)" in text
    assert "bare matrix products of the batch" in text
    assert "tried" not in text
