"""What looks wrong in a network's `Trace`, in a sentence each, with what may help.

The limits are wide: for a network that learns well, there is no finding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nnctl.inspection.trace import LayerTrace, Trace
from nnctl.nn.layers import Affine, BatchNorm
from nnctl.nn.losses import Loss, SoftmaxWithLoss
from nnctl.nn.network import Network

MANY_DEAD = 0.6  # of a layer's units
ENOUGH_SAMPLES = 32  # in fewer, many a healthy unit happens to be off
MANY_SATURATED = 0.5  # of a hidden layer's outputs
SHRUNK, GROWN = 0.01, 100.0  # the gradient on its way from the last affine layer to the first
FAR = 1.5  # nats from the initial loss to ln(classes)
LARGE_UPDATE = 0.5  # of a weight, in one step


@dataclass(frozen=True)
class Finding:
    """One thing that looks wrong, and what may help."""

    kind: str
    layer: str | None  # None: the network as a whole
    message: str
    remedy: str


def diagnose(trace: Trace, network: Network, loss: Loss, *, fresh: bool) -> list[Finding]:
    """Return what looks wrong in `trace`; `fresh`: the training of `network` has not begun."""
    if overflow := list(_not_finite(trace)):
        return overflow  # nothing else means anything then
    if single := list(_single_sample(trace, network)):
        return single  # nor here: no gradient passes batch_norm, whatever the network
    return [
        *(_initial_loss(trace, loss) if fresh else ()),
        *_same_units(trace, network),
        *_dead_units(trace),
        *_saturated_units(trace),
        *_gradient_flow(trace, network),
        *_large_updates(trace),
    ]


def _not_finite(trace: Trace) -> Iterator[Finding]:
    """Yield the first place on the batch's way where numbers overflow, if there is one."""
    back = trace.layers[::-1]
    way: list[tuple[str, str | None, float | None]] = [
        *(("the outputs of", layer.name, layer.activation_std) for layer in trace.layers),
        ("the loss", None, trace.batch_loss),
        *(("the gradient at", layer.name, layer.activation_gradient_norm) for layer in back),
        *(("the gradient of", layer.name, layer.gradient_norm) for layer in back),
    ]
    for what, layer, figure in way:
        if figure is not None and not math.isfinite(figure):
            yield Finding(
                "not_finite",
                layer,
                f"numbers overflow in {what} {layer or ''}".rstrip(),
                "start with smaller weights (he_normal), or train with a smaller learning rate",
            )
            return


def _single_sample(trace: Trace, network: Network) -> Iterator[Finding]:
    for figures, layer in zip(trace.layers, network.layers, strict=True):
        if isinstance(layer, BatchNorm) and trace.batch_size == 1:
            yield Finding(
                "single_sample",
                figures.name,
                f"{figures.name} sees one sample at a time, which is then its own mean: the "
                "outputs are the same for every sample, so that no gradient passes",
                "use a larger training.batch_size",
            )
            return


def _initial_loss(trace: Trace, loss: Loss) -> Iterator[Finding]:
    even = math.log(trace.classes)
    if isinstance(loss, SoftmaxWithLoss) and abs(trace.loss - even) > FAR:
        yield Finding(
            "initial_loss",
            None,
            f"the loss is {trace.loss:.3g} before training, far from ln({trace.classes}) = "
            f"{even:.3g}, where every class is as likely: the outputs are too large",
            "start with smaller weights: he_normal, or a smaller std",
        )


def _same_units(trace: Trace, network: Network) -> Iterator[Finding]:
    affine = [index for index, layer in enumerate(network.layers) if isinstance(layer, Affine)]
    for index in affine[:-1]:
        weight = network.layers[index].weight
        if weight.shape[1] > 1 and np.ptp(weight, axis=1).max() == 0:
            name = trace.layers[index].name
            yield Finding(
                "same_units",
                name,
                f"the {weight.shape[1]} units of {name} have the same weights, so they get the "
                "same gradient and stay copies of one another",
                "start with random weights: he_normal or xavier_normal instead of zeros",
            )


def _dead_units(trace: Trace) -> Iterator[Finding]:
    for layer in trace.layers:
        units = layer.output_shape[1]
        if layer.dead_units is None or layer.saturated_fraction is not None:
            continue  # a saturated unit has a finding of its own
        if trace.batch_size >= ENOUGH_SAMPLES and layer.dead_units > MANY_DEAD * units:
            yield Finding(
                "dead_units",
                layer.name,
                f"{layer.dead_units} of {units} units of {layer.name} are dead: off for all "
                f"{trace.batch_size} samples, so that no gradient passes them",
                "use a smaller learning rate, start with he_normal, or use leaky_relu",
            )


def _saturated_units(trace: Trace) -> Iterator[Finding]:
    for layer in trace.layers[:-1]:  # an output is meant to come close to 0 and 1
        if (layer.saturated_fraction or 0) > MANY_SATURATED:
            yield Finding(
                "saturated_units",
                layer.name,
                f"{layer.saturated_fraction:.0%} of the outputs of {layer.name} are saturated: "
                "the function is flat there, so that little gradient passes",
                "start with smaller weights (xavier_normal), put batch_norm before it, or use relu",
            )


def _gradient_flow(trace: Trace, network: Network) -> Iterator[Finding]:
    affine = [
        figures
        for figures, layer in zip(trace.layers, network.layers, strict=True)
        if isinstance(layer, Affine)
    ]
    if len(affine) < 2:
        return
    first, last = affine[0], affine[-1]
    start, end = _arriving(last), _arriving(first)
    if end < SHRUNK * start:
        yield Finding(
            "vanishing_gradients",
            first.name,
            f"the gradient vanishes on its way back, from {start:.2g} at {last.name} to "
            f"{end:.2g} at {first.name}, which hardly learns",
            "use relu with he_normal, put batch_norm after each affine, or use fewer layers",
        )
    elif end > GROWN * start > 0:
        yield Finding(
            "exploding_gradients",
            first.name,
            f"the gradient explodes on its way back, from {start:.2g} at {last.name} to "
            f"{end:.2g} at {first.name}",
            "start with smaller weights (he_normal), put batch_norm after each affine, "
            "or set training.clip_norm",
        )


def _arriving(layer: LayerTrace) -> float:
    """Return |dL/dy|, which every affine layer has."""
    assert layer.activation_gradient_norm is not None
    return layer.activation_gradient_norm


def _large_updates(trace: Trace) -> Iterator[Finding]:
    ratio, name = max((layer.update_ratio or 0.0, layer.name) for layer in trace.layers)
    if ratio > LARGE_UPDATE:
        yield Finding(
            "large_update",
            name,
            f"one step with learning rate {trace.learning_rate:g} changes the weight of {name} "
            f"by {ratio:.3g} times its size",
            "use a smaller learning rate; changes of about 0.001 to 0.01 are usual",
        )
