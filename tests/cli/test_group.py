"""The group: how commands are found, how errors end, what the environment may say."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import click
import pytest

from nnctl import __version__
from nnctl.cli.group import COMMANDS, cli, run
from nnctl.cli.options import data_options
from nnctl.datasets import Source
from nnctl.errors import (
    CheckFailed,
    ConfigError,
    DataError,
    Diverged,
    NnctlError,
    RunError,
    SystemFailure,
    UsageError,
)

Capture = pytest.CaptureFixture[str]
Plant = Callable[[Callable[..., Any]], None]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Return what makes a function the command `nnctl boom`."""

    def plant(function: Callable[..., Any]) -> None:
        command = click.command(name="boom")(function)
        monkeypatch.setitem(sys.modules, "nnctl.cli.boom", SimpleNamespace(command=command))
        monkeypatch.setitem(cli.commands, "boom", click.Command("boom"))

    return plant


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nnctl", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


# Finding a command.


def test_help_lists_every_command_with_its_line(capsys: Capture) -> None:
    assert run(["--help"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    for name, text in COMMANDS.items():
        assert f"  {name:<9}  {text}\n" in output
    assert all(character.isprintable() or character == "\n" for character in output)


def test_short_and_long_help_are_the_same(capsys: Capture) -> None:
    assert run(["-h"]) == 0
    short = capsys.readouterr()
    assert run(["--help"]) == 0
    assert capsys.readouterr() == short


@pytest.mark.parametrize("command", ["train", "runs verify"])
def test_help_tells_that_a_recorded_number_of_threads_comes_first(
    capsys: Capture, command: str
) -> None:
    assert run([*command.split(), "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "default: those of a run that is resumed or verified, else a fixed rule" in words


def test_version_is_the_packages_and_python_m_is_the_same_program() -> None:
    result = process("--version")
    assert (result.returncode, result.stdout, result.stderr) == (
        0,
        f"nnctl, version {__version__}\n",
        "",
    )


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["trian"], "No such command 'trian'. (Did you mean one of: 'trace', 'train'?)"),
        (["evalute"], "Did you mean 'evaluate'?"),
        (["xyz"], "No such command 'xyz'."),
        (["--verson"], "Did you mean '--version'?"),
        (["train", "--epoch", "3"], "Did you mean '--epochs'?"),
        (["config", "shwo"], "Did you mean 'show'?"),
        (["train", "--threads", "0"], "0 is not in the range"),
        (["train", "--data-dir", __file__], "is a file"),
        (["train", "--set", "seed"], "'seed' is not KEY=VALUE"),
        (["tr\x1b[2Jain"], r"tr\x1b[2Jain"),
    ],
)
def test_usage_error_names_what_is_wrong_and_the_way_to_the_help(
    capsys: Capture, arguments: list[str], hint: str
) -> None:
    assert run(arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("nnctl: error: ")
    assert hint in errors
    where = "nnctl" if arguments[0] not in COMMANDS else f"nnctl {arguments[0]}"
    assert errors.endswith(f"\nTry '{where} --help'.\n")
    assert "\x1b" not in errors


@pytest.mark.parametrize("arguments", [[], ["data"], ["config"], ["runs"]])
def test_group_without_a_command_shows_its_help_as_an_error(
    capsys: Capture, arguments: list[str]
) -> None:
    assert run(arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("Usage: ")
    words = " ".join(["nnctl", *arguments])
    assert errors.endswith(f"\nnnctl: error: '{words}' needs a command.\n")


# Shell completion.


def complete(words: str, index: int) -> list[str]:
    result = process(_NNCTL_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(index))
    assert result.stderr == ""
    return [line.split(",", 1)[1] for line in result.stdout.splitlines()]


def test_shell_completion_knows_commands_options_and_data_sets() -> None:
    assert complete("nnctl tr", 1) == ["train", "trace"]
    assert complete("nnctl --v", 1) == ["--version"]
    assert complete("nnctl train --ov", 2) == ["--overwrite"]
    assert set(complete("nnctl data ", 2)) == {"fetch", "info", "path", "show", "verify"}
    assert complete("nnctl data fetch mn", 3) == ["mnist", "mnist-sample", "mnist-tiny"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_script_is_printed_for_each_shell(shell: str) -> None:
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("no bash to ask for its version")
    result = process(_NNCTL_COMPLETE=f"{shell}_source")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"_NNCTL_COMPLETE={shell}_complete" in result.stdout


# How a command ends.


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (NnctlError, 1),
        (SystemFailure, 1),
        (UsageError, 2),
        (ConfigError, 2),
        (CheckFailed, 3),
        (DataError, 4),
        (RunError, 5),
        (Diverged, 6),
    ],
)
def test_error_becomes_its_exit_code_and_its_words(
    capsys: Capture, plant: Plant, kind: type[NnctlError], code: int
) -> None:
    @plant
    def boom() -> None:
        raise kind("what happened\nwhat to do \x1b[31mnext")

    assert run(["boom"]) == code
    assert capsys.readouterr() == (
        "",
        "nnctl: error: what happened\nwhat to do \\x1b[31mnext\n",
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a\nb"), r"a\nb: the disk is full; free"),
        (
            PermissionError(errno.EACCES, "Permission denied", b"caf\xe9"),
            r"caf\udce9: permission denied; choose",
        ),
        (OSError(errno.EIO, "Input/output error", 7), "the disk failed to read or write"),
        (OSError("no number"), "no number"),
        (MemoryError(), "out of memory; a smaller network or batch size needs less"),
        (ZeroDivisionError("\x1b"), r"unexpected ZeroDivisionError: \x1b"),
    ],
)
def test_error_that_nobody_foresaw_is_a_line_and_exit_code_1(
    capsys: Capture, plant: Plant, error: Exception, words: str
) -> None:
    @plant
    def boom() -> None:
        raise error

    assert run(["boom"]) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"nnctl: error: {words}")
    assert "Traceback" not in errors


