"""The table of `nnctl bench`, and its line of advice."""

from __future__ import annotations

from dataclasses import asdict

from nnctl.display.output import console
from nnctl.display.tables import figures
from nnctl.training.bench import Benchmark

WORTH_OTHER_THREADS = 1.1  # times as fast; less is noise
WORTH_LARGER_BATCHES = 1.5  # they cost something, too: fewer updates an epoch


def print_benchmark(result: Benchmark) -> None:
    """Print where the time of a step goes, the rates and the advice."""
    out = console()
    rows = [*asdict(result.phases).items(), ("whole step", result.step_seconds)]
    cells = [
        (phase, f"{seconds * 1e6:,.0f}", f"{seconds / result.step_seconds * 100:.0f} %")
        for phase, seconds in rows
    ]
    unused = " (batch_norm can use 1)" if result.processes < result.threads else ""
    out.print(
        f"{result.parameters:,} parameters, batch size {result.batch_size:,}, "
        f"threads {result.threads}{unused}\n"
    )
    out.print(figures(["", "microseconds", "share"], cells))
    whose = "the batch" if result.processes == 1 else "a thread's share of the step"
    out.print(
        f"\n{result.samples_per_second:,.0f} images a second, {result.gflops:,.1f} GFLOP/s\n"
        f"{result.ratio:.2f} times the bare matrix products of {whose} "
        f"({result.products_seconds * 1e6:,.0f} microseconds, {result.products_gflops:,.1f} "
        "GFLOP/s)"
    )
    if result.alternatives:
        rates = [
            (f"{trial.threads}", f"{trial.batch_size:,}", f"{trial.samples_per_second:,.0f}")
            for trial in result.alternatives
        ]
        out.print("\nWhat else was tried:")
        out.print(figures(["threads", "batch size", "images a second"], rates))
    out.print(f"\nAdvice: {advice(result)}", style="bold")


def advice(result: Benchmark) -> str:
    """Return the one change that would help most, or that none of those tried would."""
    for trial in sorted(result.alternatives, key=lambda trial: -trial.samples_per_second):
        gain = trial.samples_per_second / result.samples_per_second
        if trial.batch_size == result.batch_size:
            if gain > WORTH_OTHER_THREADS:
                return f"--threads {trial.threads} is {gain:.1f} times as fast here."
        elif gain > WORTH_LARGER_BATCHES:
            return (
                f"--batch-size {trial.batch_size} takes {gain:.1f} times as many images a second; "
                "it makes fewer updates of them, so raise the learning rate, too."
            )
    return "threads and batch size suit this machine."
