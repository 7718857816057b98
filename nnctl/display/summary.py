"""What `train` prints before it begins and when it is over, as rich renderables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nnctl.display.charts import SideBySide
from nnctl.display.curves import Row, accuracy_chart, loss_chart, overfitting_chart
from nnctl.display.tables import NOTHING, figures
from nnctl.display.verdict import describe_end
from nnctl.errors import counted, printable

if TYPE_CHECKING:
    from nnctl.training.trainer import Plan

PARTS = ("train", "validation", "test")


def summary_view(summary: Mapping[str, Any], rows: Sequence[Row], monitored: str) -> RenderableType:
    """Return the end of a run: curves, the verdict on overfitting, the final figures.

    `summary` has the fields of `run_finished`, `rows` are its metrics.
    """
    parts: list[RenderableType] = []
    if rows:
        parts += [SideBySide([loss_chart(rows), accuracy_chart(rows)]), ""]
        parts += [overfitting_chart(rows), ""]
    parts += [describe_end(summary, monitored), "", _figures(summary), _facts(summary)]
    return Group(*parts)


def _figures(summary: Mapping[str, Any]) -> Table:
    """Return loss and accuracy of each set, at the epoch that counts."""
    best, epochs = summary["best_epoch"], summary["epochs"]
    which = f"best epoch {best}" if best else f"epoch {epochs}" if epochs else ""
    rows = []
    for part in PARTS:
        loss, accuracy = summary[f"{part}_loss"], summary[f"{part}_accuracy"]
        rows.append(
            [
                part,
                NOTHING if loss is None else f"{loss:.4f}",
                NOTHING if accuracy is None else f"{accuracy:.2%}",
            ]
        )
    return figures([which, "loss", "accuracy"], rows)


def _facts(summary: Mapping[str, Any]) -> str:
    epochs, status = summary["epochs"], summary["status"].replace("early_stopped", "stopped early")
    return (
        f"{status} after {counted(epochs, 'epoch')}, {duration(summary['seconds'])}; "
        f"{summary['parameters']:,} parameters, seed {summary['seed']}"
    )


def plan_view(plan: Plan) -> RenderableType:
    """Return what `train --check` found: the layers, and what an epoch is."""
    rows = [["input", f"({plan.batch_size}, {plan.inputs})", ""]]
    for layer in plan.layers:
        batch, units = layer.output_shape
        count = f"{layer.parameters:,}" if layer.parameters else ""
        rows.append([layer.name, f"({batch}, {units})", count])
    rows.append(["total", "", f"{plan.parameters:,}"])
    table = figures(["layer", "output", "parameters"], rows)
    samples = (f"{getattr(plan, f'{part}_samples'):,} {part}" for part in PARTS)
    facts = (
        f"{counted(plan.steps_per_epoch, 'step')} an epoch of {counted(plan.batch_size, 'image')}, "
        f"{counted(plan.epochs, 'epoch')}, {counted(plan.threads, 'thread')}"
    )
    title = Text(f"{printable(plan.name)} on {printable(plan.dataset)}", style="bold")
    return Group(title, table, "images: " + ", ".join(samples), facts)


def duration(seconds: float) -> str:
    """Return seconds as a person says them.

    >>> duration(0.42), duration(75), duration(3 * 3600 + 62)
    ('0.42 s', '1:15', '3:01:02')
    """
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
