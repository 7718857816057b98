"""Going on with a run: what may differ from when it was left, and what may not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nnctl.config import Settings, differences, load_settings, to_yaml
from nnctl.datasets import DataSet, contents
from nnctl.datasets.catalogue import PAIRS
from nnctl.errors import DataError, Diverged, RunError, UsageError, counted, printable
from nnctl.files import as_system_failure, exists, has_separator, write_atomically
from nnctl.runs.checkpoint import Checkpoint, load, versions
from nnctl.runs.folder import (
    Manifest,
    RunFolder,
    convert,
    read_config,
    read_json,
    read_metrics,
    read_summary,
    repair_metrics,
    repair_steps,
    to_json,
)
from nnctl.runs.origin import origin_of
from nnctl.training.events import RunFinished
from nnctl.training.threads import MAX_THREADS
from nnctl.training.trainer import Snapshot, Trainer

LENGTH_SHAPED = ("cosine", "one_cycle")  # schedules whose every value depends on the epochs


@dataclass(frozen=True)
class ResumePoint:
    """A run as it was left, with the settings that it goes on with."""

    run: RunFolder
    settings: Settings  # with what may be changed, changed
    checkpoint: Checkpoint | None  # None: it was killed before the first one
    threads: int
    data_sha256: Mapping[str, str]
    manifest: dict[str, Any]

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the data set that the run reads: train, and test unless it has --no-test."""
        files = {name.removesuffix(".gz") for name in self.data_sha256}
        return tuple(part for part, pair in PAIRS.items() if files.intersection(pair))

    @property
    def epochs(self) -> int:
        """The epochs that are finished."""
        return self.checkpoint.snapshot.progress.epoch if self.checkpoint else 0

    @property
    def summary(self) -> RunFinished | None:
        """The last word of a run that has nothing left to do, else None.

        Raises:
            Diverged: the run had diverged.
            RunError: the run had ended, but its checkpoint is gone.

        """
        summary = read_summary(self.run)
        if summary is None:
            return None
        status = summary.status
        if status == "diverged":
            kept = "; the last good checkpoint is kept" if self.checkpoint else ""
            why = summary.overfitting
            remedy = why.remedy or "a smaller learning rate"
            raise Diverged(
                f"{printable(self.run.path)}: this run diverged; it would do so again{kept}\n"
                f"train anew: {printable(remedy if why.cause else f'try {remedy}')}"
            )
        if status not in ("completed", "early_stopped"):
            return None
        assert self.checkpoint is not None  # else it had been refused
        done = self.epochs >= self.settings.training.epochs
        return summary if done or status == "early_stopped" else None


def resume_point(run: RunFolder, overrides: Sequence[tuple[str, str]]) -> ResumePoint:
    """Return a run as it was left; `overrides` may ask for more epochs.

    Raises:
        UsageError: the overrides, or an edited config.yaml, change something else.
        RunError: a file of the run is missing or damaged.

    """
    if run.last.parent.is_symlink():
        raise RunError(f"{printable(run.last.parent)}: a link; a run keeps its checkpoints itself")
    before = read_config(run)
    settings = load_settings(str(run.config), overrides)
    manifest = read_json(run.manifest)
    facts = convert(manifest, Manifest, run.manifest)
    threads, data_sha256 = facts.threads, facts.data_sha256
    checkpoint = load(run.last) if exists(run.last) else None
    if checkpoint is None:
        _check_nothing_was_kept(run)
    if checkpoint is not None:
        # A checkpoint knows neither the run's name nor where a folder of data lies.
        data = checkpoint.settings.data
        if has_separator(data.dataset) and has_separator(before.data.dataset):
            data = replace(data, dataset=before.data.dataset)
        before = replace(checkpoint.settings, name=before.name, data=data)
    refused = [
        difference
        for difference in differences(before, settings)
        if not difference.startswith("training.epochs:")
    ]
    longer = settings.training.epochs - before.training.epochs
    if longer < 0:
        refused += ["training.epochs: a run can't be made shorter"]
    advice = "only more training.epochs can be asked for; train a new run for the rest"
    if longer > 0 and before.schedule.kind in LENGTH_SHAPED:
        refused += [f"training.epochs: the {before.schedule.kind} schedule depends on it"]
        advice = "train a new run for that"
    if refused:
        raise UsageError(
            f"{printable(run.path)} was trained with another config\n"
            + "\n".join(f"  {line}" for line in refused)
            + f"\n{advice}"
        )
    if checkpoint is not None:
        threads, data_sha256 = checkpoint.threads, checkpoint.data_sha256
    if not 0 < threads <= MAX_THREADS:
        raise RunError(f"{printable(run.manifest)}: damaged, no number of threads")
    return ResumePoint(run, settings, checkpoint, threads, data_sha256, manifest)


def _check_nothing_was_kept(run: RunFolder) -> None:
    """Refuse to start a run again that had a checkpoint, which is gone.

    Before the first checkpoint there may be one row of metrics and the best weights of that epoch,
    and no end but that the run diverged.

    Raises:
        RunError: something says that there was a checkpoint.

    """
    summary = read_summary(run)
    best = load(run.best).snapshot.progress.epoch if exists(run.best) else 0
    ended = summary is not None and summary.status != "diverged"
    if ended or best > 1 or len(read_metrics(run)) > 1:
        raise RunError(
            f"{printable(run.last)}: missing, but the run had written it\n"
            "bring the original file back, or train the run anew from its config.yaml"
        )


