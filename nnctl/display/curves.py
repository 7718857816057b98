"""The curves of a run, as charts: loss, accuracy, and how far training and validation part.

They are made from rows of metrics, mappings with the fields of `epoch_finished`. Without a
validation set the rows hold test figures, which then stand in its place, and the legend says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnctl.display.charts import Chart, Mark, Point, Series

Row = Mapping[str, Any]


def monitored_set(rows: Sequence[Row]) -> str:
    """Return which set the rows hold beside the training set: validation, or else test."""
    return "test" if rows and rows[0].get("validation_loss") is None else "validation"


def points(rows: Sequence[Row], field: str, factor: float = 1.0) -> list[Point]:
    """Return a field of the rows over the epochs, times `factor`."""
    values = ((row["epoch"], row.get(field)) for row in rows)
    return [
        (epoch, factor * value if isinstance(value, int | float) else None)
        for epoch, value in values
    ]


def step_rows(losses: Sequence[float | None], rows: Sequence[Row]) -> list[Row]:
    """Return the batch losses of a run's steps as rows, at the epoch that each step begins at.

    `rows` are the run's metrics, which know how many steps there are to an epoch.
    """
    if not rows:
        return []
    steps_per_epoch = rows[0]["step"] / rows[0]["epoch"]
    return [
        {"epoch": step / steps_per_epoch, "batch_loss": loss} for step, loss in enumerate(losses)
    ]


def gap_points(rows: Sequence[Row]) -> list[Point]:
    """Return validation loss - training loss over the epochs."""
    train, other = points(rows, "train_loss"), points(rows, f"{monitored_set(rows)}_loss")
    return [
        (epoch, None if upper is None or lower is None else upper - lower)
        for (epoch, lower), (_, upper) in zip(train, other, strict=True)
    ]


def metric_series(rows: Sequence[Row], metric: str) -> dict[str, Series]:
    """Return the series of a metric by the set they are of; accuracies in percent.

    What is one curve alone, gap or batch_loss, stands under the monitored set's name.
    """
    monitored = monitored_set(rows)
    named = {"train": "train", monitored: monitored}
    if monitored == "test":
        named["test"] = "test (no validation set)"
    if metric == "batch_loss":
        return {monitored: Series("batch loss", points(rows, metric))}
    if metric == "gap":
        return {monitored: Series(f"gap: {monitored} - train", gap_points(rows))}
    factor = 100 if metric == "accuracy" else 1
    return {
        part: Series(name, points(rows, f"{part}_{metric}", factor)) for part, name in named.items()
    }


def best_epoch(rows: Sequence[Row]) -> int | None:
    """Return the epoch of the lowest monitored loss, the earliest on a tie."""
    known = [
        (loss, epoch)
        for epoch, loss in points(rows, f"{monitored_set(rows)}_loss")
        if loss is not None
    ]
    return int(min(known)[1]) if known else None


def best_mark(rows: Sequence[Row]) -> list[Mark]:
    """Return a mark at the best epoch; on test data nothing is chosen, so it is named otherwise."""
    best = best_epoch(rows)
    if best is None:
        return []
    name = "best epoch" if monitored_set(rows) == "validation" else "lowest test loss: epoch"
    return [Mark(best, f"{name} {best}")]


def loss_chart(rows: Sequence[Row], **options: Any) -> Chart:
    """Return training and validation loss; `options` go to the chart."""
    series = [*metric_series(rows, "loss").values()]
    return Chart("loss", series, best_mark(rows), **options)


def accuracy_chart(rows: Sequence[Row], **options: Any) -> Chart:
    """Return training and validation accuracy in percent; `options` go to the chart."""
    series = [*metric_series(rows, "accuracy").values()]
    return Chart("accuracy (%)", series, best_mark(rows), **options)


def overfitting_chart(rows: Sequence[Row], **options: Any) -> Chart:
    """Return both losses and the gap between them; `options` go to the chart."""
    series = [*metric_series(rows, "loss").values(), *metric_series(rows, "gap").values()]
    return Chart("overfitting", series, best_mark(rows), **options)
