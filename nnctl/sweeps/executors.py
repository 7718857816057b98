"""Where trainings run: what a sweep asks of any place, and the processes of this machine."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from nnctl.datasets import Source
from nnctl.files import locked
from nnctl.sweeps.orders import Orders
from nnctl.sweeps.training import Training

PATIENCE = 1.0  # seconds for a training to write its checkpoint when the sweep is ended
ORPHAN = 3.0  # seconds for a training whose sweep was killed to let go of its run
MAX_KILLS = 10  # of one training in a row, and it has failed
TAIL = 4096  # bytes of a training's messages that are kept


@dataclass(frozen=True)
class TrainingEnded:
    """A training that is over, one way or another; its folder says what came of it."""

    training: Training
    code: int  # its exit code, or minus the signal that killed it
    message: str  # the end of what it said on standard error
    where: str = ""  # the worker that did it, if it was on another machine


class Executor(Protocol):
    """A place where trainings run."""

    def submit(self, training: Training) -> None:
        """Begin a training, or go on with it."""

    def wait(self, timeout: float) -> list[TrainingEnded]:
        """Return the trainings that have ended, once there is one or `timeout` s have passed."""

    def close(self) -> None:
        """End what is still under way; its folders can be gone on with."""


class LocalProcesses:
    """Each training is a process `nnctl train` of its own, with one thread.

    They hold the reading end of a pipe that only this process can write to. However it ends, the
    system closes it, and they end too.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        """Start none yet; each will have `variables` in its environment."""
        self._environment = {**os.environ, **variables}
        self._reading, self._writing = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._messages: dict[subprocess.Popen[bytes], bytes] = {}

    def submit(self, training: Training) -> None:
        """Begin a training, or go on with it.

        Raises:
            SystemFailure: its folder can't be read.

        """
        if training.run.path.exists():
            with locked(training.run.path, ORPHAN):
                pass  # the training of a sweep that was killed has let go of it
        # As `nnctl` itself was started: with or without the current folder's modules.
        safe = [] if os.getcwd() in sys.path or "" in sys.path else ["-P"]
        process = subprocess.Popen(
            [sys.executable, *safe, "-m", "nnctl", *training.arguments()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(self._reading,),
            # Ctrl-C is this process's to answer.
            process_group=0,
            env={**self._environment, **Orders(self._reading, training.rule).to_environment()},
        )
        self._messages[process] = b""
        assert process.stderr is not None
        self._selector.register(process.stderr, selectors.EVENT_READ, (training, process))

    def wait(self, timeout: float) -> list[TrainingEnded]:
        """Return the trainings that have ended, once there is one or `timeout` s have passed."""
        ended: list[TrainingEnded] = []
        due = time.monotonic() + timeout
        while not ended and (left := due - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                training, process = key.data
                data = os.read(key.fd, TAIL)
                self._messages[process] = (self._messages[process] + data)[-TAIL:]
                if not data:  # only its end closes the stream
                    self._selector.unregister(key.fileobj)
                    process.stderr.close()
                    code = process.wait()
                    message = self._messages.pop(process).decode("utf-8", "replace")
                    ended.append(TrainingEnded(training, code, message))
        return ended

    def close(self) -> None:
        """End what is still under way: with a checkpoint, if that takes at most `PATIENCE`."""
        due = time.monotonic() + PATIENCE
        for process in self._messages:
            process.terminate()
        for process in self._messages:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(due - time.monotonic(), 0))
        for process in self._messages:
            with process:  # closes its streams, and waits
                process.kill()
        self._messages.clear()
        self._selector.close()
        os.close(self._writing)
        os.close(self._reading)


def environment_of(source: Source) -> Mapping[str, str]:
    """Return the environment that gives a command the same source of data.

    Not as options: what a mirror's URL holds of secrets must not be seen in a list of processes.
    """
    found = {"NNCTL_OFFLINE": "1" if source.offline else ""}
    if source.data_dir is not None:
        found["NNCTL_DATA_DIR"] = str(source.data_dir)
    if source.mirrors:
        found["NNCTL_MIRRORS"] = " ".join(source.mirrors)
    return found


def was_killed(code: int) -> bool:
    """Return whether a process was ended from outside: nobody's fault, so it is gone on with."""
    return code < 0 or code in {128 + number for number in (signal.SIGINT, signal.SIGTERM, 1)}


def error_text(message: str) -> str:
    """Return the error message in the standard error of a training, or all of that."""
    start = "nnctl: error: "
    _, found, text = message.rpartition(start)
    return (text if found else message).strip()
