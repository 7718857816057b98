"""Going on with a run: what may differ from what was recorded, and what may not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nnctl.config import Settings, differences, load_settings, to_yaml
from nnctl.datasets import DataSet
from nnctl.errors import DataError, Diverged, RunError, UsageError, printable
from nnctl.files import write_atomically
from nnctl.training.checkpoint import Checkpoint, load, versions
from nnctl.training.runs import RunFolder, read_json, repair_metrics
from nnctl.training.trainer import Progress, Trainer

LENGTH_SHAPED = ("cosine", "one_cycle")  # schedules whose every value depends on the epochs


@dataclass(frozen=True)
class Recorded:
    """A run as it was left."""

    run: RunFolder
    settings: Settings  # with what may be changed, changed
    checkpoint: Checkpoint | None  # None: it was killed before the first one
    threads: int
    manifest: dict[str, Any]

    @property
    def summary(self) -> dict[str, Any] | None:
        """The last word of a run that has nothing left to do, else None.

        Raises:
            Diverged: the run had diverged.

        """
        if self.checkpoint is None or not self.run.summary.exists():
            return None
        summary = read_json(self.run.summary)
        status, epoch = summary.get("status"), self.checkpoint.snapshot.progress["epoch"]
        if status == "diverged":
            raise Diverged(
                f"{printable(self.run.path)}: this run diverged; it would do so again\n"
                "train anew with a smaller learning rate; the last good checkpoint is kept"
            )
        whole = status == "completed" and epoch >= self.settings.training.epochs
        return summary if whole or status == "early_stopped" else None


def recorded(run: RunFolder, overrides: Sequence[tuple[str, str]]) -> Recorded:
    """Return a run as it was left; `overrides` may ask for more epochs.

    Raises:
        UsageError: the overrides, or an edited config.yaml, change something else.
        RunError: a file of the run is missing or damaged.

    """
    settings = load_settings(str(run.config), overrides)
    manifest = read_json(run.manifest)
    checkpoint = load(run.last) if run.last.exists() else None
    before = load_settings(str(run.config))
    if checkpoint is not None:
        # A checkpoint knows neither the run's name nor where its data lie.
        data = replace(checkpoint.settings.data, dataset=before.data.dataset)
        before = replace(checkpoint.settings, name=before.name, data=data)
    refused = [
        difference
        for difference in differences(before, settings)
        if not difference.startswith("training.epochs:")
    ]
    longer = settings.training.epochs - before.training.epochs
    if longer < 0:
        refused += ["training.epochs: a run can't be made shorter"]
    if longer > 0 and before.schedule.kind in LENGTH_SHAPED:
        refused += [f"training.epochs: the {before.schedule.kind} schedule depends on it"]
    if refused:
        raise UsageError(
            f"{printable(run.path)} was trained with another config\n"
            + "\n".join(f"  {line}" for line in refused)
            + "\nonly more training.epochs can be asked for; train a new run for the rest"
        )
    threads = checkpoint.threads if checkpoint else manifest.get("threads")
    if not isinstance(threads, int) or threads < 1:
        raise RunError(f"{printable(run.manifest)}: damaged, no number of threads")
    return Recorded(run, settings, checkpoint, threads, manifest)


def check_same_data(checkpoint: Checkpoint, data: DataSet) -> None:
    """Hold the data against those that the checkpoint was trained on.

    Raises:
        DataError: a file's SHA-256 differs.

    """
    then, now = checkpoint.data_sha256, data.sha256
    if differing := sorted(name for name in then | now if then.get(name) != now.get(name)):
        raise DataError(
            f"{printable(data.name)}: these are not the data the run was trained on: "
            f"{', '.join(map(printable, differing))} differ\nbring the original files back"
        )


def changes(before: Recorded, threads: int) -> list[str]:
    """Return warnings: what differs from when the run was left and may change its bytes."""
    now = versions()
    then = before.checkpoint.versions if before.checkpoint else now
    found = [
        f"{printable(name)} was {printable(version)}, now it is {now.get(name)}"
        for name, version in then.items()
        if version != now.get(name)
    ]
    if before.threads != threads:
        found.append(f"the run used {before.threads} threads, now it uses {threads}")
    return [f"{what}: the resumed run may differ in its last bits" for what in found]


def go_on(trainer: Trainer, before: Recorded) -> dict[str, Any]:
    """Put the trainer where the run was left, its metrics too; return the run's manifest.

    Raises:
        DataError, RunError: data or best checkpoint are not those of the run.

    """
    checkpoint, run = before.checkpoint, before.run
    if checkpoint is None:
        repair_metrics(run, [])
        run.last.parent.mkdir(exist_ok=True)
        return before.manifest
    check_same_data(checkpoint, trainer.data)
    progress = Progress.from_dict(checkpoint.snapshot.progress)
    best = None
    if progress.history and trainer.watched == "validation":
        best = load(run.best)
    trainer.restore(checkpoint.snapshot, best and best.snapshot)
    if best is not None and trainer.best is not None:
        epoch = best.snapshot.progress["epoch"]
        # It may be ahead, if the process was killed before it wrote `last`.
        if epoch != trainer.best.epoch and epoch <= progress.epoch:
            raise RunError(
                f"{printable(run.best)}: is of epoch {epoch}, but the best one was "
                f"{trainer.best.epoch}\nbring the original file back"
            )
    trainer.seconds = float(before.manifest.get("seconds") or 0)
    if progress.position:
        trainer.epoch_seconds = float(before.manifest.get("unfinished_epoch_seconds") or 0)
    repair_metrics(run, trainer.progress.history)
    write_atomically(run.config, to_yaml(before.settings).encode())
    return before.manifest
