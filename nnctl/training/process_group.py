"""Several processes that compute together on shared memory.

A `Team` is the calling process and the workers it forks. A task is done in shares, one for each
rank; each process does its own share, and waits for the others before the next task. Layers,
losses and optimizers know nothing of it. A team of one has no workers and costs nothing.

Why processes: two Python threads contend for the interpreter lock several times a step. Why not
more BLAS threads: they spin while they wait, and one other process on the machine makes them
many times slower. Waiting here spins for a moment and then sleeps; and while the machine is so
busy that workers come late, the caller does their shares itself. A share's result does not
depend on who does it, so the load of the machine never changes a byte.
"""

from __future__ import annotations

import mmap
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn, Self

import numpy as np

from nnctl.errors import SystemFailure
from nnctl.nn.functions import Array

SPINS = 2000  # tries before a wait sleeps: about 0.1 ms, longer than two equal shares differ
PATIENCE = 0.5  # seconds a sleeper waits before it looks whether the others are alive
CREDIT = 0.0005  # seconds that workers may come late, beyond what working alone would cost
ALONE = 0.004  # seconds the caller then works alone; twice as long each time it was too short ...
ALONE_MOST = 0.5  # ... up to this

CAN_FORK = hasattr(os, "fork")
SIGNALS = [signal.SIGHUP, signal.SIGINT, signal.SIGTERM] if CAN_FORK else []


