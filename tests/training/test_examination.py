"""Networks that don't learn, trained for real: the verdict names the cause, as trace does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nnctl.config import Settings, settings_from_dict
from nnctl.datasets import DataSet, Samples, Source, load
from nnctl.errors import Diverged
from nnctl.nn.functions import Array
from nnctl.training.engine import InitialWeights, initial_network
from nnctl.training.events import RunFinished, Verdict
from nnctl.training.examination import Examination, course_of, examine, forewarn
from nnctl.training.trainer import Trainer

Plain = dict[str, Any]


@pytest.fixture(scope="module")
def sample() -> DataSet:
    return load("mnist-sample", Source(offline=True))


def layers(*units: int, activation: Any = "relu", initializer: Any = "he_normal") -> list[Any]:
    hidden: list[Any] = []
    for count in units:
        hidden += [{"affine": {"units": count, "initializer": initializer}}, activation]
    return [*hidden, {"affine": {"units": 10, "initializer": initializer}}]


def settings(**changes: Any) -> Settings:
    plain: Plain = {
        "name": "brief",
        "data": {"dataset": "mnist-sample", "validation": 300, "train_size": 1000},
        "network": layers(32),
        "optimizer": {"kind": "sgd", "learning_rate": 0.1},
        "training": {"epochs": 4},
    }
    for key, value in changes.items():
        merged = key in ("data", "training")
        plain[key] = {**plain[key], **value} if merged else value
    return settings_from_dict(plain)


def train(
    asked: Settings, data: DataSet, initial_weights: InitialWeights | None = None
) -> tuple[Verdict, Examination]:
    """Return the verdict on a run, and what an examination of its chosen weights says.

    Where the initial weights are without arrays, they were those of seed 1, and are lost.
    """
    with closing(Trainer(asked, data, 1)) as trainer:
        if initial_weights is not None:
            lost = initial_weights.arrays is None
            trainer.begin_with(weights_of(1) if lost else initial_weights)
            trainer.initial_weights = initial_weights
        *_, end = trainer.events()
        assert isinstance(end, RunFinished)
        rows = [vars(row) for row in trainer.progress.history]
        course = course_of(rows, trainer.progress.initial_loss)
        weights = trainer.engine.network.named_arrays()
        return end.overfitting, examine(asked, data, weights, course, initial_weights)


LOST = InitialWeights(None, None, "0" * 64)


def weights_of(seed: int, factor: float = 1.0, **changes: Any) -> InitialWeights:
    """Return the weights that a seed gives, times a factor, as if a file had held them."""
    network = initial_network(settings(seed=seed, **changes), 784)
    assert network is not None
    network.parameters *= factor
    return InitialWeights(network.named_arrays(), "origin.safetensors", "0" * 64)


def with_data(
    data: DataSet,
    images: Callable[[Array], Array] = lambda x: x,
    labels: Callable[[Array], Array] = lambda y: y,
) -> DataSet:
    def change(part: Samples) -> Samples:
        return Samples(images(part.images), labels(part.labels))

    return replace(data, train=change(data.train), test=change(data.test))


def rate(kind: str, learning_rate: float, **options: float) -> Plain:
    return {"optimizer": {"kind": kind, "learning_rate": learning_rate, **options}}


@pytest.mark.parametrize(
    ("cause", "remedy", "changes"),
    [
        ("dead_units", "smaller learning rate", rate("sgd", 5.0)),
        ("dead_units", "smaller learning rate", rate("adam", 1.0)),
        (
            "saturated_units",
            "smaller learning rate",
            rate("sgd", 50.0)
            | {"network": layers(32, activation="sigmoid", initializer="xavier_normal")},
        ),
        ("same_units", "random weights", {"network": layers(32, initializer="zeros")}),
        (
            "vanishing_gradients",
            "he_normal",
            {"network": layers(32, 32, 32, initializer={"kind": "normal", "std": 0.001})},
        ),
        ("small_move", "larger learning rate", rate("sgd", 1e-6)),
        ("small_move", "warmup", {"schedule": {"kind": "constant", "warmup": 1e6}}),
        ("shrunk_weights", "weight_decay", rate("sgd", 0.1, weight_decay=5.0)),
        (
            "heavy_dropout",
            "dropout",
            {"network": [{"affine": 32}, "relu", {"dropout": 0.99}, {"affine": 10}]},
        ),
        ("narrow_layer", "more units", {"network": layers(32, 1, 32)}),
        (
            "single_sample",
            "batch_size",
            {
                "network": [{"affine": 32}, "batch_norm", "relu", {"affine": 10}],
                "training": {"batch_size": 1, "epochs": 3},
                "data": {"train_size": 300},
            },
        ),
    ],
)
def test_network_that_does_not_learn_is_told_why(
    cause: str, remedy: str, changes: Plain, sample: DataSet
) -> None:
    verdict, examined = train(settings(**changes), sample)
    assert verdict.verdict in ("not_learning", "underfitting")  # some guess a little
    assert verdict.cause == cause
    assert examined.findings[0].kind == cause
    assert verdict.message == examined.findings[0].message
    assert remedy in (verdict.remedy or "")


@pytest.mark.parametrize(
    ("cause", "images", "labels"),
    [
        ("input_scale", lambda x: x // 128, lambda y: y),
        ("constant_images", lambda x: x * 0, lambda y: y),
        ("unrelated_labels", lambda x: x, lambda y: np.roll(y, 1)),
        ("one_class", lambda x: x, lambda y: y * 0 + 3),
    ],
)
def test_data_that_teach_nothing_are_told(
    cause: str,
    images: Callable[[Array], Array],
    labels: Callable[[Array], Array],
    sample: DataSet,
) -> None:
    verdict, _ = train(settings(), with_data(sample, images, labels))
    assert (verdict.verdict, verdict.cause) == ("not_learning", cause)


def test_labels_learnt_by_heart_are_told_where_too_few_images_tell_more(sample: DataSet) -> None:
    shuffled = with_data(sample, labels=np.random.default_rng(1).permutation)
    asked = settings(
        data={"train_size": 60}, training={"epochs": 60, "batch_size": 10}, **rate("momentum", 0.05)
    )
    verdict, _ = train(asked, shuffled)
    assert (verdict.verdict, verdict.cause) == ("not_learning", "memorised")


def test_network_that_loses_what_it_had_learnt_is_told_since_when(sample: DataSet) -> None:
    asked = settings(
        data={"train_size": 3000},
        network=layers(32, 32),
        schedule={"kind": "constant", "warmup": 4.0},
        training={"epochs": 6},
        **rate("momentum", 3.0),
    )
    verdict, _ = train(asked, sample)
    assert verdict.verdict == "not_learning"
    assert verdict.since_epoch is not None
    assert verdict.since_epoch > 1
    assert "smaller learning rate" in (verdict.remedy or "")


def test_underfitting_without_a_cause_says_that_the_loss_still_fell(sample: DataSet) -> None:
    verdict, examined = train(settings(**rate("sgd", 0.02)), sample)
    assert (verdict.verdict, verdict.cause) == ("underfitting", None)
    assert "still falling" in (verdict.message or "")
    assert "more epochs" in (verdict.remedy or "")
    assert examined.findings == []


def test_network_as_good_as_its_images_allow_is_not_underfitting(sample: DataSet) -> None:
    """With half of the labels wrong, nobody gets them right; the nearest neighbours do worse."""
    rng = np.random.default_rng(4)

    def half_wrong(labels: Array) -> Array:
        wrong = rng.random(len(labels)) < 0.5
        return np.where(wrong, rng.integers(0, 10, len(labels)), labels).astype(np.uint8)

    asked = settings(data={"train_size": 4000}, training={"epochs": 3})
    verdict, examined = train(asked, with_data(sample, labels=half_wrong))
    assert examined.accuracy < 0.8
    assert verdict.verdict == "none"


def test_healthy_network_brings_out_no_finding(sample: DataSet) -> None:
    asked = settings(data={"train_size": 4000}, **rate("momentum", 0.05))
    verdict, examined = train(asked, sample)
    assert verdict.verdict in ("none", "undecided")
    assert verdict.cause is None
    assert examined.findings == []
    assert examine(asked, sample).findings == []


def test_network_before_training_is_examined_too(sample: DataSet) -> None:
    asked = settings(network=[*layers(32), "relu"])
    dark = with_data(sample, lambda x: x // 16)
    train_images = np.arange(1000)
    for data, kinds in (
        (sample, ["output_activation"]),
        (dark, ["input_scale", "output_activation"]),
    ):
        assert [finding.kind for finding in examine(asked, data).findings] == kinds
        assert [finding.kind for finding in forewarn(asked, data, train_images)] == kinds


# A run that began with weights from elsewhere.

LARGE = layers(32, initializer={"kind": "normal", "std": 1.0})  # told of by the seed's start


@pytest.mark.parametrize("origin", [weights_of(1), LOST], ids=["known", "lost"])
def test_run_is_not_told_of_a_start_that_only_its_seed_would_have_given(
    origin: InitialWeights, sample: DataSet
) -> None:
    asked = settings(network=LARGE, **rate("sgd", 5.0))
    assert train(asked, sample)[0].cause == "initial_loss"
    verdict, examined = train(asked, sample, origin)
    assert (verdict.verdict, verdict.cause) == ("not_learning", "dead_units")
    assert verdict.remedy == "use a smaller learning rate"
    assert [finding.kind for finding in examined.findings] == ["dead_units"]


@pytest.mark.parametrize(
    ("cause", "origin"),
    [
        ("initial_loss", weights_of(1, 30.0)),
        ("same_units", weights_of(1, network=layers(32, initializer="zeros"))),
    ],
)
def test_run_is_told_of_the_weights_that_it_began_with(
    cause: str, origin: InitialWeights, sample: DataSet
) -> None:
    """And what its config says of the initializer is no remedy."""
    verdict, _ = train(settings(**rate("sgd", 0.01)), sample, origin)
    assert verdict.cause == cause
    assert verdict.remedy == "begin with other weights than those of --from"
    before = examine(settings(), sample, initial_weights=origin).findings
    assert (before[0].kind, before[0].remedy) == (cause, verdict.remedy)


def test_copies_have_been_copies_from_a_start_that_is_lost(sample: DataSet) -> None:
    copies = weights_of(1, network=layers(32, initializer="zeros")).arrays
    found = examine(settings(), sample, copies, initial_weights=LOST).findings
    assert [finding.kind for finding in found] == ["same_units"]
    assert found[0].remedy == "begin with other weights than those of --from"


def test_moves_are_measured_from_where_the_run_began(sample: DataSet) -> None:
    asked = settings(**rate("sgd", 1e-6))
    assert train(asked, sample, weights_of(1))[0].cause == "small_move"
    assert train(asked, sample, LOST)[0].cause is None


def test_trained_weights_are_no_start_that_is_too_far_from_guessing(sample: DataSet) -> None:
    with closing(Trainer(settings(**rate("momentum", 0.1)), sample, 1)) as trainer:
        *_, end = trainer.events()
        arrays = trainer.engine.network.named_arrays()
    assert isinstance(end, RunFinished)
    assert (end.train_loss or 9) < 0.5  # ln(10) = 2.3
    origin = InitialWeights(arrays, "origin.safetensors", "0" * 64)
    assert examine(settings(), sample, initial_weights=origin).findings == []
    assert train(settings(**rate("sgd", 5.0)), sample, origin)[0].cause == "dead_units"


# A run that diverged.


def normal(std: float) -> Plain:
    return {"kind": "normal", "std": std}


def diverge(
    asked: Settings, data: DataSet, initial_weights: InitialWeights | None = None
) -> tuple[Verdict, str]:
    """Return what is said of a run that diverges: its last verdict, and the error."""
    with closing(Trainer(asked, data, 1)) as trainer:
        if initial_weights is not None:
            trainer.begin_with(initial_weights)
        with pytest.raises(Diverged) as caught:
            list(trainer.events())
        return trainer.finish("diverged").overfitting, str(caught.value)


@pytest.mark.parametrize(
    ("cause", "remedy", "changes", "mended"),
    [
        (None, "a smaller learning rate", rate("sgd", 100.0), rate("sgd", 0.1)),
        (None, "a smaller learning rate", rate("adam", 10.0), rate("adam", 0.01)),
        (
            None,
            "a smaller learning rate",
            rate("sgd", 30.0) | {"network": layers(32, initializer=normal(0.01))},
            rate("sgd", 0.3),
        ),
        (
            "initial_loss",
            "start with smaller weights (he_normal)",
            {"network": layers(32, 32, 32, initializer=normal(1.0))},
            {"network": layers(32, 32, 32)},
        ),
        (
            "initial_loss",
            "start with smaller weights (he_normal)",
            {"network": layers(32, initializer=normal(10.0)), "loss": "mean_squared_error"},
            {"network": layers(32)},
        ),
        (
            "initial_loss",
            "put batch_norm after each affine",
            {"network": layers(32, 32, activation={"leaky_relu": 10.0})},
            {
                "network": [
                    *({"affine": 32}, "batch_norm", {"leaky_relu": 10.0}) * 2,
                    *({"affine": 10}, "batch_norm"),
                ]
            },
        ),
        (
            "not_finite",
            "start with smaller weights (he_normal)",
            {"network": layers(32, 32, initializer=normal(1e20))},
            {"network": layers(32, 32)},
        ),
        (
            "heavy_decay",
            "use a smaller optimizer.weight_decay; 0.0001 to 0.01 are usual",
            rate("sgd", 0.1, weight_decay=30.0),
            rate("sgd", 0.1, weight_decay=0.01),
        ),
    ],
)
def test_run_that_diverged_is_told_what_mends_it(
    cause: str | None, remedy: str, changes: Plain, mended: Plain, sample: DataSet
) -> None:
    verdict, error = diverge(settings(**changes), sample)
    assert (verdict.cause, verdict.remedy) == (cause, remedy)
    assert error.endswith(f"\n{verdict.message}\n{remedy}" if cause else f")\ntry {remedy}")
    with closing(Trainer(settings(**changes | mended), sample, 1)) as trainer:
        *_, end = trainer.events()
        assert isinstance(end, RunFinished)
        assert (end.train_accuracy or 0) > 0.3


def test_of_weights_from_elsewhere_that_diverged_either_may_be_to_blame(sample: DataSet) -> None:
    """A sound start of the seed says nothing, nor does a bad one."""
    either = "a smaller learning rate or other weights than those of --from"
    for network in (layers(32), LARGE):
        asked = settings(network=network, **rate("sgd", 1e4))
        for origin in (weights_of(1), weights_of(1, 1e3)):
            verdict, error = diverge(asked, sample, origin)
            assert (verdict.cause, verdict.remedy) == (None, either)
            assert error.endswith(f"\ntry {either}")
    asked = settings(**rate("sgd", 0.1, weight_decay=30.0))
    assert diverge(asked, sample, weights_of(1))[0].cause == "heavy_decay"


def test_decay_of_more_than_a_whole_weight_is_told_before_training(sample: DataSet) -> None:
    for decay, before in ((9.9, "large_update"), (10.1, "heavy_decay")):
        asked = settings(**rate("sgd", 0.1, weight_decay=decay))
        assert [finding.kind for finding in examine(asked, sample).findings] == [before]
        warned = [finding.kind for finding in forewarn(asked, sample, np.arange(1000))]
        assert warned == ([before] if decay > 10 else [])
