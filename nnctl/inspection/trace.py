"""One mini-batch followed through a network, forward and back: what each layer makes of it.

The layers compute as in training; here their outputs and gradients are only looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nnctl.inspection.histogram import histogram
from nnctl.nn.functions import Array
from nnctl.nn.layers import Activation, Layer, Sigmoid, Tanh
from nnctl.nn.losses import Loss
from nnctl.nn.network import Network
from nnctl.nn.step import Step

STEEPEST: dict[type[Layer], float] = {Sigmoid: 0.25, Tanh: 1.0}  # the largest derivative
BINS = 10  # of a histogram
SATURATED = 0.05  # of the largest derivative: where the function is flatter, it is saturated


@dataclass(frozen=True, kw_only=True)
class LayerTrace:
    """What one layer makes of the batch; None where a figure has no meaning for it.

    y are the layer's outputs, dL/dy is the gradient that arrives at them. Norms are Euclidean.
    """

    name: str  # POSITION.KIND
    output_shape: tuple[int, int]  # (batch, units)
    parameters: int
    activation_mean: float  # of y, over batch and units
    activation_std: float
    activation_histogram: tuple[int, ...]  # of y, from the smallest to the largest in equal bins
    zero_fraction: float  # of y
    saturated_fraction: float | None  # of the y of a sigmoid or tanh
    dead_units: int | None  # of an activation: the derivative is 0 for every sample
    activation_gradient_norm: float | None  # |dL/dy|; None below the first layer that is trained
    gradient_norm: float | None  # |dL/dparameters|
    update_ratio: float | None  # |change of the weight in one step| / |weight|


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A mini-batch's way through a network."""

    batch_size: int
    classes: int
    loss: float  # as reported: without label smoothing
    batch_loss: float  # as minimised
    learning_rate: float
    layers: tuple[LayerTrace, ...]


@dataclass(frozen=True, kw_only=True)
class SampleTrace:
    """One sample's way through a network in use: no dropout, running averages."""

    label: int
    prediction: int
    loss: float  # as reported: without label smoothing
    batch_loss: float  # as minimised
    outputs: tuple[float, ...]  # of the last layer; the logits, if a softmax follows
    probabilities: tuple[float, ...] | None  # softmax(outputs), if the loss has one
    target: tuple[float, ...]
    gradient: tuple[float, ...]  # of the minimised loss with respect to the outputs


def trace_batch(step: Step, samples: Array) -> Trace:
    """Follow the samples at these indices through `step`, forward and back.

    The update is the optimizer's first at its own learning rate, whatever the schedule; the
    parameters are put back afterwards.
    """
    network, optimizer = step.network, step.parameters.optimizer
    outputs: list[Forward] = []
    arriving: dict[int, float] = {}
    reported = 0.0

    def see_output(index: int, y: Array) -> None:
        nonlocal reported
        outputs.append(look(network.layers[index], y))
        if index == len(network.layers) - 1:
            losses = step.loss.per_sample(y, step.gather(samples)[1])
            reported = float(losses.mean(dtype=np.float64))

    def see_gradient(index: int, dout: Array) -> None:
        arriving[index] = _norm(dout)

    with np.errstate(all="ignore"):  # what is not finite shows in the figures
        batch_loss = step.backpropagate(
            samples, 1, see_output=see_output, see_gradient=see_gradient
        )
        own = [_norm(*layer.gradients.values()) for layer in network.layers]
        ratios = _update_ratios(step)
    layers = [
        LayerTrace(
            name=network.layer_name(index),
            output_shape=(len(samples), network.widths[index + 1]),
            parameters=layer.parameter_count,
            **outputs[index]._asdict(),
            activation_gradient_norm=arriving.get(index),
            gradient_norm=own[index] if layer.gradients else None,
            update_ratio=ratios.get(f"{network.layer_name(index)}.weight"),
        )
        for index, layer in enumerate(network.layers)
    ]
    return Trace(
        batch_size=len(samples),
        classes=network.widths[-1],
        loss=reported,
        batch_loss=batch_loss,
        learning_rate=optimizer.learning_rate,
        layers=tuple(layers),
    )


def trace_sample(network: Network, loss: Loss, x: Array, label: int) -> SampleTrace:
    """Follow one sample `x` (inputs,) to the loss, and back to the outputs."""
    labels = np.array([label])
    with np.errstate(all="ignore"):
        outputs = network.forward(x[None])
        scores = loss.scores(outputs)
        batch_loss = loss.forward(outputs, labels)
        gradient = loss.backward()
        reported = loss.per_sample(outputs, labels)
    return SampleTrace(
        label=label,
        prediction=int(scores.argmax()),
        loss=float(reported[0]),
        batch_loss=batch_loss,
        outputs=tuple(outputs[0].tolist()),
        probabilities=tuple(scores[0].tolist()) if loss.has_probabilities else None,
        target=tuple(loss.targets(labels, scores.shape[1])[0].tolist()),
        gradient=tuple(gradient[0].tolist()),
    )


class Forward(NamedTuple):
    """The figures of the way forward; see `LayerTrace`."""

    activation_mean: float
    activation_std: float
    activation_histogram: tuple[int, ...]
    zero_fraction: float
    saturated_fraction: float | None
    dead_units: int | None


def look(layer: Layer, y: Array) -> Forward:
    """Return the figures of `y`, which `layer` has just computed."""
    saturated = dead = None
    if isinstance(layer, Activation):
        slope = layer.derivative()
        dead = int((slope == 0).all(axis=0).sum())
        if steepest := STEEPEST.get(type(layer)):
            saturated = float((slope < SATURATED * steepest).mean())
    return Forward(
        activation_mean=float(y.mean(dtype=np.float64)),
        activation_std=float(y.std(dtype=np.float64)),
        activation_histogram=histogram(y, BINS),
        zero_fraction=float((y == 0).mean()),
        saturated_fraction=saturated,
        dead_units=dead,
    )


def _update_ratios(step: Step) -> dict[str, float]:
    """Return |change| / |value| in the optimizer's first step, of each parameter that isn't 0."""
    network = step.network
    before = network.parameters.copy()
    values = {name: value.copy() for name, value in network.named_parameters().items()}
    step.update(1, step.parameters.optimizer.learning_rate)
    ratios = {
        name: _norm(value - values[name]) / size
        for name, value in network.named_parameters().items()
        if (size := _norm(values[name]))
    }
    network.parameters[:] = before
    return ratios


def _norm(*arrays: Array) -> float:
    """Return the Euclidean norm of all entries together."""
    return float(np.sqrt(sum(np.square(array, dtype=np.float64).sum() for array in arrays)))
