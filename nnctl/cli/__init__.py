"""The command line: parses, calls, renders, and nothing else.

`main` installs the signal handlers before anything heavy is imported, and turns every end of the
program into its exit code.
"""

from __future__ import annotations

import gc
import sys
from typing import NoReturn

from nnctl.cli import signals, streams
from nnctl.errors import ExitCode, SystemFailure
from nnctl.sweeps.orders import end_with_sweep
from nnctl.training.threads import confine_blas


def main() -> NoReturn:
    """Run nnctl with the process's arguments and exit with the code of the contract."""
    code: int = ExitCode.SYSTEM
    try:
        signals.install()
        streams.install()
        confine_blas()
        end_with_sweep()  # before the imports, which take their time
        try:
            from nnctl.cli.group import run
        except Exception:  # some imports disguise a signal as an error of their own
            signals.answer()
            raise
        code = run(sys.argv[1:])
    except signals.Ended as ended:
        code = ended.exit_code
    signals.leave(code)
    try:
        sys.stdout.flush()
    except SystemFailure as error:
        print(f"nnctl: error: {error}", file=sys.stderr)
        code = code or ExitCode.SYSTEM
    sys.stderr.flush()
    signals.ignore()
    gc.freeze()  # else Python's last collections look at every object: 20 ms for nothing
    sys.exit(code)