def check_same_data(before: ResumePoint, data: DataSet) -> None:
    """Hold the data against those that the run was trained on.

    Raises:
        DataError: a file's SHA-256 differs.

    """
    then, now = contents(before.data_sha256), contents(data.sha256)
    if differing := sorted(name for name in {*then, *now} if then.get(name) != now.get(name)):
        raise DataError(
            f"{printable(data.name)}: these are not the data the run was trained on: "
            f"{', '.join(map(printable, differing))} differ\nbring the original files back"
        )


def resume_warnings(before: ResumePoint, threads: int) -> list[str]:
    """Return warnings: what differs from when the run was left and may change its bytes."""
    now = versions()
    then = before.checkpoint.versions if before.checkpoint else now
    found = [
        f"{printable(name)} was {printable(version)}, now it is {now.get(name)}"
        for name, version in then.items()
        if version != now.get(name)
    ]
    if before.threads != threads:
        found.append(f"the run used {counted(before.threads, 'thread')}, now it uses {threads}")
    return [f"{what}: the resumed run may differ in its last bits" for what in found]


def restore(trainer: Trainer, before: ResumePoint) -> None:
    """Put the trainer where the run was left; the run itself is only read.

    Raises:
        RunError: the last checkpoint does not fit the data, or the best one is missing, damaged
            or not that of the run.

    """
    if before.checkpoint is None:
        return
    snapshot = before.checkpoint.snapshot
    _check_position(trainer, before, snapshot)
    best = None
    if snapshot.progress.history and trainer.monitored == "validation":
        best = load(before.run.best)
    trainer.restore(snapshot, best.snapshot if best else None)
    trainer.initial_weights = origin_of(before.run, before.checkpoint)
    if best is not None:
        _check_best(trainer, before, best)


def resume(trainer: Trainer, before: ResumePoint) -> dict[str, Any] | None:
    """Put the trainer where the run was left, its metrics too; return the run's manifest.

    Return None if the run was killed before its first checkpoint. The data are those of the run,
    as `check_same_data` finds.

    Raises:
        RunError: as `restore`.
        SystemFailure: something could not be written.

    """
    checkpoint, run, manifest = before.checkpoint, before.run, before.manifest
    restore(trainer, before)
    if checkpoint is None:
        return None
    snapshot = checkpoint.snapshot
    repair_metrics(run, trainer.progress.history)
    if before.settings.training.log_steps:
        repair_steps(run, trainer.progress.step)
    unfinished = _seconds(manifest, "unfinished_epoch_seconds") if snapshot.progress.position else 0
    trainer.epoch_seconds = unfinished
    # A run that was killed has not said how long it took: at least as long as its epochs.
    rows = read_metrics(run)
    epochs = sum(_seconds(row, key) for row in rows for key in ("seconds", "evaluation_seconds"))
    trainer.seconds = max(_seconds(manifest, "seconds"), epochs + unfinished)
    manifest.update(versions=versions(), threads=trainer.engine.threads, ended=None)
    write_atomically(run.manifest, to_json(manifest))
    write_atomically(run.config, to_yaml(before.settings).encode())
    # They speak of the run as it was.
    with as_system_failure("removing", run.path):
        run.summary.unlink(missing_ok=True)
        run.test_predictions.unlink(missing_ok=True)
        run.validation_predictions.unlink(missing_ok=True)
    return manifest


def _check_position(trainer: Trainer, before: ResumePoint, snapshot: Snapshot) -> None:
    """Refuse a checkpoint whose epoch, step and position do not fit each other."""
    progress = snapshot.progress
    steps, rest = divmod(progress.position, trainer.batch_size)
    step = progress.epoch * trainer.steps_per_epoch + steps
    if rest or steps >= trainer.steps_per_epoch or progress.step != step:
        raise RunError(f"{printable(before.run.last)}: step {progress.step} is not where it says")
    samples = len(trainer.engine.measured(trainer.monitored).losses)
    if len(snapshot.last_losses) != samples:
        raise RunError(
            f"{printable(before.run.last)}: losses of {len(snapshot.last_losses)} samples, "
            f"but the {trainer.monitored} set has {samples}"
        )


def _check_best(trainer: Trainer, before: ResumePoint, best: Checkpoint) -> None:
    """Refuse a best checkpoint of another run, or of another epoch than the best one."""
    assert before.checkpoint is not None
    assert trainer.best is not None
    path, mine = printable(before.run.best), before.checkpoint
    # It may be from before the run was made longer.
    training = replace(best.settings.training, epochs=mine.settings.training.epochs)
    other = replace(best, settings=replace(best.settings, training=training))
    if any(
        getattr(mine, name) != getattr(other, name)
        for name in ("settings", "inputs", "data_sha256")
    ):
        raise RunError(f"{path}: is of another run\nbring the original file back")
    epoch, last = best.snapshot.progress.epoch, trainer.progress.epoch
    # It may be ahead, if the process was killed before it wrote `last`.
    if epoch not in (trainer.best.epoch, last + 1):
        raise RunError(
            f"{path}: is of epoch {epoch}, but the best one was "
            f"{trainer.best.epoch}\nbring the original file back"
        )


def _seconds(values: dict[str, Any], key: str) -> float:
    """Return a time that a file of the run holds; 0 if it holds none."""
    value = values.get(key)
    return float(value) if isinstance(value, int | float) and 0 <= value < math.inf else 0.0
