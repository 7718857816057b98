import math
from typing import Any

import pytest

from nnctl.display.curves import (
    accuracy_chart,
    best_epoch,
    gap_points,
    loss_chart,
    metric_series,
    monitored_set,
    overfitting_chart,
    points,
)


def rows(*losses: tuple[float | None, float | None], monitored: str = "validation") -> list[Any]:
    other = {"validation": "test", "test": "validation"}[monitored]
    return [
        {
            "epoch": epoch,
            "train_loss": train,
            "train_accuracy": 0.5,
            f"{monitored}_loss": loss,
            f"{monitored}_accuracy": 0.25,
            f"{other}_loss": None,
            f"{other}_accuracy": None,
        }
        for epoch, (train, loss) in enumerate(losses, 1)
    ]


@pytest.mark.parametrize("monitored", ["validation", "test"])
def test_monitored_set_is_the_one_with_figures(monitored: str) -> None:
    assert monitored_set(rows((1, 2), monitored=monitored)) == monitored


def test_gap_is_validation_minus_training_loss() -> None:
    assert gap_points(rows((1, 1.5), (0.5, None), (None, 2), (0.25, 2))) == [
        (1, 0.5),
        (2, None),
        (3, None),
        (4, 1.75),
    ]


def test_best_epoch_is_the_earliest_of_equals() -> None:
    assert best_epoch(rows((1, 3), (1, 2), (1, None), (1, 2), (1, 4))) == 2
    assert best_epoch(rows((1, None))) is None
    assert best_epoch([]) is None


def test_accuracy_is_in_percent() -> None:
    series = metric_series(rows((1, 1)), "accuracy")
    assert [list(curve.points) for curve in series.values()] == [[(1, 50)], [(1, 25)]]


def test_test_curve_in_place_of_a_validation_curve_says_so() -> None:
    history = rows((1, 2), (1, 1), monitored="test")
    for chart in (loss_chart(history), accuracy_chart(history), overfitting_chart(history)):
        assert chart.series[1].name == "test (no validation set)"
        assert [mark.name for mark in chart.marks] == ["lowest test loss: epoch 2"]


def test_words_where_numbers_belong_are_missing_values() -> None:
    assert points([{"epoch": 1, "x": "high"}, {"epoch": 2}, {"epoch": 3, "x": 1}], "x") == [
        (1, None),
        (2, None),
        (3, 1),
    ]
    assert math.isnan(points([{"epoch": 1, "x": math.nan}], "x")[0][1] or 0)
