"""Bayesian search: Optuna's tree-structured Parzen estimator, used as a function.

No storage of Optuna's is used: none of them comes through kills of parallel trials unchanged. A
study is made in memory for each question, from the trials so far, and forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nnctl.errors import UsageError
from nnctl.nn.randomness import Concern, generator
from nnctl.sweeps.plan import Trial, is_failure
from nnctl.sweeps.settings import Search
from nnctl.sweeps.space import Choices, NumberRange, Parameter

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

STARTUP = 10  # trials that are drawn at random


def require_optuna() -> None:
    """Refuse a Bayesian search where Optuna is missing.

    Raises:
        UsageError: it is.

    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"a Bayesian search needs Optuna, which can't be imported ({error})\n"
            "install it with: pip install 'nnctl[sweep]'; or use method random"
        ) from None


def suggest(search: Search, k: int, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return the values of trial `k` after `trials`, those under way without a result."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = int(generator(search.seed, Concern.SWEEP, k).integers(2**32))
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, constant_liar=True)
    study = optuna.create_study(sampler=sampler)
    distributions = {key: _distribution(parameter) for key, parameter in search.space.items()}
    study.add_trials([_frozen(search, trial, distributions) for trial in trials])
    asked = study.ask(distributions).params
    return {key: _from_optuna(parameter, asked[key]) for key, parameter in search.space.items()}


def _frozen(
    search: Search, trial: Trial, distributions: dict[str, BaseDistribution]
) -> FrozenTrial:
    """Return a trial as Optuna knows it; the value is minimised."""
    from optuna.trial import TrialState, create_trial

    params = {
        key: _to_optuna(parameter, trial.parameters[key]) for key, parameter in search.space.items()
    }
    early: dict[int, float] = {}
    value: float | None = None
    if is_failure(trial):
        state, value = TrialState.COMPLETE, math.inf
    elif trial.state == "complete":
        assert trial.objective is not None
        state, value = TrialState.COMPLETE, search.loss(trial.objective)
    elif trial.state == "pruned":
        assert trial.early is not None
        assert search.prune_after is not None
        early = {search.prune_after: search.loss(trial.early)}
        state = TrialState.PRUNED
    else:
        state = TrialState.RUNNING
    return create_trial(
        state=state,
        value=value,
        params=params,
        distributions=distributions,
        intermediate_values=early,
    )


def _distribution(parameter: Parameter) -> BaseDistribution:
    """Return the distribution that Optuna draws a parameter from."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, Choices):
        return CategoricalDistribution(range(parameter.size))  # by index: values may be mappings
    if parameter.size is not None:
        return IntDistribution(0, parameter.size - 1)
    if parameter.whole:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def _from_optuna(parameter: Parameter, answer: Any) -> Any:
    """Return the value that Optuna's answer stands for."""
    if isinstance(parameter, NumberRange) and parameter.size is None:
        return parameter.tidy(answer)
    return parameter.value(answer)


def _to_optuna(parameter: Parameter, value: Any) -> Any:
    """Return a value as Optuna knows it: its index where there is one."""
    if isinstance(parameter, Choices):
        return parameter.values.index(value)
    if parameter.step is None:
        return value
    return round((value - parameter.low) / parameter.step)