def share(total: int, rank: int, size: int) -> slice:
    """Return the part of `range(total)` that is the share of `rank` out of `size`.

    >>> [share(10, rank, 3) for rank in range(3)]
    [slice(0, 3, None), slice(3, 6, None), slice(6, 10, None)]
    """
    return slice(total * rank // size, total * (rank + 1) // size)


class Team:
    """`size` processes in step; the caller has rank 0, its forks have the others.

    Make the team, `allocate` what is shared, `start` it with its tasks, `run` them, `close` it.
    """

    def __init__(self, size: int) -> None:
        """Make a team of `size`; nothing is forked yet."""
        self.size = size
        self.ranks = range(size)
        self._workers: list[int] = []
        self._tasks: Sequence[Callable[..., None]] = ()
        self._command = self.allocate(16, np.float64)  # numbers of tasks and numbers, and both
        self._last_words = self.allocate(4096, np.uint8)  # the traceback of a worker that failed
        self._read = False  # have all workers read the command?
        self._begun = 0  # tasks that workers may still be at ...
        self._started = 0.0  # ... and when the first of them was
        self._debt = -CREDIT
        self._alone_for = self._alone_until = 0.0
        if size > 1:
            from multiprocessing import get_context

            context = get_context("fork")
            self._go = [context.Semaphore(0) for _ in self.ranks[1:]]
            self._done = [context.Semaphore(0) for _ in self.ranks[1:]]

    def allocate(self, count: int, dtype: Any) -> Array:
        """Return a zeroed vector that every member sees; to be called before `start`."""
        if self.size == 1:
            return np.zeros(count, dtype)
        memory = mmap.mmap(-1, max(count, 1) * np.dtype(dtype).itemsize)
        return np.frombuffer(memory, dtype, count)

    def start(self, tasks: Sequence[Callable[..., None]]) -> None:
        """Fork the workers; from now on task i is `tasks[i](rank, ...)`."""
        self._tasks = tasks
        if self.size == 1:
            return
        parent = os.getpid()
        # Ctrl-C reaches every process. The caller answers it for all: in workers it stays blocked.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            for rank in self.ranks[1:]:
                pid = os.fork()
                if pid == 0:
                    self._work(rank, parent)
                self._workers.append(pid)
        except OSError as error:
            raise SystemFailure(
                f"a worker process can't be started: {error.strerror}\ntry --threads 1"
            ) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def run(self, tasks: Sequence[int], *numbers: float, overlap: bool = False) -> None:
        """Have the tasks done in turn, each for every rank once the one before is.

        Returns when rank 0's share of the last one is done. Later ranks may still be at theirs:
        `settle` waits for them. With `overlap` the first task does not: each rank begins it when
        its own share of the last one is done (if that was not the only one: a command must have
        been read before the next is written).
        """
        alone = self.size == 1 or (self._alone_until and time.monotonic() < self._alone_until)
        if alone or not (overlap and self._read):
            self.settle()
        if alone:
            for task in tasks:
                for rank in self.ranks:
                    self._tasks[task](rank, *numbers)
            return
        counts = len(tasks), len(numbers)
        self._command[: 2 + sum(counts)] = *counts, *tasks, *numbers
        self._read = len(tasks) > 1
        for place, task in enumerate(tasks):
            if place:
                self.settle()
            if not self._begun:
                self._started = time.monotonic()
            self._begun += 1
            for go in self._go:
                go.release()
            self._tasks[task](0, *numbers)

    def settle(self) -> None:
        """Wait until what was begun is done for every rank."""
        if not self._begun:
            return
        waiting = time.monotonic()
        for done in self._done * self._begun:
            self._take(done, self._check_alive)
        now = time.monotonic()
        # What waiting has cost, less what the others' shares would have: above 0, go on alone.
        lost = now - waiting - (self.size - 1) * (waiting - self._started)
        self._debt = max(self._debt + lost, -CREDIT)
        if self._debt > 0:
            too_short = self._started < self._alone_until + self._alone_for
            self._alone_for = min(2 * self._alone_for, ALONE_MOST) if too_short else ALONE
            self._alone_until = now + self._alone_for
            self._debt = -CREDIT
        self._begun = 0

    @staticmethod
    def _take(token: Any, check: Callable[[], None]) -> None:
        """Take a token as soon as it is there; while that is long in coming, `check` at times."""
        for _ in range(SPINS):
            if token.acquire(False):
                return
        while not token.acquire(True, PATIENCE):
            check()

    def _check_alive(self) -> None:
        """Raise if a worker is gone."""
        for worker in self._workers:
            if self._gone(worker, os.WNOHANG):
                self._workers.remove(worker)
                last_words = bytes(self._last_words).rstrip(b"\0").decode(errors="replace")
                raise SystemFailure(
                    "a worker process ended unexpectedly (killed, or out of memory)\n"
                    "if it happens again, use --threads 1"
                ) from (RuntimeError(last_words) if last_words else None)

    @staticmethod
    def _gone(worker: int, options: int = 0) -> bool:
        """Return whether a worker has ended; without WNOHANG, wait until it has."""
        try:
            return os.waitpid(worker, options) != (0, 0)
        except ChildProcessError:  # it has, and SIGCHLD is ignored: so some programs start us
            return True

    def _work(self, rank: int, parent: int) -> NoReturn:
        """Be a worker until the caller is gone or kills this process."""

        def orphaned() -> None:
            if os.getppid() != parent:
                os._exit(0)

        try:
            self._workers = []
            # A worker must not keep the caller's files, locks and pipes open.
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            go, done = self._go[rank - 1], self._done[rank - 1]
            while True:
                self._take(go, orphaned)
                count, more, *command = self._command.tolist()
                tasks, numbers = command[: int(count)], command[int(count) : int(count + more)]
                for place, task in enumerate(tasks):
                    if place:
                        self._take(go, orphaned)
                    self._tasks[int(task)](rank, *numbers)
                    done.release()
        except BaseException:
            import traceback

            text = traceback.format_exc().encode()[-len(self._last_words) :]
            self._last_words[: len(text)] = np.frombuffer(text, np.uint8)
        finally:
            os._exit(1)

    def close(self) -> None:
        """End the workers; they hold nothing that could be lost."""
        for worker in self._workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
            self._gone(worker)
        self._workers = []
        self._begun = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
