"""`nnctl runs`: what was run, one run in full, several side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nnctl.cli.completion import complete_field, complete_run
from nnctl.cli.options import F, data_options, help_end, json_option, runs_dir_option
from nnctl.errors import CheckFailed, RunError, UsageError, printable

if TYPE_CHECKING:
    from nnctl.datasets import Source
    from nnctl.runs.run import StoredRun


@click.group(epilog=help_end("nnctl runs compare two-layer-001 two-layer-002", 3, 4, 5, 6))
def command() -> None:
    """List, show, compare and verify runs."""


csv_option = click.option("--csv", "as_csv", is_flag=True, help="Print CSV and nothing else.")


def by_option(default: str) -> Callable[[F], F]:
    """Add `--by`."""
    return click.option(
        "--by",
        metavar="FIELD",
        shell_complete=complete_field,
        help=f"Sort by a result or a setting, the best first; default: {default}.",
    )


@command.command("list", epilog=help_end("nnctl runs list --by test_accuracy", 5))
@click.argument("names", metavar="[RUN]...", nargs=-1, shell_complete=complete_run)
@by_option("the newest first")
@runs_dir_option
@json_option
@csv_option
def list_command(
    names: tuple[str, ...], by: str | None, runs_dir: Path, as_json: bool, as_csv: bool
) -> None:
    """List runs with their key settings and results.

    Without RUN all runs in --runs-dir. A folder that can't be read is named in a warning.
    """
    from nnctl.display.output import print_csv, print_json
    from nnctl.runs.compare import rank_runs

    _check_formats(as_json, as_csv)
    records = _read_runs(names, runs_dir)
    if by is None:
        records.sort(key=lambda record: (record.manifest.started, record.name), reverse=True)
    else:
        records = rank_runs(records, by)
    overviews = [record.overview() for record in records]
    if as_json:
        for overview in overviews:
            print_json(overview)
    elif as_csv:
        print_csv(overviews)
    elif overviews:
        from nnctl.display.runs import print_list

        print_list(overviews)
    else:
        click.echo(f"nnctl: no runs in {printable(runs_dir)} yet", err=True)


@command.command(epilog=help_end("nnctl runs show latest", 5))
@click.argument("run", metavar="[RUN]", default="latest", shell_complete=complete_run)
@runs_dir_option
@json_option
def show(run: str, runs_dir: Path, as_json: bool) -> None:
    """Show one run in full.

    Its config, the curves, the verdict on overfitting and the final figures.
    """
    from nnctl.cli.loading import find_run
    from nnctl.runs.run import read_stored_run

    record = read_stored_run(find_run(run, runs_dir))
    if as_json:
        import msgspec

        from nnctl.config import to_dict
        from nnctl.display.output import print_json

        history = msgspec.to_builtins(record.history)
        overfitting = record.summary and msgspec.to_builtins(record.summary.overfitting)
        print_json(
            {
                **record.overview(),
                "overfitting": overfitting,
                "config": to_dict(record.settings),
                "metrics": history,
            }
        )
    else:
        from nnctl.display.runs import print_run

        print_run(record)


@command.command(epilog=help_end("nnctl runs compare two-layer-001 two-layer-002", 5))
@click.argument("names", metavar="[RUN]...", nargs=-1, shell_complete=complete_run)
@by_option("validation_accuracy")
@click.option(
    "--split",
    type=click.Choice(["validation", "test"]),
    default="validation",
    show_default=True,
    help="The images whose stored predictions the best two are tested on.",
)
@runs_dir_option
@json_option
@csv_option
def compare(
    names: tuple[str, ...],
    by: str | None,
    split: str,
    runs_dir: Path,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Put runs side by side, the best first.

    Shown are the settings that differ, and the results; without RUN of all runs in --runs-dir.
    Whether the best two differ by more than chance is decided by McNemar's test on the predictions
    that they keep of their validation images. Runs that differ in the seed alone make a group: n,
    mean, standard deviation and 95 % t interval; of two groups also the difference, paired by seed.
    Where several runs have read the same test set: by how much choosing the best of them by it
    would flatter.
    """
    from dataclasses import asdict

    from nnctl.display.output import print_csv, print_json
    from nnctl.runs.compare import compare_runs

    _check_formats(as_json, as_csv)
    records = _read_runs(names, runs_dir)
    if not records:
        raise RunError(f"no runs in {printable(runs_dir)}; train some first")
    found = compare_runs(records, by, split)
    rows = [
        (record.overview(), {path: values[index] for path, values in found.settings.items()})
        for index, record in enumerate(found.records)
    ]
    if as_csv:
        print_csv([overview | own for overview, own in rows])
    elif as_json:
        two, groups = found.difference, found.group_difference
        print_json(
            {
                "settings": list(found.settings),
                "runs": [overview | {"settings": own} for overview, own in rows],
                "difference": two and {**asdict(two), "beyond_chance": two.beyond_chance},
                "reason": found.reason,
                "groups": [asdict(group) for group in found.groups],
                "group_difference": groups
                and {**asdict(groups), "beyond_chance": groups.beyond_chance},
                "group_reason": found.group_reason,
                "flattery": found.flattery and asdict(found.flattery),
            }
        )
    else:
        from nnctl.display.runs import print_comparison

        print_comparison(found)


