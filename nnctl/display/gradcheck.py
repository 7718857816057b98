"""What `nnctl gradcheck` shows: each layer by itself, each parameter end to end, a verdict."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from nnctl.display.charts import Chart, Series
from nnctl.display.output import can_redraw, console
from nnctl.display.tables import NOTHING, Rows
from nnctl.gradcheck.report import LayerCheck, ParameterCheck, Report

LAYERS = ("layer", "input gradient", "parameter gradients", "verdict")
COUNTS = ("parameter", "shape", "checked", "failed", "kinks", "rounding", "max error")
WORST = ("parameter", "worst entry", "backpropagation", "numerical")
LEGEND = """\
error: |a - n| / max(|a|, |n|) of the gradients by backpropagation and by
differences, (L(w + h) - L(w - h)) / 2h; at a kink, as ReLU has at 0, any n
between the slopes to both sides. Not judged: kinks, entries too near to one,
and rounding, entries too small to be told from rounding errors."""
COLOURS = {"right": "green", "wrong": "red", "undecided": "yellow"}


@dataclass(frozen=True)
class ReportView:
    """A gradient check, its verdict last; `shared`: several processes can share the step."""

    title: str
    report: Report
    shared: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the layers, the parameters, what the columns mean, and the verdict."""
        report = self.report
        yield Text(f"{self.title}\n")
        yield Text("Each layer by itself, on the inputs it meets: relative errors", style="bold")
        yield Rows(LAYERS, [_layer(layer, report) for layer in report.layers])
        if report.parameters:
            yield Text("\nThe training step, end to end: gradients of the loss", style="bold")
            yield Rows(COUNTS, [_counts(parameter) for parameter in report.parameters])
            yield Text()
            yield Rows(WORST, [[check.name, *_entry(check)] for check in report.parameters])
        yield Text(f"\n{LEGEND}\n", style="dim")
        yield Text(verdict(report, self.shared), style=f"bold {COLOURS[report.verdict]}")


def verdict(report: Report, shared: bool = False) -> str:
    """Return what the check came to, in one or two sentences."""
    if report.passed:
        judged = report.checked - report.rounding - report.kinks
        counted = "all" if judged == report.checked else f"{judged:,} of"
        right = (
            f"Right: {counted} {report.checked:,} entries agree with the numerical gradient to "
            f"{report.tolerance:g}{_rest(report)}; {report.seconds:.1f} s."
        )
        also = "Shared by several processes, the step gives the same gradients."
        return f"{right}\n{also}" if shared else right
    failed = [parameter for parameter in report.parameters if parameter.failed]
    lines = [f"{report.verdict.capitalize()}: {report.cause}."]
    if failed:
        worst = max(failed, key=lambda parameter: parameter.max_relative_error or 0)
        name, a, n = _entry(worst)
        lines.append(f"The worst entry is {worst.name}{name}: backpropagation {a}, numerical {n}.")
    return "\n".join(lines)


def _rest(report: Report) -> str:
    parts = []
    if report.rounding:
        parts.append(f"{report.rounding:,} too small to be told from rounding")
    if report.kinks:
        parts.append(f"{report.kinks:,} too near to a kink")
    return f" ({', '.join(parts)})" if parts else ""


def _error(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1e}"


def _layer(layer: LayerCheck, report: Report) -> list[str]:
    """Return the row below `LAYERS`."""
    errors = layer.input_gradient_error, layer.parameter_gradient_error
    failed = "WRONG" if report.verdict == "wrong" else "undecided"
    return [layer.name, *map(_error, errors), "right" if layer.passed else failed]


def _counts(check: ParameterCheck) -> list[str]:
    """Return the row below `COUNTS`."""
    counts = check.checked, check.failed, check.kinks, check.rounding
    shape = "x".join(map(str, check.shape))
    return [check.name, shape, *(f"{n:,}" for n in counts), _error(check.max_relative_error)]


def _entry(check: ParameterCheck) -> tuple[str, str, str]:
    """Return the worst entry's index and its two gradients."""
    if check.worst is None:
        return NOTHING, NOTHING, NOTHING
    index = ", ".join(map(str, check.worst.index))
    return f"[{index}]", f"{check.worst.analytic:.9g}", f"{check.worst.numerical:.9g}"


def sweep_chart(errors: Sequence[tuple[float, float]]) -> Chart:
    """Return a chart of the error against h, from pairs of both in order of h."""
    finite = [(error, h) for h, error in errors if math.isfinite(error)]
    name = f"smallest at h = {min(finite)[1]:.0e}" if finite else "no number at any h"
    title = "relative error of the gradient"
    return Chart(title, [Series(name, errors)], x_label="h", log_x=True, log_y=True)


@contextmanager
def check_progress(total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes how many more entries are checked: a bar, on a terminal."""
    if quiet or not can_redraw(sys.stderr):
        yield lambda checked: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("checking"), BarColumn(bar_width=None), MofNCompleteColumn()
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda checked: bar.advance(task, checked)
