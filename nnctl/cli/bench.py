"""`nnctl bench`: where the time of a training step goes on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from nnctl.cli.options import experiment_options, help_end, threads_option

if TYPE_CHECKING:
    from nnctl.cli.loading import Experiment


@click.command(epilog=help_end("nnctl bench --config two-layer --batch-size 32", 4, 5))
@experiment_options
@threads_option
def command(experiment: Callable[[], Experiment], as_json: bool, threads: int | None) -> None:
    """Time a training step against the bare matrix products of the same shapes.

    Shows where the rest of the time goes, and whether another number of threads or another
    batch size would be faster here. Takes a few seconds and writes nothing.
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
