"""A tiny data set, configs and sweeps of it, and nnctl run on them as a shell does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.conftest import write_data

CLOCKED = {"seconds", "evaluation_seconds", "samples_per_second", "run_dir", "sweep_dir"}
CLOCKED |= {"best_run_dirs"}


def without_clocks(content: Any) -> Any:
    """Return JSON without what a clock or a path had a hand in."""
    if isinstance(content, dict):
        return {k: without_clocks(v) for k, v in content.items() if k not in CLOCKED}
    return content


def results(sweep: Path) -> dict[str, Any]:
    """Return all of a sweep's folder that must not depend on what happened on the way."""
    found: dict[str, Any] = {}
    for path in sorted(sweep.rglob("*")):
        name = str(path.relative_to(sweep))
        if path.name == "manifest.json" or not path.is_file():
            continue
        if path.suffix in (".json", ".jsonl"):
            lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            found[name] = [without_clocks(json.loads(line)) for line in lines]
        else:
            found[name] = path.read_bytes()
    return found


def wait_for(condition: Callable[[], object], within: float = 30.0) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of JSON on standard output."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def end(self) -> dict[str, Any]:
        """The last line of JSON."""
        return self.events[-1]


@dataclass(frozen=True)
class Bench:
    """A folder with a data set and a config, and nnctl run there."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    cycles = int(os.environ.get("NNCTL_TEST_CYCLES") or 20)

    @classmethod
    def make(cls, folder: Path) -> Bench:
        """Return a folder that has all that a sweep needs."""
        bench = cls(folder.resolve())
        write_data(bench.folder / "data")
        bench.config()
        return bench

    @property
    def sweep(self) -> Path:
        """The first sweep."""
        return self.folder / "sweeps" / "tiny-001"

    def config(self, name: str = "tiny", **changes: Any) -> Path:
        config: dict[str, Any] = {
            "data": {"dataset": "./data", "validation": 100},
            "network": [{"affine": 8}, "relu", {"affine": 10}],
            "optimizer": {"kind": "momentum", "learning_rate": 0.05},
            "training": {"epochs": 3, "batch_size": 20, "checkpoint_seconds": 0},
        }
        for key, value in changes.items():
            config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(config))
        return path

    def sweep_file(self, name: str = "tiny", **content: Any) -> Path:
        """Write a sweep file; its config is the tiny one."""
        path = self.folder / "sweep-files" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"config": "../tiny.yaml", **content}))
        return path

    def start(self, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "nnctl", *map(str, arguments)],
            cwd=self.folder,
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> Done:
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in err, err
        return Done(process.returncode, out, err)

    def __call__(self, *arguments: object, code: int = 0) -> Done:
        """Run nnctl to its end, which must have this exit code."""
        done = self.finish(self.start(*arguments))
        assert done.code == code, (done.code, done.out, done.err)
        return done

    def trainings(self) -> list[int]:
        """Return the processes that train below this folder."""
        found = []
        for path in Path("/proc").iterdir():
            if path.name.isdecimal():
                try:
                    words = (path / "cmdline").read_bytes().split(b"\0")
                    here = os.readlink(path / "cwd") == str(self.folder)
                except OSError:
                    continue
                if here and b"train" in words:
                    found.append(int(path.name))
        return found

    def kill(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def bench() -> Iterator[Bench]:
    # In memory: thousands of syncs would keep a disk busy for minutes.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with TemporaryDirectory(prefix="nnctl-test-", dir=memory) as folder:
        bench = Bench.make(Path(folder))
        yield bench
        for process in bench.started:
            process.kill()
            process.communicate()
