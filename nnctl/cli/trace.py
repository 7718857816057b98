"""`nnctl trace`: one mini-batch through the network, forward and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from nnctl.cli.options import experiment_options, help_end, unused_threads_option
from nnctl.errors import UsageError, printable

if TYPE_CHECKING:
    from nnctl.runs.experiment import Experiment


@click.command(
    epilog=help_end("nnctl trace --config deep --index 7\nnnctl trace --run latest", 4, 5)
)
@click.option(
    "--index",
    metavar="N",
    type=click.IntRange(min=0),
    help="Draw image N of the training file, counted from 0, and follow it to its gradient.",
)
@click.option(
    "--numbers/--no-numbers",
    default=None,
    help="Print every number of the step, forward and back; the default for small networks.",
)
@click.option(
    "--augmented",
    is_flag=True,
    help="Follow the images as data.augment changes them in the first epoch.",
)
@experiment_options
@unused_threads_option
def command(
    index: int | None,
    numbers: bool | None,
    augmented: bool,
    experiment: Callable[[], Experiment],
    as_json: bool,
) -> None:
    """Follow one mini-batch through the network, forward and back.

    It is the first one that training would learn from, through the network as it would start, or
    with the weights of --run; its images are plain without --augmented. A row for each layer, then
    a sentence for each thing that looks wrong, with its remedy: in the network, its images and
    its training, judged by 1,000 images. The update is the optimizer's
    first step at the configured learning rate, whatever the schedule. For a network with at most
    60 numbers a layer, as in the config tiny, and with --numbers for any other, the numbers
    themselves take the table's place: each with its equation and shape, forward, back, and after
    the first update that training would make.

    --json: name, run, dataset, batch_size, classes, loss (as reported), batch_loss (as minimised),
    learning_rate; layers, each with name, output_shape, parameters, activation_mean,
    activation_std, activation_histogram (10 equal bins from smallest to largest), zero_fraction,
    saturated_fraction (sigmoid, tanh: slope below 5% of its largest), dead_units (slope 0 for the
    whole batch), activation_gradient_norm (at the output), gradient_norm (at the parameters),
    update_ratio (change of the weight in one step, by its size; Euclidean norms); findings, each
    with kind, layer, message, remedy; with --index also sample: index, label, prediction, loss,
    batch_loss, outputs, probabilities, target, gradient (at the outputs); with --numbers also
    numbers: x, labels, targets, layers (each with name, parameters, slope, y, dy, gradients, dx,
    updated), scores, losses, batch_loss, clip_factor, learning_rate, new_batch_loss. What has no
    meaning is null.
    """
    import math
    from dataclasses import asdict

    import numpy as np

    from nnctl.config import build
    from nnctl.inspection.numbers import is_small, step_numbers
    from nnctl.inspection.trace import trace_batch, trace_sample
    from nnctl.nn.losses import LOSSES
    from nnctl.nn.optimizers import OPTIMIZERS
    from nnctl.nn.schedules import SCHEDULES
    from nnctl.nn.step import Step
    from nnctl.training.engine import first_batch, split_data
    from nnctl.training.examination import examine

    opened = experiment()
    settings, data, run = opened.settings, opened.data, opened.run
    labels = data.train.labels
    if index is not None and index >= len(labels):
        raise UsageError(
            f"--index {index}: the {len(labels):,} training images are numbered from 0 "
            f"to {len(labels) - 1:,}"
        )
    train = split_data(settings, data).train
    batch = first_batch(settings, train)
    if augmented and settings.data.augment is None:
        raise UsageError(
            f"--augmented: {settings.name} has no data.augment; how images are to be changed can "
            "be said with --set 'data.augment={shift: 2}'"
        )
    gather = opened.gatherer(augmented=augmented)
    network, loss = opened.network(), build(LOSSES, settings.loss)
    step = Step(
        network,
        loss,
        build(OPTIMIZERS, settings.optimizer),
        gather,
        seed=settings.seed,
        clip_norm=settings.training.clip_norm,
    )
    traced = trace_batch(step, batch)
    findings = examine(
        settings, data, opened.weights, opened.course(), opened.initial_weights()
    ).findings
    every_number = None
    if is_small(network, len(batch)) if numbers is None else numbers:
        steps_per_epoch = math.ceil(len(train) / len(batch))
        fraction = build(SCHEDULES, settings.schedule).fraction(
            0, steps_per_epoch, steps_per_epoch * settings.training.epochs
        )
        every_number = step_numbers(step, batch, traced.learning_rate * fraction)
    sample = None
    if index is not None:
        pixels = gather.images(np.array([index]))[0].astype(np.float64)
        sample = trace_sample(opened.network("float64"), loss, pixels, int(labels[index]))
    if as_json:
        from nnctl.display.numbers import plain
        from nnctl.display.output import print_json
        from nnctl.files import as_text

        print_json(
            {"name": settings.name, "run": run and as_text(run), "dataset": as_text(data.name)}
            | asdict(traced)
            | {"findings": [asdict(finding) for finding in findings]}
            | {"sample": sample and {"index": index} | asdict(sample)}
            | {"numbers": every_number and plain(every_number)}
        )
        return

    from nnctl.display.numbers import NumbersView
    from nnctl.display.output import console
    from nnctl.display.trace import Findings, SampleView, TraceView

    out = console()
    kind = "augmented image" if augmented else "image"
    images_of = f"1 {kind}" if traced.batch_size == 1 else f"{traced.batch_size} {kind}s"
    batch_of = f"a mini-batch of {images_of} of {printable(data.name)}"
    title = f"{opened.title}: {batch_of}"
    if every_number is None:
        out.print(TraceView(title, traced, loss))
    else:
        out.print(NumbersView(title, every_number, loss, step.parameters.optimizer))
    out.print(Findings(findings))
    if sample is not None:
        image = np.round(pixels * 255).reshape(data.image_shape)
        title = f"Image {index} of the training file{', augmented' if augmented else ''}"
        out.print(SampleView(title, image, sample, loss, data.class_names))
