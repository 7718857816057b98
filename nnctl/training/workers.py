"""Several processes that compute together on shared memory.

A `Team` is the calling process and the workers it forks. All of them run the same task at the
same time, each on its share; `barrier` makes them wait for one another. Layers, losses and
optimizers know nothing of it. A team of one has no workers and costs nothing.

Why processes: two Python threads contend for the interpreter lock several times a step. Why not
more BLAS threads: they spin while they wait, and one other process on the machine makes them
many times slower. Waiting here spins for a moment and then sleeps.
"""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Self

import numpy as np

from nnctl.errors import SystemFailure
from nnctl.nn.functions import Array

SPINS = 2000  # tries before a wait sleeps: about 0.1 ms, longer than two equal shares differ
PATIENCE = 0.5  # seconds a sleeper waits before it looks whether the others are alive
SETTLE = -1  # the last task of every team: nothing

CAN_FORK = hasattr(os, "fork")


def share(total: int, rank: int, size: int) -> slice:
    """Return the part of `range(total)` that member `rank` of `size` works on.

    >>> [share(10, rank, 3) for rank in range(3)]
    [slice(0, 3, None), slice(3, 6, None), slice(6, 10, None)]
    """
    return slice(total * rank // size, total * (rank + 1) // size)


class Team:
    """`size` processes in step; `rank` 0 is the caller, the others are its forks.

    Make the team, `allocate` what is shared, `start` it with its tasks, `run` them, `close` it.
    """

    def __init__(self, size: int) -> None:
        """Make a team of `size`; nothing is forked yet."""
        self.size = size
        self.rank = 0
        self._workers: list[int] = []
        self._tasks: Sequence[Callable[..., None]] = ()
        self._command = self.allocate(8, np.float64)
        self._turn = 0
        if size > 1:
            from multiprocessing import get_context

            # Two sets in turn: the fastest member may be one barrier ahead of the slowest.
            context = get_context("fork")
            self._tokens = [[context.Semaphore(0) for _ in range(size)] for _ in range(2)]

    def allocate(self, count: int, dtype: Any) -> Array:
        """Return a zeroed vector that every member sees; to be called before `start`."""
        if self.size == 1:
            return np.zeros(count, dtype)
        memory = mmap.mmap(-1, max(count, 1) * np.dtype(dtype).itemsize)
        return np.frombuffer(memory, dtype, count)

    def start(self, tasks: Sequence[Callable[..., None]]) -> None:
        """Fork the workers. From now on `run(i, ...)` calls `tasks[i](...)` in every member."""
        self._tasks = [*tasks, lambda: None]
        parent = os.getpid()
        for rank in range(1, self.size):
            pid = os.fork()
            if pid == 0:
                self._work(rank, parent)
            self._workers.append(pid)

    def run(self, task: int, *numbers: float) -> None:
        """Run task number `task` in every member, and return when this member's share is done."""
        if self.size > 1:
            self._command[:2] = task, len(numbers)
            self._command[2 : 2 + len(numbers)] = numbers
            self.barrier()
        self._tasks[task](*numbers)

    def settle(self) -> None:
        """Wait until every member has done its share of what was run."""
        self.run(SETTLE)

    def barrier(self) -> None:
        """Wait until every member has come here."""
        if self.size == 1:
            return
        tokens = self._tokens[self._turn]
        self._turn ^= 1
        for rank, token in enumerate(tokens):
            if rank != self.rank:
                token.release()
        mine = tokens[self.rank]
        for _ in range(self.size - 1):
            self._take(mine)

    def _take(self, token: Any) -> None:
        for _ in range(SPINS):
            if token.acquire(False):
                return
        while not token.acquire(True, PATIENCE):
            self._check_alive()

    def _check_alive(self) -> None:
        """Raise if a worker is gone; a worker whose caller is gone ends."""
        if self.rank and os.getppid() != self._parent:
            os._exit(0)
        for worker in self._workers:
            if os.waitpid(worker, os.WNOHANG) != (0, 0):
                self._workers.remove(worker)
                raise SystemFailure(
                    "a worker process ended unexpectedly (killed, or out of memory)\n"
                    "resume the run, or train with --threads 1"
                )

    def _work(self, rank: int, parent: int) -> NoReturn:
        """Be a worker until the caller is gone or kills this process."""
        try:
            self.rank, self._parent, self._workers = rank, parent, []
            for name in ("SIGHUP", "SIGINT", "SIGTERM"):  # the caller answers them for all
                signal.signal(getattr(signal, name), signal.SIG_IGN)
            # A worker must not keep the caller's files, locks and pipes open.
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            while True:
                self.barrier()
                task, count, *numbers = self._command.tolist()
                self._tasks[int(task)](*numbers[: int(count)])
        finally:
            os._exit(1)

    def close(self) -> None:
        """End the workers; they hold nothing that could be lost."""
        for worker in self._workers:
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)
        self._workers = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
