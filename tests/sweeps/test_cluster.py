"""A sweep on a real Dask scheduler with workers of its own on this machine, which are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.sweeps.conftest import Bench, results, wait_for

SWEEP: dict[str, Any] = {
    "parameters": {"optimizer.learning_rate": [0.02, 0.05, 0.1]},
    "set": {"training.epochs": 100, "training.checkpoint_seconds": 30},
}


class Cluster:
    """A scheduler and workers, each a process that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.file = folder / "scheduler.json"

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with open(self.folder / "log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", *arguments],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env={**os.environ, "TMPDIR": str(self.folder)},
            )
        self.processes.append(process)
        return process

    def scheduler(self) -> subprocess.Popen[bytes]:
        self.file.unlink(missing_ok=True)
        process = self._start(
            *("-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"),
            *("--no-dashboard", "--scheduler-file", str(self.file)),
        )
        wait_for(lambda: self.file.exists() and self.file.read_text().endswith("}"))
        return process

    def worker(self, start: str = "") -> subprocess.Popen[bytes]:
        """Start a worker, after a few lines of Python if there are any."""
        address = json.loads(self.file.read_text())["address"]
        script = f"{start}\nfrom distributed.cli.dask_worker import main; main()"
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--death-timeout", "60"]
        return self._start("-c", script, address, *options)

    def trainings(self) -> list[int]:
        return Bench(self.folder).trainings()


@pytest.fixture
def cluster(bench: Bench) -> Iterator[Cluster]:
    folder = bench.folder / "elsewhere"
    folder.mkdir()
    cluster = Cluster(folder.resolve())
    yield cluster
    for process in cluster.processes:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


def test_sweep_on_a_cluster_survives_its_workers_and_its_scheduler(
    bench: Bench, cluster: Cluster
) -> None:
    sweep = bench.sweep_file(**SWEEP)
    bench("sweep", sweep, "--quiet", "--sweeps-dir", "here")
    scheduler = cluster.scheduler()
    first = cluster.worker()
    process = bench.start("sweep", sweep, "--json", "--dask", cluster.file)
    wait_for(lambda: cluster.trainings())
    assert bench.trainings() == []  # none of them here
    killed = cluster.trainings()
    first.kill()
    wait_for(lambda: not set(killed) & set(cluster.trainings()), within=5)
    cluster.worker()
    wait_for(lambda: (bench.sweep / "trials/0000/seed-0").exists())
    scheduler.kill()
    lost = bench.finish(process)
    assert lost.code == 1, lost.err
    assert "scheduler" in lost.err
    assert "go on with: nnctl sweep --resume sweeps/tiny-001" in lost.err
    cluster.scheduler()
    cluster.worker()
    done = bench("sweep", "--resume", "tiny-001", "--json", "--dask", cluster.file)
    assert done.end["complete"] == 3
    assert results(bench.sweep) == results(bench.folder / "here/tiny-001")


def test_worker_with_another_version_is_named(bench: Bench, cluster: Cluster) -> None:
    cluster.scheduler()
    cluster.worker("import nnctl; nnctl.__version__ = '0.0.9'")
    sweep = bench.sweep_file(**SWEEP)
    done = bench("sweep", sweep, "--quiet", "--dask", cluster.file, code=1)
    assert "tcp://127.0.0.1:" in done.err
    assert "nnctl 0.0.9 where the sweep has" in done.err


def test_cluster_that_is_not_there_is_a_mistake_in_the_call(bench: Bench) -> None:
    sweep = bench.sweep_file(**SWEEP)
    done = bench("sweep", sweep, "--dask", "tcp://127.0.0.1:1", code=2)
    assert "no scheduler answers" in done.err
    assert not (bench.folder / "sweeps").exists()


def test_interrupt_gives_up_what_workers_train(bench: Bench, cluster: Cluster) -> None:
    cluster.scheduler()
    cluster.worker()
    sweep = bench.sweep_file(**SWEEP | {"set": {"training.epochs": 50000}})
    process = bench.start("sweep", sweep, "--quiet", "--dask", cluster.file)
    wait_for(lambda: cluster.trainings())
    os.kill(process.pid, signal.SIGINT)
    done = bench.finish(process)
    assert done.code == 130
    wait_for(lambda: not cluster.trainings(), within=5)
