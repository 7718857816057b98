"""The table of `nnctl bench`, and its line of advice."""

from __future__ import annotations

from dataclasses import asdict

from rich.table import Table

from nnctl.display.output import console
from nnctl.training.bench import Benchmark

WORTH_SAYING = 1.1  # times as fast; less is noise
MUCH_BESIDE = 1.5  # times the bare products; above it the batches are too small for the machine


def print_benchmark(result: Benchmark) -> None:
    """Print where the time of a step goes, the rates and the advice."""
    out = console()
    table = Table(title="One training step", title_justify="left", show_footer=True)
    table.add_column("phase", "whole step")
    table.add_column("microseconds", f"{result.step_seconds * 1e6:,.0f}", justify="right")
    table.add_column("share", "100 %", justify="right")
    for phase, seconds in asdict(result.phases).items():
        share = seconds / result.step_seconds
        table.add_row(phase, f"{seconds * 1e6:,.0f}", f"{share:.0%}".replace("%", " %"))
    out.print(table)
    out.print(
        f"{result.parameters:,} parameters, batch size {result.batch_size}, "
        f"threads {result.threads}\n"
        f"{result.samples_per_second:,.0f} images a second, {result.gflops:.0f} GFLOP/s\n"
        f"{result.ratio:.2f} times the bare matrix products of a thread's share "
        f"({result.products_seconds * 1e6:,.0f} microseconds, {result.products_gflops:.0f} GFLOP/s)"
    )
    out.print(f"Advice: {advice(result)}", style="bold")


def advice(result: Benchmark) -> str:
    """Return the one thing that would help most, or that nothing would."""
    by_threads = result.step_seconds_by_threads
    best = min(by_threads, key=by_threads.__getitem__)
    gain = result.step_seconds / by_threads[best]
    if gain > WORTH_SAYING:
        return f"--threads {best} is {gain:.1f} times as fast here."
    if result.ratio > MUCH_BESIDE:
        return (
            "much of the step is not matrix products; a larger training.batch_size makes an "
            "epoch faster (and wants a larger learning rate)."
        )
    others = [
        f"{seconds / by_threads[best]:.1f} times as long with --threads {n}"
        for n, seconds in by_threads.items()
        if n != best
    ]
    compared = f": a step takes {', '.join(others)}" if others else ""
    return f"threads and batch size suit this machine{compared}."
