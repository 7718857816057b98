"""SIGHUP, SIGINT and SIGTERM: how a command is asked to end, and when it listens.

Everywhere a signal raises `Ended` at once. Inside `deferred()` the first one is only noted, so
that training can finish its step and write a checkpoint; the second raises `Ended` there too.
A signal that was ignored when the process started (nohup) stays ignored.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [
    getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM") if hasattr(signal, name)
]


class Ended(BaseException):
    """A signal asks the process to end; not an `Exception`, so that nothing swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as shells expect."""
        return 128 + self.number


class Request:
    """The signal that came while handling was deferred, if any."""

    number: int | None = None


_request: Request | None = None


def _handle(number: int, frame: FrameType | None) -> None:
    if _request is not None and _request.number is None:
        _request.number = number
    else:
        raise Ended(number)


def install() -> None:
    """Handle the three signals from now on."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


@contextmanager
def deferred() -> Iterator[Request]:
    """Note the first signal in the `Request` that is yielded, instead of raising."""
    global _request
    _request = request = Request()
    try:
        yield request
    finally:
        _request = None
