"""Optimizers: each rule over steps that are worked by hand, and what holds for all of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nnctl.nn.functions import Array
from nnctl.nn.optimizers import (
    OPTIMIZERS,
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Momentum,
    Nesterov,
    Optimizer,
    RMSProp,
    State,
)


def new_state(optimizer: Optimizer, w: Array) -> State:
    return {name: np.zeros_like(w) for name in optimizer.state_names}


def walk(optimizer: Optimizer, gradients: list[float], rate: float = 0.1) -> list[float]:
    """Return one weight that starts at 1 after each of these gradients."""
    w = np.array([1.0])
    state = new_state(optimizer, w)
    path = []
    for step, gradient in enumerate(gradients, 1):
        optimizer.update(w, np.array([float(gradient)]), state, rate, step)
        path.append(float(w[0]))
    return path


# Optimizer, gradients, and the weight after each step at learning rate 0.1.
WORKED: dict[str, list[tuple[Optimizer, list[float], list[float]]]] = {
    "sgd": [(SGD(), [2, -1, 1], [0.8, 0.9, 0.8])],
    # v = -0.2; -0.18 + 0.1 = -0.08; -0.072 - 0.1 = -0.172
    "momentum": [
        (Momentum(), [2, -1, 1], [0.8, 0.72, 0.548]),
        (Momentum(momentum=0), [2, -1, 1], [0.8, 0.9, 0.8]),
        (Momentum(momentum=0.5), [2, 0, 0], [0.8, 0.7, 0.65]),
    ],
    # The same v; the step is 0.9 v - 0.1 dw: -0.38; -0.072 + 0.1; -0.1548 - 0.1
    "nesterov": [
        (Nesterov(), [2, -1, 1], [0.62, 0.648, 0.3932]),
        (Nesterov(momentum=0), [2, -1, 1], [0.8, 0.9, 0.8]),
    ],
    # h = 9; 25; 25
    "adagrad": [
        (AdaGrad(), [3, 4, 0], [0.9, 0.82, 0.82]),
        (AdaGrad(epsilon=1), [3, 4], [1 - 0.3 / 4, 1 - 0.3 / 4 - 0.4 / 6]),
    ],
    # h = 0.25 * 4 = 1; 0.75 + 0.25 = 1; 0.75 + 0.25 * 9 = 3
    "rmsprop": [
        (RMSProp(rho=0.75), [2, 1, -3], [0.8, 0.7, 0.7 + 0.3 / math.sqrt(3)]),
        (RMSProp(rho=0.75, epsilon=1), [2, 1], [0.9, 0.85]),
        (RMSProp(), [1, 0], [1 - 0.1 / math.sqrt(0.1)] * 2),
    ],
    # m = 1; 0; 0.5 and v = 2; 1.5; 1.25, divided by 1/2; 3/4; 7/8
    "adam": [
        (
            Adam(beta1=0.5, beta2=0.5),
            [2, -1, 1],
            [0.9, 0.9, 0.9 - 0.1 * (0.5 / 0.875) / math.sqrt(1.25 / 0.875)],
        ),
        (Adam(), [2, 2, 2], [0.9, 0.8, 0.7]),  # constant gradients: their sign
        (Adam(epsilon=1), [2, 2], [1 - 0.2 / 3, 1 - 0.4 / 3]),
        (Adam(), [1, 0], [0.9, 0.9 - 0.1 * (0.09 / 0.19) / math.sqrt(0.000999 / 0.001999)]),
    ],
    "adamw": [(AdamW(), [2, 2, 2], [0.9, 0.8, 0.7])],  # the decay is not part of the rule
}
ALL = [optimizer for samples in WORKED.values() for optimizer, _, _ in samples]


def test_every_optimizer_is_worked_here() -> None:
    assert set(WORKED) == set(OPTIMIZERS)
    for kind, samples in WORKED.items():
        assert {type(optimizer) for optimizer, _, _ in samples} == {OPTIMIZERS[kind]}


@pytest.mark.parametrize(
    ("optimizer", "gradients", "path"), [row for rows in WORKED.values() for row in rows]
)
def test_rule_takes_the_steps_worked_by_hand(
    optimizer: Optimizer, gradients: list[float], path: list[float]
) -> None:
    assert walk(optimizer, gradients) == pytest.approx(path, rel=1e-7)


DEFAULTS: dict[str, dict[str, float]] = {
    "sgd": {"learning_rate": 0.1, "weight_decay": 0},
    "momentum": {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0},
    "nesterov": {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0},
    "adagrad": {"learning_rate": 0.01, "epsilon": 1e-8, "weight_decay": 0},
    "rmsprop": {"learning_rate": 0.01, "rho": 0.9, "epsilon": 1e-8, "weight_decay": 0},
    "adam": {
        **{"learning_rate": 0.001, "beta1": 0.9, "beta2": 0.999},
        **{"epsilon": 1e-8, "weight_decay": 0},
    },
    "adamw": {
        **{"learning_rate": 0.001, "beta1": 0.9, "beta2": 0.999},
        **{"epsilon": 1e-8, "weight_decay": 0.01},
    },
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_options_have_the_defaults_that_configs_rely_on(kind: str) -> None:
    optimizer: Any = OPTIMIZERS[kind]()
    assert {name: getattr(optimizer, name) for name in DEFAULTS[kind]} == DEFAULTS[kind]


@pytest.mark.parametrize("optimizer", ALL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_update_keeps_dtypes(optimizer: Optimizer, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    w = rng.normal(size=7).astype(dtype)
    state = new_state(optimizer, w)
    for step in (1, 2, 3):
        dw = rng.normal(size=7).astype(dtype)
        optimizer.update(w, dw, state, 0.1, step)
        assert {array.dtype for array in (w, dw, *state.values())} == {np.dtype(dtype)}
    assert np.isfinite(w).all()


@pytest.mark.parametrize("optimizer", ALL)
def test_update_acts_on_each_entry_alone(optimizer: Optimizer) -> None:
    """So a vector may be updated in parts, by several workers, to the same bytes."""
    rng = np.random.default_rng(0)
    whole = rng.normal(size=40).astype(np.float32)
    parts, states = whole.copy(), [new_state(optimizer, whole) for _ in range(2)]
    for step in range(1, 40):
        dw = rng.normal(size=40).astype(np.float32)
        optimizer.update(whole, dw.copy(), states[0], 0.1, step)
        for part in (slice(0, 13), slice(13, 40)):
            state = {name: vector[part] for name, vector in states[1].items()}
            optimizer.update(parts[part], dw[part], state, 0.1, step)
    np.testing.assert_array_equal(parts, whole)
    for name in optimizer.state_names:
        np.testing.assert_array_equal(states[1][name], states[0][name])


@pytest.mark.parametrize("optimizer", ALL)
def test_weight_without_a_gradient_stays(optimizer: Optimizer) -> None:
    """A pixel that is dark in every image has gradient 0 from the first step on."""
    assert walk(optimizer, [0.0] * 40) == [1.0] * 40


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_memory_of_a_faded_gradient_leaves_the_numbers_that_are_slow(kind: str) -> None:
    optimizer = OPTIMIZERS[kind]()
    w = np.ones(3, np.float32)
    state = new_state(optimizer, w)
    for step in range(1, 5001):
        dw = np.array([1, 1e-3, -1e-10] if step == 1 else [0, 0, 0], np.float32)
        optimizer.update(w, dw, state, 0.01, step)
    smallest = np.finfo(np.float32).smallest_normal
    for vector in state.values():
        assert ((vector == 0) | (np.abs(vector) >= smallest)).all()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizer_finds_the_bottom_of_a_bowl(kind: str) -> None:
    optimizer = OPTIMIZERS[kind]()
    w = np.array([3.0, -2.0])
    steepness = np.array([1.0, 0.2])
    state = new_state(optimizer, w)
    for step in range(1, 501):
        optimizer.update(w, steepness * w, state, 0.5 * (1 - step / 500), step)
    np.testing.assert_allclose(w, 0, atol=0.01)


def test_decay_shrinks_by_the_rate_times_the_decay() -> None:
    w = np.array([2.0, -4.0])
    SGD(weight_decay=0.5).decay(w, 0.1)
    np.testing.assert_allclose(w, [1.9, -3.8])
    AdamW().decay(w, 1.0)
    np.testing.assert_allclose(w, [1.9 * 0.99, -3.8 * 0.99])
    before = w.copy()
    for kind in set(OPTIMIZERS) - {"adamw"}:
        OPTIMIZERS[kind]().decay(w, 1.0)
    np.testing.assert_array_equal(w, before)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (SGD, {"learning_rate": 0}),
        (SGD, {"weight_decay": -0.1}),
        (Momentum, {"momentum": 1}),
        (Nesterov, {"momentum": -0.1}),
        (AdaGrad, {"epsilon": 1e-40}),  # zero in float32, and 0 / 0 is no update
        (RMSProp, {"rho": 1}),
        (Adam, {"beta1": 1}),
        (AdamW, {"beta2": math.nan}),
    ],
)
def test_option_outside_its_limits_is_refused(
    kind: type[Optimizer], options: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        kind(**options)
