"""SIGHUP, SIGINT and SIGTERM: how a command is asked to end, and when it listens.

Everywhere a signal raises `Ended` at once. Inside `deferred()` the first one is only noted, so
that training can finish its step and write a checkpoint; the second raises `Ended` there too.
A signal that was ignored when the process started (nohup) stays ignored.

Whoever sent a signal waits `GRACE` seconds at most. Then a step that takes too long, or a write
to a pipe that nobody reads, is given up. Python drops an exception that a handler raises in some
callbacks, such as those of an import: so `Ended` is raised again, until it arrives.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [
    getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM") if hasattr(signal, name)
]
GRACE = 1.5  # seconds
LAST_WORDS = 0.2  # seconds more for what is still to be written
_ALARM = getattr(signal, "SIGALRM", None)


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


_first: int | None = None  # the signal that the process ends with
_request: Request | None = None


def _handle(number: int, frame: FrameType | None) -> None:
    global _first
    if _first is None:
        _first = number
    _set_alarm(GRACE)
    if _request is not None and _request.number is None:
        _request.number = _first
    else:
        raise Ended(_first)


def _set_alarm(seconds: float) -> None:
    if _ALARM is not None:
        signal.setitimer(signal.ITIMER_REAL, seconds)


def install() -> None:
    """Handle the three signals from now on."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)
    if _ALARM is not None:
        signal.signal(_ALARM, _handle)


def answer() -> None:
    """Raise `Ended` if a signal has come.

    For errors that nobody foresaw: some callbacks, such as `__set_name__`, disguise whatever a
    handler raises in them as an error of their own.
    """
    if _first is not None:
        raise Ended(_first)


def leave(code: int) -> None:
    """From now on, a signal or a pipe that nobody reads ends the process without more words."""

    def end(number: int, frame: FrameType | None) -> None:
        os._exit(code if number == _ALARM else 128 + number)

    for number in (*SIGNALS, _ALARM):
        if number is not None and signal.getsignal(number) is _handle:
            signal.signal(number, end)
    if _first is not None:
        _set_alarm(LAST_WORDS)


def ignore() -> None:
    """Let the interpreter end: in these milliseconds it would answer signals in its own way."""
    for number in (*SIGNALS, _ALARM):
        if number is not None:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def deferred() -> Iterator[Request]:
    """Note the first signal in the `Request` that is yielded, instead of raising."""
    global _request
    _request = request = Request()
    try:
        yield request
    finally:
        _request = None
