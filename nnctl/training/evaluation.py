"""Measuring a network on samples, in chunks, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from nnctl.datasets import Samples
from nnctl.datasets.batches import Gatherer
from nnctl.nn.functions import Array
from nnctl.nn.losses import Loss
from nnctl.nn.metrics import ClassFigures, confusion_matrix, per_class, wilson_interval
from nnctl.nn.network import Network
from nnctl.training.process_group import ProcessGroup, shard
from nnctl.training.threads import choose_evaluation_threads, usable_cores

CHUNK = 250  # samples a forward pass; fixed, so that results do not depend on who computes what


@dataclass(frozen=True)
class Evaluation:
    """What the network makes of each of n samples, all (n,)."""

    labels: Array  # true classes, integers
    losses: Array  # float32, reported losses
    predictions: Array  # integers
    probabilities: Array  # float32, of the predicted class

    @classmethod
    def empty(cls, labels: Array, allocate: Callable[[int, Any], Array] = np.zeros) -> Self:
        """Return an evaluation of samples with `labels` that is still to be filled."""
        n = len(labels)
        return cls(labels, allocate(n, np.float32), allocate(n, np.uint8), allocate(n, np.float32))

    @property
    def loss(self) -> float:
        """The mean loss."""
        return float(self.losses.mean(dtype=np.float64))

    @property
    def accuracy(self) -> float:
        """The fraction of right predictions."""
        return float((self.predictions == self.labels).mean())


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """The fields of `nnctl evaluate --json`."""

    run_dir: str | None  # None: the checkpoint lies in no run
    checkpoint: str  # best, last, or its path
    dataset: str
    split: str  # test, validation or train
    samples: int
    loss: float  # mean, without label smoothing
    accuracy: float  # 0..1
    accuracy_interval: tuple[float, float]  # Wilson, 95 %
    per_class: list[ClassFigures]
    confusion_matrix: list[list[int]]  # rows are true classes, columns predictions


def report_on(
    result: Evaluation,
    classes: int,
    *,
    run_dir: str | None,
    checkpoint: str,
    dataset: str,
    split: str,
) -> EvaluationReport:
    """Return the figures of an evaluation, with the words that say what was measured on what."""
    confusion = confusion_matrix(result.labels, result.predictions, classes)
    samples = len(result.labels)
    return EvaluationReport(
        run_dir=run_dir,
        checkpoint=checkpoint,
        dataset=dataset,
        split=split,
        samples=samples,
        loss=result.loss,
        accuracy=result.accuracy,
        accuracy_interval=wilson_interval(int(confusion.trace()), samples),
        per_class=per_class(confusion),
        confusion_matrix=confusion.tolist(),
    )


def chunks(count: int, size: int = CHUNK) -> list[slice]:
    """Return the slices of at most `size` that make up `range(count)`."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def evaluate_chunks(
    network: Network,
    loss: Loss,
    gather: Gatherer,
    indices: Array,
    into: Evaluation,
    parts: Sequence[slice],
) -> None:
    """Run the samples `indices[chunk]` of each chunk through the network, and fill `into` there."""
    for chunk in parts:
        outputs = network.forward(gather.images(indices[chunk]))
        scores = loss.scores(outputs)
        predictions = scores.argmax(axis=1)
        into.losses[chunk] = loss.per_sample(outputs, into.labels[chunk])
        into.predictions[chunk] = predictions
        into.probabilities[chunk] = scores[np.arange(len(scores)), predictions]


def evaluate(
    network: Network,
    loss: Loss,
    samples: Samples,
    indices: Array,
    chunk: int = CHUNK,
    threads: int | None = None,
) -> Evaluation:
    """Measure `network` on the samples at `indices`, `chunk` at a time.

    The result does not depend on `threads`; without them a rule decides.
    """
    parts = chunks(len(indices), chunk)
    gather = Gatherer(samples)
    size = threads or choose_evaluation_threads(network.size, len(indices), usable_cores())
    with ProcessGroup(max(1, min(size, len(parts)))) as group, np.errstate(all="ignore"):
        result = Evaluation.empty(gather.labels(indices), group.allocate)

        def measure(rank: int) -> Iterator[None]:
            mine = parts[shard(len(parts), rank, group.size)]
            evaluate_chunks(network, loss, gather, indices, result, mine)
            yield from ()

        group.start({"measure": measure})
        group.run("measure")
    return result
