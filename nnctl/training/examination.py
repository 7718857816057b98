"""A network examined on more than one batch: what looks wrong in images, weights and training.

`trace` and the verdict of a run both ask here, and so say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nnctl.config import Settings, build
from nnctl.datasets import DataSet
from nnctl.datasets.batches import Gatherer, shuffled
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
    single_sample,
    without_consequences,
)
from nnctl.inspection.images import image_findings, neighbours_agree, scale_findings
from nnctl.inspection.trace import trace_batch
from nnctl.nn.functions import Array
from nnctl.nn.layers import BatchNorm
from nnctl.nn.losses import LOSSES
from nnctl.nn.network import Network
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.nn.step import Step
from nnctl.training.engine import InitialWeights, build_network, initial_network, split_data

EXAMINED = 1000  # training images; the unit that is on for one of fewer may look dead
POOR_ACCURACY = 0.8  # below it the network has not learnt even what it was shown

# What weights from elsewhere are to blame for, if training began with them.
OF_WEIGHTS = {"initial_loss", "same_units", "saturated_units", "dead_units"}
OF_WEIGHTS |= {"exploding_gradients", "not_finite"}

# What else than a learning rate makes training diverge.
START_DIVERGES = {"heavy_decay", "initial_loss", "not_finite"}


@dataclass(frozen=True)
class Examination:
    """What looks wrong, and what the nearest neighbours of the images can tell of the labels."""

    findings: list[Finding]
    accuracy: float  # of the network, on the training images that were looked at
    neighbour_accuracy: float  # of their nearest neighbours


def course_of(rows: Sequence[Mapping[str, Any]], initial_loss: float | None) -> TrainingCourse:
    """Return how training has gone, from its metrics and the loss of its first batch."""
    return TrainingCourse(
        initial_loss=initial_loss,
        batch_losses=[row["batch_loss"] for row in rows],
        learning_rates=[row["learning_rate"] for row in rows],
    )


def examine(
    settings: Settings,
    data: DataSet,
    weights: Mapping[str, Array] | None = None,
    course: TrainingCourse | None = None,
    initial_weights: InitialWeights | None = None,
) -> Examination:
    """Examine the network with `weights` and its training so far; without them, before training.

    A network that has not learnt what it was shown is examined at its start too: what was wrong
    then comes first. It began with `initial_weights`, without them with those of the seed; where
    they are not to be had any more, nothing is said of the start.
    """
    train = split_data(settings, data).train
    some = shuffled(train, settings.seed, 1)[:EXAMINED]
    images, labels = Gatherer(data.train)(some)
    loss, optimizer = build(LOSSES, settings.loss), build(OPTIMIZERS, settings.optimizer)
    clip_norm = settings.training.clip_norm

    def look(network: Network, *, fresh: bool, poor: bool = False) -> list[Finding]:
        step = Step(
            network,
            loss,
            optimizer,
            lambda places: (images[places], labels[places]),
            seed=settings.seed,
            clip_norm=clip_norm,
        )
        trace = trace_batch(step, np.arange(len(labels)))
        seen = diagnose(trace, network, loss, fresh=fresh, poor=poor)
        if initial_weights is None:
            return seen
        blamed = OF_WEIGHTS if fresh else {"same_units"}  # copies have been copies from the start
        other = "begin with other weights than those of --from"
        return [replace(one, remedy=other) if one.kind in blamed else one for one in seen]

    def look_at_start() -> list[Finding]:
        # A network of its own, for looking moves the averages of batch_norm.
        network = initial_network(settings, images.shape[1], initial_weights)
        return [] if network is None else look(network, fresh=True)

    start = initial_network(settings, images.shape[1], initial_weights)
    network = build_network(settings, images.shape[1])
    if weights is not None:
        network.load(weights)
    elif start is not None:
        network.load(start.named_arrays())
    agree = neighbours_agree(images, labels)
    found = [*image_findings(images, labels, agree), *_setting_findings(settings, network)]
    with np.errstate(all="ignore"):  # what is not finite shows in the figures
        outputs = network.forward(images)
        accuracy = float((outputs.argmax(axis=1) == labels).mean())
        if weights is None:
            found += look_at_start()
        else:
            poor = accuracy < POOR_ACCURACY
            at_start = look_at_start() if poor else []
            # Whether a large first step did harm is to be seen in what came of it.
            early = [finding for finding in at_start if finding.kind != "large_update"]
            found += early
            found += narrow_layer(network) if poor else ()
            found += shrunk_weights(start, network, optimizer) if start is not None else ()
            found += lagging_averages(network, images, labels)
            network.load(weights)
            found += look(network, fresh=False, poor=poor)
            norm = float(np.linalg.norm(network.gradients))
            found += stuck_outputs(network, network.forward(images, training=True), labels)
            found += [finding for finding in at_start if finding not in early]
            if course is not None and start is not None:
                found += small_move(course, start, network, optimizer, clip_norm, norm)
            if course is not None:
                found += loss_jumped(course)
    return Examination(
        without_consequences(found),
        accuracy,
        float(agree.mean()) if len(agree) else 0.0,
    )


def forewarn(settings: Settings, data: DataSet, train: Array) -> list[Finding]:
    """Return what can be told at once from the design and the images at `train`."""
    network = build_network(settings, data.train.images.shape[1])
    return without_consequences(
        [
            *scale_findings(int(data.train.images[train[:EXAMINED]].max())),
            *_setting_findings(settings, network),
            *design_findings(network, build(LOSSES, settings.loss)),
        ]
    )


def against_divergence(
    settings: Settings, data: DataSet, initial_weights: InitialWeights | None = None
) -> tuple[Finding | None, str]:
    """Return what a run that diverged had begun wrong, if anything, and what to try.

    The remedy of what stands in `START_DIVERGES` takes a run further than any smaller learning rate
    does; after every other start a smaller one mends it: 27 ways, three seeds, in "diverging" of
    `tests/benchmarks/verdicts.py`. Whether it is weights from elsewhere can't be told.
    """
    told = START_DIVERGES if initial_weights is None else {"heavy_decay"}
    for finding in examine(settings, data, initial_weights=initial_weights).findings:
        if finding.kind in told:
            return finding, finding.remedy
    others = "" if initial_weights is None else "other weights than those of --from"
    return None, either("a smaller learning rate", others)


def _setting_findings(settings: Settings, network: Network) -> Iterator[Finding]:
    """Yield what looks wrong in how `settings` train the `network`, whatever its weights."""
    optimizer = build(OPTIMIZERS, settings.optimizer)
    if (share := optimizer.learning_rate * optimizer.weight_decay) > 1:
        yield Finding(
            "heavy_decay",
            None,
            f"at learning rate {optimizer.learning_rate:g} weight decay takes {share:.3g} times "
            "each weight away in a step: more than there is",
            "use a smaller optimizer.weight_decay; 0.0001 to 0.01 are usual",
        )
    for index, layer in enumerate(network.layers):
        if isinstance(layer, BatchNorm) and settings.training.batch_size == 1:
            yield single_sample(network.layer_name(index))
            return
