"""One page about one or several runs, or about a sweep."""

from __future__ import annotations

from collections.abc import Sequence

from nnctl.report.contents import RunContents, SweepContents
from nnctl.report.pieces import page
from nnctl.report.run import run_article
from nnctl.report.several import comparison_article, labels
from nnctl.report.sweep import sweep_article
from nnctl.runs.compare import compare_runs


def runs_page(runs: Sequence[RunContents]) -> bytes:
    """Return the page about these runs, several of them best first and side by side.

    The same runs give the same bytes.

    Raises:
        RunError: stored predictions are damaged.

    """
    if len(runs) == 1:
        (run,) = runs
        return page(run.record.name, [run_article(run, run.record.name, "run-1")])
    comparison = compare_runs([run.record for run in runs])
    by_path = {run.record.run.path: run for run in runs}
    best_first = [by_path[record.run.path] for record in comparison.records]
    names = labels(comparison.records)
    title = f"{len(runs)} runs"
    articles = [
        run_article(run, name, f"run-{number}")
        for number, (run, name) in enumerate(zip(best_first, names, strict=True), 1)
    ]
    return page(title, [comparison_article(title, comparison), *articles])


def sweep_page(sweep: SweepContents) -> bytes:
    """Return the page about a sweep: its trials, and the run of the best of them."""
    parts = [sweep_article(sweep)]
    if sweep.winner is not None:
        parts.append(run_article(sweep.winner, f"Trial {sweep.best}", "winner"))
    return page(sweep.search.name, parts)
