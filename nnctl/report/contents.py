"""What a page is made from: what the folders of runs and sweeps say, and how networks measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nnctl.config import Settings, build
from nnctl.datasets import DataSet
from nnctl.files import as_text, exists
from nnctl.nn.losses import LOSSES, Loss
from nnctl.nn.network import Network
from nnctl.runs.checkpoint import Checkpoint
from nnctl.runs.folder import RunFolder, read_json
from nnctl.runs.run import StoredRun
from nnctl.sweeps.outcome import SweepFinished
from nnctl.sweeps.plan import Trial
from nnctl.sweeps.settings import Search
from nnctl.training.engine import split_samples
from nnctl.training.evaluation import EvaluationReport, evaluate, report_on
from nnctl.training.mistakes import Mistake, confident_mistakes

MISTAKES = 24  # are shown


@dataclass(frozen=True, kw_only=True)
class RunContents:
    """All that a page shows of one run."""

    record: StoredRun
    manifest: dict[str, Any]
    settings: Settings
    network: Network
    loss: Loss
    image_shape: tuple[int, int]
    class_names: tuple[str, ...] | None
    evaluation: EvaluationReport
    mistakes: list[Mistake]


@dataclass(frozen=True, kw_only=True)
class SweepContents:
    """All that a page shows of a sweep."""

    search: Search
    trials: dict[int, Trial]
    outcome: SweepFinished | None  # None: it has not come to its end
    best: int | None  # the winner, or the best so far
    winner: RunContents | None  # its first training


def split_of(run: RunFolder, settings: Settings) -> str:
    """Return what a run's network is measured on: the test set if the run has read it itself.

    Where it left that unread, as the trials of a sweep do, a page must not look at it either.
    """
    unread = not exists(run.test_predictions) and settings.data.validation
    return "validation" if unread else "test"


def measure(
    record: StoredRun,
    checkpoint: Checkpoint,
    which: str,
    data: DataSet,
    split: str,
    threads: int | None = None,
) -> RunContents:
    """Measure the network of a run's checkpoint `which` on a split, as `nnctl evaluate` does.

    Raises:
        RunError: the run's manifest is damaged.

    """
    settings = checkpoint.settings
    network, loss = checkpoint.network(), build(LOSSES, settings.loss)
    samples, indices = split_samples(settings, data, split)
    result = evaluate(network, loss, samples, indices, threads=threads)
    return RunContents(
        record=record,
        manifest=read_json(record.run.manifest),
        settings=settings,
        network=network,
        loss=loss,
        image_shape=checkpoint.image_shape,
        class_names=checkpoint.class_names,
        evaluation=report_on(
            result,
            network.widths[-1],
            run_dir=as_text(record.run),
            checkpoint=which,
            dataset=as_text(data.name),
            split=split,
        ),
        mistakes=confident_mistakes(network, loss, samples, indices, result, MISTAKES),
    )
