"""`nnctl report`: one page about one or several runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nnctl.cli.options import data_options, help_end, runs_dir_option
from nnctl.errors import UsageError

if TYPE_CHECKING:
    from nnctl.datasets import Source


@click.command(
    epilog=help_end(
        "nnctl report latest --output run.html\nnnctl report 'lr0.3*' --output runs.html", 4, 5
    )
)
@click.argument("names", metavar="[RUN]...", nargs=-1)
@click.option(
    "--output",
    metavar="FILE.html",
    type=click.Path(path_type=Path, dir_okay=False, readable=False),
    required=True,
    help="Where to write the page; - is standard output.",
)
@click.option(
    "--split",
    "split",
    type=click.Choice(["test", "validation", "train"]),
    help="The samples to measure on; default test, or validation for a run that has not read the "
    "test set itself.",
)
@runs_dir_option
@data_options
def command(
    names: tuple[str, ...],
    output: Path,
    split: str | None,
    runs_dir: Path,
    source: Source,
    threads: int | None,
) -> None:
    """Write one self-contained page about one or several runs.

    It shows the curves, the verdict on overfitting, accuracy and loss as `nnctl evaluate` measures
    them, classes, confusions and mistakes, the first layer's weights, the config, and what ran
    where. It needs no script and makes no request; the same runs give the same bytes.
    RUN is a run's path, its name under --runs-dir, a pattern, or by default `latest`.
    """
    from nnctl.cli.loading import find_checkpoint, open_data, warn_of_other_data
    from nnctl.display.output import print_path, write_result
    from nnctl.report.contents import measure, split_of
    from nnctl.report.page import to_html
    from nnctl.runs.find import find_runs
    from nnctl.runs.folder import LATEST
    from nnctl.runs.run import read_stored_run
    from nnctl.training.threads import requested

    contents = []
    for run in find_runs(names or [LATEST], runs_dir):
        record = read_stored_run(run)
        part = split or split_of(run, record.settings)
        if part == "validation" and not record.settings.data.validation:
            raise UsageError(f"--split validation: {run} held no validation images out")
        checkpoint, _, which = find_checkpoint(str(run), runs_dir)
        parts = ("test",) if part == "test" else ("train",)
        data = open_data(checkpoint.settings, source, inputs=checkpoint.inputs, parts=parts)
        warn_of_other_data(checkpoint, data)
        contents.append(measure(record, checkpoint, which, data, part, threads or requested()))
    write_result(output, to_html(contents))
    if output != Path("-"):
        print_path(output)
