"""`nnctl report`: one page about one or several runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nnctl.cli.completion import complete_run
from nnctl.cli.options import OutputFile, data_options, help_end, runs_dir_option
from nnctl.errors import UsageError, printable

if TYPE_CHECKING:
    from nnctl.datasets import Source
    from nnctl.report.contents import RunContents, SweepContents
    from nnctl.runs.folder import RunFolder
    from nnctl.sweeps.folder import SweepFolder


@click.command(
    epilog=help_end(
        "nnctl report latest --output run.html\nnnctl report 'lr0.3*' --output runs.html\n"
        "nnctl report ./sweeps/two-layer-001 --output sweep.html",
        4,
        5,
    )
)
@click.argument("names", metavar="[RUN]...", nargs=-1, shell_complete=complete_run)
@click.option(
    "--output",
    metavar="FILE.html",
    type=OutputFile(),
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
    Several runs stand side by side, with the tests of `nnctl runs compare`.

    RUN is a run's path, its name under --runs-dir, a pattern, or by default `latest`; or the path
    of a sweep's folder, such as ./sweeps/two-layer-001, for its trials and the winner's run.
    """
    from nnctl.display.output import print_path, write_result
    from nnctl.files import has_separator, is_file
    from nnctl.report.page import runs_page, sweep_page
    from nnctl.runs.find import distinct_names, find_runs
    from nnctl.runs.folder import LATEST
    from nnctl.sweeps.folder import SweepFolder
    from nnctl.training.threads import requested

    def measured(run: RunFolder, name: str | None = None) -> RunContents:
        return _measured(run, name, split, runs_dir, source, threads or requested())

    sweeps = [SweepFolder(Path(name)) for name in names if has_separator(name)]
    sweeps = [sweep for sweep in sweeps if is_file(sweep.sweep)]
    if not sweeps:
        runs = find_runs(names or [LATEST], runs_dir)
        content = runs_page(list(map(measured, runs, distinct_names(runs))))
    elif len(names) == 1:
        content = sweep_page(_read_sweep(sweeps[0], measured))
    else:
        raise UsageError(
            f"{printable(sweeps[0].path)}: a sweep has a page of its own: name nothing beside it"
        )
    write_result(output, content)
    if output != Path("-"):
        print_path(output)


def _measured(
    run: RunFolder,
    name: str | None,
    split: str | None,
    runs_dir: Path,
    source: Source,
    threads: int | None,
) -> RunContents:
    """Return all that a page shows of a run."""
    from nnctl.cli.loading import find_weights, open_data, warn_of_other_data
    from nnctl.report.contents import measure, split_of
    from nnctl.runs.run import read_stored_run

    record = read_stored_run(run, name)
    part = split or split_of(run, record.settings)
    if part == "validation" and not record.settings.data.validation:
        raise UsageError(f"--split validation: {printable(run)} held no validation images out")
    weights = find_weights(str(run), runs_dir)
    checkpoint = weights.checkpoint
    parts = ("test",) if part == "test" else ("train",)
    data = open_data(checkpoint.settings, source, inputs=checkpoint.inputs, parts=parts)
    warn_of_other_data(checkpoint, data)
    return measure(record, checkpoint, weights.which, data, part, threads)


def _read_sweep(sweep: SweepFolder, measured: Callable[[RunFolder], RunContents]) -> SweepContents:
    """Return all that a page shows of a sweep."""
    from nnctl.report.contents import SweepContents
    from nnctl.sweeps.folder import read_search, read_trials
    from nnctl.sweeps.outcome import rank_trials, read_outcome

    search = read_search(sweep)
    trials, outcome = read_trials(sweep, search), read_outcome(sweep)
    ranking = rank_trials(search, trials)
    best = outcome.best if outcome else ranking[0].trial if ranking else None
    winner = None if best is None else measured(sweep.run(best, search.seed))
    return SweepContents(search=search, trials=trials, outcome=outcome, best=best, winner=winner)
