"""The curves of one or several runs in one chart, and a chart as a picture."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path

from nnctl.display.charts import Chart, Point
from nnctl.display.curves import Row, best_mark, metric_series, monitored_set
from nnctl.display.output import STANDARD_OUTPUT, write_result
from nnctl.errors import UsageError

BOTH_CURVES = 2  # so many runs are shown with their training curves too

TITLES = {
    "loss": "loss",
    "accuracy": "accuracy (%)",
    "gap": "gap in loss",
    "batch_loss": "batch loss",
}
FORMATS = {".svg": "svg", ".png": "png"}
LINE_STYLES = ("-", ":", "--", "-.")
MOST_INSIDE = 4  # curves whose legend lies in the picture; that of more lies beside it


def runs_chart(
    runs: Mapping[str, Sequence[Row]], metric: str, *, log: bool, smooth: int, height: int
) -> Chart:
    """Return the curves of `runs`, rows of metrics by the name of their run.

    One or two runs have both their curves, training and validation; of more, only the latter is
    drawn. `smooth` is the number of rows that a point is the mean of.
    """
    series = []
    title = TITLES[metric]
    drawn = {monitored_set(rows) for rows in runs.values()}
    one_each = len(runs) > BOTH_CURVES and len(drawn) == 1 and metric != "gap"
    for name, rows in sorted(runs.items()):
        for part, curve in metric_series(rows, metric).items():
            if len(runs) > BOTH_CURVES and part != monitored_set(rows):
                continue
            label = name if one_each else f"{name} {curve.name}"
            label = curve.name if len(runs) == 1 else label
            series.append(replace(curve, name=label, points=smoothed(curve.points, smooth)))
    if len(runs) == 1:
        title += f" of {next(iter(runs))}"
    elif one_each:
        title = f"{drawn.pop()} {title}"
    if smooth > 1:
        title += f", mean of {smooth} {'steps' if metric == 'batch_loss' else 'epochs'}"
    marks = best_mark(next(iter(runs.values()))) if len(runs) == 1 else []
    return Chart(title, series, marks, log_y=log, height=height)


def smoothed(points: Sequence[Point], window: int) -> list[Point]:
    """Return each point as the mean of the `window` points around it, fewer at the ends.

    Where `window` is even, one point more is taken before than after. Gaps stay gaps.

    >>> smoothed([(1, 1.0), (2, 4.0), (3, 1.0), (4, None)], 3)
    [(1, 2.5), (2, 2.0), (3, 2.5), (4, None)]
    """
    means: list[Point] = []
    for index, (x, y) in enumerate(points):
        around = points[max(index - window // 2, 0) : index + (window + 1) // 2]
        known = [other for _, other in around if other is not None]
        means.append((x, None if y is None else math.fsum(known) / len(known)))
    return means


def check_picture(path: Path) -> None:
    """Refuse, before any work, a picture that could not be written.

    Raises:
        UsageError: the name ends neither in .svg nor .png, or matplotlib is missing.

    """
    if path != STANDARD_OUTPUT and path.suffix.lower() not in FORMATS:
        raise UsageError(f"--output {str(path)!r}: the name must end in {' or '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError(
            "--output needs matplotlib, which is not installed\n"
            "install it with: pip install 'nnctl[plot]'"
        ) from None


def write_picture(path: Path, chart: Chart) -> None:
    """Draw `chart` with matplotlib and write it; the same chart gives the same bytes.

    Raises:
        SystemFailure: the file could not be written.

    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    # What matplotlib warns of, a letter that its font lacks or an empty log axis, can be seen.
    settings = matplotlib.rc_context({"svg.hashsalt": "nnctl", "text.parse_math": False})
    with settings, warnings.catch_warnings(action="ignore"):
        figure = Figure(figsize=(7, 4.2), dpi=200, layout="constrained")
        axes = figure.add_subplot(
            title=chart.title,
            xlabel=chart.x_label,
            yscale="log" if chart.log_y else "linear",
        )
        for series, style in zip(chart.series, cycle(LINE_STYLES)):
            xs = [x for x, _ in series.points]
            ys = [math.nan if y is None else y for _, y in series.points]
            lone = "o" if len(xs) == 1 else None  # a line of one point is not to be seen
            axes.plot(xs, ys, style, label=series.name, marker=lone)
        for mark in chart.marks:
            axes.axvline(mark.x, color="0.6", linewidth=0.8, label=mark.name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if len(chart.series) > MOST_INSIDE:
            figure.legend(loc="outside right upper", fontsize="small")
        else:
            axes.legend()
        if chart.log_y:
            for labelled in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                labelled(FuncFormatter(_plain_number))
        file, kind = io.BytesIO(), FORMATS.get(path.suffix.lower(), "svg")
        figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)
    write_result(path, file.getvalue())


def _plain_number(value: float, position: int | None = None) -> str:
    """Return the label of a tick: matplotlib's own would be TeX, which is not read here.

    Between two powers of ten only 2 and 5 are labelled.

    >>> [_plain_number(value) for value in (0.05, 0.2, 0.3, 1, 1e-7)]
    ['0.05', '0.2', '', '1', '1e-07']
    """
    leading = f"{value:e}"[0]
    return f"{value:g}" if leading in "125" else ""
