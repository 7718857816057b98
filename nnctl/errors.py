"""Every error that nnctl raises on purpose, and the exit code it ends the process with.

    NnctlError
    |-- SystemFailure   1   the system failed us: disk full, permission, broken pipe of a result
    |-- UsageError      2   a wrong option or argument
    |   `-- ConfigError 2   a wrong config; the message names file, line and column
    |-- CheckFailed     3   gradient mismatch, a requirement not met
    |-- DataError       4   data missing, damaged or not downloadable
    |-- RunError        5   a run or checkpoint is missing, damaged, exists already or is in use
    `-- Diverged        6   a loss, gradient or weight is not finite, or the loss exploded

A process that is ended by SIGHUP, SIGINT or SIGTERM exits with 128 plus the signal's number.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """The exit codes that scripts rely on."""

    OK = 0
    SYSTEM = 1
    USAGE = 2
    CHECK_FAILED = 3
    DATA = 4
    RUN = 5
    DIVERGED = 6


class NnctlError(Exception):
    """An error with a message for a person: what happened, where, what to do next."""

    exit_code: ClassVar[ExitCode] = ExitCode.SYSTEM


class SystemFailure(NnctlError):
    """The operating system refused something: disk full, permission, a closed pipe."""


OUT_OF_MEMORY = "out of memory; a smaller network or batch size needs less, as does --threads 1"


class UsageError(NnctlError):
    """The command was called in a way that can't work."""

    exit_code = ExitCode.USAGE


class ConfigError(UsageError):
    """A config that can't be used."""


class CheckFailed(NnctlError):
    """A check that the user asked for failed: a gradient, or a requirement."""

    exit_code = ExitCode.CHECK_FAILED


class DataError(NnctlError):
    """Data are missing, damaged or can't be downloaded."""

    exit_code = ExitCode.DATA


class RunError(NnctlError):
    """A run or checkpoint is missing, damaged, exists already or is in use."""

    exit_code = ExitCode.RUN


class Diverged(NnctlError):
    """Training left the finite numbers, or its loss exploded."""

    exit_code = ExitCode.DIVERGED


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return a message's hint at the word that was probably meant, `otherwise` if none is near.

    >>> did_you_mean("epoch", ["epochs", "loss"], "there are epochs, loss")
    'did you mean epochs?'
    >>> did_you_mean("x", ["epochs", "loss"], "there are epochs, loss")
    'there are epochs, loss'
    """
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]}?" if near else otherwise


def printable(text: object) -> str:
    r"""Return `text` on one line without anything that a terminal would obey or can't show.

    Bytes from outside (paths, server replies, file contents) pass through here on their way
    into a message. The passwords in URLs end here.

    >>> printable("a\x1b[31mred\nline")
    'a\\x1b[31mred\\nline'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in without_passwords(str(text))
    )


def counted(count: int, noun: str) -> str:
    """Return so many of something, as in a sentence.

    >>> counted(1, "image"), counted(2000, "image")
    ('1 image', '2,000 images')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def without_passwords(text: str) -> str:
    """Return `text` with user and password of every URL in it replaced by asterisks.

    >>> without_passwords("GET http://ada:secret@example.org/mnist/")
    'GET http://***@example.org/mnist/'
    """
    return re.sub(r"(?<=://)[^\s/?#@]*@", "***@", text)


MAX_SHOWN = 72  # characters of a line that an error points into


def pointed(line: str, column: int) -> str:
    """Return `line`, made printable and cut to what can be seen, and a caret below `column`.

    >>> print(pointed("a ** b", 3))
        a ** b
           ^
    """
    start = max(0, column - MAX_SHOWN * 2 // 3)
    before, after = printable(line[start:column]), printable(line[column : start + MAX_SHOWN])
    cells = {"W": 2, "F": 2}  # a wide character takes two, a combining mark none
    width = sum(
        0 if unicodedata.combining(c) else cells.get(unicodedata.east_asian_width(c), 1)
        for c in before
    )
    return f"    {before}{after}\n    {' ' * width}^"
