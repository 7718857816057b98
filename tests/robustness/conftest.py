"""A tiny experiment, and nnctl run on it with faults, through the real command line.

NNCTL_TEST_CYCLES=200 tries more than the default of 20 faults at random moments, and a fault at
each call to the system that a run makes.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.conftest import write_data

CLOCKED = ("seconds", "evaluation_seconds", "samples_per_second")


@dataclass(frozen=True)
class Outcome:
    """How a process ended; `status` is its exit code, or minus the signal that killed it."""

    status: int
    out: str
    err: str
    seconds: float
    calls: list[str] = field(default_factory=list)
    memory: int = 0  # bytes, the highest it came to

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of JSON on standard output."""
        return [json.loads(line) for line in self.out.splitlines()]

    def check(self, *codes: int) -> "Outcome":
        """Hold it against the contract: one of the exit codes, and errors in words."""
        assert self.status in codes, (self.status, self.out, self.err)
        assert "Traceback" not in self.err, self.err
        assert "This is a bug" not in self.err, self.err
        assert all(line.isprintable() for line in self.err.split("\n")), repr(self.err)
        if 0 < self.status <= 6:
            assert "nnctl: error: " in self.err, self.err
        return self


class Lab:
    """A folder with a config, and nnctl run there."""

    cycles = int(os.environ.get("NNCTL_TEST_CYCLES") or 20)
    write_data = staticmethod(write_data)

    def __init__(self, folder: Path, data: Path, process: "subprocess.Popen[str]") -> None:
        self.folder, self.data, self._process = folder, data, process
        self.runs = folder / "runs"

    def config(self, name: str = "tiny", **changes: Any) -> str:
        """Write a config; every step of it is followed by a checkpoint."""
        config: dict[str, Any] = {
            "data": {"dataset": str(self.data), "validation": 100},
            "network": [{"affine": 12}, "relu", {"dropout": 0.2}, {"affine": 10}],
            "optimizer": {"kind": "adam"},
            "training": {
                **{"epochs": 3, "batch_size": 50},
                **{"checkpoint_seconds": 0, "log_steps": True},
            },
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
        when: tuple[int, int] | None = None,
        hidden: Path | None = None,
    ) -> Outcome:
        """Run nnctl; the `at`-th call to the system that concerns a file below `below` fails.

        So does the `at`-th look (0: each) at a file below `hidden`.

        `signals` come after so many seconds, `when` after so many epochs of the run tiny-001.
        """
        metrics = self.run().path / "metrics.jsonl"
        out, err = self.folder / ".out", self.folder / ".err"
        request = {
            "arguments": arguments,
            "cwd": str(self.folder),
            "stdout": str(out),
            "stderr": str(err),
            "fault": below and {"below": str(below), "at": at, "errno": errno},
            "hidden": hidden and {"below": str(hidden), "at": at or None, "errno": errno},
            "kill_after": kill_after,
            "signals": signals or [],
            "when": when and {"file": str(metrics), "lines": when[0], "number": when[1]},
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        told = [path.read_text(errors="surrogateescape") for path in (out, err)]
        return Outcome(out=told[0], err=told[1], **answer)

    def start(self, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
        """Start nnctl as a shell does."""
        return subprocess.Popen(
            [sys.executable, "-m", "nnctl", *arguments],
            cwd=self.folder,
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def finish(self, process: "subprocess.Popen[str]") -> Outcome:
        """Wait for a process."""
        began = time.monotonic()
        out, err = process.communicate(timeout=30)
        return Outcome(process.returncode, out or "", err or "", time.monotonic() - began)

    def run(self, path: str | Path = "tiny-001") -> "Run":
        """Return what a run holds; a path is one from `runs`."""
        return Run(self.runs / path)


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
        kept = [(self.path / name).read_bytes() for name in ("test_predictions.csv", "steps.jsonl")]
        return self.last, self.best, self.rows, self.summary, *kept


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("robustness") / "data"
    write_data(folder)
    return folder


@pytest.fixture(scope="session")
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


def chosen(calls: list[str]) -> list[int]:
    """Return the numbers of the calls to let fail: the first and last of each kind, or all."""
    if Lab.cycles > 20:
        return list(range(1, len(calls) + 1))
    kinds: dict[str, list[int]] = {}
    for number, call in enumerate(calls, 1):
        kinds.setdefault(re.sub(r"[0-9a-f]{8,}", "#", call), []).append(number)
    return sorted({number for numbers in kinds.values() for number in (numbers[0], numbers[-1])})


@pytest.fixture
def lab(data_folder: Path, zygote: "subprocess.Popen[str]") -> Iterator[Lab]:
    # In memory: thousands of syncs would keep a disk busy for minutes.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with TemporaryDirectory(prefix="nnctl-test-", dir=memory) as folder:
        yield Lab(Path(folder), data_folder, zygote)


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    data_folder: Path,
    zygote: "subprocess.Popen[str]",
) -> Path:
    """A folder `runs` with one completed run; only to be copied."""
    lab = Lab(tmp_path_factory.mktemp("trained"), data_folder, zygote)
    lab("train", "-c", lab.config(), "-q").check(0)
    return lab.runs


@pytest.fixture
def done(lab: Lab, trained: Path) -> Run:
    """A completed run."""
    shutil.copytree(trained, lab.runs, symlinks=True)
    return lab.run()
