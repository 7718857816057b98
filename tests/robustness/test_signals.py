"""A signal ends every command at once, and training with a checkpoint."""

from __future__ import annotations

import fcntl
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.robustness.conftest import Lab

NAMES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def wait_for(condition: Callable[[], object], within: float = 20.0) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


@pytest.mark.parametrize(
    ("number", "threads"),
    [*((number, "1") for number in NAMES), (signal.SIGTERM, "2")],
    ids=lambda value: getattr(value, "name", value),
)
def test_signal_ends_training_with_a_checkpoint(
    lab: Lab, number: signal.Signals, threads: str
) -> None:
    config = lab.config(training={"epochs": 30})
    begin = ["train", "-c", config, "-q", "--threads", threads]
    lab(*begin, "--runs-dir", "whole").check(0)
    outcome = lab(*begin, when=(5, number)).check(NAMES[number])
    assert outcome.seconds < 2
    assert (lab.run().summary["status"], lab.run().summary["test_loss"]) == ("interrupted", None)
    (again,) = re.findall(r"go on with: nnctl (.*)\n", outcome.err)
    resumed = lab(*shlex.split(again), "--json").check(0)
    assert resumed.events[0]["step"] > 0
    assert lab.run().result == lab.run(lab.folder / "whole" / "tiny-001").result


def test_second_signal_and_a_step_that_takes_too_long_end_at_once(lab: Lab) -> None:
    """A worker that is halted stands for a step without end."""
    config = lab.config(training={"epochs": 10000, "checkpoint_seconds": 30})
    for signals, within in (([signal.SIGINT] * 2, 0.5), ([signal.SIGTERM], 2.0)):
        process = lab.start("train", "-c", config, "-q", "--threads", "2")
        wait_for(lambda: workers_of(process))  # noqa: B023
        (worker,) = workers_of(process)
        os.kill(worker, signal.SIGSTOP)
        time.sleep(0.2)
        for number in signals:
            process.send_signal(number)
            time.sleep(0.05)
        outcome = lab.finish(process).check(NAMES[signals[0]])
        assert outcome.seconds < within
        assert "go on with: nnctl train --resume runs/tiny" in outcome.err
        assert not Path(f"/proc/{worker}").exists()


def test_signal_ends_a_command_whose_output_nobody_takes(lab: Lab) -> None:
    config = lab.config(training={"epochs": 10000})
    reading, writing = os.pipe()
    fcntl.fcntl(writing, 1031, 4096)  # F_SETPIPE_SZ: soon full
    process = lab.start("train", "-c", config, "--json", stdout=writing)
    os.close(writing)
    wait_for(lambda: lab.run().epochs > 3)
    size = 0
    while size != (size := lab.run().epochs):
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert lab.finish(process).check(143).seconds < 2
    os.close(reading)


def test_hangup_stays_ignored_under_nohup(lab: Lab) -> None:
    config = lab.config(training={"epochs": 10000})
    process = lab.start(
        *("train", "-c", config, "-q"),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    wait_for(lambda: lab.run().epochs > 1)
    process.send_signal(signal.SIGHUP)
    rows = lab.run().epochs
    wait_for(lambda: lab.run().epochs > rows + 2)
    process.send_signal(signal.SIGTERM)
    lab.finish(process).check(143)


LONG: dict[str, Any] = {"training": {"epochs": 200, "checkpoint_seconds": 30}}
COMMANDS = {
    "train": ["train", "-c", "CONFIG"],
    "evaluate": ["evaluate", "runs/latest"],
    "gradcheck": ["gradcheck", "-c", "CONFIG", "--all"],
    "graph": ["graph", "apple*2*tax", "apple=1", "tax=2"],
    "trace": ["trace", "-c", "CONFIG"],
    "lr-find": ["lr-find", "-c", "CONFIG"],
    "learn": ["learn", "--step", "3"],
    "bench": ["bench", "-c", "CONFIG"],
    "runs": ["runs", "verify", "latest"],
    "sweep": ["sweep", "-c", "CONFIG", "--vary", "optimizer.learning_rate=0.1,0.2"],
    "plot": ["plot", "latest", "--follow"],
    "config": ["config", "show", "-c", "CONFIG"],
    "data": ["data", "verify", "mnist-sample"],
}


@pytest.fixture(scope="module")
def interrupted(
    tmp_path_factory: pytest.TempPathFactory, data_folder: Path, zygote: subprocess.Popen[str]
) -> Path:
    """A folder `runs` with one run that is not at its end; only to be copied."""
    lab = Lab(tmp_path_factory.mktemp("interrupted"), data_folder, zygote)
    lab("train", "-c", lab.config(**LONG), "-q", signals=[(0.2, signal.SIGTERM)])
    return lab.runs


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_answers_signals_at_any_moment(
    lab: Lab, interrupted: Path, command: str
) -> None:
    """Also while it imports; only the interpreter's own start can't be told anything."""
    rng = random.Random(command)
    config = lab.config(**LONG)
    shutil.copytree(interrupted, lab.runs, symlinks=True)
    arguments = [config if word == "CONFIG" else word for word in COMMANDS[command]]
    for _ in range(max(2, lab.cycles // 10)):
        number = rng.choice(list(NAMES))
        process = lab.start(*arguments)
        wait_for(lambda: handles_signals(process))  # noqa: B023
        time.sleep(rng.uniform(0, 0.4))
        process.send_signal(number)
        outcome = lab.finish(process)
        assert outcome.seconds < 2
        if outcome.status not in (0, 3):  # it was done before
            outcome.check(NAMES[number])


def handles_signals(process: subprocess.Popen[str]) -> bool:
    """Return whether the process has installed its handlers, or is over."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return True
    caught = re.search(r"SigCgt:\s*(\w+)", status)
    return caught is None or bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


DISGUISE = """
import os, signal, sys
from nnctl.cli import main

class Sender:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGTERM)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            class Owner:
                field = Sender()

sys.meta_path.insert(0, Finder())
sys.argv = ["nnctl", "--version"]
main()
"""


def test_signal_that_the_first_import_disguises_is_answered() -> None:
    """In a class body of a library that click imports: Python makes it a RuntimeError."""
    ended = subprocess.run([sys.executable, "-c", DISGUISE], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "", "")


# Workers.


def test_killed_worker_is_told_and_nothing_is_lost(lab: Lab) -> None:
    config = lab.config(training={"epochs": 40})
    train = ["train", "-c", config, "-q", "--threads", "2"]
    lab(*train, "--runs-dir", "whole").check(0)
    process = lab.start(*train)
    wait_for(lambda: lab.run().epochs > 2)
    (worker,) = workers_of(process)
    os.kill(worker, signal.SIGKILL)
    outcome = lab.finish(process).check(1)
    assert "a worker process ended unexpectedly" in outcome.err
    assert outcome.seconds < 2
    lab("train", "--resume", "latest", "-q").check(0)
    assert lab.run().result == lab.run(lab.folder / "whole" / "tiny-001").result


def test_workers_end_with_their_caller(lab: Lab) -> None:
    config = lab.config(training={"epochs": 10000})
    process = lab.start("train", "-c", config, "-q", "--threads", "3")
    wait_for(lambda: lab.run().epochs > 2)
    workers = workers_of(process)
    assert len(workers) == 2
    process.kill()
    lab.finish(process).check(-signal.SIGKILL)
    # The run is free at once, whatever the workers are at.
    lab("train", "--resume", "latest", "-q", signals=[(0.2, signal.SIGTERM)]).check(143)
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), 3)
