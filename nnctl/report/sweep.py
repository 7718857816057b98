"""What the page says of a sweep: every trial, and the objective by each parameter."""

from __future__ import annotations

from collections.abc import Mapping

from nnctl.display.markup import Markup, element
from nnctl.display.svg import figure
from nnctl.display.trials import columns, counts, parameter_parts, verdict
from nnctl.report.contents import SweepContents
from nnctl.report.pieces import columns_table, section, table
from nnctl.sweeps.outcome import SweepFinished, rank_trials


def sweep_article(sweep: SweepContents) -> Markup:
    """Return all that the page says of the trials together."""
    search, trials, outcome = sweep.search, sweep.trials, sweep.outcome
    ranking = rank_trials(search, trials)
    lead = f"{search.method} search for {search.objective}: {', '.join(counts(trials.values()))}"
    if outcome is None:
        lead += "; not finished"
    parts = [element("header", element("h1", search.name), element("p", lead))]
    if ranking:
        said = verdict(search, ranking, outcome) if outcome else ()
        parts.append(
            section(
                "Trials",
                *(element("p", sentence) for sentence in said),
                columns_table(columns(search, ranking, _marks(outcome))),
                is_wide=True,
            )
        )
        charts, tables = parameter_parts(search, ranking)
        if charts:
            drawn = element("div", *map(figure, charts), class_="charts")
            parts.append(section("Objective by parameter", drawn, is_wide=True))
        parts += [section(f"By {found[0].heading}", columns_table(found)) for found in tables]
    if others := [trial for trial in trials.values() if trial not in ranking]:
        rows = [(trial.trial, trial.state, trial.error or "") for trial in others]
        parts.append(
            section("Without a result", table(("trial", "state", "error"), rows, text_columns=3))
        )
    return element("article", *parts, class_="together")


def _marks(outcome: SweepFinished | None) -> Mapping[int, str]:
    if outcome is None or outcome.best is None:
        return {}
    return dict.fromkeys(outcome.tied, "tied") | {outcome.best: "winner"}
