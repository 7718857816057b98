"""`nnctl bench`: where the time of a training step goes on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from nnctl.cli.options import experiment_options, help_end, threads_option

if TYPE_CHECKING:
    from nnctl.runs.experiment import Experiment


@click.command(epilog=help_end("nnctl bench --config two-layer --batch-size 32", 4, 5))
@experiment_options
@threads_option
def command(experiment: Callable[[], Experiment], as_json: bool, threads: int | None) -> None:
    """Time a training step against the bare matrix products of the same shapes.

    Shows where the time goes, and whether another number of threads or a larger batch would be
    faster here. `rest` is the loop itself and, with several threads, waiting for the others and
    adding up what they computed. Takes a few seconds and writes nothing.

    --json: threads, processes (that share a step; 1 with batch_norm), batch_size, parameters,
    step_seconds, samples_per_second, gflops (of the matrix products, over the whole step);
    phases, the seconds of gather, forward, loss, backward, optimizer and rest, which make up
    step_seconds; products_seconds, products_gflops (the bare matrix products of one process's
    share of the step), ratio (step_seconds / products_seconds); alternatives, each with threads,
    batch_size and samples_per_second.
    """
    from nnctl.display.output import print_json
    from nnctl.training.bench import benchmark
    from nnctl.training.threads import requested

    opened = experiment()
    result = benchmark(opened.settings, opened.data, threads or requested())
    if as_json:
        print_json(result)
    else:
        from nnctl.display.bench import print_benchmark

        print_benchmark(result)
