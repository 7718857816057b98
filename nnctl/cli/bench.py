"""`nnctl bench`: where the time of a training step goes on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nnctl.cli.options import (
    config_option,
    data_options,
    help_end,
    json_option,
    run_option,
    runs_dir_option,
    set_options,
)

if TYPE_CHECKING:
    from nnctl.datasets import Source


@click.command(epilog=help_end("nnctl bench --config two-layer --batch-size 32", 4, 5))
@config_option
@run_option
@set_options
@runs_dir_option
@json_option
@data_options
def command(
    config: str | None,
    run: str | None,
    overrides: tuple[tuple[str, str], ...],
    runs_dir: Path,
    as_json: bool,
    source: Source,
    threads: int | None,
) -> None:
    """Time a training step against the bare matrix products of the same shapes.

    Shows where the rest of the time goes, and whether another number of threads or another
    batch size would be faster here. Takes a few seconds and writes nothing.
    """
    from nnctl.cli.loading import open_experiment
    from nnctl.display.output import print_json
    from nnctl.training.bench import benchmark
    from nnctl.training.threads import requested

    experiment = open_experiment(config, run, overrides, runs_dir, source, quiet=as_json)
    result = benchmark(experiment.settings, experiment.data, threads or requested())
    if as_json:
        print_json(result)
    else:
        from nnctl.display.bench import print_benchmark

        print_benchmark(result)
