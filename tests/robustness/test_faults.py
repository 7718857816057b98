"""Whatever happens to a run, the old state is there after it or the new one, never a third.

Everything goes through the real command line in real processes. NNCTL_TEST_CYCLES=200 tries more
than the default of 20 faults at random moments, and a fault at each call to the system.
"""

import errno
import fcntl
import json
import os
import random
import re
import shlex
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

# How often faults are tried at random moments; more on demand.
CYCLES = int(os.environ.get("NNCTL_TEST_CYCLES") or 20)

CLOCKED = ("seconds", "evaluation_seconds", "samples_per_second")


def write_data(folder: Path, train: int = 400, test: int = 60) -> None:
    """Make a data set of 6 x 6 images whose ten classes can be told apart."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    prototypes = rng.integers(0, 200, (10, 36))
    for name, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % 10
        images = (prototypes[labels] + rng.integers(0, 56, (count, 36))).astype(np.uint8)
        head = struct.pack(">4I", 0x803, count, 6, 6)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = struct.pack(">2I", 0x801, count)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(head + labels.astype("u1").tobytes())


@dataclass(frozen=True)
class Outcome:
    """How a process ended; `status` is its exit code, or minus the signal that killed it."""

    status: int
    out: str
    err: str
    seconds: float
    calls: list[str]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of JSON on standard output."""
        return [json.loads(line) for line in self.out.splitlines()]

    def check(self, *codes: int) -> "Outcome":
        """Hold it against the contract: one of the exit codes, and errors in words."""
        assert self.status in codes, (self.status, self.out, self.err)
        assert "Traceback" not in self.err, self.err
        assert "This is a bug" not in self.err, self.err
        assert self.err.isprintable() or set(self.err) - {"\n"} != set(), self.err
        assert all(line.isprintable() for line in self.err.split("\n")), repr(self.err)
        if 0 < self.status <= 6:
            assert "nnctl: error: " in self.err, self.err
        return self


