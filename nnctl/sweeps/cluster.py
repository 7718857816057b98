"""Trainings on a Dask cluster: settings go out, the bytes of a run folder come back.

Nothing is shared but the scheduler. A worker that is lost costs its trainings a rerun, by Dask; a
scheduler that is lost ends the sweep, which can be gone on with.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nnctl.errors import SystemFailure, UsageError, printable
from nnctl.files import TEMPORARY, as_system_failure, as_text, has_separator, write_atomically
from nnctl.runs.checkpoint import versions
from nnctl.runs.folder import RunFolder, to_json
from nnctl.sweeps.executors import MAX_KILLS, LocalProcesses, TrainingEnded, was_killed
from nnctl.sweeps.orders import PruningRule
from nnctl.sweeps.training import Training

CONNECT = 5.0  # seconds to find the scheduler
LOST = 5.0  # seconds without it, and the sweep ends
GLANCE = 0.2  # seconds between two looks of a worker whether its result is still wanted


class DaskCluster:
    """Each training is a task of a Dask cluster, and there a process with one thread."""

    def __init__(self, address: str) -> None:
        """Connect to the scheduler at an address such as tcp://10.0.0.1:8786, or in a file.

        Raises:
            UsageError: Dask is missing, or there is no scheduler.

        """
        try:
            import distributed
        except ImportError as error:
            raise UsageError(
                f"--dask needs the library distributed, which can't be imported ({error})\n"
                "install it with: pip install 'nnctl[dask]'"
            ) from None
        logging.disable()  # Dask's tracebacks: what matters of them is said here
        self.address = address
        is_file = "://" not in address and (has_separator(address) or os.path.exists(address))
        where = {"scheduler_file": address} if is_file else {"address": address}
        try:
            self._client = distributed.Client(**where, timeout=CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"--dask {printable(address)}: no scheduler answers ({printable(error)})\n"
                "start one with: dask scheduler"
            ) from None
        self._ended: queue.Queue[tuple[Training, Any]] = queue.Queue()
        self._futures: dict[Any, int] = {}  # and how often its workers were lost
        self._silent = 0.0  # seconds for which the scheduler has not been there

    def submit(self, training: Training) -> None:
        """Begin a training; what its folder holds already is not sent along."""
        self._submit(training, 0)

    def _submit(self, training: Training, lost: int) -> None:
        order = {
            "versions": versions(),
            "config": training.config.read_text(encoding="utf-8"),
            "overrides": list(training.overrides),
            "rule": training.rule and asdict(training.rule),
        }
        key = f"nnctl-trial-{training.trial}-seed-{training.seed}-{secrets.token_hex(4)}"
        future = self._client.submit(train_here, order, key=key, pure=False)
        self._futures[future] = lost
        future.add_done_callback(lambda done: self._ended.put((training, done)))

    def wait(self, timeout: float) -> list[TrainingEnded]:
        """Return the trainings that have ended, once there is one or `timeout` s have passed.

        Raises:
            SystemFailure: the scheduler is lost, or a worker can't do the work.

        """
        try:
            training, future = self._ended.get(timeout=timeout)
        except queue.Empty:
            self._silent = 0 if self._client.status == "running" else self._silent + timeout
            if self._silent >= LOST:
                raise self._lost() from None
            return []
        lost = self._futures.pop(future)
        if future.status in ("cancelled", "lost"):
            raise self._lost()
        if future.status == "error":
            error = future.exception()
            if type(error).__name__ == "KilledWorker" and lost < MAX_KILLS:
                self._submit(training, lost + 1)
                return []
            raise SystemFailure(
                f"trial {training.trial}: a worker of the cluster failed: "
                f"{type(error).__name__}: {printable(error)}\n"
                f"every worker needs nnctl {versions()['nnctl']} and its libraries"
            )
        answer = future.result()
        if then := answer.get("versions"):
            raise SystemFailure(
                f"{printable(answer['worker'])}: this worker has "
                f"{differing_versions(versions(), then)}\n"
                "install the same versions there, or stop that worker"
            )
        if "manifest.json" in answer["files"]:
            place(training.run, answer["files"], answer["worker"])
        return [TrainingEnded(training, answer["code"], answer["message"], answer["worker"])]

    def _lost(self) -> SystemFailure:
        return SystemFailure(f"the Dask scheduler at {printable(self.address)} is lost")

    def close(self) -> None:
        """Give up what is still under way."""
        with suppress(Exception):  # without a scheduler nobody is there to answer
            self._client.cancel(list(self._futures), force=True)
        self._client.close(timeout=1)


def differing_versions(mine: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """Return in words which versions of another place differ from those of this one."""
    return ", ".join(
        f"{name} {printable(theirs.get(name, 'missing'))} where the sweep has {version}"
        for name, version in mine.items()
        if theirs.get(name) != version
    )


def place(run: RunFolder, files: Mapping[str, bytes], worker: str) -> None:
    """Put the files of a run in its folder, all or none; what was there was not finished."""
    arriving = run.path.parent / f"{TEMPORARY}{run.path.name}"
    with as_system_failure("writing", run.path):
        shutil.rmtree(arriving, ignore_errors=True)
        for name, data in files.items():
            path = arriving / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name == run.summary.name:
                data = to_json({**json.loads(data), "run_dir": as_text(run.path)})
            elif name == run.manifest.name:
                data = to_json({**json.loads(data), "worker": worker})
            write_atomically(path, data)
        shutil.rmtree(run.path, ignore_errors=True)
        arriving.rename(run.path)


# What a worker runs.


def train_here(order: dict[str, Any]) -> dict[str, Any]:
    """Train in a process of this worker, and return the run's files and how it ended."""
    from distributed import get_worker

    worker = get_worker()
    if versions() != order["versions"]:
        return {"worker": worker.address, "versions": versions()}
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state == "executing"

    return {"worker": worker.address, **train_in_folder(order, wanted)}


def train_in_folder(order: dict[str, Any], wanted: Callable[[], bool]) -> dict[str, Any]:
    """Train in a temporary folder as long as the result is `wanted`; return its files."""
    with (
        TemporaryDirectory(prefix="nnctl-trial-") as folder,
        closing(LocalProcesses({})) as executor,
    ):
        config, run = Path(folder, "config.yaml"), RunFolder(Path(folder, "run"))
        config.write_text(order["config"], encoding="utf-8")
        training = Training(
            trial=0,
            seed=0,
            run=run,
            config=config,
            overrides=tuple((key, value) for key, value in order["overrides"]),
            rule=PruningRule(**order["rule"]) if order["rule"] else None,
        )
        executor.submit(training)
        kills = 0
        while wanted():
            for ended in executor.wait(GLANCE):
                if was_killed(ended.code) and kills < MAX_KILLS:
                    kills += 1
                    executor.submit(training)
                    continue
                paths = [path for path in run.path.rglob("*") if path.is_file()]
                files = {str(path.relative_to(run.path)): path.read_bytes() for path in paths}
                return {"code": ended.code, "message": ended.message, "files": files}
        return {"code": 0, "message": "", "files": {}}
