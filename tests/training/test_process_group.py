import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest

from nnctl.errors import SystemFailure
from nnctl.nn.functions import Array
from nnctl.training import process_group as workers
from nnctl.training.process_group import Team, share


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no worker be late, however busy the machine that runs the tests."""
    monkeypatch.setattr(workers, "CREDIT", 60.0)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("total", [0, 1, 5, 100])
def test_shares_partition_the_whole_in_order(total: int, size: int) -> None:
    parts = [list(range(total))[share(total, rank, size)] for rank in range(size)]
    assert list(chain(*parts)) == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def team_that_writes(size: int) -> tuple[Team, Array]:
    """Return a team whose task 0 writes rank and process of each share, times a number."""
    team = Team(size)
    written = team.allocate(2 * size, np.float64).reshape(size, 2)

    def write(rank: int, factor: float) -> None:
        written[rank] = factor * (rank + 1), os.getpid()

    def fail(rank: int) -> None:
        if rank:
            raise ValueError("no such luck")

    team.start([write, fail])
    return team, written


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("size", [1, 2, 3])
def test_team_does_each_share_once_in_a_process_of_its_own(size: int) -> None:
    team, written = team_that_writes(size)
    with team:
        for factor in (1.0, 2.5):
            team.run([0], factor)
            team.settle()
            assert written[:, 0].tolist() == [factor * (rank + 1) for rank in range(size)]
        assert len(set(written[:, 1])) == size
        assert written[0, 1] == os.getpid()


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_next_task_finds_what_every_rank_did_in_the_one_before(size: int, alone: bool) -> None:
    with Team(size) as team:
        numbers, sums = (team.allocate(size, np.float64) for _ in range(2))

        def write(rank: int, number: float) -> None:
            time.sleep(0.002 * rank)
            numbers[rank] = number + sums.sum()

        def add_up(rank: int, number: float) -> None:
            sums[rank] = numbers.sum()

        team.start([write, add_up])
        team._alone_until = time.monotonic() + 60 if alone else 0.0
        team.run([0, 1, 0, 1], 1.0)
        team.settle()
        once = size  # each wrote 1
        assert sums.tolist() == [size * (1 + size * once)] * size


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("overlap", [False, True])
def test_ranks_wait_for_each_other_between_runs_unless_these_overlap(overlap: bool) -> None:
    with Team(2) as team:
        begun, ended = (team.allocate(2, np.float64) for _ in range(2))

        def first(rank: int, number: float) -> None:
            begun[rank] = time.monotonic()

        def last(rank: int, number: float) -> None:
            time.sleep(0.05 * rank)
            ended[rank] = time.monotonic()

        team.start([first, last])
        team.run([0, 1], 1.0)
        team.run([0], 2.0, overlap=overlap)
        team.settle()
        assert bool(begun[0] < ended[1]) is overlap
        assert begun[1] > ended[1]  # no rank begins before its own share is done
        # The command of a single task may not have been read: nobody may write the next one.
        team.run([1], 3.0)
        team.run([0], 4.0, overlap=True)
        assert begun[0] > ended[1]


@pytest.mark.usefixtures("patient")
def test_caller_does_every_share_while_it_works_alone() -> None:
    team, written = team_that_writes(3)
    with team:
        team._alone_until = time.monotonic() + 60
        team.run([0], 4.0)
        assert written[:, 0].tolist() == [4.0, 8.0, 12.0]
        assert set(written[:, 1]) == {os.getpid()}
        team._alone_until = 0.0
        team.run([0], 1.0)
        team.settle()
        assert len(set(written[:, 1])) == 3


def test_late_worker_makes_the_caller_work_alone_for_longer_each_time() -> None:
    team = Team(2)
    spans = []

    def wait(rank: int) -> None:
        if rank and not team._alone_until > time.monotonic():
            time.sleep(0.005)

    team.start([wait])
    with team:
        for _ in range(3):
            team._alone_until = min(team._alone_until, time.monotonic())  # it is over
            team.run([0])
            team.settle()
            assert team._alone_until > time.monotonic()
            spans.append(team._alone_for)
    assert spans[1] == 2 * spans[0]
    assert spans[2] == 2 * spans[1]


@pytest.mark.usefixtures("patient")
def test_worker_that_fails_is_told_and_does_not_hang() -> None:
    team, _ = team_that_writes(2)
    with team:
        team.run([1])
        with pytest.raises(SystemFailure, match="--threads 1") as caught:
            team.settle()
    assert "ValueError: no such luck" in str(caught.value.__cause__)  # for NNCTL_DEBUG=1


def test_closing_leaves_no_child_process() -> None:
    team, _ = team_that_writes(3)
    children = list(team._workers)
    assert len(children) == 2
    team.close()
    for worker in children:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


@pytest.fixture
def ignored_children() -> Iterator[None]:
    """Ignore SIGCHLD, as some supervisors have their programs do: children leave no trace."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("patient", "ignored_children")
def test_team_works_where_nobody_is_told_of_ended_children() -> None:
    team, written = team_that_writes(3)
    first, second = team._workers
    team.run([0], 1.0)
    team.settle()
    assert written[2].tolist() == [3.0, second]
    os.kill(first, signal.SIGKILL)
    team.run([0], 1.0)
    with pytest.raises(SystemFailure, match="a worker process ended unexpectedly"):
        team.settle()
    os.kill(second, signal.SIGKILL)
    team.close()  # whoever is still there


@pytest.mark.usefixtures("patient")
def test_workers_keep_no_pipe_of_the_caller_open() -> None:
    reader, writer = os.pipe()
    team, _ = team_that_writes(2)
    with team, open(reader, "rb") as pipe:
        team.run([0], 1.0)  # now the worker is up
        team.settle()
        os.close(writer)
        assert pipe.read() == b""  # it would wait if somebody else could still write


@pytest.mark.usefixtures("patient")
def test_workers_ignore_the_signals_that_the_caller_answers() -> None:
    team, written = team_that_writes(2)
    with team:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(team._workers[0], number)
        team.run([0], 3.0)
        team.settle()
        assert written[1, 0] == 6.0


def test_allocated_memory_is_zero_and_seen_by_all() -> None:
    for count, dtype in ((0, np.float32), (5, np.intp)):
        array = Team(2).allocate(count, dtype)
        assert array.dtype == dtype
        assert array.tolist() == [0] * count


def test_team_of_one_forks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_fork() -> Any:
        raise AssertionError

    monkeypatch.setattr(os, "fork", no_fork)
    done: list[int] = []
    task: Callable[[int], None] = done.append
    with Team(1) as team:
        team.start([task])
        team.run([0])
        team.settle()
    assert done == [0]
