"""Standard output and standard error, as the terminal or pipe behind them allows.

Hides what rich must be told: colour and width are rich's own business (NO_COLOR, TERM, COLUMNS),
but whether Unicode arrives is decided here. Whatever draws asks `options.ascii_only`. What is
meant for scripts, JSON and paths, goes out as it is and needs no rich.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from nnctl.files import write_atomically

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False) -> Console:
    """Return the console of standard output or standard error.

    It prints text as it is: no markup, no emoji codes, no highlighting of numbers.
    """
    from rich.console import Console

    class PlainConsole(Console):
        """A console that speaks ASCII where the locale asks for it."""

        @property
        def encoding(self) -> str:
            """The encoding that renderables go by, whatever the stream itself can take."""
            return "ascii" if _plain_locale() else super().encoding

    return PlainConsole(stderr=stderr, markup=False, emoji=False, highlight=False)


def _plain_locale() -> bool:
    """Return whether the locale is C or POSIX by the user's own words."""
    names = (os.environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    return next(filter(None, names), "") in ("C", "POSIX")


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
    import msgspec

    _print_bytes(msgspec.json.encode(content))


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of the same fields on standard output, below a line of their names."""
    import csv
    import io

    if rows:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        _print_bytes(text.getvalue().rstrip("\n").encode())


def print_path(path: Path | str) -> None:
    """Print a path alone on a line of standard output, byte for byte, for a script to use."""
    _print_bytes(os.fsencode(path))


def write_result(path: Path, data: bytes) -> None:
    """Make `data` the content of file `path`; - is standard output."""
    if path != Path("-"):
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
