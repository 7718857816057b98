"""Which images are trained on, in which order, and how a batch of them reaches the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nnctl.datasets import Samples
from nnctl.nn.functions import Array
from nnctl.nn.randomness import Concern, generator


class Split(NamedTuple):
    """Indices into the training set, each ascending, without one in common."""

    train: Array
    validation: Array


def split(labels: Array, *, validation: int, train_size: int | None, seed: int) -> Split:
    """Hold `validation` images out, then keep `train_size` of the rest (None: all of them).

    Both draws are stratified: each class keeps its share, to within one image. The validation
    set depends on `labels`, `validation` and `seed` alone.

    Raises:
        ValueError: more images are asked for than there are.

    """
    everything = np.arange(len(labels))
    rng = generator(seed, Concern.SPLIT)
    held_out = _draw(everything, labels, validation, rng)
    rest = np.setdiff1d(everything, held_out, assume_unique=True)
    if train_size is not None:
        rest = _draw(rest, labels[rest], train_size, rng)
    return Split(train=rest, validation=held_out)


def _draw(indices: Array, labels: Array, count: int, rng: np.random.Generator) -> Array:
    """Draw `count` of `indices`, each class in proportion to its share of `labels`."""
    if count > len(indices):
        raise ValueError(f"{count} images asked for, but there are {len(indices)}")
    if count == len(indices):
        return indices
    if count == 0:
        return indices[:0]
    per_class = np.bincount(labels)
    quota = per_class * count / len(labels)
    take = quota.astype(int)
    # The largest remainders get the images that rounding down has left over.
    leftover = np.argsort(take - quota, kind="stable")[: count - take.sum()]
    take[leftover] += 1
    drawn = [
        rng.choice(indices[labels == label], size, replace=False)
        for label, size in enumerate(take)
        if size
    ]
    return np.sort(np.concatenate(drawn))


def shuffled(indices: Array, seed: int, epoch: int) -> Array:
    """Return `indices` in the order of `epoch`: every image once, a new order each epoch."""
    return generator(seed, Concern.SHUFFLE, epoch).permutation(indices)


class Gatherer:
    """Collects samples by index into a batch: images as `pixel / 255`, labels as integers.

    The images stay uint8; only the batch is ever floating-point.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        pixels: slice = slice(None),
        augment: Callable[[Array], Array] | None = None,
        dtype: Any = np.float32,
    ) -> None:
        """Gather from `samples`, of their images only these `pixels`.

        Or gather the images that `augment` makes of those at some indices, whole.
        """
        self._images, self._labels = samples.images[:, pixels], samples.labels
        self._augment = augment
        self._batch = np.empty((0, self._images.shape[1]), dtype)

    def __call__(self, indices: Array) -> tuple[Array, Array]:
        """Return the images (batch, pixels) and labels (batch,) at `indices` (batch,)."""
        return self.images(indices), self.labels(indices)

    def images(self, indices: Array) -> Array:
        """Return the images (batch, pixels) at `indices`; overwritten by the next call."""
        if len(self._batch) != len(indices):
            self._batch = np.empty((len(indices), self._batch.shape[1]), self._batch.dtype)
        images = self._images[indices] if self._augment is None else self._augment(indices)
        self._batch[...] = images  # faster than dividing bytes
        return np.divide(self._batch, 255, out=self._batch)

    def labels(self, indices: Array) -> Array:
        """Return the labels (batch,) at `indices`, as integers that can index an array."""
        return self._labels[indices].astype(np.intp)