@command.command(epilog=help_end("nnctl runs verify latest", 3, 4, 5, 6))
@click.argument("names", metavar="[RUN]...", nargs=-1, shell_complete=complete_run)
@runs_dir_option
@json_option
@data_options
def verify(
    names: tuple[str, ...], runs_dir: Path, as_json: bool, source: Source, threads: int | None
) -> None:
    """Prove that interruptions leave no trace.

    Three runs must be equal: a copy of the run trained in one go, a copy which was interrupted and
    resumed, and the run itself. Compared are the last checkpoints, to the byte, the metrics but for
    their times, and the batch losses of the steps where the run keeps them. Takes twice as long as
    the run did, which is only read. Without RUN the latest. The copies use the run's number of
    threads; with another one the run itself is not compared. A run that was begun with --from needs
    the file whose weights it began with, unchanged.
    """
    from dataclasses import asdict

    from nnctl.display.output import print_json
    from nnctl.files import as_text
    from nnctl.runs.find import find_runs
    from nnctl.runs.verify import verify as verify_run

    failed = []
    for run in find_runs(names or ("latest",), runs_dir):
        shown = printable(run)
        click.echo(f"{shown}: training two copies of it", err=True)
        found = verify_run(run, source, threads)
        if not found.exact:
            failed.append(shown)
        if as_json:
            print_json({"run_dir": as_text(run), "exact": found.exact, **asdict(found)})
        else:
            from nnctl.display.runs import print_verification

            print_verification(run, found)
    if failed:
        raise CheckFailed(
            f"not exact: {', '.join(failed)}\n"
            "another machine does that, other versions or threads in a part of the run, or a file "
            "of the run that was changed"
        )


def _read_runs(names: Sequence[str], runs_dir: Path) -> list[StoredRun]:
    """Return the runs that are named, or all in `runs_dir` that can be read.

    Raises:
        RunError: a run that was named is missing or damaged, or there is no such folder.

    """
    from nnctl.display.output import warn
    from nnctl.runs.find import distinct_names, find_runs
    from nnctl.runs.run import read_stored_run, read_stored_runs

    if names:
        runs = find_runs(names, runs_dir)
        return list(map(read_stored_run, runs, distinct_names(runs)))
    stored, errors = read_stored_runs(runs_dir)
    for error in errors:
        warn(f"left out: {error}")
    return stored


def _check_formats(as_json: bool, as_csv: bool) -> None:
    if as_json and as_csv:
        raise UsageError("--json and --csv can't be combined")
