"""A stored run: everything that its folder says of it, read and checked, and its overview.

`runs list`, `runs show`, `runs compare` and `report` read runs by it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnctl.config import Settings
from nnctl.errors import NnctlError, RunError, printable
from nnctl.files import as_system_failure, as_text, exists, is_folder, status_of
from nnctl.runs.find import is_run
from nnctl.runs.folder import (
    LATEST,
    Manifest,
    RunFolder,
    convert,
    read_config,
    read_manifest,
    read_metrics,
    read_summary,
)
from nnctl.training.events import TIMINGS, EpochFinished, RunFinished

RESULTS = (
    *("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"),
    *("test_loss", "test_accuracy"),
)

OVERVIEW = (  # the fields of `StoredRun.overview`, in its order
    *("run", "run_dir", "started", "status", "dataset", "units", "optimizer", "learning_rate"),
    *("batch_size", "seed", "epochs", "best_epoch"),
    *RESULTS,
    *("verdict", "parameters", "threads", "seconds"),
)


@dataclass(frozen=True)
class StoredRun:
    """A run as its folder has it."""

    run: RunFolder
    settings: Settings
    manifest: Manifest
    history: tuple[EpochFinished, ...]
    summary: RunFinished | None  # None: it is under way, or was killed
    name: str  # the folder's, which tells runs of one config apart

    @property
    def monitored(self) -> str:
        """What was monitored while it trained: validation or test."""
        return self.settings.data.monitored

    def overview(self) -> dict[str, Any]:
        """Return key settings and results, the fields of `nnctl runs list --json`."""
        settings, summary = self.settings, self.summary
        best = min(self.history, key=lambda row: row.monitored_loss, default=None)
        if self.monitored == "test":  # nothing is ever chosen on it
            best = self.history[-1] if self.history else None
        best_epoch = best.epoch if best and self.monitored == "validation" else None
        results = {key: getattr(summary or best, key, None) for key in RESULTS}
        return {
            "run": as_text(self.name),
            "run_dir": as_text(self.run),
            "started": self.manifest.started.isoformat(),
            "status": summary.status if summary else "unfinished",
            "dataset": settings.data.dataset,
            "units": units(settings),
            "optimizer": settings.optimizer.kind,
            "learning_rate": settings.optimizer.options["learning_rate"],
            "batch_size": settings.training.batch_size,
            "seed": settings.seed,
            "epochs": summary.epochs if summary else len(self.history),
            "best_epoch": summary.best_epoch if summary else best_epoch,
            **results,
            "verdict": summary.overfitting.verdict if summary else None,
            "parameters": summary.parameters if summary else None,
            "threads": self.manifest.threads,
            "seconds": summary.seconds if summary else sum(row.seconds for row in self.history),
        }


def read_stored_run(run: RunFolder, name: str | None = None) -> StoredRun:
    """Read a run's files, and check all that they hold; its name is by default the folder's.

    Raises:
        RunError: one is missing, damaged, or holds something else.

    """
    if not exists(run.manifest):
        raise RunError(f"{printable(run.path)}: not a run, it has no {run.manifest.name}")
    settings = read_config(run)
    manifest = read_manifest(run)
    # Timings are lost with a row that only the checkpoint remembered.
    history = [row | {key: row[key] or 0.0 for key in TIMINGS} for row in read_metrics(run)]
    rows = convert(history, tuple[EpochFinished, ...], run.metrics)
    if any(row.validation_loss is None and row.test_loss is None for row in rows):
        raise RunError(f"{printable(run.metrics)}: damaged, a row has no loss but that of training")
    name = name or run.path.resolve().name
    return StoredRun(run, settings, manifest, rows, read_summary(run), name)


def read_stored_runs(runs_dir: Path) -> tuple[list[StoredRun], list[NnctlError]]:
    """Read every run in a folder; return those that can be read, and why the others can't.

    A folder without a manifest counts as a run that can't be read, unless it is hidden.

    Raises:
        RunError: there is no such folder.
        SystemFailure: the folder can't be read.

    """
    if status_of(runs_dir) is None:
        raise RunError(f"{printable(runs_dir)}: no such folder; train a run or give --runs-dir")
    with as_system_failure("reading", runs_dir):
        paths = [runs_dir / name for name in sorted(os.listdir(runs_dir)) if name != LATEST]
    runs: list[StoredRun] = []
    errors: list[NnctlError] = []
    for path in paths:
        try:
            if is_folder(path) and (is_run(RunFolder(path)) or not path.name.startswith(".")):
                with as_system_failure("reading", path):
                    runs.append(read_stored_run(RunFolder(path)))
        except NnctlError as error:
            errors.append(error)
    return runs, errors


def units(settings: Settings) -> str:
    """Return the widths of the affine layers, such as 50-10."""
    widths = (layer.options["units"] for layer in settings.network if layer.kind == "affine")
    return "-".join(map(str, widths))