class Lab:
    """A folder with a data set and a config, and nnctl run there."""

    def __init__(self, folder: Path, data: Path, process: "subprocess.Popen[str]") -> None:
        self.folder, self.data, self._process = folder, data, process
        self.runs = folder / "runs"

    def config(self, name: str = "tiny", **changes: Any) -> str:
        """Write a config; every step of it is followed by a checkpoint."""
        config: dict[str, Any] = {
            "data": {"dataset": str(self.data), "validation": 100},
            "network": [{"affine": 12}, "relu", {"dropout": 0.2}, {"affine": 10}],
            "optimizer": {"kind": "adam"},
            "training": {"epochs": 3, "batch_size": 50, "checkpoint_seconds": 0},
        }
        for key, value in changes.items():
            config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(config))
        return str(path)

    def __call__(
        self,
        *arguments: str,
        below: Path | None = None,
        at: int = 0,
        errno: int | None = None,
        kill_after: float | None = None,
        signals: list[tuple[float, int]] | None = None,
    ) -> Outcome:
        """Run nnctl; the `at`-th call to the system that concerns a file below `below` fails."""
        out, err = self.folder / ".out", self.folder / ".err"
        request = {
            "arguments": arguments,
            "cwd": str(self.folder),
            "stdout": str(out),
            "stderr": str(err),
            "fault": below and {"below": str(below), "at": at, "errno": errno},
            "kill_after": kill_after,
            "signals": signals or [],
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        return Outcome(out=out.read_text(), err=err.read_text(), **answer)

    def run(self, name: str = "tiny-001") -> "Run":
        return Run(self.runs / name)


class Run:
    """What a run folder holds."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def last(self) -> bytes:
        return (self.path / "checkpoints" / "last.safetensors").read_bytes()

    @property
    def best(self) -> bytes:
        return (self.path / "checkpoints" / "best.safetensors").read_bytes()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The metrics without what a clock had a hand in."""
        lines = (self.path / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
        assert all(set(CLOCKED) < set(row) for row in rows)
        return [{k: v for k, v in row.items() if k not in CLOCKED} for row in rows]

    @property
    def epochs(self) -> int:
        """The number of whole rows of the metrics, also while they are written."""
        path = self.path / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    @property
    def summary(self) -> dict[str, Any]:
        summary = json.loads((self.path / "summary.json").read_text(), parse_constant=pytest.fail)
        return {k: v for k, v in summary.items() if k not in ("seconds", "run_dir")}

    @property
    def files(self) -> dict[str, bytes]:
        """Every file's content by its path in the run."""
        return {
            str(path.relative_to(self.path)): path.read_bytes()
            for path in sorted(self.path.rglob("*"))
            if path.is_file()
        }

    @property
    def result(self) -> tuple[object, ...]:
        """All that must not depend on what happened on the way."""
        predictions = (self.path / "test_predictions.csv").read_bytes()
        return self.last, self.best, self.rows, self.summary, predictions


def processes_of(folder: Path) -> list[int]:
    """Return the processes whose command line names `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(str(folder)) in line:
                found.append(int(entry.name))
    return found


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("robustness") / "data"
    write_data(folder)
    return folder


@pytest.fixture(scope="module")
def zygote() -> Iterator["subprocess.Popen[str]"]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NNCTL_", "OPENBLAS"))}
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("zygote.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def lab(data_folder: Path, zygote: "subprocess.Popen[str]") -> Iterator[Lab]:
    # In memory: thousands of syncs would keep a disk busy for minutes.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with TemporaryDirectory(prefix="nnctl-test-", dir=memory) as folder:
        yield Lab(Path(folder), data_folder, zygote)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*nnctl*")]


@pytest.mark.parametrize("threads", ["1", "2"])
def test_killed_runs_end_as_if_nothing_had_happened(lab: Lab, threads: str) -> None:
    """Each cycle kills a process; starts, resumes and the writing of every file are hit."""
    rng = random.Random(threads)
    config = lab.config(training={"epochs": 4})
    train = ["train", "-c", config, "-q", "--threads", threads]
    whole = lab(*train, "--runs-dir", "whole").check(0)
    expected = lab.folder / "whole" / "tiny-001"
    killed = run = 0
    while killed < CYCLES / 2:
        run += 1
        folder = lab.runs / f"run-{run}"
        begin = [*train, "--run-dir", str(folder), "--overwrite"]
        while True:
            begun = (folder / "config.yaml").exists()
            arguments = ["train", "--resume", str(folder), "-q"] if begun else begin
            # Several times in a run: no run is as long as one that nobody kills.
            outcome = lab(*arguments, kill_after=rng.uniform(0.0, whole.seconds / 2))
            if outcome.status == 0:
                break
            outcome.check(-signal.SIGKILL)
            killed += 1
            if killed % 4 == 3:
                break
        outcome = lab("train", "--resume", str(folder), "-q") if begun else lab(*begin)
        outcome.check(0, 5)
        if outcome.status == 0:
            assert Run(folder).result == Run(expected).result
            assert leftovers(folder) == []


def faults(calls: list[str]) -> list[int]:
    """Return the numbers of the calls to let fail: the first and last of each kind, or all."""
    if CYCLES > 20:
        return list(range(1, len(calls) + 1))
    kinds: dict[str, list[int]] = {}
    for number, call in enumerate(calls, 1):
        kinds.setdefault(re.sub(r"[0-9a-f]{8,}", "#", call), []).append(number)
    return sorted({number for numbers in kinds.values() for number in (numbers[0], numbers[-1])})


@pytest.mark.parametrize("number", [errno.ENOSPC, None], ids=["disk full", "killed"])
def test_any_call_to_the_system_may_fail(lab: Lab, number: int | None) -> None:
    """Each write, sync, rename, ... of a run fails once, half done; then the run goes on."""
    config = lab.config(training={"epochs": 2, "batch_size": 150})
    train = ["train", "-c", config, "-q"]
    calls = lab(*train, "--runs-dir", "whole", below=lab.folder / "whole").check(0).calls
    expected = Run(lab.folder / "whole" / "tiny-001").result
    assert len(calls) > 50
    for at in faults(calls):
        runs = lab.folder / f"runs-{at}"
        begin = [*train, "--runs-dir", str(runs)]
        outcome = lab(*begin, below=runs, at=at, errno=number)
        outcome.check(*((-signal.SIGKILL,) if number is None else (0, 1)))
        assert len(outcome.calls) >= at, outcome
        name = f"{calls[at - 1]} ({at})"
        if outcome.status == 1:
            assert str(runs) in outcome.err, (name, outcome.err)
            assert leftovers(runs) == [], name
        run = Run(runs / "tiny-001")
        begun = (run.path / "config.yaml").exists()
        if outcome.status > 0 and not begun:
            assert not run.path.exists(), name
        if outcome.status:
            again = ["train", "-q", "--resume", str(run.path)] if begun else begin
            run = Run(Path(lab(*again).check(0).out.strip()))
        assert run.result == expected, name
        assert leftovers(run.path) == [], name


# Signals.

NAMES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def start(lab: Lab, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
    """Start nnctl as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", "nnctl", *arguments],
        cwd=lab.folder,
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def finish(process: "subprocess.Popen[str]", within: float = 30.0) -> Outcome:
    """Wait for a process."""
    began = time.monotonic()
    out, err = process.communicate(timeout=within)
    return Outcome(process.returncode, out, err, time.monotonic() - began, [])


def wait_for(condition: Callable[[], object], within: float = 20.0) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def workers_of(process: "subprocess.Popen[str]") -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


@pytest.mark.parametrize("number", NAMES, ids=lambda number: number.name)
@pytest.mark.parametrize("threads", ["1", "2"])
def test_signal_ends_training_with_a_checkpoint(
    lab: Lab, number: signal.Signals, threads: str
) -> None:
    config = lab.config(training={"epochs": 30})
    begin = ["train", "-c", config, "-q", "--threads", threads]
    lab(*begin, "--runs-dir", "whole").check(0)
    outcome = lab(*begin, signals=[(0.15, number)]).check(NAMES[number])
    assert outcome.seconds < 0.15 + 2
    assert (lab.run().summary["status"], lab.run().summary["test_loss"]) == ("interrupted", None)
    (again,) = re.findall(r"go on with: nnctl (.*)\n", outcome.err)
    resumed = lab(*shlex.split(again), "--json").check(0)
    assert resumed.events[0]["step"] > 0
    assert lab.run().result == Run(lab.folder / "whole" / "tiny-001").result


def test_second_signal_and_a_step_that_takes_too_long_end_at_once(lab: Lab) -> None:
    """A worker that is halted stands for a step without end."""
    config = lab.config(training={"epochs": 10000, "checkpoint_seconds": 30})
    for signals, within in (([signal.SIGINT] * 2, 0.5), ([signal.SIGTERM], 2.0)):
        process = start(lab, "train", "-c", config, "-q", "--threads", "2")
        wait_for(lambda: workers_of(process))  # noqa: B023
        (worker,) = workers_of(process)
        os.kill(worker, signal.SIGSTOP)
        time.sleep(0.2)
        for number in signals:
            process.send_signal(number)
            time.sleep(0.05)
        outcome = finish(process).check(NAMES[signals[0]])
        assert outcome.seconds < within
        assert "go on with: nnctl train --resume runs/tiny" in outcome.err
        assert not Path(f"/proc/{worker}").exists()


def test_signal_ends_a_command_whose_output_nobody_takes(lab: Lab) -> None:
    config = lab.config(training={"epochs": 10000})
    reading, writing = os.pipe()
    fcntl.fcntl(writing, 1031, 4096)  # F_SETPIPE_SZ: soon full
    process = start(lab, "train", "-c", config, "--json", stdout=writing)
    os.close(writing)
    wait_for(lambda: lab.run().epochs > 10)
    size = 0
    while size != (size := lab.run().epochs):
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert finish(process).check(143).seconds < 2
    os.close(reading)


def test_hangup_stays_ignored_under_nohup(lab: Lab) -> None:
    config = lab.config(training={"epochs": 10000})
    process = start(
        lab,
        *("train", "-c", config, "-q"),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    wait_for(lambda: lab.run().epochs > 1)
    process.send_signal(signal.SIGHUP)
    rows = lab.run().epochs
    wait_for(lambda: lab.run().epochs > rows + 2)
    process.send_signal(signal.SIGTERM)
    finish(process).check(143)


COMMANDS = {
    "train": ["train", "-c", "CONFIG"],
    "evaluate": ["evaluate", "runs/latest"],
    "gradcheck": ["gradcheck", "-c", "CONFIG", "--all"],
    "graph": ["graph", "apple*2*tax", "apple=1", "tax=2"],
    "trace": ["trace", "-c", "CONFIG"],
    "bench": ["bench", "-c", "CONFIG"],
    "runs": ["runs", "verify", "latest"],
    "plot": ["plot", "latest", "--follow"],
    "config": ["config", "show", "-c", "CONFIG"],
    "data": ["data", "verify", "mnist-sample"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_answers_signals_at_any_moment(lab: Lab, command: str) -> None:
    """Also while it imports; only the interpreter's own start can't be told anything."""
    rng = random.Random(command)
    config = lab.config(training={"epochs": 200, "checkpoint_seconds": 30})
    lab("train", "-c", config, "-q", signals=[(0.2, signal.SIGTERM)])
    arguments = [config if word == "CONFIG" else word for word in COMMANDS[command]]
    for _ in range(max(2, CYCLES // 10)):
        number = rng.choice(list(NAMES))
        process = start(lab, *arguments)
        wait_for(lambda: handles_signals(process))  # noqa: B023
        time.sleep(rng.uniform(0, 0.4))
        process.send_signal(number)
        outcome = finish(process)
        assert outcome.seconds < 2
        if outcome.status not in (0, 3):  # it was done before
            outcome.check(NAMES[number])


def handles_signals(process: "subprocess.Popen[str]") -> bool:
    """Return whether the process has installed its handlers, or is over."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return True
    caught = re.search(r"SigCgt:\s*(\w+)", status)
    return caught is None or bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


# Workers.


def test_killed_worker_is_told_and_nothing_is_lost(lab: Lab) -> None:
    config = lab.config(training={"epochs": 40})
    train = ["train", "-c", config, "-q", "--threads", "2"]
    lab(*train, "--runs-dir", "whole").check(0)
    process = start(lab, *train)
    wait_for(lambda: lab.run().epochs > 2)
    (worker,) = workers_of(process)
    os.kill(worker, signal.SIGKILL)
    outcome = finish(process).check(1)
    assert "a worker process ended unexpectedly" in outcome.err
    assert outcome.seconds < 2
    lab("train", "--resume", "latest", "-q").check(0)
    assert lab.run().result == Run(lab.folder / "whole" / "tiny-001").result


def test_workers_end_with_their_caller(lab: Lab) -> None:
    config = lab.config(training={"epochs": 10000})
    process = start(lab, "train", "-c", config, "-q", "--threads", "3")
    wait_for(lambda: lab.run().epochs > 2)
    workers = workers_of(process)
    assert len(workers) == 2
    process.kill()
    finish(process).check(-signal.SIGKILL)
    # The run is free at once, whatever the workers are at.
    lab("train", "--resume", "latest", "-q", signals=[(0.2, signal.SIGTERM)]).check(143)
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), 3)
