"""Predictions as CSV: those that a run keeps of its validation and test images, and read back."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nnctl.errors import RunError, printable
from nnctl.nn.functions import Array
from nnctl.runs.folder import RunFolder, read_regular
from nnctl.training.evaluation import Evaluation

MAX_PREDICTIONS_BYTES = 64 << 20  # over a million images


@dataclass(frozen=True)
class Predictions:
    """What a network made of n images, all (n,)."""

    indices: Array  # places in the original file
    labels: Array
    predictions: Array
    losses: Array | None  # of the validation images alone

    @property
    def right(self) -> Array:
        """Which predictions are right, booleans."""
        right: Array = self.predictions == self.labels
        return right

    def same_images(self, other: Predictions) -> bool:
        """Return whether both are of the same images, by place and label."""
        return np.array_equal(self.indices, other.indices) and np.array_equal(
            self.labels, other.labels
        )


def predictions_csv(
    result: Evaluation, indices: Iterable[int], *, with_losses: bool = False
) -> bytes:
    """Return a CSV of the predictions; `indices` are the samples' places in the original file."""
    columns = ["index", "label", "prediction", "probability"]
    rows = [indices, result.labels, result.predictions, map("{:.9g}".format, result.probabilities)]
    if with_losses:
        columns.append("loss")
        rows.append(map("{:.9g}".format, result.losses))
    lines = [",".join(map(str, row)) for row in zip(*rows, strict=True)]
    return "\n".join([",".join(columns), *lines, ""]).encode()


def read_predictions(run: RunFolder, split: str) -> Predictions:
    """Return a run's stored predictions of its `validation` or `test` images.

    Raises:
        RunError: they are missing or damaged.

    """
    path = run.validation_predictions if split == "validation" else run.test_predictions
    data = read_regular(path, MAX_PREDICTIONS_BYTES)
    head, _, body = data.partition(b"\n")
    try:
        if not body:
            raise ValueError
        rows = np.loadtxt(io.BytesIO(body), delimiter=",", ndmin=2)
        columns = dict(zip(head.decode().split(","), rows.T, strict=True))
        return Predictions(
            indices=columns["index"].astype(np.int64),
            labels=columns["label"].astype(np.int64),
            predictions=columns["prediction"].astype(np.int64),
            losses=columns["loss"] if split == "validation" else None,
        )
    except (ValueError, KeyError, UnicodeDecodeError):
        raise RunError(f"{printable(path)}: damaged, not a CSV of predictions") from None
