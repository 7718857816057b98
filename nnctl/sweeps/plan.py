"""What a trial's values are, and when it is given up: functions of the sweep and its results.

    values(search, k, trials) for trials 0..k-1

Nothing else goes in. So a sweep that was killed, on whatever machine, plans the same trials again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from nnctl.nn.randomness import Concern, generator
from nnctl.sweeps.settings import Search

State = Literal["running", "complete", "pruned", "diverged", "failed"]

PRUNE_FROM = 5  # trials that must have come so far before a median means something


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point of the search space and what came of it; the content of trial.json."""

    trial: int  # from 0
    parameters: dict[str, Any]
    state: State = "running"
    objective: float | None = None  # the mean over its seeds
    objectives: tuple[float, ...] = ()  # of each seed
    early: float | None = None  # the first training's after the epoch that trials are pruned at
    network: int | None = None  # parameters of the network
    seconds: float = 0.0  # of training
    error: str | None = None  # why it failed

    @property
    def over(self) -> bool:
        """True if nothing of it is left to do."""
        return self.state != "running"


def can_be_planned(search: Search, k: int, trials: Mapping[int, Trial]) -> bool:
    """Return whether everything that trial `k` depends on is over: trials 0..k-parallel."""
    last = k - search.parallel
    return not search.in_order or all(trials[j].over for j in range(last + 1))


def values(search: Search, k: int, trials: Mapping[int, Trial]) -> dict[str, Any]:
    """Return the values of trial `k`, by the parameters' keys.

    `trials` has at least trials 0..k-1, and 0..k-parallel are over where that matters.
    """
    if search.method == "grid":
        return grid_point(search, k)
    if search.method == "random":
        rng = generator(search.seed, Concern.SWEEP, k)
        return {key: parameter.sample(rng) for key, parameter in search.space.items()}
    from nnctl.sweeps.bayes import suggest

    return suggest(search, k, trials_seen_by(search, k, trials))


def grid_point(search: Search, k: int) -> dict[str, Any]:
    """Return point `k` of the grid: the last parameter changes fastest."""
    point = {}
    for key, parameter in reversed(list(search.space.items())):
        assert parameter.size is not None
        k, index = divmod(k, parameter.size)
        point[key] = parameter.value(index)
    return {key: point[key] for key in search.space}


def trials_seen_by(search: Search, k: int, trials: Mapping[int, Trial]) -> Sequence[Trial]:
    """Return trials 0..k-1 as trial `k` sees them: the last `parallel` - 1 are under way."""
    last = k - search.parallel
    return [
        trials[j] if j <= last else Trial(trial=j, parameters=trials[j].parameters)
        for j in range(k)
    ]


def pruning_limit(search: Search, k: int, trials: Mapping[int, Trial]) -> float | None:
    """Return the median that trial `k` must not be worse than early on; None: it is not pruned.

    Over the earlier trials at the same epoch, as `Search.loss` counts: lower is better.
    """
    if search.prune_after is None:
        return None
    early = [trial.early for trial in trials_seen_by(search, k, trials) if trial.early is not None]
    if len(early) < PRUNE_FROM:
        return None
    return median(map(search.loss, early))


def is_failure(trial: Trial) -> bool:
    """Return whether a trial has no result, which counts as the worst value."""
    return trial.state in ("diverged", "failed") or not math.isfinite(trial.objective or 0.0)
