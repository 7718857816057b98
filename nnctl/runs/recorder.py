"""One session of training: the trainer's events, recorded in its run folder as they pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from nnctl.config import to_yaml
from nnctl.errors import Diverged
from nnctl.files import as_text, told, write_atomically
from nnctl.runs.checkpoint import checkpoint_of, dump, versions
from nnctl.training.evaluation import predictions_csv
from nnctl.training.events import EpochFinished, Event, RunFinished, RunStarted, StepFinished
from nnctl.runs.folder import RunFolder, append_row, new_manifest, now, to_json
from nnctl.training.trainer import Trainer


def begin(trainer: Trainer, run: RunFolder) -> dict[str, Any]:
    """Write what a run has before its first step; return the manifest.

    The manifest goes first, so that the folder is known as nnctl's, and the config last: a run
    that has one can be resumed.
    """
    manifest = new_manifest(
        versions=versions(),
        threads=trainer.engine.threads,
        seed=trainer.settings.seed,
        data_sha256=trainer.data.sha256,
    )
    write_atomically(run.manifest, to_json(manifest))
    write_atomically(run.metrics, b"")
    with told("creating", run.last.parent):
        run.last.parent.mkdir(exist_ok=True)
    write_atomically(run.config, to_yaml(trainer.settings).encode())
    return manifest


def record(
    trainer: Trainer,
    run: RunFolder,
    manifest: dict[str, Any],
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Train, keep everything that happens in `run`, and pass the events on.

    A metrics row is on the disk before the checkpoint that covers it, and the best checkpoint
    before the last: whatever moment the process is killed at, `last` can be resumed. When
    `stop()` becomes true, the step is finished, a checkpoint written and the run ended.

    Raises:
        Diverged: as the trainer; the summary is written first.
        SystemFailure: something could not be written.

    """
    saved_at, saved_step = time.monotonic(), -1

    def save(data: bytes) -> None:
        nonlocal saved_at, saved_step
        write_atomically(run.last, data)
        saved_at, saved_step = time.monotonic(), trainer.progress.step

    def save_inside_epoch() -> None:
        data = dump(checkpoint_of(trainer))
        manifest["unfinished_epoch_seconds"] = trainer.epoch_seconds
        write_atomically(run.manifest, to_json(manifest))
        save(data)

    def save_epoch(event: EpochFinished) -> None:
        data = dump(checkpoint_of(trainer))
        append_row(run, event)
        if event is trainer.best and trainer.monitored == "validation":
            write_atomically(run.best, data)
        save(data)

    def finished(event: RunFinished) -> RunFinished:
        event = replace(event, run_dir=as_text(run.path))
        manifest.update(ended=now(), seconds=event.seconds)
        write_atomically(run.manifest, to_json(manifest))
        write_atomically(run.summary, to_json(event))
        return event

    try:
        for event in trainer.events():
            if isinstance(event, StepFinished):
                waited = time.monotonic() - saved_at
                if waited > trainer.settings.training.checkpoint_seconds:
                    save_inside_epoch()
            elif isinstance(event, EpochFinished):
                save_epoch(event)
            elif isinstance(event, RunStarted):
                event = replace(event, run_dir=as_text(run.path))
            else:
                test = trainer.engine.measured("test")
                if event.test_loss is not None:
                    data = predictions_csv(test, range(len(test.labels)))
                    write_atomically(run.predictions, data)
                event = finished(event)
            yield event
            if stop() and not isinstance(event, RunFinished):
                if saved_step != trainer.progress.step:
                    save_inside_epoch()
                yield finished(trainer.finish("interrupted"))
                return
    except Diverged:
        yield finished(trainer.finish("diverged"))
        raise
