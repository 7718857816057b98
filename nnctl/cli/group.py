"""The `nnctl` group: commands are imported when they are called, errors become exit codes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module

import click

from nnctl import __version__
from nnctl.errors import ExitCode, NnctlError, printable

# One line of help for each command, so that `nnctl --help` imports none of them.
COMMANDS = {
    "train": "Train a network from a config.",
    "evaluate": "Measure a trained network: loss, accuracy, mistakes.",
    "gradcheck": "Compare backpropagation with numerical gradients.",
    "graph": "Draw the computational graph of an expression, with its gradients.",
    "trace": "Follow one mini-batch through the network, forward and back.",
    "data": "Download, verify, describe and locate data sets.",
    "config": "Show, describe, list and copy configs.",
    "plot": "Draw the curves of one or several runs.",
    "runs": "List, show, compare and verify runs.",
    "bench": "Show where the time of a training step goes.",
}


class LazyGroup(click.Group):
    """A group whose `commands` hold only names and helps until one is called."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module, `nnctl.cli.NAME`, and return its `command`."""
        if cmd_name not in self.commands:
            return None
        command: click.Command = import_module(f"nnctl.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    commands={name: click.Command(name, help=text) for name, text in COMMANDS.items()},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Example:
  nnctl train --config quickstart
\b
`nnctl COMMAND --help` tells more. NNCTL_DEBUG=1 shows tracebacks.""",
)
@click.version_option(__version__, prog_name="nnctl")
def cli() -> None:
    """Train small neural networks on MNIST, and see backpropagation at work."""


def run(arguments: Sequence[str]) -> int:
    """Run the command line `arguments`; return the exit code, errors told on standard error."""
    try:
        code = cli.main(list(arguments), prog_name="nnctl", standalone_mode=False)
        return code if isinstance(code, int) else ExitCode.OK
    except NnctlError as error:
        if os.environ.get("NNCTL_DEBUG"):
            raise
        return _tell(str(error), error.exit_code)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "nnctl"
        return _tell(f"{error.format_message()}\nTry '{where} --help'.", ExitCode.USAGE)
    except click.ClickException as error:
        return _tell(error.format_message(), ExitCode.USAGE)
    except BrokenPipeError:
        raise
    except MemoryError:
        return _tell("out of memory; a smaller batch size or network needs less", ExitCode.SYSTEM)
    except OSError as error:
        if os.environ.get("NNCTL_DEBUG"):
            raise
        name = f"{printable(os.fsdecode(error.filename))}: " if error.filename else ""
        return _tell(f"{name}{error.strerror or error}", ExitCode.SYSTEM)
    except Exception as error:
        if os.environ.get("NNCTL_DEBUG"):
            raise
        what = f"{type(error).__name__}: {printable(error)}"
        return _tell(
            f"unexpected {what}\nThis is a bug in nnctl; NNCTL_DEBUG=1 shows the traceback.",
            ExitCode.SYSTEM,
        )


def _tell(message: str, code: ExitCode) -> int:
    safe = "\n".join(printable(line) for line in message.split("\n"))
    click.echo(f"nnctl: error: {safe}", err=True)
    return code
