"""The loss against a growing learning rate, and the rate that it suggests."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from nnctl.display.charts import Chart, Mark, Series
from nnctl.errors import printable
from nnctl.training.lr_find import RateCurve


@dataclass(frozen=True)
class RateView:
    """The curve with the suggestion marked, and what to do with it."""

    curve: RateCurve

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the chart, then the suggestion."""
        curve = self.curve
        points = [(point.learning_rate, point.loss) for point in curve.points]
        yield Chart(
            "loss against learning rate",
            [Series(f"median of {len(curve.seeds)} seeds", points)],
            marks=[Mark(curve.suggestion, f"suggestion {curve.suggestion:g}")],
            x_label="rate",
            log_x=True,
        )
        lowest = curve.lowest
        yield Text(
            f"\n{curve.name} on {printable(curve.dataset)}, batches of {curve.batch_size}: "
            f"the loss is lowest, {lowest.loss:.4g}, at {lowest.learning_rate:.2g}."
        )
        if lowest == curve.points[-1]:
            yield Text("It was still falling there: rates above have not been tried.")
        yield Text(f"Suggestion: a third of that. --lr {curve.suggestion:g}")
