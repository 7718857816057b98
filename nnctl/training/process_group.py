"""Several processes that compute together on shared memory.

A `ProcessGroup` is the calling process and the workers it forks. A task is a generator, one for
each rank; its `yield`s are barriers: nobody passes one before all ranks have reached it. Layers,
losses and optimizers know nothing of it.

Why processes: two Python threads contend for the interpreter lock several times a step. Why not
more BLAS threads: they spin while they wait, and one other process on the machine makes them
many times slower. Waiting here spins for a moment and then sleeps. While the machine is so busy
that waiting for the workers takes longer than their work, the caller advances the generators of
all ranks itself. A rank's result does not depend on who computes it, so the load of the machine
never changes a byte.
"""

from __future__ import annotations

import marshal
import math
import mmap
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import zip_longest
from typing import Any, NoReturn, Self

import numpy as np

from nnctl.errors import SystemFailure
from nnctl.nn.functions import Array

SPINS = 2000  # tries before a wait sleeps: about 0.1 ms, longer than two equal shards differ
PATIENCE = 0.5  # seconds a sleeper waits before it looks whether the others are alive

CAN_FORK = hasattr(os, "fork")
SIGNALS = [signal.SIGHUP, signal.SIGINT, signal.SIGTERM] if CAN_FORK else []

Task = Callable[..., Iterator[None]]  # called with a rank, and what `run` was given


def shard(total: int, rank: int, size: int) -> slice:
    """Return the part of `range(total)` that belongs to `rank` out of `size`.

    >>> [shard(10, rank, 3) for rank in range(3)]
    [slice(0, 3, None), slice(3, 6, None), slice(6, 10, None)]
    """
    return slice(total * rank // size, total * (rank + 1) // size)


def in_lockstep(tasks: Iterable[Iterator[None]]) -> None:
    """Advance the tasks of all ranks in this process, from barrier to barrier, to their ends."""
    for _ in zip_longest(*tasks):
        pass


class ProcessGroup:
    """`size` processes in step; the caller has rank 0, its forks have the others.

    Make the group, `allocate` what is shared, `start` it with its tasks, `run` them, `close` it.
    """

    def __init__(self, size: int) -> None:
        """Make a group of `size`; nothing is forked yet."""
        self.size = size
        self.ranks = range(size)
        self.pace = Pace()
        self._workers: list[int] = []
        self._tasks: Mapping[str, Task] = {}
        self._command = self.allocate(256, np.uint8)  # the name of a task and its arguments
        self._traceback = self.allocate(4096, np.uint8)  # of a worker that failed
        self.alone_because: str | None = None  # why no workers can be had
        if size > 1:
            from multiprocessing import get_context

            context = get_context("fork")
            try:
                self._go = [context.Semaphore(0) for _ in self.ranks[1:]]
                self._arrived = [context.Semaphore(0) for _ in self.ranks[1:]]
            except OSError as error:  # they need a /dev/shm that can be written to
                self.alone_because = f"no semaphores can be had: {error.strerror or error}"

    def allocate(self, count: int, dtype: Any) -> Array:
        """Return a zeroed vector that every process sees; to be called before `start`."""
        if self.size == 1:
            return np.zeros(count, dtype)
        memory = mmap.mmap(-1, max(count, 1) * np.dtype(dtype).itemsize)
        return np.frombuffer(memory, dtype, count)

    def start(self, tasks: Mapping[str, Task]) -> None:
        """Fork the workers; `tasks` are what `run` can be asked for by name."""
        self._tasks = tasks
        if self.size == 1 or self.alone_because:
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

    def run(self, name: str, *arguments: float | str) -> None:
        """Have the task done by all ranks, with these numbers as its arguments."""
        task = self._tasks[name]
        if not self._workers or not self.pace.together:
            in_lockstep([task(rank, *arguments) for rank in self.ranks])
            return
        command = marshal.dumps((name, arguments))
        self._command[: len(command)] = np.frombuffer(command, np.uint8)
        self._release()
        for _ in task(0, *arguments):
            self._synchronize()
            self._release()
        self._synchronize()

    def run_paced(self, name: str, *arguments: float | str) -> None:
        """Do as `run`, in the way that is faster just now: together, or all by the caller."""
        started = time.perf_counter()
        self.run(name, *arguments)
        if self._workers:
            self.pace.note(time.perf_counter() - started)

    def _release(self) -> None:
        """Let the workers go on to the next barrier."""
        for go in self._go:
            go.release()

    def _synchronize(self) -> None:
        """Wait until every worker has reached the barrier."""
        for arrived in self._arrived:
            self._take(arrived, self._check_alive)

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
                text = bytes(self._traceback).rstrip(b"\0").decode(errors="replace")
                raise SystemFailure(
                    "a worker process ended unexpectedly (killed, or out of memory)\n"
                    "if it happens again, use --threads 1"
                ) from (RuntimeError(text) if text else None)

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
            go, arrived = self._go[rank - 1], self._arrived[rank - 1]
            while True:
                self._take(go, orphaned)
                name, arguments = marshal.loads(self._command.data)
                for _ in self._tasks[name](rank, *arguments):
                    arrived.release()
                    self._take(go, orphaned)
                arrived.release()
        except BaseException:
            import traceback

            text = traceback.format_exc().encode()[-len(self._traceback) :]
            self._traceback[: len(text)] = np.frombuffer(text, np.uint8)
        finally:
            os._exit(1)

    def close(self) -> None:
        """End the workers; they hold nothing that could be lost."""
        for worker in self._workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
            self._gone(worker)
        self._workers = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


BLOCK = 0.02  # seconds whose mean time a run counts: several time slices of the scheduler
PROBE = 0.005  # seconds for which the other way is tried
# Seconds until it is tried though it was slower. That a neighbour has come is felt at once, in the
# mean time of a run together; that it has gone, only a trial shows.
ALONE_AFTER = 2.0
TOGETHER_AFTER = 0.2


class Pace:
    """Which way is faster just now: all processes together, or the caller alone for all ranks.

    A neighbour on the machine comes and goes. So each way's time is the mean over its newest
    block, the faster one is used, and the other one is tried now and then.
    """

    def __init__(self) -> None:
        """Begin together; the other way is tried after the first block."""
        self.together = True
        self._means: dict[bool, float] = {}  # seconds of a run, by way
        self._runs, self._elapsed = 0, 0.0  # of the block
        self._probing = False
        self._since_probe = math.inf  # seconds

    def note(self, seconds: float) -> None:
        """Take note of a run in the present way; choose the way of the next one."""
        self._runs += 1
        self._elapsed += seconds
        if self._elapsed < (PROBE if self._probing else BLOCK):
            return
        mean = self._means[self.together] = self._elapsed / self._runs
        self._since_probe += self._elapsed
        self._runs, self._elapsed = 0, 0.0
        other = self._means.get(not self.together, math.inf)
        if self._probing:
            self._probing = False
            self._since_probe = 0.0
            if mean >= other:
                self.together = not self.together
            return
        wait = ALONE_AFTER if self.together else TOGETHER_AFTER
        if mean > other or self._since_probe >= wait:
            self._probing = True
            self.together = not self.together
