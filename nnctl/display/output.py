"""Standard output and standard error, as the terminal or pipe behind them allows.

Hides what rich must be told: colour, width and redraw are rich's own business (NO_COLOR, TERM,
COLUMNS), but whether Unicode arrives is decided here. Whatever draws asks `options.ascii_only`.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import Any

from rich.console import Console


class _Console(Console):
    """A console that speaks ASCII where the locale asks for it, whatever the stream can encode."""

    @property
    def encoding(self) -> str:
        """The encoding that renderables go by."""
        return "ascii" if _plain_locale() else super().encoding


def _plain_locale() -> bool:
    """Return whether the locale is C or POSIX by the user's own words."""
    names = (os.environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    return next(filter(None, names), "") in ("C", "POSIX")


@cache
def console(*, stderr: bool = False) -> Console:
    """Return the console of standard output or standard error.

    It prints text as it is: no markup, no emoji codes, no highlighting of numbers.
    """
    return _Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def print_json(content: Any) -> None:
    """Print one line of JSON on standard output, at once; what isn't finite becomes null."""
    import msgspec

    sys.stdout.write(msgspec.json.encode(content).decode() + "\n")
    sys.stdout.flush()
