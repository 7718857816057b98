"""The samples that a network is surest and wrong about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnctl.datasets import Samples
from nnctl.datasets.batches import Gatherer
from nnctl.nn.functions import Array
from nnctl.nn.losses import Loss
from nnctl.nn.network import Network
from nnctl.training.evaluation import Evaluation, chunks


@dataclass(frozen=True)
class Mistake:
    """A sample whose predicted class is not its own."""

    index: int  # place in the original file
    label: int
    image: Array  # (pixels,), uint8
    classes: tuple[int, ...]  # the likeliest, the predicted one first
    scores: tuple[float, ...]  # theirs: probabilities, with mean_squared_error raw outputs


def confident_mistakes(
    network: Network,
    loss: Loss,
    samples: Samples,
    indices: Array,
    result: Evaluation,
    count: int,
    *,
    top: int = 3,
) -> list[Mistake]:
    """Return the `count` mistakes with the highest scores, each with its `top` classes.

    `result` is what `evaluate` found on the samples at `indices`. Only the mistakes go through
    the network again: the scores of all samples are never kept.
    """
    wrong = np.flatnonzero(result.predictions != result.labels)
    order = np.argsort(-result.probabilities[wrong], kind="stable")[:count]
    chosen = indices[wrong[order]]
    gather = Gatherer(samples)
    mistakes = []
    for part in chunks(len(chosen)):
        with np.errstate(all="ignore"):
            scores = loss.scores(network.forward(gather.images(chosen[part])))
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        for index, classes, row in zip(chosen[part].tolist(), best, scores, strict=True):
            mistakes.append(
                Mistake(
                    index=index,
                    label=int(samples.labels[index]),
                    image=samples.images[index],
                    classes=tuple(classes.tolist()),
                    scores=tuple(row[classes].tolist()),
                )
            )
    return mistakes
