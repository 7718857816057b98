"""Train a run in its folder: settings and data in, events out, and everything kept.

The command, `nnctl runs verify`, and the tests all train by `train`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

from nnctl.config import Settings, to_yaml
from nnctl.datasets import DataSet
from nnctl.errors import Diverged
from nnctl.files import as_system_failure, as_text, write_atomically
from nnctl.runs.checkpoint import checkpoint_of, dump, versions
from nnctl.runs.folder import RunFolder, append_row, append_steps, new_manifest, now, to_json
from nnctl.runs.predictions import predictions_csv
from nnctl.runs.resume import ResumePoint, resume, resume_warnings
from nnctl.training.engine import InitialWeights
from nnctl.training.events import EpochFinished, Event, Notice, RunFinished, StepFinished
from nnctl.training.examination import forewarn
from nnctl.training.trainer import Trainer


def train(
    settings: Settings,
    data: DataSet,
    run: RunFolder,
    *,
    threads: int | None = None,
    before: ResumePoint | None = None,
    weights: InitialWeights | None = None,
    ending: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Train in `run`, which the caller owns; yield what happens once it is kept.

    `before` is the run as it was left, if it is resumed; `ending` ends it as it is, with its final
    figures. A new run begins with `weights`, if there are any. When `stop()` becomes true, the step
    is finished, a checkpoint written and the run ended.

    Raises:
        ConfigError: the settings ask for more images than there are.
        RunError: a checkpoint of the run is missing, damaged, or not that of these data.
        Diverged: a loss or weight is not finite, or the loss exploded; the summary is written.
        SystemFailure: something could not be written.

    """
    with closing(Trainer(settings, data, threads, run_dir=as_text(run))) as trainer:
        if before is None:
            manifest = begin(trainer, run, weights)
            for finding in forewarn(settings, data, trainer.split.train):
                yield Notice(f"{finding.message}\n{finding.remedy}")
        else:
            manifest = resume(trainer, before) or begin(trainer, run)
            for warning in resume_warnings(before, trainer.engine.threads):
                yield Notice(warning)
        yield from record(trainer, run, manifest, stop, ending=ending)


def begin(
    trainer: Trainer, run: RunFolder, weights: InitialWeights | None = None
) -> dict[str, Any]:
    """Write what a run has before its first step; return the manifest.

    The manifest goes first, so that the folder is known as nnctl's, and the config last: a run
    that has one can be resumed. Weights from elsewhere are kept in a checkpoint before that, so
    that the run never starts again without them.
    """
    manifest = new_manifest(
        versions=versions(),
        threads=trainer.engine.threads,
        seed=trainer.settings.seed,
        data_sha256=trainer.data.sha256,
        initial_weights=weights and {"path": weights.path, "sha256": weights.sha256},
    )
    write_atomically(run.manifest, to_json(manifest))
    write_atomically(run.metrics, b"")
    if trainer.settings.training.log_steps:
        write_atomically(run.steps, b"")
    with as_system_failure("creating", run.last.parent):
        run.last.parent.mkdir(exist_ok=True)
    if weights is not None:
        trainer.begin_with(weights)
        write_atomically(run.last, dump(checkpoint_of(trainer)))
    write_atomically(run.config, to_yaml(trainer.settings).encode())
    return manifest


def record(
    trainer: Trainer,
    run: RunFolder,
    manifest: dict[str, Any],
    stop: Callable[[], bool],
    *,
    ending: bool = False,
) -> Iterator[Event]:
    """Train, keep everything that happens in `run`, and pass the events on.

    A metrics row, and each step's loss where they are kept, is on the disk before the checkpoint
    that covers it, and the best checkpoint before the last: whatever moment the process is killed
    at, `last` can be resumed.
    """
    saved_at, saved_step = time.monotonic(), -1

    def save(data: Sequence[bytes | memoryview]) -> None:
        nonlocal saved_at, saved_step
        write_atomically(run.last, data)
        saved_at, saved_step = time.monotonic(), trainer.progress.step

    def save_steps() -> None:
        if losses := trainer.step_losses:
            append_steps(run, trainer.progress.step - len(losses) + 1, losses)
            losses.clear()

    def save_inside_epoch() -> None:
        data = dump(checkpoint_of(trainer))
        save_steps()
        manifest["unfinished_epoch_seconds"] = trainer.epoch_seconds
        write_atomically(run.manifest, to_json(manifest))
        save(data)

    def save_epoch(event: EpochFinished) -> None:
        data = dump(checkpoint_of(trainer))
        save_steps()
        append_row(run, event)
        if event is trainer.best and trainer.monitored == "validation":
            write_atomically(run.best, data)
        save(data)

    def save_predictions() -> None:
        validation, test = (trainer.engine.measured(part) for part in ("validation", "test"))
        if len(validation.labels):
            indices = trainer.split.validation.tolist()
            data = predictions_csv(validation, indices, with_losses=True)
            write_atomically(run.validation_predictions, data)
        if len(test.labels):
            data = predictions_csv(test, range(len(test.labels)))
            write_atomically(run.test_predictions, data)

    def save_end(event: RunFinished) -> None:
        manifest.update(ended=now(), seconds=event.seconds)
        write_atomically(run.manifest, to_json(manifest))
        write_atomically(run.summary, to_json(event))

    try:
        for event in trainer.events(ending=ending):
            if isinstance(event, StepFinished):
                waited = time.monotonic() - saved_at
                if waited > trainer.settings.training.checkpoint_seconds:
                    save_inside_epoch()
            elif isinstance(event, EpochFinished):
                save_epoch(event)
            elif isinstance(event, RunFinished):
                save_predictions()
                save_end(event)
            yield event
            if stop() and not isinstance(event, RunFinished):
                if saved_step != trainer.progress.step:
                    save_inside_epoch()
                end = trainer.finish("interrupted")
                save_end(end)
                yield end
                return
    except Diverged:
        save_steps()
        end = trainer.finish("diverged")
        save_end(end)
        yield end
        raise
