"""`nnctl lr-find`: which learning rate to begin with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from nnctl.cli.options import experiment_options, help_end, threads_option

if TYPE_CHECKING:
    from nnctl.runs.experiment import Experiment


@click.command(epilog=help_end("nnctl lr-find --config two-layer --set optimizer=adam", 4, 5, 6))
@experiment_options
@threads_option
def command(experiment: Callable[[], Experiment], as_json: bool, threads: int | None) -> None:
    """Draw the loss against a growing learning rate, and suggest one.

    Trains three fresh networks, with the config's seed and the next two, for 200 steps each, while
    the learning rate grows from 0.00001 to 10. Drawn is the median of their smoothed batch losses.
    The suggestion is a third of the rate at which it is lowest. Of a --run only the config counts.
    Takes seconds and writes nothing.

    --json: name, dataset, seeds, batch_size, suggestion, lowest (learning_rate and loss there),
    points (learning_rate and loss at each step; null where it has exploded).
    """
    from nnctl.display.output import print_json
    from nnctl.training.lr_find import find_learning_rate
    from nnctl.training.threads import requested

    opened = experiment()
    curve = find_learning_rate(opened.settings, opened.data, threads or requested())
    if as_json:
        print_json(curve)
        return
    from nnctl.display.lr_find import RateView
    from nnctl.display.output import console

    console().print(RateView(curve))
