"""`nnctl train`: a config becomes a run, or a run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from nnctl.cli import signals
from nnctl.cli.completion import complete_run
from nnctl.cli.options import (
    config_option,
    data_options,
    help_end,
    json_option,
    runs_dir_option,
    set_options,
)
from nnctl.cli.requirements import Requirement, check, fields_of, require_option
from nnctl.errors import OUT_OF_MEMORY, RunError, SystemFailure, UsageError, printable

if TYPE_CHECKING:
    from nnctl.config import Settings
    from nnctl.datasets import DataSet, Source
    from nnctl.runs.folder import RunFolder
    from nnctl.runs.resume import ResumePoint
    from nnctl.training.engine import InitialWeights
    from nnctl.training.events import RunFinished


def _fields() -> dict[str, Sequence[str]]:
    from nnctl.training.events import RunFinished

    return fields_of(RunFinished)


@click.command(
    epilog=help_end("nnctl train --config two-layer --set optimizer.learning_rate=0.05", 3, 4, 5, 6)
)
@config_option
@click.option(
    "--resume",
    metavar="RUN",
    shell_complete=complete_run,
    help="Go on with a run: its path, name, or `latest`.",
)
@click.option(
    "--from",
    "origin",
    metavar="RUN|FILE",
    shell_complete=complete_run,
    help="Begin with the best weights of a run, or with those of a .safetensors checkpoint.",
)
@click.option(
    "--finish",
    is_flag=True,
    help="With --resume: train no more, end the run as it is, with its final figures.",
)
@set_options
@click.option(
    "--run-dir",
    metavar="DIR",
    type=click.Path(path_type=Path, readable=False),
    help="Write the run here; default a new numbered folder in --runs-dir.",
)
@runs_dir_option
@click.option("--overwrite", is_flag=True, help="Replace the run that is in --run-dir.")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Print the run directory and nothing else.")
@click.option(
    "--no-test",
    "tested",
    flag_value=False,
    default=True,
    help="Leave the test set unread; the test figures are null.",
)
@click.option(
    "--check",
    "check_only",
    is_flag=True,
    help="Do everything up to the first step, but write no run; print the layers, the plan and "
    "what looks wrong.",
)
@require_option("test_accuracy>=0.97", _fields)
@data_options
@click.pass_context
def command(
    context: click.Context,
    config: str | None,
    resume: str | None,
    origin: str | None,
    finish: bool,
    overrides: tuple[tuple[str, str], ...],
    run_dir: Path | None,
    runs_dir: Path,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    tested: bool,
    check_only: bool,
    requirements: tuple[Requirement, ...],
    source: Source,
    threads: int | None,
) -> None:
    """Train a network from a config, or go on with a run.

    Curves, the verdict on overfitting and the final figures are printed at the end; the run
    directory keeps everything.
    """
    import msgspec

    from nnctl.cli.loading import find_run, find_weights, open_data, read_settings
    from nnctl.config import warnings
    from nnctl.display.output import warn
    from nnctl.runs.lock import check_free, new_run, owned
    from nnctl.runs.resume import check_same_data, resume_point
    from nnctl.runs.weights import initial_weights
    from nnctl.training.engine import split_data
    from nnctl.training.threads import requested

    with ExitStack() as stack:
        before = None
        if resume is not None:
            given = context.get_parameter_source("config") == ParameterSource.COMMANDLINE
            renamed = any(key == "name" for key, _ in overrides)
            if given or origin or run_dir or overwrite or renamed:
                raise UsageError(
                    "--resume goes on with a run as it is: it can't be combined with --config, "
                    "--from, --run-dir, --name or --overwrite"
                )
            run = find_run(resume, runs_dir)
            stack.enter_context(owned(run.path))
            before = resume_point(run, overrides)
            _check_resume(before, tested=tested, finish=finish)
            settings = before.settings
            if summary := before.summary:
                _print_end_again(before, summary, as_json=as_json, quiet=quiet)
                check(requirements, msgspec.to_builtins(summary))
                return
        elif config is not None:
            if finish:
                raise UsageError("--finish ends a run: give it with --resume RUN")
            settings = read_settings(config, overrides)
            if overwrite and run_dir is None:
                raise UsageError("--overwrite replaces the run in --run-dir: give that too")
            if run_dir is not None:
                check_free(run_dir, overwrite)
        else:
            raise UsageError("give --config FILE (`nnctl config list` names some) or --resume RUN")

        parts = before.parts if before else ("train", "test") if tested else ("train",)
        data = open_data(settings, source, quiet=quiet, parts=parts, resumed=before is not None)
        if before is not None:
            check_same_data(before, data)
        else:
            for message in warnings(settings, len(data.train.labels)):
                warn(message)
        weights = None
        if origin is not None:
            found = find_weights(origin, runs_dir, for_data=False)
            weights = initial_weights(origin, found, settings, data.train.images.shape[1])
        threads = threads or (before.threads if before else requested())
        if check_only:
            _check_and_plan(settings, data, threads, before, weights, as_json=as_json, quiet=quiet)
            return
        if overwrite:
            split_data(settings, data)  # raises before the old run is given up what it would after
        # From here on there is something to lose: a signal is answered after a checkpoint.
        request = stack.enter_context(signals.deferred())
        if before is None:
            run = stack.enter_context(
                new_run(run_dir, runs_dir, settings.name, overwrite=overwrite)
            )
        resume_command = run.resume_command(_where_data_lie(context))
        end = _train(
            settings,
            data,
            run,
            runs_dir,
            request,
            resume_command,
            as_json=as_json,
            quiet=quiet,
            threads=threads,
            before=before,
            weights=weights,
            ending=finish,
        )
    if request.number is not None:
        if end.status == "interrupted":
            _print_resume_command(resume_command)
        raise signals.Ended(request.number)
    check(requirements, msgspec.to_builtins(end))


def _check_resume(before: ResumePoint, *, tested: bool, finish: bool) -> None:
    """Refuse options that do not fit the run that is resumed."""
    if not tested and "test" in before.parts:
        raise UsageError("--no-test: the run was begun with its test set")
    if finish and before.epochs == 0:
        raise RunError(
            f"{printable(before.run)}: --finish measures the best epoch, but none is finished\n"
            f"go on with: {before.run.resume_command()}"
        )


def _print_end_again(
    before: ResumePoint, summary: RunFinished, *, as_json: bool, quiet: bool
) -> None:
    """Print the end of a run that has nothing left to do."""
    from nnctl.display.output import note
    from nnctl.display.training import print_summary

    settings = before.settings
    if summary.epochs < settings.training.epochs:
        note(
            f"{printable(before.run)} stopped early, after {summary.epochs} epochs: there is "
            "nothing left to train"
        )
    print_summary(before.run, summary, settings.data.monitored, as_json=as_json, quiet=quiet)


def _check_and_plan(
    settings: Settings,
    data: DataSet,
    threads: int | None,
    before: ResumePoint | None,
    weights: InitialWeights | None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Do everything up to the first step, and print the plan; of a new run also what to expect."""
    from nnctl.display.training import print_plan
    from nnctl.runs.resume import restore
    from nnctl.training.examination import examine
    from nnctl.training.trainer import Trainer

    with closing(Trainer(settings, data, threads)) as trainer:
        if before is not None:
            restore(trainer, before)
        if as_json or not quiet:
            findings = (
                examine(settings, data, initial_weights=weights).findings if before is None else ()
            )
            print_plan(trainer.plan(), findings, as_json=as_json)


