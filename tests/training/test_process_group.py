"""Processes in step on shared memory: barriers, workers that fail, and the pace that is chosen."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, islice, pairwise
from typing import Any

import numpy as np
import pytest

from nnctl.errors import SystemFailure
from nnctl.nn.functions import Array
from nnctl.training import process_group
from nnctl.training.process_group import Pace, ProcessGroup, in_lockstep, shard


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("total", [0, 1, 5, 100])
def test_shards_partition_the_whole_in_order(total: int, size: int) -> None:
    parts = [list(range(total))[shard(total, rank, size)] for rank in range(size)]
    assert list(chain(*parts)) == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def group_that_writes(size: int) -> tuple[ProcessGroup, Array]:
    """Return a group whose task `write` leaves rank and process of each shard, times a number."""
    group = ProcessGroup(size)
    written = group.allocate(2 * size, np.float64).reshape(size, 2)

    def write(rank: int, factor: float) -> Iterator[None]:
        written[rank] = factor * (rank + 1), os.getpid()
        yield

    def fail(rank: int) -> Iterator[None]:
        if rank:
            raise ValueError("no such luck")
        yield

    group.start({"write": write, "fail": fail})
    return group, written


@pytest.mark.parametrize("size", [1, 2, 3])
def test_group_runs_each_rank_once_in_a_process_of_its_own(size: int) -> None:
    group, written = group_that_writes(size)
    with group:
        for factor in (1.0, 2.5):
            group.run("write", factor)
            assert written[:, 0].tolist() == [factor * (rank + 1) for rank in range(size)]
        assert len(set(written[:, 1])) == size
        assert written[0, 1] == os.getpid()


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_nobody_passes_a_barrier_before_all_have_reached_it(size: int, together: bool) -> None:
    with ProcessGroup(size) as group:
        numbers, sums = (group.allocate(size, np.float64) for _ in range(2))

        def task(rank: int, number: float) -> Iterator[None]:
            for _ in range(2):
                time.sleep(0.002 * rank)
                numbers[rank] = number + sums.sum()
                yield
                sums[rank] = numbers.sum()
                yield

        group.start({"task": task})
        group.pace.together = together
        group.run("task", 1.0)
        once = size  # each wrote 1
        assert sums.tolist() == [size * (1 + size * once)] * size


def test_lockstep_runs_every_task_to_its_end() -> None:
    done: list[str] = []

    def task(name: str) -> Iterator[None]:
        done.append(f"{name}1")
        yield
        done.append(f"{name}2")

    in_lockstep([task("a"), task("b")])
    assert done == ["a1", "b1", "a2", "b2"]


def test_run_passes_whole_numbers_and_words_as_they_are() -> None:
    with ProcessGroup(2) as group:
        seen = group.allocate(2, np.intp)

        def task(rank: int, word: str, large: int) -> Iterator[None]:
            seen[rank] = large + (word == "train")  # a float would have lost the last bit
            yield

        group.start({"task": task})
        group.run("task", "train", 2**60)
        assert seen.tolist() == [2**60 + 1] * 2


def test_caller_computes_every_rank_while_that_is_faster() -> None:
    group, written = group_that_writes(3)
    with group:
        group.pace.together = False
        group.run("write", 4.0)
        assert written[:, 0].tolist() == [4.0, 8.0, 12.0]
        assert set(written[:, 1]) == {os.getpid()}
        group.pace.together = True
        group.run("write", 1.0)
        assert len(set(written[:, 1])) == 3


def test_group_without_semaphores_computes_everything_in_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They lie in /dev/shm, which some containers don't have."""

    def refuse(*arguments: Any) -> Any:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("multiprocessing.context.BaseContext.Semaphore", refuse)
    group, written = group_that_writes(2)
    with group:
        group.run_paced("write", 1.0)
    assert group.alone_because == "no semaphores can be had: Read-only file system"
    assert written.tolist() == [[1.0, os.getpid()], [2.0, os.getpid()]]


def test_worker_that_fails_is_reported_and_does_not_hang() -> None:
    group, _ = group_that_writes(2)
    with group, pytest.raises(SystemFailure, match="--threads 1") as caught:
        group.run("fail")
    assert "ValueError: no such luck" in str(caught.value.__cause__)  # for NNCTL_DEBUG=1


def test_closing_leaves_no_child_process() -> None:
    group, _ = group_that_writes(3)
    children = list(group._workers)
    assert len(children) == 2
    group.close()
    for worker in children:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


