"""The trials of a sweep, drawn: as they run, and what they found."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from nnctl.display.charts import Chart, Point, Series, SideBySide
from nnctl.display.columns import Column, Shrinking
from nnctl.display.dashboard import bar, flow
from nnctl.display.output import console
from nnctl.display.region import REDRAW_SECONDS, Region
from nnctl.display.runs import short_names
from nnctl.display.summary import duration
from nnctl.display.sweeps import shown
from nnctl.display.tables import NOTHING
from nnctl.errors import counted, printable
from nnctl.sweeps.folder import SweepFolder
from nnctl.sweeps.outcome import SweepFinished, rank_trials
from nnctl.sweeps.plan import Trial
from nnctl.sweeps.run import Event, TrialFinished, TrialStarted
from nnctl.sweeps.settings import Search
from nnctl.sweeps.space import Choices, NumberRange
from nnctl.sweeps.training import progress_of

MOST = 10  # trials in the table at the end
LEADING = 5  # trials in the live table
CHART_HEIGHT = 7


def figure(search: Search, value: float | None) -> str:
    """Return an objective as people read it."""
    if value is None:
        return NOTHING
    return f"{value:.2%}" if search.objective.endswith("accuracy") else f"{value:.4f}"


def live_table(
    sweep: SweepFolder, search: Search, trials: Mapping[int, Trial]
) -> Callable[[Event], None]:
    """Return what shows an event; the table is drawn over at the lower end of the terminal.

    At the end it is erased if standard output is a terminal too, where the result takes its place.
    """
    region = Region(console(stderr=True))
    view = LiveView(sweep, search, trials)
    due = 0.0

    def show(event: Event) -> None:
        nonlocal due
        view.take(event)
        now = time.monotonic()
        over = view.is_over
        if over and sys.stdout.isatty():
            region.erase()
        elif over or now >= due:
            region.draw(view)
            due = time.monotonic() + REDRAW_SECONDS

    return show


class LiveView:
    """The trials under way and the best so far, of the moment it is rendered."""

    def __init__(self, sweep: SweepFolder, search: Search, trials: Mapping[int, Trial]) -> None:
        self.sweep, self.search = sweep, search
        self.trials = dict(trials)
        self._before = sum(trial.over for trial in trials.values())
        self._since = time.monotonic()

    def take(self, event: Event) -> None:
        """Note an event."""
        if isinstance(event, TrialStarted | TrialFinished):
            self.trials[event.trial.trial] = event.trial

    @property
    def is_over(self) -> bool:
        """True if nothing is left to do."""
        return self._done == self.search.trials

    @property
    def _done(self) -> int:
        return sum(trial.over for trial in self.trials.values())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw into the width of the terminal."""
        search, done, width = self.search, self._done, options.max_width
        title = f"{search.name}  {search.method} search, {search.parallel} at once"
        yield Text(printable(title), style="bold", no_wrap=True, overflow="crop")
        words = f"trial {done}/{search.trials}  {done / search.trials:4.0%}"
        yield Text(f"{words} {bar(done / search.trials, width - len(words) - 1, options)}")
        facts = counts(self.trials.values())
        elapsed, here = time.monotonic() - self._since, done - self._before
        if here and done < search.trials:
            facts.append(f"{duration((search.trials - done) * elapsed / here)} left")
        yield Text(flow(facts, width))
        if running := [trial for trial in self.trials.values() if not trial.over]:
            yield Text("\nunder way", style="bold")
            yield Shrinking(list(self._running(running)))
        if leading := rank_trials(search, self.trials)[:LEADING]:
            yield Text(f"\nbest {search.objective} so far", style="bold")
            yield Shrinking(columns(search, leading))

    def _running(self, running: Sequence[Trial]) -> Iterator[Column]:
        epochs, objectives = [], []
        for trial in running:
            epoch, value = progress_of(self.search, self.sweep, trial)
            epochs.append(epoch)
            objectives.append(figure(self.search, value))
        yield Column("trial", [str(trial.trial) for trial in running])
        yield Column("epoch", epochs)
        yield Column("so far", objectives, 1)
        yield from values(self.search, running)


def counts(trials: Any) -> list[str]:
    """Return how many trials ended in which way."""
    states = [trial.state for trial in trials]
    return [
        f"{states.count(state)} {state}"
        for state in ("complete", "pruned", "diverged", "failed")
        if state == "complete" or state in states
    ]


def values(search: Search, trials: Sequence[Trial]) -> Iterator[Column]:
    """Yield a column for each parameter."""
    for order, (key, name) in enumerate(
        zip(search.space, short_names(search.space), strict=True), 2
    ):
        cells = [shown(trial.parameters[key]) for trial in trials]
        text = any(isinstance(trial.parameters[key], str | dict | list) for trial in trials)
        yield Column(name, cells, order, is_text=text)


def columns(
    search: Search, trials: Sequence[Trial], marks: Mapping[int, str] | None = None
) -> list[Column]:
    """Return the table of complete trials; `marks` are words beside some of them."""
    found = [
        Column("trial", [str(trial.trial) for trial in trials]),
        Column(search.objective, [figure(search, trial.objective) for trial in trials]),
    ]
    if marks:
        found.append(Column("", [marks.get(trial.trial, "") for trial in trials], 1, is_text=True))
    found += values(search, trials)
    order = len(found) + 2
    if len({trial.network for trial in trials}) > 1:
        found.append(Column("network", [f"{trial.network:,}" for trial in trials], order))
    found.append(Column("time", [duration(trial.seconds) for trial in trials], order + 1))
    return found


