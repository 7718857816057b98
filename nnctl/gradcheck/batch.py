"""The images that a gradient check is made on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnctl.config import Settings
from nnctl.datasets import DataSet
from nnctl.nn.functions import Array
from nnctl.nn.randomness import Concern, generator
from nnctl.training.engine import build_augmenter, split_data


@dataclass(frozen=True)
class Batch:
    """Some samples, as the numerical gradient sees them."""

    x: Array  # (batch, inputs), float64: pixel / 255
    labels: Array  # (batch,), integers


def draw_batch(settings: Settings, data: DataSet, count: int) -> Batch:
    """Draw `count` training images as the first epoch sees them; the settings' seed chooses which.

    The training step gathers its images and labels by itself, and must come to the same.

    Raises:
        ConfigError: the settings ask for more images than there are, or leave none.
        ValueError: there are fewer than `count`.

    """
    train = split_data(settings, data).train
    if count > len(train):
        raise ValueError(f"there are {len(train):,} training images")
    chosen = generator(settings.seed, Concern.SAMPLE).choice(train, count, replace=False)
    augmenter = build_augmenter(settings, data)
    images = data.train.images[chosen] if augmenter is None else augmenter(1, chosen)
    return Batch(images.astype(np.float64) / 255, data.train.labels[chosen].astype(np.intp))
