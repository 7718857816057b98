"""What one step of training does to the weights: clipping by norm, and decay on weights alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from nnctl.config import Settings
from nnctl.datasets import DataSet
from nnctl.nn.functions import Array
from nnctl.training.trainer import Trainer

RATE = 0.5
Step = Callable[..., tuple[dict[str, Array], dict[str, Array]]]


@pytest.fixture
def one_step(tiny_settings: Callable[..., Settings], tiny_data: DataSet) -> Step:
    """Return what takes one step and returns all parameters before and after it."""

    def step(threads: int = 1, clip_norm: float | None = None, **options: Any) -> Any:
        hidden = ["relu"] if threads > 1 else ["batch_norm", "relu"]  # which is for one process
        settings = tiny_settings(
            network=[{"affine": 6}, *hidden, {"affine": 5}],
            optimizer={"kind": "sgd", "learning_rate": RATE, **options},
            training={"clip_norm": clip_norm},
        )
        with closing(Trainer(settings, tiny_data, threads)) as trainer:
            before = {
                name: array.astype(np.float64)
                for name, array in trainer.engine.network.named_parameters().items()
            }
            events = trainer.events()
            next(events), next(events)
            after = trainer.snapshot().parameters
        return before, {name: after[name].astype(np.float64) for name in before}

    return step


def moved(step: tuple[dict[str, Array], dict[str, Array]]) -> Array:
    """Return the whole way of all parameters, as one vector."""
    before, after = step
    return np.concatenate([(after[name] - before[name]).ravel() for name in before])


@pytest.mark.parametrize("threads", [1, 2])
def test_clipping_shortens_a_long_gradient_and_keeps_its_direction(
    one_step: Step, threads: int
) -> None:
    free = moved(one_step(threads))
    clipped = moved(one_step(threads, clip_norm=0.01))
    assert np.linalg.norm(free) > 0.02 * RATE  # otherwise there is nothing to clip
    assert np.linalg.norm(clipped) == pytest.approx(0.01 * RATE, rel=1e-3)
    cosine = free @ clipped / (np.linalg.norm(free) * np.linalg.norm(clipped))
    assert cosine == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_clipping_leaves_a_short_gradient_alone(one_step: Step, threads: int) -> None:
    np.testing.assert_array_equal(moved(one_step(threads, clip_norm=1e6)), moved(one_step(threads)))


def test_decay_comes_on_top_of_the_step_and_spares_biases_and_normalisation(
    one_step: Step,
) -> None:
    before, plain = one_step()
    _, decayed = one_step(weight_decay=0.1)
    for name, array in plain.items():
        shrunk = RATE * 0.1 * before[name] if name.endswith("affine.weight") else 0
        np.testing.assert_allclose(array - decayed[name], shrunk, atol=1e-6, err_msg=name)
