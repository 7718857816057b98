"""The numbers of one step: those that training computes, and those of the equations."""

from contextlib import closing

import numpy as np
import pytest

from nnctl.config import build, load_settings
from nnctl.config.settings import Settings
from nnctl.datasets import Source, load
from nnctl.datasets.batches import Gatherer, shuffled
from nnctl.inspection.numbers import FEW, Numbers, is_small, step_numbers
from nnctl.nn.functions import Array
from nnctl.nn.layers import Affine, ReLU
from nnctl.nn.losses import LOSSES
from nnctl.nn.network import Network
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.nn.step import Step
from nnctl.training.engine import build_network, split_data
from nnctl.training.events import StepFinished
from nnctl.training.trainer import Trainer


def near(found: Array | None, expected: Array) -> None:
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


DATA = load("mnist-tiny", Source(offline=True))


def tiny(**changes: str) -> Settings:
    return load_settings("tiny", tuple(changes.items()))


def numbers_of(settings: Settings) -> Numbers:
    network = build_network(settings, 4)
    network.initialize(settings.seed)
    step = Step(
        network,
        build(LOSSES, settings.loss),
        build(OPTIMIZERS, settings.optimizer),
        Gatherer(DATA.train),
        seed=settings.seed,
        clip_norm=settings.training.clip_norm,
    )
    batch = shuffled(split_data(settings, DATA).train, settings.seed, 1)
    return step_numbers(
        step, batch[: settings.training.batch_size], step.parameters.optimizer.learning_rate
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"network.1": "sigmoid", "optimizer": "adam"},
        {"network.1": "{dropout: 0.5}", "loss": "mean_squared_error"},
        {"training.clip_norm": "0.01", "optimizer.weight_decay": "0.1"},
        {"loss": "{kind: softmax_cross_entropy, label_smoothing: 0.1}", "network.1": "batch_norm"},
    ],
)
def test_numbers_are_those_of_the_step_that_trains(changes: dict[str, str]) -> None:
    settings = tiny(**changes)
    numbers = numbers_of(settings)
    with closing(Trainer(settings, DATA, threads=1)) as trainer:
        first = next(event for event in trainer.events() if isinstance(event, StepFinished))
        trained = {n: a.copy() for n, a in trainer.engine.network.named_parameters().items()}
    assert numbers.batch_loss == first.batch_loss
    for layer in numbers.layers:
        for name, array in layer.updated.items():
            np.testing.assert_array_equal(array, trained[f"{layer.name}.{name}"])


def test_numbers_follow_the_equations_of_the_book() -> None:
    numbers = numbers_of(tiny())
    first, relu, last = numbers.layers
    x, t, batch = numbers.x, np.eye(2)[numbers.labels], len(numbers.x)
    w1, b1 = first.parameters["weight"], first.parameters["bias"]
    w2, b2 = last.parameters["weight"], last.parameters["bias"]
    assert relu.slope is not None
    assert relu.dy is not None
    near(first.y, x @ w1 + b1)
    np.testing.assert_array_equal(relu.slope, first.y > 0)
    assert 0 < relu.slope.mean() < 1  # the example shows both
    near(relu.y, first.y * relu.slope)
    near(last.y, relu.y @ w2 + b2)
    p = np.exp(last.y) / np.exp(last.y).sum(axis=1, keepdims=True)
    near(numbers.scores, p)
    near(numbers.losses, -np.log((p * t).sum(axis=1)))
    assert numbers.batch_loss == pytest.approx(numbers.losses.mean())
    dy = (p - t) / batch
    near(last.dy, dy)
    near(last.gradients["weight"], relu.y.T @ dy)
    near(last.gradients["bias"], dy.sum(axis=0))
    near(last.dx, dy @ w2.T)
    np.testing.assert_array_equal(relu.dy, last.dx)
    near(relu.dx, relu.dy * relu.slope)
    near(first.gradients["weight"], x.T @ relu.dx)
    assert first.dx is None
    near(first.updated["weight"], w1 - 0.1 * first.gradients["weight"])
    assert numbers.new_batch_loss < numbers.batch_loss


def test_numbers_say_by_how_much_the_gradient_was_clipped() -> None:
    assert numbers_of(tiny()).clip_factor == 1
    numbers = numbers_of(tiny(**{"training.clip_norm": "0.01"}))
    arrays = [g for layer in numbers.layers for g in layer.gradients.values()]
    norm = np.sqrt(sum((array**2).sum() for array in arrays))
    assert numbers.clip_factor == pytest.approx(0.01 / norm)


def test_numbers_of_a_smoothed_target_add_up_to_one() -> None:
    numbers = numbers_of(tiny(loss="{kind: softmax_cross_entropy, label_smoothing: 0.1}"))
    np.testing.assert_allclose(numbers.targets, [[0.95, 0.05], [0.05, 0.95]], rtol=1e-6)
    gradient = (numbers.scores - numbers.targets) / 2
    near(numbers.layers[-1].dy, gradient)


def test_small_is_a_network_whose_layers_can_be_read() -> None:
    def small(units: int, batch_size: int) -> bool:
        return is_small(Network([Affine(units), ReLU(), Affine(2)], 4), batch_size)

    assert small(3, 2)
    assert small(12, 5)  # 4 x 12 + 12 = FEW
    assert not small(13, 5)
    assert not small(3, FEW)
