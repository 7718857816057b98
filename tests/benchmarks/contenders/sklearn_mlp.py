"""scikit-learn's MLPClassifier, one epoch a call."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from common import run
from sklearn.neural_network import MLPClassifier


def train(row: Any, data: Any) -> tuple[Callable[[], None], Callable[[], float]]:
    """Return what does an epoch, and what measures the test accuracy."""
    warnings.simplefilter("ignore")  # it warns that one epoch is not convergence
    x, y, test_x, test_y = data
    model = MLPClassifier(
        hidden_layer_sizes=row["sizes"][1:-1],
        solver="adam" if row["optimizer"] == "adam" else "sgd",
        momentum=0.9 if row["optimizer"] == "momentum" else 0.0,
        nesterovs_momentum=False,
        alpha=0.0,
        batch_size=row["batch_size"],
        learning_rate_init=row["learning_rate"],
        max_iter=1,
        warm_start=True,
        random_state=0,
    )

    def epoch() -> None:
        model.fit(x, y)

    def accuracy() -> float:
        return float(model.score(test_x, test_y))

    return epoch, accuracy


run(train)
