"""The proof that a run can be interrupted without a trace."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from nnctl import datasets
from nnctl.config import Settings
from nnctl.datasets import DataSet, Source
from nnctl.errors import UsageError, printable
from nnctl.files import exists, sha256_of
from nnctl.runs.checkpoint import versions
from nnctl.runs.folder import RunFolder
from nnctl.runs.lock import new_run
from nnctl.runs.recorder import train
from nnctl.runs.resume import check_same_data, resume_point
from nnctl.training.events import RunStarted


@dataclass(frozen=True)
class Verification:
    """The SHA-256 of `last.safetensors` of the same run, trained in different ways."""

    uninterrupted: str  # a copy in one go
    interrupted: str  # a copy that was stopped and went on in a new trainer
    recorded: str | None  # the run's own; None if not complete, or of other versions or threads
    step: int  # after which the copy was interrupted
    steps: int  # of the whole run

    @property
    def exact(self) -> bool:
        """True if all of them are equal."""
        return {self.interrupted, self.recorded or self.uninterrupted} == {self.uninterrupted}


def verify(run: RunFolder, source: Source, threads: int | None = None) -> Verification:
    """Train two copies of a run in a temporary folder, one with an interruption in the middle.

    The run itself is only read. The copies use its number of threads, or the one that is given.

    Raises:
        UsageError: the run's config.yaml was edited, or it began with weights from elsewhere.
        RunError: a file of the run is missing or damaged.
        DataError: the data can't be had, or aren't those of the run.
        Diverged: the run diverges.

    """
    before = resume_point(run, ())
    if before.manifest.get("initial_weights"):
        raise UsageError(
            f"{printable(run)}: began with the weights of another run (--from); copies of it would "
            "begin without them"
        )
    settings, checkpoint = before.settings, before.checkpoint
    data = datasets.load(settings.data.dataset, source, parts=before.parts)
    check_same_data(before, data)
    threads = threads or before.threads
    own = None
    used = checkpoint and (checkpoint.versions, checkpoint.threads)
    if before.summary and used == (versions(), threads):
        own = sha256_of(run.last)
    with TemporaryDirectory(prefix="nnctl-verify-") as folder:
        whole = Path(folder, "whole")
        steps, steps_per_epoch = _train(settings, data, threads, whole)
        parted = Path(folder, "parted")
        # Where the most can go wrong: in the middle of an epoch.
        epochs = steps // 2 // steps_per_epoch
        middle = epochs * steps_per_epoch + max(steps_per_epoch // 2, 1)
        middle = min(middle, max(steps - 1, 1))  # at its end nothing would be left to go on with
        step, _ = _train(settings, data, threads, parted, lambda step: step >= middle)
        _train(settings, data, threads, parted)
        return Verification(
            uninterrupted=sha256_of(RunFolder(whole).last),
            interrupted=sha256_of(RunFolder(parted).last),
            recorded=own,
            step=step,
            steps=steps,
        )


def _train(
    settings: Settings,
    data: DataSet,
    threads: int,
    folder: Path,
    stop: Callable[[int], bool] = lambda step: False,
) -> tuple[int, int]:
    """Train in `folder`, from where it was left, until `stop(step)`.

    Return the steps done, and how many an epoch has.
    """
    run = RunFolder(folder)
    with ExitStack() as stack:
        before = None
        if exists(run.config):
            before = resume_point(run, ())
        else:
            stack.enter_context(new_run(folder, folder.parent, settings.name))
        step = steps_per_epoch = 0
        events = train(settings, data, run, threads=threads, before=before, stop=lambda: stop(step))
        for event in events:
            if isinstance(event, RunStarted):
                steps_per_epoch = event.steps_per_epoch
            step = getattr(event, "step", step)
        return step, steps_per_epoch
