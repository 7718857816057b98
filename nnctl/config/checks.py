"""Settings held against the data: whether they fit, and what they ask for in vain."""

from __future__ import annotations

import math
from dataclasses import replace

from nnctl.config.layers import short_option
from nnctl.config.settings import Settings, build
from nnctl.nn.layers import LAYERS, Layer
from nnctl.nn.schedules import SCHEDULES

MAX_PARAMETERS = 100_000_000  # gradients and optimizer take as much memory again, each


def check_shapes(settings: Settings, inputs: int, classes: int | None) -> int:
    """Return how many outputs the network has for samples of `inputs` numbers, once it fits.

    It is held against `classes` if they are known.

    Raises:
        ConfigError: there is nothing to train, it is too large, or it has not one output a class.

    """
    units, parameters = inputs, 0
    decisive = None  # the layer that sets the number of outputs
    for index, choice in enumerate(settings.network):
        layer: Layer = build(LAYERS, choice)
        parameters += sum(map(math.prod, layer.shapes(units).values()))
        path = f"network.{index}"
        if option := short_option(choice.kind):
            path += f".{choice.kind}.{option}"
        if parameters > MAX_PARAMETERS:
            raise settings.error(
                path,
                f"network.{index} brings the network to {parameters:,} parameters; "
                f"at most {MAX_PARAMETERS:,} are allowed",
            )
        if layer.output_units(units) == layer.output_units(units + 1):  # whatever comes in
            decisive = path
        units = layer.output_units(units)
    if not parameters:
        raise settings.error(
            "network", "network has no layer with parameters, so there is nothing to train"
        )
    if classes is not None and units != classes:
        what = f"the network has {units:,} outputs, but the data set has {classes} classes"
        if decisive is None:
            last = f"network.{len(settings.network) - 1}"
            raise settings.error(last, f"{what}; end it with `- affine: {classes}`")
        raise settings.error(decisive, f"{what}: this must be {classes}")
    return units


def with_counts(settings: Settings, train_samples: int) -> Settings:
    """Return the settings with `data.validation` as a count, for a training set of that size.

    Raises:
        ConfigError: the training set has too few images for what they ask for.

    """
    data, key = settings.data, "data.validation"
    held_out = data.held_out(train_samples)
    rest = train_samples - held_out
    if rest < 0:
        raise settings.error(
            key,
            f"{key}: {held_out:,} images are to be held out, but the training set has "
            f"{train_samples:,}",
        )
    if not rest:
        raise settings.error(key, f"{key} leaves no images to train on; hold out fewer")
    if isinstance(data.validation, float) and not held_out:
        message = f"{key}: {data.validation:g} of {train_samples:,} images is none; hold out more"
        raise settings.error(key, message)
    if settings.training.early_stopping is not None and not held_out:
        raise settings.error(
            "training.early_stopping",
            f"training.early_stopping needs a validation set, and a tenth of {train_samples:,} "
            f"images is none; say with {key} how many to hold out",
        )
    if data.train_size is not None and data.train_size > rest:
        raise settings.error(
            "data.train_size",
            f"data.train_size: {data.train_size:,} images, but the training set has {rest:,} "
            "beside those that are held out",
        )
    return replace(settings, data=replace(data, validation=held_out))


def warnings(settings: Settings, train_samples: int) -> list[str]:
    """Return what settings ask for in vain, and what happens instead; one sentence each.

    `train_samples` is the size of the whole training set.
    """
    counted = with_counts(settings, train_samples)
    training, found = counted.training, []
    samples = counted.data.train_size or train_samples - counted.data.held_out(train_samples)
    if training.batch_size > samples:
        found.append(
            f"training.batch_size is larger than the {samples:,} training images: they are one "
            "batch, and each epoch is one step"
        )
    warmup = counted.schedule.options["warmup"]
    if warmup > training.epochs:
        steps_per_epoch = math.ceil(samples / training.batch_size)
        steps = steps_per_epoch * training.epochs
        schedule = build(SCHEDULES, counted.schedule)
        peak = counted.optimizer.options["learning_rate"]
        last = peak * schedule.fraction(steps - 1, steps_per_epoch, steps)
        found.append(
            f"schedule.warmup of {warmup:g} epochs is longer than the training of "
            f"{training.epochs}: the learning rate ends at {last:.3g} and never reaches {peak:.3g}"
        )
    stopping = training.early_stopping
    if stopping is not None and stopping.patience >= training.epochs:
        found.append(
            f"training.early_stopping.patience of {stopping.patience} epochs can't run out in "
            f"{training.epochs}: training will not stop early"
        )
    return found
