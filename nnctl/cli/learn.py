"""`nnctl learn`: the concepts of backpropagation, each with the command that shows it at work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nnctl.cli.options import help_end
from nnctl.errors import UsageError

if TYPE_CHECKING:
    from nnctl.course import Course, CourseStep

LANGUAGES = ("en", "ko")


@click.command(epilog=help_end("nnctl learn\nnnctl learn --step 3 --language ko"))
@click.option("--step", "number", metavar="N", type=int, help="Show this step alone.")
@click.option("--list", "listed", is_flag=True, help="List the steps and run nothing.")
@click.option(
    "--language",
    type=click.Choice(LANGUAGES),
    default="en",
    show_default=True,
    help="Of the texts; commands and their output are English.",
)
def command(number: int | None, listed: bool, language: str) -> None:
    """Learn backpropagation step by step, by the commands of nnctl.

    Each step says what a concept is, runs the real command that shows it, and ends with a question
    that the next step answers. In a terminal, Enter goes on to the next step; without one, all
    steps are printed. No network is needed.

    Runs that the steps train lie in a temporary folder, which is removed at the end.
    """
    import tempfile

    from nnctl.course import read_course
    from nnctl.display.learn import Contents
    from nnctl.display.output import console

    course = read_course(language)
    if listed:
        if number is not None:
            raise UsageError("--list and --step can't be combined")
        console().print(Contents(course))
        return
    if number is not None and not 1 <= number <= len(course.steps):
        raise UsageError(f"--step {number}: the steps are numbered from 1 to {len(course.steps)}")
    steps = course.steps if number is None else [course.steps[number - 1]]
    with tempfile.TemporaryDirectory(prefix="nnctl-learn-") as folder:
        for step in steps:
            _show(course, step, folder)
            if step is not steps[-1] and not _wants_more(course.words.more):
                break


def _show(course: Course, step: CourseStep, folder: str) -> None:
    """Print a step, with what its commands print; their runs are kept in `folder`."""
    import os
    import shlex
    import subprocess
    import sys

    from nnctl.display.learn import Opening, question
    from nnctl.display.output import console

    out = console()
    out.print(Opening(course, step))
    environment = {name: value for name, value in os.environ.items() if name != "NNCTL_CONFIG"}
    environment["NNCTL_RUNS_DIR"] = folder
    for words in step.commands:
        out.print(f"\n$ {words}", style="bold", soft_wrap=True)
        sys.stdout.flush()
        process = [sys.executable, "-P", "-m", *shlex.split(words)]
        code = subprocess.run(process, env=environment, stdin=subprocess.DEVNULL).returncode
        if code:
            raise click.exceptions.Exit(code if code > 0 else 128 - code)
    out.print(question(course, step))


def _wants_more(prompt: str) -> bool:
    """Ask a person whether to go on; without a terminal, go on."""
    import sys

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    print(f"[{prompt}] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    return bool(answer) and not answer.strip().lower().startswith("q")
