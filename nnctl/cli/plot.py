"""`nnctl plot`: the curves of runs, in the terminal or as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nnctl.cli.completion import complete_run
from nnctl.cli.options import OutputFile, help_end, runs_dir_option
from nnctl.errors import RunError, UsageError, printable

if TYPE_CHECKING:
    from nnctl.display.curves import Row
    from nnctl.runs.folder import RunFolder


@click.command(epilog=help_end("nnctl plot two-layer-001 two-layer-002 --log", 5))
@click.argument("names", metavar="[RUN]...", nargs=-1, shell_complete=complete_run)
@click.option(
    "--metric",
    type=click.Choice(["loss", "accuracy", "gap", "batch_loss"]),
    default="loss",
    show_default=True,
    help="What to draw; gap: validation loss - training loss; batch_loss: the loss of each step.",
)
@click.option("--log", is_flag=True, help="Draw the y axis logarithmically.")
@click.option(
    "--smooth",
    metavar="W",
    type=click.IntRange(min=1),
    default=1,
    help="Draw the mean of W epochs, or steps, around each.",
)
@click.option("--follow", is_flag=True, help="Redraw while the runs train, until they are over.")
@click.option(
    "--output",
    metavar="FILE",
    type=OutputFile(),
    help="Write a picture, .svg or .png, instead; - prints an SVG.",
)
@runs_dir_option
def command(
    names: tuple[str, ...],
    metric: str,
    log: bool,
    smooth: int,
    follow: bool,
    output: Path | None,
    runs_dir: Path,
) -> None:
    """Draw the curves of one or several runs in one chart; default the latest run.

    One or two runs are drawn with their training and validation curves, more with their
    validation curves alone. A run keeps its batch losses with --set training.log_steps=true.
    """
    from nnctl.display.charts import Chart
    from nnctl.display.curves import step_rows
    from nnctl.display.output import console, warn
    from nnctl.display.plot import check_picture, runs_chart, write_picture
    from nnctl.files import exists
    from nnctl.runs.find import distinct_names, find_runs
    from nnctl.runs.folder import LATEST, read_metrics, read_steps
    from nnctl.runs.lock import ended

    if output is not None:
        if follow:
            raise UsageError("--follow redraws the terminal: it can't be combined with --output")
        check_picture(output)
    runs = {run.path.resolve(): run for run in find_runs(names or [LATEST], runs_dir)}
    labels = dict(zip(runs, map(printable, distinct_names(list(runs.values()))), strict=True))

    def rows_of(run: RunFolder) -> Sequence[Row]:
        rows = read_metrics(run)
        if metric != "batch_loss":
            return rows
        return step_rows([row.batch_loss for row in read_steps(run)], rows)

    def chart() -> Chart:
        rows = {labels[path]: rows_of(run) for path, run in runs.items()}
        height = min(max(console().height - 6, 5), 20)
        return runs_chart(rows, metric, log=log, smooth=smooth, height=height)

    def all_ended() -> bool:
        return all(map(ended, runs.values()))

    if follow and not all_ended():
        from nnctl.display.region import redraw_until

        redraw_until(all_ended, chart)
    else:
        for path, run in runs.items():
            if not read_metrics(run):
                yet = "; the run has ended" if ended(run) else " yet\n--follow waits for one"
                raise RunError(f"{labels[path]}: no epoch is finished{yet}")
        if output is not None:
            write_picture(output, chart())
        else:
            console().print(chart())
    if follow:
        for path, run in runs.items():
            if not exists(run.summary):
                command = printable(run.resume_command())
                warn(f"{labels[path]}: was killed before its end; go on with: {command}")
