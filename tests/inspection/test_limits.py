"""The limits of what looks wrong, each from both sides."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nnctl.inspection.course import (
    TrainingCourse,
    lagging_averages,
    loss_jumped,
    narrow_layer,
    shrunk_weights,
    small_move,
    stuck_outputs,
)
from nnctl.inspection.diagnosis import (
    Finding,
    design_findings,
    diagnose,
    either,
    without_consequences,
)
from nnctl.inspection.images import image_findings, neighbours_agree, scale_findings
from nnctl.inspection.trace import Trace, trace_batch
from nnctl.nn.functions import Array
from nnctl.nn.initializers import Normal
from nnctl.nn.layers import Affine, BatchNorm, Dropout, Layer, LeakyReLU, ReLU, Sigmoid, Tanh
from nnctl.nn.losses import Loss, MeanSquaredError, SoftmaxWithLoss
from nnctl.nn.network import Network
from nnctl.nn.optimizers import SGD
from nnctl.nn.step import Step

CLASSES = 10


def network(*layers: Layer, inputs: int = 20) -> Network:
    result = Network(layers, inputs, dtype=np.float64)
    result.initialize(0)
    return result


def traced(net: Network) -> Trace:
    x = np.random.default_rng(1).random((100, net.inputs))
    labels = np.arange(100) % net.widths[-1]
    step = Step(net, SoftmaxWithLoss(), SGD(), lambda places: (x[places], labels[places]))
    return trace_batch(step, np.arange(100))


def kinds(findings: Iterable[Finding]) -> list[str]:
    return [finding.kind for finding in findings]


SIGMOID = network(Affine(50), Sigmoid(), Affine(CLASSES))
RELU = network(Affine(50), ReLU(), Affine(CLASSES))


@pytest.mark.parametrize(
    ("net", "layer", "figures", "kind"),
    [
        (SIGMOID, 1, {"saturated_fraction": (0.5, 0.51)}, "saturated_units"),
        (SIGMOID, 2, {"update_ratio": (0.5, 0.51)}, "large_update"),
        (SIGMOID, 0, {"activation_gradient_norm": (0.01, 0.0099)}, "vanishing_gradients"),
        (SIGMOID, 0, {"activation_gradient_norm": (100.0, 101.0)}, "exploding_gradients"),
        (RELU, 1, {"dead_units": (40, 41)}, "dead_units"),
    ],
)
def test_layer_figure_is_found_beyond_its_limit_alone(
    net: Network, layer: int, figures: dict[str, tuple[float, float]], kind: str
) -> None:
    ((name, (below, above)),) = figures.items()

    def found(value: float) -> list[str]:
        trace = traced(net)
        layers = list(trace.layers)
        layers[2] = replace(layers[2], activation_gradient_norm=1.0)
        layers[0] = replace(layers[0], activation_gradient_norm=1.0)
        changed: dict[str, Any] = {name: value}
        layers[layer] = replace(layers[layer], **changed)
        trace = replace(trace, layers=tuple(layers))
        return kinds(diagnose(trace, net, SoftmaxWithLoss(), fresh=True))

    assert found(below) == []
    assert found(above) == [kind]


def test_dead_units_are_looked_for_in_enough_images_alone() -> None:
    trace = traced(RELU)
    layers = [trace.layers[0], replace(trace.layers[1], dead_units=50), trace.layers[2]]
    for images, found in ((31, []), (32, ["dead_units"])):
        few = replace(trace, batch_size=images, layers=tuple(layers))
        assert kinds(diagnose(few, RELU, SoftmaxWithLoss(), fresh=False)) == found


def test_initial_loss_is_found_beyond_its_limit_alone() -> None:
    for distance, found in ((1.49, []), (1.51, ["initial_loss"])):
        trace = replace(traced(RELU), loss=math.log(CLASSES) + distance)
        assert kinds(diagnose(trace, RELU, SoftmaxWithLoss(), fresh=True)) == found
        assert kinds(diagnose(trace, RELU, SoftmaxWithLoss(), fresh=False)) == []


def test_initial_squared_error_is_found_beyond_its_limit_alone() -> None:
    even = (CLASSES - 1) / CLASSES**2  # of outputs that are all 1 / CLASSES
    for times, found in ((99, []), (101, ["initial_loss"]), (math.inf, [])):
        trace = replace(traced(RELU), loss=times * even)
        assert kinds(diagnose(trace, RELU, MeanSquaredError(), fresh=True)) == found
        assert kinds(diagnose(trace, RELU, MeanSquaredError(), fresh=False)) == []


def test_units_that_differ_by_rounding_alone_are_the_same() -> None:
    for difference, found in ((1e-3, []), (1e-5, ["same_units"])):
        net = network(Affine(5), Sigmoid(), Affine(CLASSES))
        net.layers[0].weight[...] = net.layers[0].weight[:, :1]
        net.layers[0].weight[:, 0] *= 1 + difference
        assert kinds(diagnose(traced(net), net, SoftmaxWithLoss(), fresh=False)) == found


@pytest.mark.parametrize(
    ("layers", "loss", "found"),
    [
        ([Dropout(0.95)], SoftmaxWithLoss(), []),
        ([Dropout(0.951)], SoftmaxWithLoss(), ["heavy_dropout"]),
        ([Dropout(0.8), ReLU(), Dropout(0.7)], SoftmaxWithLoss(), []),
        ([Dropout(0.8), ReLU(), Dropout(0.8)], SoftmaxWithLoss(), ["heavy_dropout"]),
        ([], SoftmaxWithLoss(0.9), []),
        ([], SoftmaxWithLoss(0.91), ["heavy_smoothing"]),
    ],
)
def test_design_is_found_wrong_beyond_its_limits_alone(
    layers: list[Layer], loss: Loss, found: list[str]
) -> None:
    net = network(Affine(8), *layers, Affine(CLASSES))
    assert kinds(design_findings(net, loss)) == found


@pytest.mark.parametrize("layer", [ReLU(), LeakyReLU(), Tanh(), Sigmoid(), Dropout(0.5)])
def test_layer_after_the_last_affine_is_named(layer: Layer) -> None:
    net = network(Affine(8), ReLU(), Affine(CLASSES), layer)
    (finding,) = design_findings(net, SoftmaxWithLoss())
    assert finding.kind == "output_activation"
    assert finding.layer == net.layer_name(3)
    assert finding.remedy == f"leave {finding.layer} out"


def test_layer_after_the_last_affine_may_suit_squares_or_do_no_harm() -> None:
    for layer in (Sigmoid(), Tanh()):
        assert design_findings(network(Affine(CLASSES), layer), MeanSquaredError()) == []
    assert kinds(design_findings(network(Affine(CLASSES), ReLU()), MeanSquaredError()))
    assert design_findings(network(Affine(CLASSES), BatchNorm()), SoftmaxWithLoss()) == []


def test_remedy_leaves_out_what_the_network_has() -> None:
    def remedy(*layers: Layer) -> str:
        net = network(*layers, inputs=20)
        trace = traced(net)
        first = replace(trace.layers[0], activation_gradient_norm=1e-6)
        trace = replace(trace, layers=(first, *trace.layers[1:]))
        (finding,) = diagnose(trace, net, SoftmaxWithLoss(), fresh=False)
        assert finding.kind == "vanishing_gradients"
        return finding.remedy

    small = Normal(0.3)
    assert remedy(Affine(8, small), ReLU(), Affine(CLASSES, small)) == (
        "start with he_normal, put batch_norm after each affine or use fewer layers"
    )
    assert "he_normal" not in remedy(Affine(8), ReLU(), Affine(CLASSES))
    assert "relu" in remedy(Affine(8), Sigmoid(), Affine(CLASSES))
    assert "batch_norm" not in remedy(Affine(8), BatchNorm(), ReLU(), Affine(CLASSES))
    for epsilon, found in ((1.0, False), (1.1, True)):
        layers = Affine(8), BatchNorm(epsilon=epsilon), ReLU(), Affine(CLASSES)
        assert ("epsilon" in remedy(*layers)) == found


def test_consequence_of_an_earlier_finding_is_left_out() -> None:
    def named(*found: str) -> list[str]:
        return kinds(without_consequences([Finding(kind, None, "", "") for kind in found]))

    assert named("dead_units", "large_update", "dead_units") == ["dead_units"]
    assert named("unrelated_labels", "output_activation") == ["unrelated_labels"]
    assert named("output_activation", "dead_units") == ["output_activation", "dead_units"]


def test_either_names_the_options_that_are_there() -> None:
    assert either("", "a", "", "b") == "a or b"


# Images and labels.


def images_of(labels: Array, deviation: float) -> Array:
    rng = np.random.default_rng(3)
    prototypes = rng.random((int(labels.max()) + 1, 30))
    return prototypes[labels] + rng.normal(0, deviation, (len(labels), 30))


def found_in(images: Array, labels: Array) -> list[str]:
    agree = neighbours_agree(images, labels)
    return kinds(without_consequences(list(image_findings(images, labels, agree))))


def test_brightest_pixel_is_found_too_dark_up_to_its_limit() -> None:
    assert kinds(scale_findings(101)) == []
    (finding,) = scale_findings(100)
    assert finding.kind == "input_scale"
    (ones,) = scale_findings(1)
    assert "no pixel is larger than 1" in ones.message
    assert "multiply the pixels by 255" in ones.remedy


def test_labels_are_found_unrelated_when_neighbours_agree_by_chance_alone() -> None:
    labels = np.arange(400) % 5
    images = images_of(labels, 0.1)
    assert found_in(images, labels) == []
    shuffled = np.random.default_rng(5).permutation(labels)
    assert found_in(images, shuffled) == ["unrelated_labels"]
    few = np.flatnonzero(np.arange(400) < 198)  # 99 images are asked for: too few
    assert found_in(images[few], shuffled[few]) == []


def test_neighbours_must_agree_by_three_standard_errors() -> None:
    labels = np.arange(800) % 2  # chance is 1/2, its standard error over 400 images 0.025
    for right, found in ((230, ["unrelated_labels"]), (231, [])):
        agree = np.arange(400) < right
        images = np.random.default_rng(0).random((800, 3))
        assert kinds(image_findings(images, labels, agree)) == found


def test_images_and_labels_without_differences_are_found() -> None:
    labels = np.arange(400) % 5
    assert found_in(np.full((400, 30), 0.5), labels) == ["constant_images"]
    assert found_in(np.zeros((400, 30)), labels) == ["constant_images"]
    assert found_in(images_of(labels, 0.1), labels * 0 + 3) == ["one_class"]


# The course of training.


def course(*losses: float, initial: float = 2.0, rate: float = 0.1) -> TrainingCourse:
    rates = [rate] * len(losses)
    return TrainingCourse(initial_loss=initial, batch_losses=losses, learning_rates=rates)


def test_jump_of_the_loss_is_found_beyond_its_limit_alone() -> None:
    assert kinds(loss_jumped(course(2.15, 1.0))) == []
    assert kinds(loss_jumped(course(2.17, 1.0))) == ["loss_jumped"]
    assert kinds(loss_jumped(course(1.0, 1.15))) == []
    (finding,) = loss_jumped(course(1.0, 0.8, 1.2))
    assert "from 0.8 to 1.2 in epoch 3, at learning rate 0.1" in finding.message


def test_small_move_is_found_below_its_limit_alone_with_what_holds_the_steps_back() -> None:
    def found(share: float, rate: float = 0.1, clip_norm: float | None = None) -> list[str]:
        start, now = network(Affine(5)), network(Affine(5))
        now.layers[0].weight[...] *= 1 + share
        past = course(2.0, rate=rate)
        return [f.remedy for f in small_move(past, start, now, SGD(0.1), clip_norm, 1.0)]

    assert found(0.011) == []
    assert found(0.009) == ["use a larger learning rate"]
    assert "warmup" in found(0.009, rate=0.049)[0]
    assert found(0.009, rate=0.051) == ["use a larger learning rate"]
    assert "clip_norm" in found(0.009, clip_norm=0.49)[0]
    assert found(0.009, clip_norm=0.51) == ["use a larger learning rate"]


def test_shrunk_weights_are_found_below_their_limit_and_blamed_on_weight_decay() -> None:
    def found(share: float, decay: float) -> list[str]:
        start, now = network(Affine(5)), network(Affine(5))
        now.layers[0].weight[...] *= share
        return kinds(shrunk_weights(start, now, SGD(0.1, weight_decay=decay)))

    assert found(0.11, 1.0) == found(0.09, 0.0) == []
    assert found(0.09, 1.0) == ["shrunk_weights"]


def test_layer_is_narrow_with_fewer_units_than_bits() -> None:
    assert kinds(narrow_layer(network(Affine(3), ReLU(), Affine(10)))) == ["narrow_layer"]
    assert kinds(narrow_layer(network(Affine(4), ReLU(), Affine(10)))) == []
    assert kinds(narrow_layer(network(Affine(1), ReLU(), Affine(2)))) == []


def test_output_is_stuck_where_it_is_flat_and_wrong_most_of_the_time() -> None:
    labels = np.arange(100) % CLASSES

    def found(bias: float, learnt: int = 0) -> list[str]:
        net = network(Affine(CLASSES), Sigmoid())
        net.layers[0].weight[...] = 0
        net.layers[0].bias[...] = bias
        outputs = net.forward(np.zeros((100, 20)))  # the layer's own array
        outputs[:learnt] = np.eye(CLASSES)[labels[:learnt]]
        return kinds(stuck_outputs(net, outputs, labels))

    assert found(-4.3) == found(-4.4, learnt=60) == []  # s(1 - s) is 0.0132; limit 0.0125
    assert found(-4.4) == found(-4.4, learnt=50) == ["stuck_outputs"]
    assert kinds(stuck_outputs(RELU, np.zeros((100, CLASSES)), labels)) == []


def test_running_averages_lag_where_they_cost_accuracy() -> None:
    x = np.random.default_rng(2).normal(size=(200, 20))

    def found(mean: float) -> list[str]:
        net = network(Affine(30), BatchNorm(), ReLU(), Affine(CLASSES))
        for _ in range(200):
            net.forward(x, training=True)
        labels = net.forward(x, training=True).argmax(axis=1)
        net.layers[1].running_mean[...] += mean
        return kinds(lagging_averages(net, x, labels))

    assert found(0.0) == []
    assert found(5.0) == ["lagging_averages"]
