"""The plan: a function of the sweep, its seed and the results so far, and of nothing else."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

from nnctl.sweeps.plan import Trial, can_be_planned, pruning_limit, trials_seen_by, values
from nnctl.sweeps.settings import Search, load_search

SPACE = (
    "  optimizer.learning_rate: {min: 1e-3, max: 1, log: true}\n"
    "  network.0.affine.units: {min: 8, max: 64, step: 8}\n"
    "  training.batch_size: {min: 10, max: 500, log: true}\n"
    "  optimizer: [{kind: momentum}, {kind: adam}]\n"
)


def search(folder: Path, space: str = SPACE, **options: Any) -> Search:
    path = folder / "sweep.yaml"
    path.write_text(f"config: quickstart\nparameters:\n{space}")
    return load_search(str(path), options, {})


def outcome(k: int, parameters: dict[str, Any]) -> Trial:
    """Make up what came of a trial: the nearer the learning rate to 0.1, the better."""
    off = abs(math.log10(parameters["optimizer.learning_rate"]) + 1)
    if k % 7 == 3:
        return Trial(trial=k, parameters=parameters, state="diverged")
    if k % 7 == 5:
        return Trial(trial=k, parameters=parameters, state="failed", error="of itself")
    return Trial(trial=k, parameters=parameters, state="complete", objective=off, early=off)


def simulate(found: Search, rng: random.Random) -> dict[int, Trial]:
    """Run a sweep whose trials end in any order."""
    trials: dict[int, Trial] = {}
    while not (len(trials) == found.trials and all(trial.over for trial in trials.values())):
        under_way = [k for k, trial in trials.items() if not trial.over]
        k = len(trials)
        startable = k < found.trials and len(under_way) < found.parallel
        if startable and can_be_planned(found, k, trials) and rng.random() < 0.7:
            trials[k] = Trial(trial=k, parameters=values(found, k, trials))
        elif under_way:
            k = rng.choice(under_way)
            trials[k] = outcome(k, trials[k].parameters)
    return trials


def test_grid_has_every_point_once(tmp_path: Path) -> None:
    space = "  optimizer.learning_rate: [0.1, 1]\n  training.epochs: {min: 1, max: 3}\n"
    found = search(tmp_path, space)
    assert found.trials == 6
    points = [tuple(values(found, k, {}).values()) for k in range(6)]
    assert points == [(0.1, 1), (0.1, 2), (0.1, 3), (1, 1), (1, 2), (1, 3)]


def test_random_trial_is_a_function_of_seed_and_number(tmp_path: Path) -> None:
    found = search(tmp_path, method="random", trials=50)
    drawn = [values(found, k, {}) for k in reversed(range(50))][::-1]
    assert drawn == [values(found, k, {}) for k in range(50)]
    assert len({repr(each) for each in drawn}) == 50
    other = search(tmp_path, method="random", trials=50, seed=1)
    assert values(other, 0, {}) != drawn[0]


def test_bayesian_plan_does_not_depend_on_the_order_in_which_trials_end(tmp_path: Path) -> None:
    found = search(tmp_path, method="bayes", trials=22, parallel=4)
    plans = {
        repr([trial.parameters for _, trial in sorted(simulate(found, rng).items())])
        for rng in map(random.Random, range(3))
    }
    assert len(plans) == 1
    other = search(tmp_path, method="bayes", trials=22, parallel=4, seed=1)
    assert repr([t.parameters for t in simulate(other, random.Random(0)).values()]) not in plans


def test_bayesian_search_learns_from_its_trials(tmp_path: Path) -> None:
    found = search(tmp_path, method="bayes", trials=40, parallel=2, seed=1)
    trials = simulate(found, random.Random(0))
    late = [outcome(1, trials[k].parameters).objective or 0 for k in range(30, 40)]
    by_chance = (2 * 1.0 + 1 * 0.5) / 3  # mean distance from -1 of a logarithm in -3..0
    assert sum(late) / 10 < by_chance / 2


def test_trials_under_way_are_known_without_their_results(tmp_path: Path) -> None:
    found = search(tmp_path, method="random", trials=6, parallel=3)
    trials = {k: outcome(k, values(found, k, {})) for k in range(5)}
    seen = trials_seen_by(found, 5, trials)
    assert [trial.over for trial in seen] == [True, True, True, False, False]
    assert [trial.parameters for trial in seen] == [trials[k].parameters for k in range(5)]


def test_trial_waits_for_those_it_depends_on_alone(tmp_path: Path) -> None:
    bayes = search(tmp_path, method="bayes", trials=6, parallel=3)
    over = {k: outcome(k, values(bayes, 0, {})) for k in range(5)}
    waiting = over | {1: Trial(trial=1, parameters=over[1].parameters)}
    assert [can_be_planned(bayes, 3, waiting), can_be_planned(bayes, 4, waiting)] == [True, False]
    assert can_be_planned(search(tmp_path, method="random", parallel=3), 5, waiting)


def test_trial_is_pruned_by_the_median_of_earlier_ones(tmp_path: Path) -> None:
    rates = [{"optimizer.learning_rate": 0.1}] * 9
    early = [5.0, 1.0, 3.0, 2.0, 4.0, 100.0, 100.0]
    trials = {
        k: Trial(trial=k, parameters=rates[k], state="complete", objective=0.0, early=early[k])
        for k in range(7)
    }
    space = "  optimizer.learning_rate: [0.1, 1]\n"
    lower = search(tmp_path, space, prune={"after": 1}, parallel=2)
    assert pruning_limit(lower, 5, trials) is None  # only trials 0..3 are known
    assert pruning_limit(lower, 6, trials) == 3.0  # of 5 1 3 2 4
    higher = search(
        tmp_path, space, prune={"after": 1}, parallel=2, objective="validation_accuracy"
    )
    assert pruning_limit(higher, 6, trials) == -3.0
    assert pruning_limit(search(tmp_path, space), 6, trials) is None


@pytest.mark.parametrize("state", ["diverged", "failed"])
def test_trial_that_came_to_nothing_is_told_to_the_search_as_the_worst(
    tmp_path: Path, state: Any
) -> None:
    """All trials with adam came to nothing: adam is hardly tried again."""
    found = search(tmp_path, method="bayes", trials=40, parallel=1)
    trials: dict[int, Trial] = {}
    for k in range(30):
        parameters = values(found, k, trials)
        made = outcome(1, parameters)
        if parameters["optimizer"] == {"kind": "adam"}:
            made = Trial(trial=k, parameters=parameters, state=state)
        trials[k] = made
    kinds = [trials[k].parameters["optimizer"]["kind"] for k in range(30)]
    assert kinds[:12].count("adam") > 2
    assert kinds[20:].count("adam") <= 2


def test_asking_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = search(tmp_path, method="bayes", trials=3)
    values(found, 0, {})
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]
