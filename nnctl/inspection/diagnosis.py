"""What looks wrong in a network's `Trace`, in a sentence each, with what may help.

The limits are wide: for a network that learns well, there is no finding. No remedy is named that
the network has already. `tests/benchmarks/verdicts.py` repeats the measurements beside the limits;
"broken" and "healthy" are its two lists of runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nnctl.inspection.trace import LayerTrace, Trace
from nnctl.nn.initializers import HeNormal
from nnctl.nn.layers import Activation, Affine, BatchNorm, Dropout, Layer, ReLU
from nnctl.nn.losses import Loss, SoftmaxWithLoss
from nnctl.nn.network import Network

MANY_DEAD = 0.8  # of a layer's units; healthy: at most 0.69, killed by their rate: most above 0.9
MANY_DEAD_IN_POOR = 0.5  # of a network that has learnt little; healthy: 0.05, killed: 0.41 to 1
ENOUGH_SAMPLES = 32  # in fewer, many a healthy unit happens to be off
MANY_SATURATED = 0.5  # of a hidden layer's outputs; healthy: at most 0.28, broken: from 0.95
SHRUNK, GROWN = 0.01, 100.0  # the gradient from last to first affine; healthy: 0.5 to 3
FAR = 1.5  # nats from ln(classes) up to the initial loss; healthy: at most 1.1, broken: from 2.9
FAR_SQUARES = 100.0  # times the squared error of even outputs; learning: up to 54, not: from 197
LARGE_UPDATE = 0.5  # of a weight, in one step; healthy: at most 0.13
SAME = 1e-4  # of the largest weight: columns that differ by less are copies, but for rounding
HEAVY_DROPOUT = 0.95  # of the values on a way through the network; healthy: at most 0.88
LARGE_EPSILON = 1.0  # above the variance of a normalised layer's inputs
HEAVY_SMOOTHING = 0.9  # then a label's target is at most 0.1 above the others'


@dataclass(frozen=True)
class Finding:
    """One thing that looks wrong, and what may help."""

    kind: str
    layer: str | None  # None: the network as a whole
    message: str
    remedy: str


ANYTHING = frozenset({"*"})
DEAD_ENDS = frozenset({"dead_units", "saturated_units", "stuck_outputs", "vanishing_gradients"})
TOO_LARGE = frozenset({"large_update", "exploding_gradients", "loss_jumped"})
SLOW = frozenset({"small_move"})
CONSEQUENCES = {
    "constant_images": ANYTHING,
    "one_class": ANYTHING,
    "unrelated_labels": ANYTHING,
    "not_finite": ANYTHING,
    "single_sample": ANYTHING,
    "heavy_decay": DEAD_ENDS | TOO_LARGE | SLOW | {"shrunk_weights"},
    "input_scale": DEAD_ENDS | SLOW | {"shrunk_weights"},
    "same_units": DEAD_ENDS | SLOW,
    "heavy_dropout": DEAD_ENDS | TOO_LARGE | SLOW | {"initial_loss"},
    "heavy_smoothing": DEAD_ENDS | SLOW,
    "narrow_layer": DEAD_ENDS | SLOW,
    "shrunk_weights": DEAD_ENDS | TOO_LARGE | SLOW,
    "initial_loss": DEAD_ENDS | TOO_LARGE | SLOW | {"not_finite"},
    "large_update": TOO_LARGE | {"vanishing_gradients"},
    "exploding_gradients": DEAD_ENDS | TOO_LARGE | {"not_finite"},
    "vanishing_gradients": DEAD_ENDS | SLOW,
    "output_activation": frozenset({"stuck_outputs"}),
    "saturated_units": DEAD_ENDS | TOO_LARGE | SLOW | {"initial_loss"},
    "dead_units": DEAD_ENDS | TOO_LARGE | SLOW,
    "stuck_outputs": TOO_LARGE | SLOW,
    "loss_jumped": TOO_LARGE,
}


def without_consequences(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that don't follow from an earlier one, nor repeat it."""
    kept: list[Finding] = []
    for finding in findings:
        explained = frozenset[str]().union(
            *(CONSEQUENCES.get(earlier.kind, frozenset()) | {earlier.kind} for earlier in kept)
        )
        if not explained & {finding.kind, "*"}:
            kept.append(finding)
    return kept


