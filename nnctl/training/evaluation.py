"""Measuring a network on samples, in chunks, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from nnctl.datasets import Samples
from nnctl.datasets.batches import Gatherer
from nnctl.nn.functions import Array
from nnctl.nn.losses import Loss
from nnctl.nn.network import Network

CHUNK = 500  # samples a forward pass; fixed, so that results do not depend on who computes what


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


def chunks(count: int, size: int = CHUNK) -> list[slice]:
    """Return the slices of at most `size` that make up `range(count)`."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def evaluate_chunk(
    network: Network,
    loss: Loss,
    gather: Gatherer,
    indices: Array,
    into: Evaluation,
    chunk: slice,
) -> None:
    """Run the samples `indices[chunk]` through the network and fill `into` at `chunk`."""
    outputs = network.forward(gather(indices[chunk]))
    scores = loss.scores(outputs)
    predictions = scores.argmax(axis=1)
    into.losses[chunk] = loss.per_sample(outputs, into.labels[chunk])
    into.predictions[chunk] = predictions
    into.probabilities[chunk] = scores[np.arange(len(scores)), predictions]


def evaluate(
    network: Network, loss: Loss, samples: Samples, indices: Array, chunk: int = CHUNK
) -> Evaluation:
    """Measure `network` on the samples at `indices`, `chunk` at a time."""
    gather = Gatherer(samples.images)
    result = Evaluation.empty(samples.labels[indices].astype(np.intp))
    with np.errstate(all="ignore"):
        for part in chunks(len(indices), chunk):
            evaluate_chunk(network, loss, gather, indices, result, part)
    return result


def predictions_csv(result: Evaluation, indices: Iterable[int]) -> bytes:
    """Return a CSV of the predictions; `indices` are the samples' places in the original file."""
    rows = zip(indices, result.labels, result.predictions, result.probabilities, strict=True)
    lines = [f"{index},{label},{prediction},{p:.9g}" for index, label, prediction, p in rows]
    return "\n".join(["index,label,prediction,probability", *lines, ""]).encode()
