"""What the page says of several runs, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from nnctl.display.columns import Column
from nnctl.display.markup import Markup, element
from nnctl.display.plot import runs_chart
from nnctl.display.runs import conclusions, result_columns, setting_columns
from nnctl.display.svg import figure
from nnctl.report.pieces import columns_table, section
from nnctl.runs.compare import RunComparison
from nnctl.runs.run import StoredRun


def comparison_article(title: str, found: RunComparison) -> Markup:
    """Return the table of runs, what can be said of their differences, and their curves."""
    names = labels(found.records)
    links = [element("a", name, href=f"#run-{n}") for n, name in enumerate(names, 1)]
    columns = [Column("run", links), *setting_columns(found), *result_columns(found)]
    said = (element("p", sentence) for sentence in conclusions(found))
    rows = {
        name: [asdict(row) for row in record.history]
        for name, record in zip(names, found.records, strict=True)
        if record.history
    }
    charts = (
        figure(runs_chart(rows, metric, log=False, smooth=1, height=10))
        for metric in ("loss", "accuracy", "gap")
    )
    curves = element("div", *charts, class_="charts") if rows else Markup("")
    return element(
        "article",
        element("header", element("h1", title), element("p", "best validation accuracy first")),
        section("Side by side", columns_table(columns), *said, is_wide=True),
        section("Curves", curves, is_wide=True),
        class_="together",
    )


def labels(records: Sequence[StoredRun]) -> list[str]:
    """Return the runs' names, or where two are the same their paths."""
    names = [record.name for record in records]
    if len(set(names)) == len(names):
        return names
    return [str(record.run.path) for record in records]