DISGUISED = """
import signal, sys
from types import SimpleNamespace
import click
from nnctl.cli import main
from nnctl.cli.group import cli

class Descriptor:
    def __set_name__(self, owner, name):
        signal.raise_signal(signal.SIGTERM)

@click.command()
def command():
    type("Made", (), {"attribute": Descriptor()})

sys.modules["nnctl.cli.boom"] = SimpleNamespace(command=command)
cli.commands["boom"] = command
main()
"""


def test_signal_in_the_disguise_of_an_error_is_still_answered() -> None:
    """Some Pythons make a RuntimeError of what is raised while a class is being made."""
    result = subprocess.run([sys.executable, "-c", DISGUISED, "boom"], capture_output=True)
    assert (result.returncode, result.stdout, result.stderr) == (143, b"", b"")


def test_debug_shows_the_traceback_and_keeps_the_exit_code(
    capsys: Capture, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    @plant
    def boom() -> None:
        raise DataError("lost")

    monkeypatch.setenv("NNCTL_DEBUG", "1")
    assert run(["boom"]) == 4
    errors = capsys.readouterr().err
    assert errors.startswith("Traceback (most recent call last):")
    assert errors.endswith("nnctl: error: lost\n")
    monkeypatch.setenv("NNCTL_DEBUG", "")  # empty is unset
    assert run(["boom"]) == 4
    assert capsys.readouterr().err == "nnctl: error: lost\n"


def test_command_that_is_content_ends_with_0(plant: Plant) -> None:
    @plant
    def boom() -> str:
        return "a result that is no exit code"

    assert run(["boom"]) == 0


# The environment.


@pytest.fixture
def heard(plant: Plant) -> dict[str, Any]:
    """What the planted command was given."""
    heard: dict[str, Any] = {}

    @plant
    @data_options
    def boom(source: Source, threads: int | None) -> None:
        heard.update(
            data_dir=str(source.data_dir),
            offline=source.offline,
            mirrors=source.mirrors,
            threads=threads,
        )

    return heard


VARIABLES = {
    "NNCTL_DATA_DIR": "/some/where",
    "NNCTL_OFFLINE": "1",
    "NNCTL_MIRRORS": "http://127.0.0.1:1/a  http://127.0.0.1:2/b",
    "NNCTL_THREADS": "3",
}


def test_environment_stands_in_for_options(
    heard: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    assert run(["boom"]) == 0
    assert heard == {
        "data_dir": "/some/where",
        "offline": True,
        "mirrors": ("http://127.0.0.1:1/a", "http://127.0.0.1:2/b"),
        "threads": 3,
    }


def test_option_wins_over_the_environment(
    heard: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    options = ["--data-dir", "here", "--mirror", "http://127.0.0.1:3/", "--threads", "1"]
    assert run(["boom", *options]) == 0
    assert (heard["data_dir"], heard["mirrors"], heard["threads"]) == (
        "here",
        ("http://127.0.0.1:3/",),
        1,
    )


def test_empty_variable_is_unset(heard: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    assert run(["boom"]) == 0
    assert heard == {"data_dir": "None", "offline": False, "mirrors": (), "threads": None}


@pytest.mark.parametrize("value", ["0", "three"])
def test_wrong_variable_is_named(
    capsys: Capture, heard: dict[str, Any], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("NNCTL_THREADS", value)
    assert run(["boom"]) == 2
    assert "(environment variable NNCTL_THREADS)" in capsys.readouterr().err
    monkeypatch.delenv("NNCTL_THREADS")
    assert run(["boom", "--threads", value]) == 2
    assert "environment" not in capsys.readouterr().err
