"""Standard output and standard error, as the terminal or pipe behind them allows.

Hides what rich must be told: colour is rich's own business (NO_COLOR, TERM), but which widths make
sense and whether Unicode arrives is decided here. Whatever draws asks `options.ascii_only`. What
is meant for scripts, JSON and paths, needs no rich; in a pipe it goes out byte for byte.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from nnctl.environment import is_on
from nnctl.errors import printable
from nnctl.files import write_atomically

if TYPE_CHECKING:
    from rich.console import Console


STANDARD_OUTPUT = Path("-")
ASCII = "NNCTL_ASCII"  # the variable that asks for charts and tables in ASCII
WIDEST = 1000  # cells


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return the console of standard output or standard error, of its own width or a given one.

    It prints text as it is: no markup, no emoji codes, no highlighting of numbers. `COLUMNS` and
    `LINES` count where they make sense, else as if they were not set.
    """
    from rich.console import Console

    environ = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES") or _sensible(v)}

    class PlainConsole(Console):
        """A console that speaks ASCII where the locale asks for it."""

        @property
        def encoding(self) -> str:
            """The encoding that renderables go by, whatever the stream itself can take."""
            return "ascii" if is_on(ASCII) or _plain_locale() else super().encoding

    return PlainConsole(
        stderr=stderr, width=width, markup=False, emoji=False, highlight=False, _environ=environ
    )


def _sensible(size: str) -> bool:
    """Return whether a terminal may be so many cells wide or high."""
    return size.isdecimal() and len(size) < 6 and 0 < int(size) <= WIDEST


def _plain_locale() -> bool:
    """Return whether the locale is C or POSIX by the user's own words."""
    names = (os.environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    return next(filter(None, names), "") in ("C", "POSIX")


def is_on_terminal() -> bool:
    """Return whether a person reads standard output as it is printed."""
    return sys.stdout.isatty()


def can_redraw(stream: TextIO) -> bool:
    """Return whether a stream is a terminal on which lines can be drawn over."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def warn(message: str) -> None:
    """Print a warning on standard error, at once."""
    print(f"nnctl: warning: {message}", file=sys.stderr, flush=True)


def note(message: str) -> None:
    """Print on standard error, at once, what was not done though it was asked for."""
    print(f"nnctl: {message}", file=sys.stderr, flush=True)


def print_json(content: Any) -> None:
    """Print one line of JSON on standard output, at once; what isn't finite becomes null."""
    import json

    import msgspec

    line = msgspec.json.encode(content)
    if sys.stdout.isatty():  # JSON escapes only some of what a terminal would obey
        line = "".join(
            c if c.isprintable() else json.dumps(c)[1:-1] for c in line.decode()
        ).encode()
    _print_bytes(line)


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of the same fields on standard output, below a line of their names."""
    import csv
    import io

    if rows:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        lines = text.getvalue().rstrip("\n")
        if sys.stdout.isatty():
            lines = "\n".join(map(printable, lines.split("\n")))
        _print_bytes(lines.encode(errors="surrogateescape"))


def print_path(path: Path | str) -> None:
    """Print a path alone on a line of standard output: byte for byte for a script to use."""
    _print_bytes(printable(path).encode() if sys.stdout.isatty() else os.fsencode(path))


def write_result(path: Path, data: bytes) -> None:
    """Make `data` the content of file `path`; - is standard output."""
    if path != STANDARD_OUTPUT:
        write_atomically(path, data)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _print_bytes(line: bytes) -> None:
    """Write a line, whatever the encoding of standard output."""
    sys.stdout.flush()
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()
