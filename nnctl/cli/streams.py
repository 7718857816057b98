"""Standard output that says why it failed, and standard error that never fails.

A result that can't be written is an error; progress, warnings and errors that nobody reads must
not end a run that has worked for hours.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO

from nnctl.errors import SystemFailure


class _Results(io.FileIO):
    lost = False

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        try:
            return len(data) if self.lost else super().write(data)
        except OSError as error:
            self.lost = True  # what still lies in a buffer must not fail again
            reason = f"{error.strerror}; the rest of the result is lost"
            raise SystemFailure(f"standard output: {reason}") from None


class _Messages(io.FileIO):
    def write(self, data: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError:
            return len(data)


def install() -> None:
    """Put both streams in the place of Python's own."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # It was closed. The next file that is opened must not take its number; and one can't
            # write to this one either.
            os.open(os.devnull, os.O_RDONLY)
    sys.stdout = _text(_Results(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Messages(2, "w", closefd=False), sys.stderr)


def _text(raw: io.FileIO, before: TextIO | None) -> TextIO:
    """Return a text stream on `raw` in the encoding of `before`; what that lacks is escaped."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before else None,
        errors="backslashreplace",
        line_buffering=raw.isatty(),
    )
