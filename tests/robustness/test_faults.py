"""Whatever happens to a run, the old state is there after it or the new one, never a third.

Everything goes through the real command line in real processes. NNCTL_TEST_CYCLES=200 tries more
than the default of 20 faults at random moments, and a fault at each call to the system.
"""

import errno
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
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
        assert "unexpected" not in self.err, self.err
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
def lab(tmp_path: Path, data_folder: Path, zygote: "subprocess.Popen[str]") -> Lab:
    return Lab(tmp_path, data_folder, zygote)


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
