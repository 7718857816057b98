"""The command line: parses, calls, renders, and nothing else.

`main` stands the signal handlers up before anything heavy is imported, and turns every end of the
program into its exit code.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

from nnctl.cli import signals
from nnctl.training.threads import confine_blas


def main() -> NoReturn:
    """Run nnctl with the process's arguments and exit with the code of the contract."""
    code = 1
    try:
        signals.install()
        confine_blas()
        from nnctl.cli.group import run

        code = run(sys.argv[1:])
        sys.stdout.flush()
    except signals.Ended as ended:
        code = ended.exit_code
    except OSError as error:
        code = _output_lost(error)
    _exit(code)


def _output_lost(error: OSError) -> int:
    """Say that standard output could not take the rest of the result."""
    with contextlib.suppress(OSError):  # nobody is left to be told
        print(f"nnctl: error: standard output: {error.strerror or error}", file=sys.stderr)
    return 1


def _exit(code: int) -> NoReturn:
    """Leave without the interpreter's own complaints about streams that are closed already."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)
