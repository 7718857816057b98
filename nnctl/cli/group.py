"""The `nnctl` group: commands are imported when they are called, errors become exit codes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import click

from nnctl import __version__
from nnctl.cli import signals
from nnctl.environment import is_on
from nnctl.errors import OUT_OF_MEMORY, ExitCode, NnctlError, printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# One line of help for each command, so that `nnctl --help` imports none of them.
COMMANDS = {
    "train": "Train a network from a config.",
    "evaluate": "Measure a trained network: loss, accuracy, mistakes.",
    "predict": "Read your own pictures of digits with a trained network.",
    "export": "Write a trained network as ONNX, Python file or web page.",
    "gradcheck": "Compare backpropagation with numerical gradients.",
    "graph": "Draw the computational graph and the gradients of an expression.",
    "weights": "Draw a layer's weights, and how weights and activations spread.",
    "trace": "Follow one mini-batch through the network, forward and back.",
    "data": "Download, verify, describe and locate data sets.",
    "config": "Show, describe, list and copy configs.",
    "plot": "Draw the curves of one or several runs.",
    "report": "Write one page about one or several runs.",
    "runs": "List, show, compare and verify runs.",
    "lr-find": "Draw the loss against a growing learning rate, and suggest one.",
    "learn": "Learn backpropagation step by step, by the real commands.",
    "sweep": "Search for the best settings with many trainings.",
    "bench": "Show where the time of a training step goes.",
}


class LazyGroup(click.Group):
    """A group whose `commands` hold only names and helps until one is called."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module, `nnctl.cli.NAME`, and return its `command`."""
        if cmd_name not in self.commands:
            return None
        command: click.Command = import_module(f"nnctl.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the commands without importing one, and the options."""
        from click.shell_completion import CompletionItem

        names = [name for name in COMMANDS if name.startswith(incomplete)]
        commands = [CompletionItem(name, help=COMMANDS[name]) for name in names]
        return commands + click.Command.shell_complete(self, ctx, incomplete)


@click.group(
    cls=LazyGroup,
    commands={name: click.Command(name, help=text) for name, text in COMMANDS.items()},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Example:
  nnctl train --config quickstart

`nnctl COMMAND --help` says more. NNCTL_ASCII=1 draws charts in ASCII, NNCTL_DEBUG=1 shows
tracebacks.

\b
Completion of commands, runs, configs and keys; put the line for your shell in its start file:
  bash  eval "$(_NNCTL_COMPLETE=bash_source nnctl)"
  zsh   eval "$(_NNCTL_COMPLETE=zsh_source nnctl)"
  fish  _NNCTL_COMPLETE=fish_source nnctl | source""",
)
@click.version_option(__version__, prog_name="nnctl")
def cli() -> None:
    """Train small neural networks on MNIST, and see backpropagation at work."""


def run(arguments: Sequence[str]) -> int:
    """Run the command line `arguments`; return the exit code, errors reported on standard error."""
    try:
        code = cli.main(list(arguments), prog_name="nnctl", standalone_mode=False)
        return code if isinstance(code, int) else ExitCode.OK
    except Exception as error:
        if is_on("NNCTL_DEBUG"):
            import traceback

            traceback.print_exc()
        message, code = _explain(error)
        safe = "\n".join(printable(line) for line in message.split("\n"))
        click.echo(f"nnctl: error: {safe}", err=True)
        return code


def _explain(error: Exception) -> tuple[str, ExitCode]:
    """Return what to say of an error that ended a command, and the exit code."""
    match error:
        case NnctlError():
            return str(error), error.exit_code
        case click.exceptions.NoArgsIsHelpError(ctx=context):
            click.echo(context.get_help() + "\n", err=True)
            return f"'{context.command_path}' needs a command.", ExitCode.USAGE
        case click.UsageError():
            where = error.ctx.command_path if error.ctx else "nnctl"
            text = f"{error.format_message()}{_variable(error)}"
            return f"{text}\nTry '{where} --help'.", ExitCode.USAGE
        case click.ClickException():
            return error.format_message(), ExitCode.USAGE
        case MemoryError():
            return OUT_OF_MEMORY, ExitCode.SYSTEM
        case ImportError() if "annot allocate" in str(error) or "failed to map" in str(error):
            return OUT_OF_MEMORY, ExitCode.SYSTEM
        case OSError():
            path = error.filename if isinstance(error.filename, str | bytes) else ""
            name = f"{printable(os.fsdecode(path))}: " if path else ""
            from nnctl.files import reason

            return f"{name}{reason(error)}", ExitCode.SYSTEM
    signals.answer()
    what = f"unexpected {type(error).__name__}: {printable(error)}"
    advice = "This is a bug in nnctl; NNCTL_DEBUG=1 shows the traceback."
    return f"{what}\n{advice}", ExitCode.SYSTEM


def _variable(error: click.UsageError) -> str:
    """Name the environment variable that a wrong value came from, if it did."""
    if not isinstance(error, click.BadParameter) or error.param is None or error.ctx is None:
        return ""
    source = error.ctx.get_parameter_source(error.param.name or "")
    if source is not click.core.ParameterSource.ENVIRONMENT:
        return ""
    return f" (environment variable {error.param.envvar})"
