"""scikit-learn's MLPClassifier, one epoch a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from common import run, scaled
from sklearn.neural_network import MLPClassifier


def train(row: Any, data: Any) -> tuple[Callable[[], None], Callable[[], float]]:
    """Return what does an epoch, and what measures the test accuracy."""
    x, y, test_x, test_y = data
    x, test_x = scaled(x), scaled(test_x)
    model = MLPClassifier(
        hidden_layer_sizes=row["sizes"][1:-1],
        solver="adam" if row["optimizer"] == "adam" else "sgd",
        momentum=0.9 if row["optimizer"] == "momentum" else 0.0,
        nesterovs_momentum=False,
        alpha=0.0,
        batch_size=row["batch_size"],
        learning_rate_init=row["learning_rate"],
        random_state=np.random.RandomState(0),
    )
    classes = np.arange(row["sizes"][-1])

    def epoch() -> None:
        model.partial_fit(x, y, classes=classes)  # `fit` would begin Adam's means anew

    def accuracy() -> float:
        return float(model.score(test_x, test_y))

    return epoch, accuracy


run(train)
