"""How good predictions are: accuracy and its uncertainty, confusions, classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nnctl.nn.functions import Array


def wilson_interval(right: int, samples: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the interval that holds the true accuracy with 95 % confidence (z standard errors).

    Wilson 1927, "Probable inference, the law of succession, and statistical inference". Unlike
    p +- z s it stays within 0..1 and holds near the ends.

    >>> [round(bound, 4) for bound in wilson_interval(97, 100)]
    [0.9155, 0.9897]
    """
    if samples == 0:
        return 0.0, 1.0
    wrong, z2 = samples - right, z * z
    centre, half = right + z2 / 2, z * math.sqrt(right * wrong / samples + z2 / 4)
    low, high = (centre - half) / (samples + z2), (centre + half) / (samples + z2)
    return (low if right else 0.0), (high if wrong else 1.0)


def confusion_matrix(labels: Array, predictions: Array, classes: int) -> Array:
    """Return counts (classes, classes): the row is the true class, the column the predicted one.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    array([[1, 1],
           [0, 1]])
    """
    pairs = labels.astype(np.intp) * classes + predictions
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class ClassFigures:
    """How well one class is recognised; a ratio is None where it would be 0 / 0."""

    label: int
    precision: float | None  # of what was predicted as this class, how much is
    recall: float | None  # of what is this class, how much was predicted as such
    f1: float | None  # the harmonic mean of the two
    support: int  # samples of this class


def per_class(confusion: Array) -> list[ClassFigures]:
    """Return the figures of each class from a confusion matrix."""
    figures = []
    for label, right in enumerate(confusion.diagonal().tolist()):
        predicted, support = int(confusion[:, label].sum()), int(confusion[label].sum())
        figures.append(
            ClassFigures(
                label=label,
                precision=right / predicted if predicted else None,
                recall=right / support if support else None,
                f1=2 * right / (predicted + support) if predicted + support else None,
                support=support,
            )
        )
    return figures
