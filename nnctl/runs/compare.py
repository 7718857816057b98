"""Finished and unfinished runs side by side: their settings, their figures, which one is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnctl.config import Settings, leaves, to_dict
from nnctl.datasets import contents
from nnctl.datasets.catalogue import TEST_IMAGES, TEST_LABELS
from nnctl.errors import RunError, UsageError, printable
from nnctl.files import as_text, exists
from nnctl.nn.functions import Array
from nnctl.nn.metrics import mcnemar
from nnctl.runs.folder import (
    Manifest,
    RunFolder,
    convert,
    read_config,
    read_json,
    read_metrics,
    read_regular,
    read_summary,
)
from nnctl.training.events import TIMINGS, EpochFinished, RunFinished

SIGNIFICANCE = 0.05  # a difference that chance makes less often than this is more than chance
RESULTS = (
    *("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"),
    *("test_loss", "test_accuracy"),
)

OVERVIEW = (  # the fields of `RunRecord.overview`, in its order
    *("run", "run_dir", "started", "status", "dataset", "units", "optimizer", "learning_rate"),
    *("batch_size", "seed", "epochs", "best_epoch"),
    *RESULTS,
    *("verdict", "parameters", "threads", "seconds"),
)


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells of it."""

    run: RunFolder
    settings: Settings
    manifest: Manifest
    history: tuple[EpochFinished, ...]
    summary: RunFinished | None  # None: it is under way, or was killed

    @property
    def name(self) -> str:
        """The folder's name, which tells runs of one config apart."""
        return self.run.path.resolve().name

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


def read_run(run: RunFolder) -> RunRecord:
    """Read a run's files, and check all that they hold.

    Raises:
        RunError: one is missing, damaged, or holds something else.

    """
    if not exists(run.manifest):
        raise RunError(f"{printable(run.path)}: not a run, it has no {run.manifest.name}")
    settings = read_config(run)
    manifest = convert(read_json(run.manifest), Manifest, run.manifest)
    # Timings are lost with a row that only the checkpoint remembered.
    history = [row | {key: row[key] or 0.0 for key in TIMINGS} for row in read_metrics(run)]
    rows = convert(history, tuple[EpochFinished, ...], run.metrics)
    if any(row.validation_loss is None and row.test_loss is None for row in rows):
        raise RunError(f"{printable(run.metrics)}: damaged, a row has no loss but that of training")
    return RunRecord(run, settings, manifest, rows, read_summary(run))


# Settings.


def units(settings: Settings) -> str:
    """Return the widths of the affine layers, such as 50-10."""
    widths = (layer.options["units"] for layer in settings.network if layer.kind == "affine")
    return "-".join(map(str, widths))


def differing(records: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """Return the settings that differ, by path, each with its value in every run.

    Names don't count. Where the kinds of layers differ, the network is one setting.
    """
    plain = [to_dict(record.settings) for record in records]
    alike = len({tuple(layer.kind for layer in record.settings.network) for record in records}) < 2
    tables = []
    for config in plain:
        del config["name"]
        if not alike:
            config["network"] = ", ".join(_layer(layer) for layer in config["network"])
        tables.append(dict(leaves(config)))
    paths = dict.fromkeys(path for table in tables for path in table)
    columns = {path: [table.get(path) for table in tables] for path in paths}
    return {path: values for path, values in columns.items() if any(v != values[0] for v in values)}


def _layer(layer: dict[str, dict[str, Any]]) -> str:
    """Return a layer in short, such as `affine 50`."""
    ((kind, options),) = layer.items()
    shown = [str(options[key]) for key in ("units", "rate", "slope") if key in options]
    return " ".join([kind, *shown])


# Which is better.


def ranked(records: Sequence[RunRecord], by: str | None = None) -> list[RunRecord]:
    """Return the runs, best first: by validation accuracy, or by another field or setting.

    Accuracies count from the highest down, everything else from the lowest up; runs without a
    value come last.

    Raises:
        UsageError: there is no such field.

    """
    by = by or "validation_accuracy"
    tables = [
        dict(leaves(to_dict(record.settings))) | record.overview() for record in records
    ]  # the overview last: `seed` is the same in both
    if tables and not any(by in table for table in tables):
        import difflib

        known = list(dict.fromkeys(key for table in tables for key in table))
        near = difflib.get_close_matches(by, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise UsageError(f"--by {printable(by)}: no such field; {hint}")
    values = [table.get(by) for table in tables]
    numeric = all(isinstance(value, int | float | None) for value in values)
    sign = -1 if by.endswith("accuracy") else 1

    def key(index: int) -> tuple[bool, Any]:
        value = values[index]
        if value is None:
            return True, 0
        return False, sign * value if numeric else str(value)

    return [records[index] for index in sorted(range(len(records)), key=key)]


@dataclass(frozen=True)
class Difference:
    """Two runs on the same test images, by McNemar's test."""

    first: str  # their names
    second: str
    samples: int
    only_first: int  # images that only this one got right
    only_second: int
    p_value: float  # how often equally good networks would differ as much

    @property
    def beyond_chance(self) -> bool:
        """True if chance makes such a difference less often than once in twenty."""
        return self.p_value < SIGNIFICANCE


def compare(first: RunRecord, second: RunRecord) -> Difference | str:
    """Return how two runs differ on the test images, or why that can't be said.

    Raises:
        RunError: predictions are damaged.

    """
    for record in (first, second):
        if not exists(record.run.test_predictions):
            return f"{record.name} has not been tested yet"
    if _test_hashes(first) != _test_hashes(second):
        return f"{first.name} and {second.name} were tested on different images"
    labels, predictions = _read_predictions(first.run)
    other_labels, other_predictions = _read_predictions(second.run)
    if not np.array_equal(labels, other_labels):
        return f"{first.name} and {second.name} were tested on different images"
    right, other_right = predictions == labels, other_predictions == labels
    only_first = int((right & ~other_right).sum())
    only_second = int((other_right & ~right).sum())
    return Difference(
        first.name,
        second.name,
        len(labels),
        only_first,
        only_second,
        mcnemar(only_first, only_second),
    )


def _test_hashes(record: RunRecord) -> set[str]:
    return {
        sha256
        for name, sha256 in contents(record.manifest.data_sha256).items()
        if name in (TEST_IMAGES, TEST_LABELS)
    }


def _read_predictions(run: RunFolder) -> tuple[Array, Array]:
    """Return labels and predictions (n,) from test_predictions.csv."""
    lines = read_regular(run.test_predictions).split(b"\n")
    try:
        columns = lines[0].split(b",")
        label, prediction = columns.index(b"label"), columns.index(b"prediction")
        rows = [line.split(b",") for line in lines[1:] if line]
        pairs = np.array([(int(row[label]), int(row[prediction])) for row in rows], np.int64)
        labels, predictions = pairs.reshape(-1, 2).T
    except (ValueError, IndexError, OverflowError):
        raise RunError(
            f"{printable(run.test_predictions)}: damaged, not a CSV of predictions"
        ) from None
    return labels, predictions