def diagnose(
    trace: Trace, network: Network, loss: Loss, *, fresh: bool, poor: bool = False
) -> list[Finding]:
    """Return what looks wrong in `trace`.

    `fresh`: the training of `network` has not begun; `poor`: it has, and little was learnt.
    """
    return without_consequences(
        [
            *_not_finite(trace, network, fresh=fresh),
            *_single_sample(trace, network),
            *_same_units(trace, network),
            *design_findings(network, loss),
            *_saturated_units(trace, network, fresh=fresh),
            *(_initial_loss(trace, network, loss) if fresh else ()),
            *_exploding_gradients(trace, network),
            *_dead_units(trace, network, MANY_DEAD_IN_POOR if poor else MANY_DEAD, fresh=fresh),
            *_large_updates(trace),
            *_vanishing_gradients(trace, network),
        ]
    )


def design_findings(network: Network, loss: Loss) -> list[Finding]:
    """Return what looks wrong in how the network is built, whatever its weights."""
    return [
        *_heavy_dropout(network),
        *_heavy_smoothing(network, loss),
        *_output_activation(network, loss),
    ]


def either(*options: str) -> str:
    """Return the options that aren't empty as a list in words.

    >>> either("a", "", "b", "c"), either("", "b")
    ('a, b or c', 'b')
    """
    *first, last = [option for option in options if option]
    return f"{', '.join(first)} or {last}" if first else last


def has(network: Network, kind: type[Layer]) -> bool:
    """Return True if the network has a layer of that kind."""
    return any(isinstance(layer, kind) for layer in network.layers)


def affine_layers(network: Network) -> list[tuple[int, Affine]]:
    """Return the affine layers with their positions."""
    return [(n, layer) for n, layer in enumerate(network.layers) if isinstance(layer, Affine)]


def he_normal(network: Network) -> str:
    """Return `he_normal` as an option to try, or nothing where every layer has it."""
    everywhere = all(isinstance(layer.initializer, HeNormal) for _, layer in affine_layers(network))
    return "" if everywhere else "start with smaller weights (he_normal)"


def _smaller_start(network: Network) -> str:
    """Return what makes the outputs of a `network` smaller before training."""
    return he_normal(network) or "put batch_norm after each affine"


def _not_finite(trace: Trace, network: Network, *, fresh: bool) -> Iterator[Finding]:
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
                _smaller_start(network)
                if fresh
                else "start with smaller weights (he_normal) or use a smaller learning rate",
            )
            return


def _single_sample(trace: Trace, network: Network) -> Iterator[Finding]:
    for figures, layer in zip(trace.layers, network.layers, strict=True):
        if isinstance(layer, BatchNorm) and trace.batch_size == 1:
            yield single_sample(figures.name)
            return


def single_sample(layer: str) -> Finding:
    """Return what is wrong with the batch_norm `layer` if it is trained on batches of one."""
    return Finding(
        "single_sample",
        layer,
        f"{layer} sees one sample at a time, which is then its own mean: the outputs are the same "
        "for every sample, so that no gradient passes",
        "use a larger training.batch_size",
    )


def _initial_loss(trace: Trace, network: Network, loss: Loss) -> Iterator[Finding]:
    classes = trace.classes
    if loss.has_probabilities:
        even, formula = math.log(classes), f"ln({classes}) = "
        far = trace.loss - even > FAR
    else:
        even, formula = (classes - 1) / classes**2, ""  # of outputs that are all 1 / classes
        far = trace.loss > FAR_SQUARES * even
    if far and math.isfinite(trace.loss):
        yield Finding(
            "initial_loss",
            None,
            f"the loss is {trace.loss:.3g} before training, far from {formula}{even:.3g}, where "
            "every class is as likely: the outputs are too large",
            _smaller_start(network),
        )


def _same_units(trace: Trace, network: Network) -> Iterator[Finding]:
    for index, layer in affine_layers(network)[:-1]:
        weight = layer.weight
        if weight.shape[1] > 1 and np.ptp(weight, axis=1).max() <= SAME * np.abs(weight).max():
            name = trace.layers[index].name
            yield Finding(
                "same_units",
                name,
                f"the {weight.shape[1]} units of {name} have the same weights, so they get the "
                "same gradient and stay copies of one another",
                "start with random weights: he_normal or xavier_normal instead of zeros",
            )


def _heavy_dropout(network: Network) -> Iterator[Finding]:
    kept = math.prod(1 - layer.rate for layer in network.layers if isinstance(layer, Dropout))
    if 1 - kept > HEAVY_DROPOUT:
        yield Finding(
            "heavy_dropout",
            None,
            f"dropout lets {kept:.2g} of the values through on a way through the network: hardly "
            "anything is left to learn from",
            "use smaller dropout rates; 0.2 to 0.5 are usual",
        )


