"""Breaks networks in many ways, trains healthy ones, and prints the verdict on each.

python tests/benchmarks/verdicts.py broken|healthy|diverging|remedies|limits [--seeds 3] [WORD...]

A broken run must be called not_learning or underfitting, for one of the causes that stand beside
it here, or be found before training; with a remedy it must learn. A healthy run must be called
neither, and bring out no finding. A diverging one must be told its cause, or none where a smaller
learning rate mends it. `limits` prints the figures that the limits of a verdict are
held against. Everything runs on the bundled sample and on images that are made up here; it takes
some minutes, fewest with OPENBLAS_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nnctl.config import Settings, build, settings_from_dict, to_dict
from nnctl.datasets import DataSet, Samples, Source, load
from nnctl.datasets.batches import Gatherer, shuffled
from nnctl.errors import Diverged
from nnctl.inspection.trace import trace_batch
from nnctl.nn.functions import Array
from nnctl.nn.losses import LOSSES
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.nn.step import Step
from nnctl.training.engine import build_network
from nnctl.training.events import RunFinished
from nnctl.training.examination import EXAMINED, course_of, examine
from nnctl.training.overfitting import guessing
from nnctl.training.trainer import Trainer

Plain = dict[str, Any]
SAMPLE = load("mnist-sample", Source(offline=True))
MSE = "mean_squared_error"


@dataclass(frozen=True)
class Way:
    """A config and its data; what is expected of a broken one, and what mends it."""

    changes: Plain
    data: DataSet = SAMPLE
    causes: tuple[str, ...] = ()
    remedies: Mapping[str, Plain] = field(default_factory=dict)  # name: changes
    mended_data: DataSet | None = None


def layers(
    *units: int,
    activation: Any = "relu",
    initializer: Any = "he_normal",
    before: Any = (),
    between: Any = (),
    after: Any = (),
    classes: int = 10,
) -> list[Any]:
    """Return hidden layers of `units`, each followed by `between`, its activation first."""
    hidden = [
        layer
        for n in units
        for layer in ({"affine": {"units": n, "initializer": initializer}}, activation, *between)
    ]
    return [*before, *hidden, {"affine": {"units": classes, "initializer": initializer}}, *after]


def made_of(
    images: Callable[[Array], Array] = lambda x: x,
    labels: Callable[[Array, int], Array] = lambda y, seed: y,
    sample: DataSet = SAMPLE,
) -> DataSet:
    """Return the sample with other images or labels."""

    def changed(part: Samples, seed: int) -> Samples:
        return Samples(images(part.images), labels(part.labels, seed).astype(np.uint8))

    return replace(sample, train=changed(sample.train, 0), test=changed(sample.test, 1))


def made_up(classes: int, count: int, draw: Callable[[Array, Array], Array]) -> DataSet:
    """Return images that `draw` makes of uniform numbers (count, 784) and labels."""

    def samples(n: int, seed: int) -> Samples:
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, classes, n)
        images = draw(rng.random((n, 784)), labels)
        return Samples(np.clip(images, 0, 255).astype(np.uint8), labels.astype(np.uint8))

    return replace(SAMPLE, train=samples(count, 1), test=samples(500, 2))


def shuffle(labels: Array, seed: int) -> Array:
    return np.random.default_rng(seed).permutation(labels)


def noise(deviation: float) -> Callable[[Array], Array]:
    def add(images: Array) -> Array:
        noisy = images + np.random.default_rng(1).normal(0, deviation, images.shape)
        return np.clip(noisy, 0, 255).astype(np.uint8)

    return add


def moved(images: Array) -> Array:
    rng = np.random.default_rng(2)
    squares = images.reshape(-1, 28, 28)
    shifts = rng.integers(-4, 5, (len(squares), 2))
    rolled = [np.roll(a, tuple(s), (0, 1)) for a, s in zip(squares, shifts, strict=True)]
    return np.stack(rolled).reshape(len(images), -1)


def mislabelled(share: float) -> Callable[[Array, int], Array]:
    def change(labels: Array, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        wrong = rng.random(len(labels)) < share
        return np.where(wrong, rng.integers(0, 10, len(labels)), labels)

    return change


def mostly_zeros() -> DataSet:
    def keep(part: Samples) -> Samples:
        kept = (part.labels == 0) | (np.random.default_rng(3).random(len(part.labels)) < 0.02)
        return Samples(part.images[kept], part.labels[kept])

    return replace(SAMPLE, train=keep(SAMPLE.train), test=keep(SAMPLE.test))


def optimizer(kind: str, learning_rate: float, **options: float) -> Plain:
    return {"optimizer": {"kind": kind, "learning_rate": learning_rate, **options}}


def network(*units: int, **options: Any) -> Plain:
    return {"network": layers(*units, **options)}


def normal(std: float) -> Plain:
    return {"kind": "normal", "std": std}


BRIEF = {
    "name": "brief",
    "data": {"dataset": "mnist-sample", "validation": 500, "train_size": 3000},
    "network": layers(64),
    "training": {"epochs": 4},
}
FULL = {"data": {"train_size": None, "validation": 1000}, "training": {"epochs": 8}}

SLOWER = {"smaller learning rate": optimizer("sgd", 0.1)}
DEAD = ("dead_units", "large_update", "loss_jumped")
SATURATED = ("saturated_units", "stuck_outputs", "large_update", "loss_jumped")
SIGMOID = {"activation": "sigmoid", "initializer": "xavier_normal"}
NORMALISED = {"network": [{"affine": 64}, "batch_norm", "relu", {"affine": 10}]}
FASTER = {"larger learning rate": optimizer("sgd", 0.1)}
PLAIN_END = {"without it": network(64)}

BROKEN = {
    # A rate that is too high kills, saturates or bounces.
    "momentum 1": Way(optimizer("momentum", 1.0), causes=DEAD, remedies=SLOWER),
    "sgd 3": Way(optimizer("sgd", 3.0), causes=DEAD, remedies=SLOWER),
    "sgd 2, two layers": Way(network(64, 64) | optimizer("sgd", 2.0), causes=DEAD, remedies=SLOWER),
    "momentum 0.5, two layers": Way(
        network(64, 64) | optimizer("momentum", 0.5), causes=DEAD, remedies=SLOWER
    ),
    "adam 1": Way(optimizer("adam", 1.0), causes=DEAD, remedies=SLOWER),
    "adam 0.3, three layers": Way(
        network(64, 64, 64) | optimizer("adam", 0.3), causes=DEAD, remedies=SLOWER
    ),
    "gelu, adam 1": Way(
        network(50, activation="gelu") | optimizer("adam", 1.0), causes=DEAD, remedies=SLOWER
    ),
    "one_cycle to 2": Way(
        network(64, 64)
        | optimizer("momentum", 2.0)
        | {"schedule": {"kind": "one_cycle", "rise": 0.5}},
        causes=DEAD,
        remedies=SLOWER,
    ),
    "warm-up to a rate too high": Way(
        network(64, 64)
        | optimizer("momentum", 1.0)
        | {"schedule": {"kind": "constant", "warmup": 3.0}},
        causes=DEAD,
        remedies=SLOWER,
    ),
    "momentum 0.99": Way(optimizer("momentum", 0.5, momentum=0.99), causes=DEAD, remedies=SLOWER),
    "sigmoid with squares, momentum 200": Way(
        network(50, **SIGMOID, after=["sigmoid"]) | {"loss": MSE} | optimizer("momentum", 200.0),
        causes=SATURATED,
        remedies={"smaller learning rate": optimizer("momentum", 0.5)},
    ),
    "sigmoid with squares, sgd 1000": Way(
        network(50, **SIGMOID, after=["sigmoid"]) | {"loss": MSE} | optimizer("sgd", 1000.0),
        causes=SATURATED,
        remedies={"smaller learning rate": optimizer("momentum", 0.5)},
    ),
    "linear sigmoid with squares, sgd 1000": Way(
        network(**SIGMOID, after=["sigmoid"]) | {"loss": MSE} | optimizer("sgd", 3000.0),
        causes=SATURATED,
        remedies={"smaller learning rate": optimizer("momentum", 0.5)},
    ),
    "sigmoid, sgd 50": Way(
        network(50, **SIGMOID) | optimizer("sgd", 50.0), causes=SATURATED, remedies=SLOWER
    ),
    "tanh, adam 1": Way(
        network(50, activation="tanh", initializer="xavier_normal") | optimizer("adam", 1.0),
        causes=SATURATED,
        remedies=SLOWER,
    ),
    # Weights that start wrong.
    "zeros": Way(
        network(64, initializer="zeros"),
        causes=("same_units",),
        remedies={
            "he_normal": network(64),
            "xavier_normal": network(64, initializer="xavier_normal"),
        },
    ),
    "zeros, sigmoid": Way(
        network(64, activation="sigmoid", initializer="zeros"),
        causes=("same_units",),
        remedies={"xavier_normal": network(64, **SIGMOID)},
    ),
    "std 0.0001, three layers": Way(
        network(64, 64, 64, initializer=normal(1e-4)),
        causes=("vanishing_gradients",),
        remedies={
            "he_normal": network(64, 64, 64),
            "batch_norm": {
                "network": [
                    layer
                    for n in (64, 64, 64)
                    for layer in (
                        {"affine": {"units": n, "initializer": normal(1e-4)}},
                        "batch_norm",
                        "relu",
                    )
                ]
                + [{"affine": {"units": 10, "initializer": normal(1e-4)}}]
            },
        },
    ),
    "std 0.01, five layers": Way(
        network(64, 64, 64, 64, 64, initializer=normal(0.01)),
        causes=("vanishing_gradients",),
        remedies={
            "he_normal": network(64, 64, 64, 64, 64),
            "fewer layers": network(64, initializer=normal(0.01)),
        },
    ),
    "std 1, two layers": Way(
        network(64, 64, initializer=normal(1.0)),
        causes=("initial_loss",),
        remedies={"he_normal": network(64, 64)},
    ),
    "std 10, sigmoid": Way(
        network(64, activation="sigmoid", initializer=normal(10.0)),
        causes=("initial_loss", "saturated_units"),
        remedies={
            "he_normal": network(64, activation="sigmoid"),
            "xavier_normal": network(64, **SIGMOID),
        },
    ),
    "std 10, three times tanh": Way(
        network(64, 64, 64, activation="tanh", initializer=normal(10.0)),
        causes=("initial_loss", "saturated_units"),
        remedies={"he_normal": network(64, 64, 64, activation="tanh")},
    ),
    "saturated tanh, small last layer": Way(
        {
            "network": [
                {"affine": {"units": 64, "initializer": normal(10.0)}},
                "tanh",
                {"affine": {"units": 64, "initializer": normal(10.0)}},
                "tanh",
                {"affine": {"units": 10, "initializer": normal(0.01)}},
            ]
        }
        | optimizer("sgd", 0.01),
        causes=("saturated_units",),
        remedies={
            "xavier_normal": network(64, 64, activation="tanh", initializer="xavier_normal")
            | optimizer("sgd", 0.01),
        },
    ),
    "five times sigmoid": Way(
        network(32, 32, 32, 32, 32, **SIGMOID),
        causes=("vanishing_gradients",),
        remedies={
            "relu with he_normal": network(32, 32, 32, 32, 32),
            "batch_norm": {
                "network": [
                    layer for _ in range(5) for layer in ({"affine": 32}, "batch_norm", "sigmoid")
                ]
                + [{"affine": 10}]
            },
            "fewer layers": network(32, **SIGMOID) | {"training": {"epochs": 8}},
        },
    ),
    "slope 10": Way(
        network(64, 64, activation={"leaky_relu": 10.0}) | optimizer("sgd", 1e-4),
        causes=("initial_loss",),
        remedies={
            "batch_norm": {
                "network": [
                    layer
                    for _ in range(2)
                    for layer in ({"affine": 64}, {"leaky_relu": 10.0}, "batch_norm")
                ]
                + [{"affine": 10}, "batch_norm"]
            }
            | optimizer("sgd", 0.1),
        },
    ),
    # Something after the last affine layer.
    "relu at the end": Way(
        network(64, after=["relu"]), causes=("output_activation",), remedies=PLAIN_END
    ),
    "sigmoid at the end": Way(
        network(64, after=["sigmoid"]), causes=("output_activation",), remedies=PLAIN_END
    ),
    "tanh at the end": Way(
        network(64, after=["tanh"]), causes=("output_activation",), remedies=PLAIN_END
    ),
    "leaky_relu at the end": Way(
        network(64, after=["leaky_relu"]), causes=("output_activation",), remedies=PLAIN_END
    ),
    "dropout at the end": Way(
        network(64, after=[{"dropout": 0.9}]), causes=("output_activation",), remedies=PLAIN_END
    ),
    "squares, relu at the end": Way(
        network(64, after=["relu"]) | {"loss": MSE} | optimizer("momentum", 0.5),
        causes=("output_activation",),
        remedies=PLAIN_END,
    ),
    # Images and labels.
    "pixels 0 and 1": Way(
        {},
        made_of(lambda x: x // 128),
        causes=("input_scale",),
        remedies={"batch_norm first": network(64, before=["batch_norm"])},
        mended_data=made_of(lambda x: x // 128 * 255),
    ),
    "pixels 0 to 15": Way(
        {},
        made_of(lambda x: x // 16),
        causes=("input_scale",),
        remedies={"batch_norm first": network(64, before=["batch_norm"])},
        mended_data=made_of(lambda x: x // 16 * 17),
    ),
    "pixels 0 to 63": Way(
        {},
        made_of(lambda x: x // 4),
        causes=("input_scale",),
        remedies={"batch_norm first": network(64, before=["batch_norm"])},
        mended_data=made_of(lambda x: x // 4 * 4),
    ),
    "pixels 0 and 1, linear": Way(
        network(),
        made_of(lambda x: x // 128),
        causes=("input_scale",),
        remedies={"batch_norm first": network(before=["batch_norm"])},
        mended_data=made_of(lambda x: x // 128 * 255),
    ),
    "black": Way({}, made_of(lambda x: x * 0), causes=("constant_images",)),
    "grey": Way({}, made_of(lambda x: x * 0 + 200), causes=("constant_images",)),
    "shuffled labels": Way({}, made_of(labels=shuffle), causes=("unrelated_labels",)),
    "shuffled labels, by heart": Way(
        network(128) | optimizer("momentum", 0.1) | {"training": {"epochs": 30}},
        made_of(labels=shuffle),
        causes=("unrelated_labels",),
    ),
    "labels off by one": Way(
        {},
        made_of(labels=lambda y, seed: np.roll(y, 1)),
        causes=("unrelated_labels",),
    ),
    "noise for images": Way(
        {}, made_up(10, 4000, lambda x, y: x * 255), causes=("unrelated_labels",)
    ),
    "one class": Way({}, made_of(labels=lambda y, seed: y * 0), causes=("one_class",)),
    # Steps that lead nowhere.
    "sgd 1e-6": Way(optimizer("sgd", 1e-6), causes=("small_move",), remedies=FASTER),
    "sgd 1e-4": Way(optimizer("sgd", 1e-4), causes=("small_move",), remedies=FASTER),
    "adam 1e-7": Way(optimizer("adam", 1e-7), causes=("small_move",), remedies=FASTER),
    "warm-up without end": Way(
        {"schedule": {"kind": "constant", "warmup": 1e5}},
        causes=("small_move",),
        remedies={"shorter warm-up": {"schedule": {"kind": "constant", "warmup": 1.0}}},
    ),
    "clip_norm 0.0001": Way(
        {"training": {"clip_norm": 1e-4}},
        causes=("small_move",),
        remedies={"larger clip_norm": {"training": {"clip_norm": 5.0}}},
    ),
    "adagrad, epsilon 1000": Way(
        optimizer("adagrad", 0.01, epsilon=1000.0),
        causes=("small_move",),
        remedies={"larger learning rate": optimizer("adagrad", 100.0, epsilon=1000.0)},
    ),
    "weight decay 5": Way(
        optimizer("sgd", 0.1, weight_decay=5.0),
        causes=("shrunk_weights",),
        remedies={"smaller weight decay": optimizer("sgd", 0.1, weight_decay=0.01)},
    ),
    "weight decay 1": Way(
        optimizer("sgd", 0.1, weight_decay=1.0),
        causes=("shrunk_weights",),
        remedies={"smaller weight decay": optimizer("sgd", 0.1, weight_decay=0.01)},
    ),
    # Layers that let nothing through.
    "dropout 0.99": Way(
        network(64, between=[{"dropout": 0.99}]),
        causes=("heavy_dropout",),
        remedies={"dropout 0.5": network(64, between=[{"dropout": 0.5}])},
    ),
    "dropout 0.9 three times": Way(
        network(64, 64, 64, between=[{"dropout": 0.9}]),
        causes=("heavy_dropout",),
        remedies={"dropout 0.2": network(64, 64, 64, between=[{"dropout": 0.2}])},
    ),
    "dropout 0.97 of the pixels": Way(
        network(64, before=[{"dropout": 0.97}]),
        causes=("heavy_dropout",),
        remedies={"dropout 0.2": network(64, before=[{"dropout": 0.2}])},
    ),
    "batch_norm, momentum 0.9999": Way(
        {"network": [{"affine": 64}, {"batch_norm": {"momentum": 0.9999}}, "relu", {"affine": 10}]},
        causes=("lagging_averages",),
        remedies={"momentum 0.9": NORMALISED},
    ),
    "batch_norm, epsilon 1e6": Way(
        {"network": [{"affine": 64}, {"batch_norm": {"epsilon": 1e6}}, "relu", {"affine": 10}]},
        causes=("vanishing_gradients",),
        remedies={
            "epsilon 1e-5": {"network": [{"affine": 64}, "batch_norm", "relu", {"affine": 10}]}
        },
    ),
    "batch_norm, batches of one": Way(
        {
            "network": [{"affine": 64}, "batch_norm", "relu", {"affine": 10}],
            "training": {"batch_size": 1, "epochs": 2},
            "data": {"train_size": 500},
        },
        causes=("single_sample",),
        remedies={
            "batches of 20": {
                "network": [{"affine": 64}, "batch_norm", "relu", {"affine": 10}],
                "training": {"batch_size": 20, "epochs": 8},
                "data": {"train_size": 500},
            }
        },
    ),
    "label smoothing 0.99": Way(
        {"loss": {"kind": "softmax_cross_entropy", "label_smoothing": 0.99}},
        causes=("heavy_smoothing",),
        remedies={"0.1": {"loss": {"kind": "softmax_cross_entropy", "label_smoothing": 0.1}}},
    ),
    "one unit on the way": Way(
        network(64, 1, 64),
        causes=("narrow_layer",),
        remedies={"more units": network(64, 16, 64)},
    ),
    # Not broken, but not done either: no cause, and the right direction.
    "four steps": Way(
        {"training": {"batch_size": 3000}},
        remedies={
            "more epochs": {"training": {"batch_size": 3000, "epochs": 100}},
            "larger learning rate": {"training": {"batch_size": 3000, "epochs": 30}}
            | optimizer("sgd", 0.5),
        },
    ),
    "mean_squared_error, sgd 0.01": Way(
        {"loss": MSE} | optimizer("sgd", 0.01),
        remedies={
            "more epochs": {"loss": MSE, "training": {"epochs": 100}} | optimizer("sgd", 0.01),
            "larger learning rate": {"loss": MSE} | optimizer("sgd", 0.5),
        },
    ),
}

BY_HEART = (
    network(256, 256)
    | optimizer("momentum", 0.1)
    | {"data": {"train_size": 1000, "validation": 1000}, "training": {"epochs": 40}}
)
HEALTHY = {
    "two-layer": Way(FULL | network(50) | {"training": {"epochs": 16}}),
    "linear": Way(FULL | network()),
    "tanh, three layers": Way(
        FULL
        | network(100, 100, 100, activation="tanh", initializer="xavier_normal")
        | optimizer("momentum", 0.05)
    ),
    "sigmoid": Way(FULL | network(100, **SIGMOID) | optimizer("momentum", 0.3)),
    "sigmoid with squares": Way(
        FULL
        | network(50, **SIGMOID, after=["sigmoid"])
        | {"loss": MSE, "training": {"epochs": 16}}
        | optimizer("momentum", 0.5)
    ),
    "gelu, adam": Way(FULL | network(100, 100, activation="gelu") | optimizer("adam", 0.003)),
    "leaky_relu, adamw": Way(
        FULL | network(100, activation="leaky_relu") | optimizer("adamw", 0.003)
    ),
    "rmsprop": Way(FULL | network(100) | optimizer("rmsprop", 0.003)),
    "adagrad": Way(FULL | network(100) | optimizer("adagrad", 0.01)),
    "sgd 0.5": Way(FULL | network(100) | optimizer("sgd", 0.5)),
    "sgd 1": Way(FULL | network(100) | optimizer("sgd", 1.0)),
    "adam 0.01": Way(FULL | network(100, 100) | optimizer("adam", 0.01)),
    "adam 0.03": Way(FULL | network(100, 100) | optimizer("adam", 0.03)),
    "one_cycle": Way(
        FULL | network(100) | optimizer("momentum", 0.3) | {"schedule": {"kind": "one_cycle"}}
    ),
    "batch_norm and dropout": Way(
        FULL
        | {
            "network": [
                *({"affine": 128}, "batch_norm", "relu", {"dropout": 0.2}),
                *({"affine": 64}, "batch_norm", "relu", {"affine": 10}),
            ]
        }
        | optimizer("adam", 0.003)
    ),
    "dropout 0.5 twice": Way(
        FULL | network(128, 128, between=[{"dropout": 0.5}]) | optimizer("momentum", 0.1)
    ),
    "dropout 0.5 three times, 300 images": Way(
        network(256, 256, 256, between=[{"dropout": 0.5}])
        | optimizer("momentum", 0.02, weight_decay=0.2)
        | {
            "data": {"train_size": 300, "validation": 1000},
            "training": {"epochs": 60, "batch_size": 50},
        }
    ),
    "mean_squared_error": Way(FULL | network(100) | {"loss": MSE} | optimizer("momentum", 0.3)),
    "batches of 10": Way({"training": {"batch_size": 10, "epochs": 3}}),
    "by heart, 1000 images": Way(
        BY_HEART,
        remedies={
            "fewer epochs": BY_HEART | {"training": {"early_stopping": {"patience": 3}}},
            "more images": BY_HEART
            | {"data": {"train_size": 8000, "validation": 1000}, "training": {"epochs": 5}},
            "dropout": BY_HEART | network(256, 256, between=[{"dropout": 0.5}]),
            "weight decay": BY_HEART | optimizer("momentum", 0.1, weight_decay=0.05),
            "smaller network": BY_HEART | network(16),
            "augmentation": BY_HEART
            | {
                "data": {
                    "train_size": 1000,
                    "validation": 1000,
                    "augment": {"shift": 2, "rotate": 10},
                }
            },
        },
    ),
    "60 images": Way(
        network(50)
        | optimizer("momentum", 0.05)
        | {
            "data": {"train_size": 60, "validation": 100},
            "training": {"epochs": 20, "batch_size": 20},
        }
    ),
    "30 images, 30 held out": Way(
        network(50)
        | optimizer("momentum", 0.05)
        | {
            "data": {"train_size": 30, "validation": 30},
            "training": {"epochs": 20, "batch_size": 10},
        }
    ),
    "white ground": Way(
        FULL | network(100) | optimizer("momentum", 0.01), made_of(lambda x: 255 - x)
    ),
    "pixels 0 to 127": Way(
        FULL | network(100) | optimizer("momentum", 0.1), made_of(lambda x: x // 2)
    ),
    "moved and noisy": Way(
        FULL | network(100) | optimizer("momentum", 0.05), made_of(lambda x: noise(80)(moved(x)))
    ),
    "very noisy": Way(FULL | network(100) | optimizer("momentum", 0.02), made_of(noise(200))),
    "30 % of the labels wrong": Way(
        FULL | network(100) | optimizer("momentum", 0.05), made_of(labels=mislabelled(0.3))
    ),
    "70 % of the labels wrong": Way(
        FULL | network(100) | optimizer("momentum", 0.05), made_of(labels=mislabelled(0.7))
    ),
    "mostly zeros": Way(
        network(50)
        | optimizer("momentum", 0.05)
        | {"data": {"train_size": None, "validation": 200}, "training": {"epochs": 8}},
        mostly_zeros(),
    ),
    "odd or even": Way(
        FULL | network(100, classes=2) | optimizer("momentum", 0.1),
        made_of(labels=lambda y, seed: y % 2),
    ),
    "textures": Way(  # fields of noise whose grain is the class, as in clothes
        network(100, classes=4)
        | optimizer("momentum", 0.05)
        | {"data": {"train_size": 3000, "validation": 500}, "training": {"epochs": 12}},
        made_up(
            4,
            4000,
            lambda x, y: 255 * np.where(np.arange(784) // (1 + y[:, None]) % 2, x, x**2),
        ),
    ),
    "five prototypes": Way(
        network(30, classes=5)
        | optimizer("momentum", 0.05)
        | {"data": {"train_size": None, "validation": 100}, "training": {"epochs": 8}},
        made_up(
            5, 600, lambda x, y: np.random.default_rng(5).random((5, 784))[y] * 200 + 240 * x - 120
        ),
    ),
    "exclusive or": Way(
        network(50, classes=2)
        | optimizer("momentum", 0.02)
        | {"data": {"train_size": None, "validation": 500}, "training": {"epochs": 6}},
        made_up(
            2,
            3000,
            lambda x, y: (
                np.where(
                    np.arange(784) < 392, (x[:, :1] > 0.5), (x[:, :1] > 0.5) ^ (y[:, None] > 0)
                )
                * 180
                + 60 * x
            ),
        ),
    ),
}


HUGE = {"initializer": normal(100.0)}
DECAY = {"smaller weight decay": optimizer("sgd", 0.1, weight_decay=0.01)}


def sound(*units: int, **options: Any) -> dict[str, Plain]:
    """Return the remedy for weights that start too large, at the rate that there is."""
    return {"he_normal": network(*units, **options)}


# Without a cause: the learning rate is to blame.
DIVERGING = {
    "sgd 10": Way(optimizer("sgd", 10.0)),
    "sgd 1000": Way(optimizer("sgd", 1000.0)),
    "sgd 5, two layers": Way(network(64, 64) | optimizer("sgd", 5.0)),
    "linear, sgd 1000": Way(network() | optimizer("sgd", 1000.0)),
    "tanh, sgd 300": Way(
        network(64, activation="tanh", initializer="xavier_normal") | optimizer("sgd", 300.0)
    ),
    "momentum 10": Way(optimizer("momentum", 10.0)),
    "momentum 0.999": Way(optimizer("momentum", 30.0, momentum=0.999)),
    "nesterov 5": Way(optimizer("nesterov", 5.0)),
    "adam 10": Way(optimizer("adam", 10.0)),
    "rmsprop 3": Way(optimizer("rmsprop", 3.0)),
    "adagrad 10": Way(optimizer("adagrad", 10.0)),
    "std 0.01, sgd 30": Way(network(64, initializer=normal(0.01)) | optimizer("sgd", 30.0)),
    "squares, sgd 30": Way(network(64) | {"loss": MSE} | optimizer("sgd", 30.0)),
    "squares, white ground": Way(
        network(64, 64) | {"loss": MSE} | optimizer("momentum", 0.1),
        made_of(lambda x: 255 - x),
    ),
    "std 1, three layers": Way(
        network(64, 64, 64, initializer=normal(1.0)),
        causes=("initial_loss",),
        remedies=sound(64, 64, 64),
    ),
    "std 1, three layers, momentum": Way(
        network(64, 64, 64, initializer=normal(1.0)) | optimizer("momentum", 0.1),
        causes=("initial_loss",),
        remedies=sound(64, 64, 64),
    ),
    "std 1, five layers, sgd 0.01": Way(
        network(64, 64, 64, 64, 64, initializer=normal(1.0)) | optimizer("sgd", 0.01),
        causes=("initial_loss",),
        remedies=sound(64, 64, 64, 64, 64),
    ),
    "std 100, two layers": Way(
        network(64, 64, **HUGE), causes=("initial_loss",), remedies=sound(64, 64)
    ),
    "std 1e12, four layers": Way(
        network(64, 64, 64, 64, initializer=normal(1e12)),
        causes=("not_finite",),
        remedies=sound(64, 64, 64, 64),
    ),
    "squares, std 100": Way(
        network(64, **HUGE) | {"loss": MSE}, causes=("initial_loss",), remedies=sound(64)
    ),
    "squares, std 10": Way(
        network(64, initializer=normal(10.0)) | {"loss": MSE},
        causes=("initial_loss",),
        remedies=sound(64),
    ),
    "squares, std 1, two layers, momentum": Way(
        network(64, 64, initializer=normal(1.0)) | {"loss": MSE} | optimizer("momentum", 0.1),
        causes=("initial_loss",),
        remedies=sound(64, 64),
    ),
    "slope 10": Way(
        network(64, 64, activation={"leaky_relu": 10.0}),
        causes=("initial_loss",),
        remedies={
            "batch_norm": {
                "network": [
                    *({"affine": 64}, "batch_norm", {"leaky_relu": 10.0}) * 2,
                    *({"affine": 10}, "batch_norm"),
                ]
            }
        },
    ),
    "six times affine, sgd 0.5": Way(
        {"network": [{"affine": 64}] * 6 + [{"affine": 10}]} | optimizer("sgd", 0.5),
        causes=("initial_loss",),
        remedies={
            "batch_norm": {
                "network": [*({"affine": 64}, "batch_norm") * 6, {"affine": 10}, "batch_norm"]
            }
        },
    ),
    "weight decay 30": Way(
        optimizer("sgd", 0.1, weight_decay=30.0), causes=("heavy_decay",), remedies=DECAY
    ),
    "weight decay 1000": Way(
        optimizer("sgd", 0.1, weight_decay=1000.0), causes=("heavy_decay",), remedies=DECAY
    ),
    # Two things are wrong, of which the first is told first.
    "std 100, sgd 100": Way(
        network(64, **HUGE) | optimizer("sgd", 100.0),
        causes=("initial_loss",),
        remedies={"he_normal, then smaller rate": network(64) | optimizer("sgd", 0.1)},
    ),
}


def merged(plain: Plain, changes: Plain) -> Plain:
    """Return `plain` with `changes`, those of data and training key by key."""
    parts = {
        key: plain.get(key, {}) | changes[key] for key in ("data", "training") if key in changes
    }
    return plain | changes | parts


def settings_of(changes: Plain, seed: int) -> Settings:
    """Return the settings of `BRIEF` with `changes`."""
    return settings_from_dict(merged(BRIEF, changes) | {"seed": seed})


def train(changes: Plain, data: DataSet, seed: int) -> tuple[Trainer, RunFinished, str]:
    """Train to the end, and return how it ended."""
    trainer = Trainer(settings_of(changes, seed), data, 1)
    with closing(trainer):
        try:
            *_, end = trainer.events()
        except Diverged as error:
            return trainer, trainer.finish("diverged"), str(error).splitlines()[0]
    assert isinstance(end, RunFinished)
    return trainer, end, ""


def percent(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.1%}"


def row(name: str, way: Way, seed: int, *, healthy: bool) -> str:
    """Return how a run went, as a line of a table, with a mark where the verdict is wrong."""
    trainer, end, problem = train(way.changes, way.data, seed)
    found = end.overfitting
    since = f" since {found.since_epoch}" if found.since_epoch else ""
    poor = found.verdict in ("not_learning", "underfitting")
    if healthy:
        rows = [vars(event) for event in trainer.progress.history]
        course = course_of(rows, trainer.progress.initial_loss)
        weights = trainer.engine.network.named_arrays()
        findings = [f.kind for f in examine(trainer.settings, way.data, weights, course).findings]
        wrong, more = poor or bool(findings), f"{findings or ''}"
    else:
        foreseen = {f.kind for f in examine(trainer.settings, way.data).findings}
        told = found.cause in (way.causes or (None,)) and poor
        wrong = not told and not foreseen & {*way.causes} and not problem
        more = problem or ("" if told else f"told before: {', '.join(sorted(foreseen))}")
    return (
        f"{'!' if wrong else ' '} {name:38} {seed} {percent(end.train_accuracy):>6} "
        f"{percent(end.validation_accuracy):>6} {found.verdict}{since} {found.cause or ''} "
        f"| {found.remedy or ''} {more}"
    )


def diverging(name: str, way: Way, seed: int) -> str:
    """Return what a run that diverges is told, and how it goes with that and other remedies."""
    _, end, problem = train(way.changes, way.data, seed)
    found = end.overfitting
    tried = {remedy: merged(way.changes, changes) for remedy, changes in way.remedies.items()}
    plain = to_dict(settings_of(way.changes, seed))["optimizer"]
    for factor in (0.1, 0.01, 0.001, 1e-4):
        slower = plain | {"learning_rate": plain["learning_rate"] * factor}
        tried[f"rate x {factor:g}"] = merged(way.changes, {"optimizer": slower})
    ends = {remedy: train(changes, way.data, seed) for remedy, changes in tried.items()}
    shown = ", ".join(
        f"{remedy} {'diverges' if failed else percent(after.validation_accuracy)}"
        for remedy, (_, after, failed) in ends.items()
    )
    wrong = problem and found.cause not in (way.causes or (None,))
    if not problem:
        found = replace(found, cause=f"does not diverge, {found.cause}")
    return (
        f"{'!' if wrong else ' '} {name:38} {seed} {found.cause or ''} | {found.remedy} | {shown}"
    )


def limits(name: str, way: Way, seed: int) -> str:
    """Return the figures of a run that the limits of a verdict are held against."""
    trainer, end, problem = train(way.changes, way.data, seed)
    history, settings = trainer.progress.history, trainer.settings
    first = trainer.progress.initial_loss
    if not history or first is None:
        return f"{name:38} {seed} {problem}"
    network, start = (build_network(settings, way.data.train.images.shape[1]) for _ in range(2))
    network.load(trainer.engine.network.named_arrays())
    start.initialize(seed)
    images = shuffled(trainer.split.train, seed, 1)[:EXAMINED]
    loss, optimizer = build(LOSSES, settings.loss), build(OPTIMIZERS, settings.optimizer)
    traced = trace_batch(Step(network, loss, optimizer, Gatherer(way.data.train)), images).layers
    affine = [layer for layer in traced if layer.name.endswith("affine")]
    flow = (affine[0].activation_gradient_norm or 0) / (affine[-1].activation_gradient_norm or 1)
    lowest, jump = first, 0.0
    for event in history:
        jump = max(jump, (event.batch_loss - lowest) / first)
        lowest = min(lowest, event.batch_loss)
    moves = [
        np.linalg.norm(network.named_arrays()[key] - weight) / np.linalg.norm(weight)
        for key, weight in start.named_arrays().items()
        if key.endswith("affine.weight") and weight.any()
    ]
    held_out = trainer.split.validation
    guess = guessing(loss, way.data.train.labels[held_out].astype(np.intp), network.widths[-1])
    gain = 1 - min(event.monitored_loss for event in history) / max(guess.losses.mean(), 1e-30)
    dead = max((layer.dead_units or 0) / layer.output_shape[1] for layer in traced)
    saturated = max((layer.saturated_fraction or 0 for layer in traced[:-1]), default=0)
    gap = (end.train_accuracy or 0) - (end.validation_accuracy or 0)
    return (
        f"{name:38} {seed} dead {dead:.2f} saturated {saturated:.2f} flow {flow:.2g} "
        f"update {max(layer.update_ratio or 0 for layer in traced):.2g} jump {jump:.3f} "
        f"move {max(moves, default=0):.2g} initial {first:.3g} gain {gain:.3f} gap {gap:.3f}"
    )


def mended(name: str, way: Way, seeds: int) -> list[str]:
    """Return the validation accuracy with each remedy, and the gap to the training accuracy."""
    tried = {"as it is": (way.changes, way.data)} | {
        remedy: (merged(way.changes, changes), way.data) for remedy, changes in way.remedies.items()
    }
    if way.mended_data:
        tried["other pixels"] = way.changes, way.mended_data
    lines = []
    for remedy, (changes, data) in tried.items():
        ends = [train(changes, data, seed)[1] for seed in range(seeds)]
        accuracies = ", ".join(percent(end.validation_accuracy) for end in ends)
        gaps = [(end.train_accuracy or 0) - (end.validation_accuracy or 0) for end in ends]
        lines.append(
            f"{name:38} {remedy:22} {accuracies}; gap {', '.join(f'{gap:.1%}' for gap in gaps)}"
        )
    return lines


TABLES = {
    "broken": BROKEN,
    "healthy": HEALTHY,
    "diverging": DIVERGING,
    "remedies": BROKEN | HEALTHY,
    "limits": BROKEN | HEALTHY,
}


def main() -> None:
    """Print the table that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=[*TABLES])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("words", nargs="*", help="only the runs whose name holds one of these")
    asked = parser.parse_intermixed_args()
    for name, way in TABLES[asked.table].items():
        if asked.words and not any(word in name for word in asked.words):
            continue
        if asked.table == "remedies":
            if way.remedies:
                print("\n".join(mended(name, way, asked.seeds)), flush=True)
            continue
        for seed in range(asked.seeds):
            if asked.table == "limits":
                print(limits(name, way, seed), flush=True)
            elif asked.table == "diverging":
                print(diverging(name, way, seed), flush=True)
            else:
                print(row(name, way, seed, healthy=asked.table == "healthy"), flush=True)


if __name__ == "__main__":
    main()