def end_view(search: Search, trials: Mapping[int, Trial], outcome: SweepFinished) -> Group:
    """Return the end of a sweep: the best trials, each parameter's part in it, the winner."""
    ranking = rank_trials(search, trials)
    ends = ", ".join(counts(trials.values()))
    head = f"{counted(outcome.trials, 'trial')}: {ends}; {duration(outcome.seconds)} of training"
    parts: list[RenderableType] = [Text(head, style="bold")]
    if ranking:
        marks = dict.fromkeys(outcome.tied, "tied") | {outcome.best or 0: "winner"}
        parts += ["", Shrinking(columns(search, ranking[:MOST], marks))]
        if len(ranking) > MOST:
            parts.append(f"... and {len(ranking) - MOST} more")
        parts += [
            "",
            *parameter_views(search, ranking),
            "",
            *map(Text, verdict(search, ranking, outcome)),
        ]
    failed = [trial for trial in trials.values() if trial.error]
    for trial in failed[:3]:
        reason = (trial.error or "").splitlines()[0]
        parts.append(Text(f"trial {trial.trial} failed: {printable(reason)}"))
    return Group(*parts)


def verdict(search: Search, ranking: Sequence[Trial], outcome: SweepFinished) -> Iterator[str]:
    """Yield who has won, and by what right; and how good it is on the test set."""
    lowest, best = ranking[0], next(t for t in ranking if t.trial == outcome.best)
    word = "highest" if search.maximised else "lowest"
    top = f"Trial {lowest.trial} has the {word} {search.objective}"
    if not outcome.tied:
        alone = ""
        if len(ranking) > 1:
            alone = ", and all others are worse by more than chance (paired t test)"
        yield f"{top}, {figure(search, lowest.objective)}{alone}."
    else:
        others = [number for number in (*outcome.tied, best.trial) if number != lowest.trial]
        tied = "trial" if len(others) == 1 else "trials"
        names = ", ".join(map(str, sorted(others)[:MOST]))
        more = f" and {len(others) - MOST} more" if len(others) > MOST else ""
        yield (
            f"{top}, {figure(search, lowest.objective)}; a paired t test on the validation images "
            f"can't tell {tied} {names}{more} from it."
        )
        if best is not lowest:
            yield f"Of these, trial {best.trial} has the smallest network and wins."
    if outcome.test_accuracy is not None and outcome.test_accuracy_interval is not None:
        low, high = outcome.test_accuracy_interval
        yield f"Its test accuracy: {outcome.test_accuracy:.2%} (95 %: {low:.2%} to {high:.2%})."


def parameter_views(search: Search, trials: Sequence[Trial]) -> Iterator[RenderableType]:
    """Yield the objective against each parameter: a chart of numbers, a table of the rest."""
    charts, tables = parameter_parts(search, trials)
    for start in range(0, len(charts), 2):
        yield SideBySide(charts[start : start + 2])
    for table in tables:
        yield ""
        yield Shrinking(table)


def parameter_parts(
    search: Search, trials: Sequence[Trial]
) -> tuple[list[Chart], list[list[Column]]]:
    """Return charts of the objective by each parameter of numbers, and tables by the others."""
    charts, tables = [], []
    for (key, parameter), name in zip(search.space.items(), short_names(search.space), strict=True):
        points = [(trial.parameters[key], trial.objective) for trial in trials]
        if len({repr(value) for value, _ in points}) < 2:
            continue
        if isinstance(parameter, NumberRange):
            charts.append(scatter(search, name, points, log=parameter.log))
        else:
            tables.append(by_choice(search, name, parameter, points))
    return charts, tables


def scatter(
    search: Search, name: str, points: Sequence[tuple[Any, float | None]], *, log: bool
) -> Chart:
    """Return the objective of each trial against the value of a parameter, as dots."""
    dots: list[Point] = []
    factor = 100 if search.maximised else 1
    for x, y in sorted(points):
        dots += [(x, None if y is None else factor * y), (x, None)]  # the gap parts the dots
    what = f"{search.objective}{' (%)' if search.maximised else ''} by {name}"
    spread = [y for _, y in dots if y is not None]
    log_y = not search.maximised and min(spread) > 0 and max(spread) > 20 * min(spread)
    return Chart(
        what, [Series("a trial", dots)], x_label=name, log_x=log, log_y=log_y,
        height=CHART_HEIGHT,
    )  # fmt: skip


def by_choice(
    search: Search, name: str, parameter: Choices, points: Sequence[tuple[Any, float | None]]
) -> list[Column]:
    """Return what the trials with each choice came to, best first."""
    rows = []
    for choice in parameter.values:
        found = [y for x, y in points if x == choice and y is not None]
        if found:
            best = max(found) if search.maximised else min(found)
            rows.append((shown(choice), len(found), best, math.fsum(found) / len(found)))
    rows.sort(key=lambda row: search.loss(row[2]))
    return [
        Column(name, [row[0] for row in rows], is_text=True),
        Column("trials", [str(row[1]) for row in rows]),
        Column(f"best {search.objective}", [figure(search, row[2]) for row in rows]),
        Column("mean", [figure(search, row[3]) for row in rows], 1),
    ]
