"""Options that several commands share, and the end of every command's help."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nnctl.cli.completion import complete_config, complete_key, complete_run

if TYPE_CHECKING:
    from nnctl.datasets import Source

F = TypeVar("F", bound=Callable[..., Any])

EXIT_CODES = {
    0: "success",
    1: "the system failed: disk full, permission, closed pipe",
    2: "usage or configuration",
    3: "a check failed, or --require is not met",
    4: "data missing, damaged or not downloadable",
    5: "run or checkpoint missing, damaged, exists already, in use",
    6: "diverged; train keeps the last good checkpoint",
    130: "ended by a signal (129 SIGHUP, 130 SIGINT, 143 SIGTERM)",
}


def help_end(example: str, *codes: int) -> str:
    """Return the end of a command's help: an example and the exit codes it can give.

    Every command can end with 0, 1, 2 and by a signal; `codes` are the others.
    """
    lines = [f"  {code:>3}  {EXIT_CODES[code]}" for code in sorted({0, 1, 2, 130, *codes})]
    shown = "\n".join(f"  {line}" for line in example.strip().splitlines())
    return "\b\nExample:\n" + shown + "\n\n\b\nExit codes:\n" + "\n".join(lines)


class IndexList(click.ParamType[list[range]]):
    """Indices from 0 and ranges of them, as in `0,7,20-29`; a sequence of ranges."""

    name = "LIST"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[range]:
        """Return the ranges; each holds at least one index."""
        if isinstance(value, list):
            return value
        ranges = []
        for part in value.split(","):
            found = re.fullmatch(r"([0-9]{1,18})(?:-([0-9]{1,18}))?", part.strip())
            if not found:
                self.fail(f"{value!r} is not a list such as 0,7,20-29", param, ctx)
            first, last = int(found[1]), int(found[2] or found[1])
            if first > last:
                self.fail(f"{part.strip()!r} runs backwards", param, ctx)
            ranges.append(range(first, last + 1))
        return ranges


class OutputFile(click.Path):
    """A file to write a result to, - for standard output; never one that nnctl itself keeps."""

    def __init__(self) -> None:
        """Leave folders and permissions to the system, whose message says more."""
        super().__init__(path_type=Path, readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        from nnctl.errors import printable
        from nnctl.sweeps.folder import keeper

        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if (folder := keeper(path)) is not None:
            self.fail(
                f"{printable(path)} belongs to {printable(folder)}; choose another file", param, ctx
            )
        return path


def source_options(function: F) -> F:
    """Add the options that say where data lie and come from; pass them as `source`."""

    @click.option(
        "--data-dir",
        metavar="D",
        envvar="NNCTL_DATA_DIR",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder of the data sets; default ./data if it exists, else the user's cache.",
    )
    @click.option("--offline", is_flag=True, envvar="NNCTL_OFFLINE", help="Never use the network.")
    @click.option(
        "--mirror",
        "mirrors",
        metavar="URL",
        multiple=True,
        envvar="NNCTL_MIRRORS",
        help="Download from here instead of the known mirrors; repeatable.",
    )
    @functools.wraps(function)
    def wrapper(
        *args: Any, data_dir: Path | None, offline: bool, mirrors: tuple[str, ...], **kwargs: Any
    ) -> Any:
        from nnctl.datasets import Source

        source = Source(data_dir=data_dir, offline=offline, mirrors=mirrors)
        return function(*args, source=source, **kwargs)

    return wrapper  # type: ignore[return-value]


def _threads(help: str, *, used: bool = True) -> Callable[[F], F]:
    return click.option(
        "--threads",
        metavar="N",
        type=click.IntRange(1, 256),
        envvar="NNCTL_THREADS",
        help=help,
        expose_value=used,
    )


threads_option = _threads(
    "Threads to compute with; default: those of a run that is resumed or verified, else a fixed "
    "rule of sizes and cores."
)
# Every command that reads data takes --threads, so that scripts need not tell them apart.
unused_threads_option = _threads(
    "Changes nothing here: one thread does all of this command's work.", used=False
)


def data_options(function: F) -> F:
    """Add the options of every command that computes with data; pass `source` and `threads`."""
    return source_options(threads_option(function))


def json_option(function: F) -> F:
    """Add `--json` as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")(
        function
    )