def _train(
    settings: Settings,
    data: DataSet,
    run: RunFolder,
    runs_dir: Path,
    request: signals.Request,
    resume_command: str,
    *,
    as_json: bool,
    quiet: bool,
    **how: Any,
) -> RunFinished:
    """Train in a run's folder as `nnctl.runs.recorder.train` does, and show what happens.

    Where it ends before its end, `resume_command` is named.
    """
    from nnctl.display.training import reporter
    from nnctl.runs.lock import point_latest
    from nnctl.runs.recorder import train
    from nnctl.sweeps.orders import orders
    from nnctl.training.events import EpochFinished, Event, RunFinished, RunStarted

    rule, pruned = orders().rule, False
    event: Event | None = None

    def stop() -> bool:
        return pruned or request.number is not None

    try:
        show = reporter(run, as_json=as_json, quiet=quiet)
        for event in train(settings, data, run, stop=stop, **how):
            if rule and isinstance(event, EpochFinished):
                pruned = event.epoch < settings.training.epochs and rule.prunes(asdict(event))
            if isinstance(event, RunStarted):
                point_latest(runs_dir, run)
            show(event)
    except signals.Ended:  # a second signal, or the first took too long to answer
        _print_resume_command(resume_command)
        raise
    except (SystemFailure, MemoryError) as error:
        # Before it has a config there is no run yet; after its end only a result is lost.
        if run.config.exists() and not isinstance(event, RunFinished):
            what = OUT_OF_MEMORY if isinstance(error, MemoryError) else error
            raise SystemFailure(f"{what}\ngo on with: {resume_command}") from error
        raise
    assert isinstance(event, RunFinished)  # the last one always is
    return event


def _where_data_lie(context: click.Context) -> list[str]:
    """Return the options that said so, for the command that goes on with the run."""
    given = [
        name
        for name in ("data_dir", "offline")
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE
    ]
    options = []
    if "data_dir" in given:
        options += ["--data-dir", str(context.params["data_dir"])]
    if "offline" in given:
        options.append("--offline")
    return options


def _print_resume_command(command: str) -> None:
    click.echo(f"nnctl: stopped by a signal; go on with: {printable(command)}", err=True)