@pytest.fixture
def ignored_children() -> Iterator[None]:
    """Ignore SIGCHLD, as some supervisors have their programs do: children leave no trace."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("ignored_children")
def test_group_works_where_nobody_learns_of_ended_children() -> None:
    group, written = group_that_writes(3)
    with closing(group):  # whoever is still there
        first, second = group._workers
        group.run("write", 1.0)
        assert written[2].tolist() == [3.0, second]
        os.kill(first, signal.SIGKILL)
        with pytest.raises(SystemFailure, match="a worker process ended unexpectedly"):
            group.run("write", 1.0)
        os.kill(second, signal.SIGKILL)


def test_workers_keep_no_pipe_of_the_caller_open() -> None:
    reader, writer = os.pipe()
    group, _ = group_that_writes(2)
    with group, open(reader, "rb") as pipe:
        group.run("write", 1.0)  # now the worker is up
        os.close(writer)
        assert pipe.read() == b""  # it would wait if somebody else could still write


def test_workers_ignore_the_signals_that_the_caller_answers() -> None:
    group, written = group_that_writes(2)
    with group:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(group._workers[0], number)
        group.run("write", 3.0)
        assert written[1, 0] == 6.0


def test_allocated_memory_is_zero_and_seen_by_all() -> None:
    for count, dtype in ((0, np.float32), (5, np.intp)):
        array = ProcessGroup(2).allocate(count, dtype)
        assert array.dtype == dtype
        assert array.tolist() == [0] * count


def test_group_of_one_forks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_fork() -> Any:
        raise AssertionError

    monkeypatch.setattr(os, "fork", no_fork)
    done: list[int] = []

    def task(rank: int) -> Iterator[None]:
        done.append(rank)
        yield

    with ProcessGroup(1) as group:
        group.start({"task": task})
        group.run("task")
    assert done == [0]


# The pace: a clock made by hand tells how long runs take in either way.


def paced(together: float, alone: float, pace: Pace) -> Iterator[bool]:
    """Yield the way of each run without end, where runs take so many seconds in either way."""
    while True:
        yield pace.together
        pace.note(together if pace.together else alone)


def share_together(ways: Iterator[bool], runs: int) -> float:
    """Return how many of the next runs are done together, as a fraction."""
    return sum(islice(ways, runs)) / runs


def test_pace_keeps_to_the_faster_way_but_for_short_trials_of_the_other() -> None:
    assert share_together(paced(0.0002, 0.0003, Pace()), 20_000) > 0.98
    assert share_together(paced(0.0005, 0.0003, Pace()), 20_000) < 0.04
    assert share_together(paced(0.005, 0.0003, Pace()), 20_000) < 0.01


def test_pace_follows_a_neighbour_that_comes_and_goes() -> None:
    pace = Pace()
    assert share_together(paced(0.0002, 0.0003, pace), 60_000) > 0.99
    busy = paced(0.002, 0.0003, pace)
    list(islice(busy, 15))  # within two blocks, whenever the next trial were due
    assert share_together(busy, 700) < 0.05
    quiet = paced(0.0002, 0.0003, pace)
    list(islice(quiet, 2000))  # the wait began anew when the neighbour came
    assert share_together(quiet, 1000) > 0.95


@pytest.mark.parametrize(
    ("together", "alone", "wait"),
    [(0.0002, 0.0004, process_group.ALONE_AFTER), (0.0004, 0.0002, process_group.TOGETHER_AFTER)],
)
def test_pace_tries_the_slower_way_again_after_a_while(
    together: float, alone: float, wait: float
) -> None:
    is_slower, slower_way = together < alone, []
    seconds = 0.0
    for way in islice(paced(together, alone, Pace()), 60_000):
        seconds += together if way else alone
        if way != is_slower:
            slower_way.append(seconds)
    begun = [end for start, end in pairwise(slower_way) if end - start > process_group.BLOCK]
    assert np.diff(begun) == pytest.approx(wait, rel=0.2)


def test_pace_loses_little_to_a_neighbour_that_is_busy_half_of_each_second() -> None:
    pace, seconds, runs = Pace(), 0.0, 0
    while seconds < 10:
        together = 0.001 if seconds % 1 < 0.5 else 0.0002
        took = together if pace.together else 0.0003
        pace.note(took)
        seconds += took
        runs += 1
    at_best = 5 / 0.0003 + 5 / 0.0002  # the faster way at all times
    assert runs > 0.9 * at_best