def _heavy_smoothing(network: Network, loss: Loss) -> Iterator[Finding]:
    if isinstance(loss, SoftmaxWithLoss) and loss.label_smoothing > HEAVY_SMOOTHING:
        off = loss.label_smoothing / network.widths[-1]
        yield Finding(
            "heavy_smoothing",
            None,
            f"label smoothing {loss.label_smoothing:g} makes the target "
            f"{1 - loss.label_smoothing + off:.3g} at the label and {off:.3g} elsewhere: the "
            "labels hardly matter",
            "use a smaller loss.label_smoothing; 0.1 is usual",
        )


def _output_activation(network: Network, loss: Loss) -> Iterator[Finding]:
    """Yield the activation or dropout after the last affine layer, if it stands in the way.

    Outputs that are meant to be 0 or 1 may well come out of a sigmoid or tanh.
    """
    in_the_way = Activation | Dropout if loss.has_probabilities else ReLU
    last = max((index for index, _ in affine_layers(network)), default=-1)
    for index, layer in list(enumerate(network.layers))[last + 1 :]:
        if isinstance(layer, in_the_way):
            what = "drops" if isinstance(layer, Dropout) else "bends or cuts"
            name = network.layer_name(index)
            yield Finding(
                "output_activation",
                name,
                f"{name} stands after the last affine layer and {what} the outputs, which the "
                "loss takes as they are: some classes are hard or impossible to predict",
                f"leave {name} out",
            )
            return


def _dead_units(trace: Trace, network: Network, many: float, *, fresh: bool) -> Iterator[Finding]:
    for layer in trace.layers:
        units = layer.output_shape[1]
        if layer.dead_units is None or layer.saturated_fraction is not None:
            continue  # a saturated unit has a finding of its own
        if trace.batch_size >= ENOUGH_SAMPLES and layer.dead_units > many * units:
            yield Finding(
                "dead_units",
                layer.name,
                f"{layer.dead_units} of {units} units of {layer.name} are dead: off for all "
                f"{trace.batch_size:,} images, so that no gradient passes them",
                (he_normal(network) or "put batch_norm before it")
                if fresh
                else "use a smaller learning rate",
            )


def _saturated_units(trace: Trace, network: Network, *, fresh: bool) -> Iterator[Finding]:
    for layer in trace.layers[:-1]:  # an output is meant to come close to 0 and 1
        if (layer.saturated_fraction or 0) > MANY_SATURATED:
            yield Finding(
                "saturated_units",
                layer.name,
                f"{layer.saturated_fraction:.0%} of the outputs of {layer.name} are saturated: "
                "the function is flat there, so that little gradient passes",
                either(
                    "start with smaller weights (xavier_normal)",
                    "" if has(network, BatchNorm) else "put batch_norm before it",
                )
                if fresh
                else "use a smaller learning rate",
            )


def _ends(trace: Trace, network: Network) -> tuple[LayerTrace, LayerTrace] | None:
    """Return the first and the last affine layer, if there are two."""
    affine = affine_layers(network)
    if len(affine) < 2:
        return None
    return trace.layers[affine[0][0]], trace.layers[affine[-1][0]]


def _vanishing_gradients(trace: Trace, network: Network) -> Iterator[Finding]:
    ends = _ends(trace, network)
    if ends and (end := _arriving(ends[0])) < SHRUNK * (start := _arriving(ends[1])):
        yield Finding(
            "vanishing_gradients",
            ends[0].name,
            f"the gradient vanishes on its way back, from {start:.2g} at {ends[1].name} to "
            f"{end:.2g} at {ends[0].name}, which hardly learns",
            either(*_against_vanishing(network)),
        )


def _against_vanishing(network: Network) -> Iterator[str]:
    """Yield what helps against vanishing gradients and is not there yet."""
    norms = [layer for layer in network.layers if isinstance(layer, BatchNorm)]
    if any(layer.epsilon > LARGE_EPSILON for layer in norms):
        yield "use a smaller batch_norm epsilon (1e-5)"
        return
    if not has(network, ReLU):
        yield "use relu with he_normal"
    elif he_normal(network):
        yield "start with he_normal"
    if not norms:
        yield "put batch_norm after each affine"
    yield "use fewer layers"


def _exploding_gradients(trace: Trace, network: Network) -> Iterator[Finding]:
    ends = _ends(trace, network)
    if ends and (end := _arriving(ends[0])) > GROWN * (start := _arriving(ends[1])) > 0:
        yield Finding(
            "exploding_gradients",
            ends[0].name,
            f"the gradient explodes on its way back, from {start:.2g} at {ends[1].name} to "
            f"{end:.2g} at {ends[0].name}",
            either(
                he_normal(network),
                "" if has(network, BatchNorm) else "put batch_norm after each affine",
                "use a smaller learning rate",
            ),
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