def runs_dir_option(function: F) -> F:
    """Add `--runs-dir`, the folder that run names are looked up in."""
    return click.option(
        "--runs-dir",
        metavar="DIR",
        envvar="NNCTL_RUNS_DIR",
        default="runs",
        show_default=True,
        type=click.Path(path_type=Path, readable=False),  # permissions are the system's matter
        help="Folder of the runs.",
    )(function)


SHORT_FORMS = {
    "--epochs": "training.epochs",
    "--batch-size": "training.batch_size",
    "--learning-rate": "optimizer.learning_rate",
    "--seed": "seed",
    "--name": "name",
}


def set_options(function: F) -> F:
    """Add `--set` and its short forms; pass them as `overrides`, (key, value) pairs in order."""

    @click.option(
        "--set",
        "assignments",
        metavar="KEY=VALUE",
        multiple=True,
        shell_complete=complete_key,
        help="Override a key of the config, as in optimizer.learning_rate=0.05; repeatable. "
        "network+=LAYERS appends layers, network.1+=LAYERS puts them before layer 1, network-=1 "
        "removes that.",
    )
    @click.option("--epochs", metavar="N", help="Short for --set training.epochs=N.")
    @click.option("--batch-size", metavar="N", help="Short for --set training.batch_size=N.")
    @click.option(
        "--learning-rate", "--lr", metavar="X", help="Short for --set optimizer.learning_rate=X."
    )
    @click.option("--seed", metavar="N", help="Short for --set seed=N.")
    @click.option(
        "--name",
        metavar="NAME",
        help="Short for --set name=NAME; may hold values, as in lr{learning_rate}-s{seed}.",
    )
    @functools.wraps(function)
    def wrapper(*args: Any, assignments: tuple[str, ...], **kwargs: Any) -> Any:
        overrides = []
        for assignment in assignments:
            key, equals, value = assignment.partition("=")
            if not equals:
                raise click.BadParameter(f"{assignment!r} is not KEY=VALUE", param_hint="--set")
            overrides.append((key, value))
        for option, key in SHORT_FORMS.items():
            value = kwargs.pop(option.strip("-").replace("-", "_"))
            if value is not None:
                overrides.append((key, value))
        return function(*args, overrides=tuple(overrides), **kwargs)

    return wrapper  # type: ignore[return-value]


def config_option(function: F) -> F:
    """Add `-c/--config` as `config`: a file, a bundled config's name, or - for standard input."""
    return click.option(
        "-c",
        "--config",
        metavar="FILE",
        envvar="NNCTL_CONFIG",
        shell_complete=complete_config,
        help="Config file, the name of a bundled config, or - for standard input.",
    )(function)


def experiment_options(function: F) -> F:
    """Add the options that say which network a command looks at, on which data; and `--json`.

    Pass `as_json`, and `experiment`: called without arguments, it opens the experiment. So a
    command can first check its own options, before any data are read.
    """
    run_option = click.option(
        "--run",
        metavar="RUN",
        shell_complete=complete_run,
        help="Use a run's config and weights: its path, name, or `latest`.",
    )

    @config_option
    @run_option
    @set_options
    @runs_dir_option
    @json_option
    @source_options
    @functools.wraps(function)
    def wrapper(
        *args: Any,
        config: str | None,
        run: str | None,
        overrides: tuple[tuple[str, str], ...],
        runs_dir: Path,
        as_json: bool,
        source: Source,
        **kwargs: Any,
    ) -> Any:
        from nnctl.cli.loading import open_experiment

        experiment = functools.partial(
            open_experiment, config, run, overrides, runs_dir, source, quiet=as_json
        )
        return function(*args, experiment=experiment, as_json=as_json, **kwargs)

    return wrapper  # type: ignore[return-value]
