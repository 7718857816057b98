"""`nnctl sweep`: many trainings from one search space."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nnctl.cli import signals
from nnctl.cli.completion import (
    complete_key,
    complete_method,
    complete_objective,
    complete_sweep,
)
from nnctl.cli.options import (
    config_option,
    help_end,
    json_option,
    source_options,
    unused_threads_option,
)
from nnctl.errors import NnctlError, UsageError, printable

if TYPE_CHECKING:
    from nnctl.datasets import Source
    from nnctl.sweeps.executors import Executor
    from nnctl.sweeps.folder import SweepFolder
    from nnctl.sweeps.settings import Search

EXAMPLE = """nnctl sweep -c quickstart --vary optimizer.learning_rate=0.01,0.1,1
nnctl sweep -c quickstart --vary 'optimizer.learning_rate={min: 0.001, max: 1, log: true}'
nnctl sweep my-sweep.yaml"""


@click.command(epilog=help_end(EXAMPLE, 4, 5, 6))
@click.argument("file", metavar="[FILE]", required=False)
@config_option
@click.option(
    "--vary",
    "varied",
    metavar="KEY=SPACE",
    multiple=True,
    shell_complete=complete_key,
    help="Vary a key of the config: A,B,C or [A, B, C], or {min: A, max: B} with `step: S` or "
    "`log: true`; repeatable.",
)
@click.option(
    "--set",
    "assignments",
    metavar="KEY=VALUE",
    multiple=True,
    shell_complete=complete_key,
    help="Override a key of the config for every trial; repeatable.",
)
@click.option(
    "--method",
    metavar="WORD",
    shell_complete=complete_method,
    help="grid, random or bayes (needs the extra [sweep]); default: grid where every parameter "
    "has a list or a step, else random.",
)
@click.option("--trials", metavar="N", type=int, help="How many; default 20, a grid knows it.")
@click.option("--parallel", metavar="N", type=int, help="Trials under way at once; default 2.")
@click.option("--seeds", metavar="N", type=int, help="Trainings a trial; default 1.")
@click.option("--seed", metavar="N", type=int, help="Of the search and the trainings; default 0.")
@click.option(
    "--objective",
    metavar="FIELD",
    shell_complete=complete_objective,
    help="A field of train's final JSON that does not read the test set; default validation_loss.",
)
@click.option(
    "--prune-after",
    metavar="EPOCH",
    type=int,
    help="Give up a trial that is worse than the median of earlier ones after this epoch.",
)
@click.option("--name", metavar="NAME", help="The sweep's name; default: the file's or config's.")
@click.option(
    "--resume",
    metavar="SWEEP",
    shell_complete=complete_sweep,
    help="Go on with a sweep: its path or name.",
)
@click.option(
    "--sweeps-dir",
    metavar="DIR",
    envvar="NNCTL_SWEEPS_DIR",
    default="sweeps",
    show_default=True,
    type=click.Path(path_type=Path, readable=False),
    help="Folder of the sweeps.",
)
@click.option(
    "--commands",
    is_flag=True,
    help="Print one `nnctl train` line a training and run nothing; not with bayes.",
)
@click.option(
    "--dask",
    metavar="ADDRESS|FILE",
    help="Run the trials on a Dask cluster (extra [dask]): its address, or its scheduler file.",
)
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Print the sweep's folder and nothing else.")
@source_options
@unused_threads_option
@click.pass_context
def command(
    context: click.Context,
    /,
    file: str | None,
    config: str | None,
    varied: tuple[str, ...],
    assignments: tuple[str, ...],
    resume: str | None,
    sweeps_dir: Path,
    commands: bool,
    dask: str | None,
    as_json: bool,
    quiet: bool,
    source: Source,
    **options: Any,
) -> None:
    """Train many networks from one search space, and find the best.

    FILE is a sweep file; -c and --vary say the same without one. Each trial is an ordinary run
    in the sweep's folder, trained with one thread. The sweep may be killed at any moment and goes
    on with --resume, to the same result. The test set is read once, for the winner.
    """
    from nnctl.sweeps.settings import load_search

    common = _CommonOptions(dask, source, as_json, quiet)
    given = {key: value for key, value in options.items() if value is not None}
    typed = context.get_parameter_source("config") == click.core.ParameterSource.COMMANDLINE
    if resume is not None:
        if file or typed or varied or assignments or commands or given.keys() - {"trials"}:
            raise UsageError(
                "--resume goes on with a sweep as it is: only --trials can be given beside it"
            )
        _resume(resume, sweeps_dir, given.get("trials"), common)
        return
    if "prune_after" in given:
        given["prune"] = {"after": given.pop("prune_after")}
    if file is None or typed:
        if config is None:
            raise UsageError("give a sweep FILE, or --config and --vary KEY=SPACE")
        given["config"] = config
    if file is None and not varied:
        raise UsageError("--vary KEY=SPACE: name at least one key of the config to be varied")
    if assignments:
        given["set"] = _pairs("--set", assignments)
    search = load_search(file, given, _pairs("--vary", varied))
    if commands:
        from nnctl.sweeps.training import training_commands

        for line in training_commands(search):
            click.echo(line)
        return
    _begin(search, sweeps_dir, common)


def _pairs(option: str, assignments: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            form = "KEY=SPACE" if option == "--vary" else "KEY=VALUE"
            raise UsageError(f"{option} {assignment}: write {form}")
        if key in pairs:
            raise UsageError(f"{option} {key}: given twice")
        pairs[key] = value
    return pairs


@dataclass(frozen=True)
class _CommonOptions:
    """What a new sweep and a resumed one are given alike."""

    dask: str | None
    source: Source
    as_json: bool
    quiet: bool

    @property
    def silent(self) -> bool:
        """True if a download shows no progress."""
        return self.quiet or self.as_json


def _begin(search: Search, sweeps_dir: Path, common: _CommonOptions) -> None:
    """Run a new sweep."""
    from nnctl.runs.checkpoint import versions
    from nnctl.runs.folder import new_manifest
    from nnctl.runs.lock import owned
    from nnctl.sweeps.folder import new_sweep

    with ExitStack() as stack:
        executor = stack.enter_context(closing(_executor(search, common)))
        sweep = new_sweep(sweeps_dir, search, new_manifest(versions=versions(), threads=1))
        stack.enter_context(owned(sweep.path))
        _run(sweep, search, executor, common)


def _resume(name: str, sweeps_dir: Path, trials: int | None, common: _CommonOptions) -> None:
    """Go on with a sweep, or show the end of one that has come to its end."""
    from nnctl.display.output import warn
    from nnctl.runs.checkpoint import versions
    from nnctl.runs.folder import read_json
    from nnctl.runs.lock import owned
    from nnctl.sweeps.folder import find_sweep, read_search, read_trials, write_search
    from nnctl.sweeps.outcome import check_any_complete, read_outcome

    sweep = find_sweep(name, sweeps_dir)
    with ExitStack() as stack:
        stack.enter_context(owned(sweep.path))
        before = read_search(sweep)
        search = read_search(sweep, trials)
        outcome = read_outcome(sweep)
        if outcome is not None and outcome.trials == search.trials:
            from nnctl.display.sweeps import print_end

            found = read_trials(sweep, search)
            print_end(sweep, search, found, outcome, as_json=common.as_json, quiet=common.quiet)
            check_any_complete(sweep, search, outcome, found)
            return
        then = read_json(sweep.manifest).get("versions")
        if then != versions():
            warn(f"the sweep was begun with {then}, now it is {versions()}: results may differ")
        executor = stack.enter_context(closing(_executor(search, common)))
        if search != before:
            write_search(sweep, search)
            sweep.summary.unlink(missing_ok=True)
        _run(sweep, search, executor, common)


def _executor(search: Search, common: _CommonOptions) -> Executor:
    """Return where the trainings run, once everything they need is there."""
    if search.method == "bayes":
        from nnctl.sweeps.bayes import require_optuna

        require_optuna()
    if common.dask is not None:
        from nnctl.sweeps.cluster import DaskCluster

        return DaskCluster(common.dask)
    from nnctl import datasets
    from nnctl.display.downloads import download_progress
    from nnctl.sweeps.executors import LocalProcesses, environment_of

    with download_progress(quiet=common.silent) as progress:  # once, and not by every trial
        datasets.load(
            search.common.data.dataset, common.source, progress=progress, parts=("train",)
        )
    return LocalProcesses(environment_of(common.source))


def _run(sweep: SweepFolder, search: Search, executor: Executor, common: _CommonOptions) -> None:
    """Run what is left of a sweep, find its winner, and show both."""
    from nnctl.display.downloads import download_progress
    from nnctl.display.sweeps import print_end, reporter
    from nnctl.sweeps.folder import read_trials
    from nnctl.sweeps.outcome import check_any_complete, conclude
    from nnctl.sweeps.run import run

    go_on = f"go on with: {sweep.resume_command}"
    try:
        show = reporter(
            sweep, search, read_trials(sweep, search), as_json=common.as_json, quiet=common.quiet
        )
        for event in run(sweep, search, executor):
            show(event)
        trials = read_trials(sweep, search)
        with download_progress(quiet=common.silent) as progress:
            outcome = conclude(sweep, search, trials, common.source, progress)
    except signals.Ended:
        click.echo(f"nnctl: stopped by a signal; {printable(go_on)}", err=True)
        raise
    except NnctlError as error:
        if sweep.summary.exists():
            raise
        raise type(error)(f"{error}\n{go_on}") from error
    print_end(sweep, search, trials, outcome, as_json=common.as_json, quiet=common.quiet)
    check_any_complete(sweep, search, outcome, trials)
