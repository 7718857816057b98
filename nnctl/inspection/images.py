"""What looks wrong in images and labels, whatever the network."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from nnctl.inspection.diagnosis import Finding
from nnctl.nn.functions import Array

BRIGHTEST = 255
DARK = 100  # no brighter pixel: two-layer's recipe loses points; see `input_scale`
ENOUGH_NEIGHBOURS = (
    100  # fewer may all disagree with labels that can be learnt: 15 of 30 images did
)
STANDARD_ERRORS = 3.0  # above guessing: what chance alone reaches once in 700 times


def image_findings(images: Array, labels: Array, agree: Array) -> Iterator[Finding]:
    """Yield what is wrong with `images` (n, pixels), in 0..1, and their `labels` (n,).

    `agree` is what `neighbours_agree` makes of them.
    """
    if not np.ptp(images, axis=0).any():
        yield Finding(
            "constant_images",
            None,
            f"{len(images):,} images that were looked at are all the same",
            "check how the files of the images were made",
        )
    yield from scale_findings(round(float(images.max()) * BRIGHTEST))
    if not np.ptp(labels):
        yield Finding(
            "one_class",
            None,
            f"{len(labels):,} labels that were looked at are all {labels[0]}: there is nothing to "
            "tell apart",
            "check how the files of the labels were made",
        )
    elif unrelated(labels, agree):
        yield Finding(
            "unrelated_labels",
            None,
            "the labels have nothing to do with the images: images that look alike have the same "
            "label no more often than by chance",
            "check that images and labels are in the same order, and that they belong together",
        )


def scale_findings(brightest: int) -> Iterator[Finding]:
    """Yield what is wrong if no pixel is larger than `brightest`, in 0..255.

    784-64-10 on 2,500 images of the sample, sgd 0.1, 4 epochs: 88 % with pixels up to 255, 85 %
    up to 127, 72 % up to 63, 43 % up to 15, 10 % up to 1.
    """
    if 0 < brightest <= DARK:
        yield Finding(
            "input_scale",
            None,
            f"no pixel is larger than {brightest}, where {BRIGHTEST} is full ink: divided by "
            f"{BRIGHTEST}, the inputs are too small to learn from",
            f"multiply the pixels by {BRIGHTEST // brightest} in the files, or put batch_norm "
            "before the first affine layer",
        )


def unrelated(labels: Array, agree: Array) -> bool:
    """Return True if the labels follow the images no more than by chance."""
    if len(agree) < ENOUGH_NEIGHBOURS:
        return False
    share = np.bincount(labels) / len(labels)
    chance = float(np.square(share).sum())  # that two labels drawn at random are the same
    error = math.sqrt(chance * (1 - chance) / len(agree))
    return float(agree.mean()) <= chance + STANDARD_ERRORS * error


def neighbours_agree(images: Array, labels: Array) -> Array:
    """Return for each of the second half of the images whether its nearest in the first agrees.

    The nearest-neighbour rule of Cover and Hart 1967: no training, so it says what of the labels
    can be learnt from the images at all. |a - b|^2 = |a|^2 - 2 a b + |b|^2.
    """
    half = len(images) // 2
    known, asked = images[:half], images[half:]
    if not half:
        return np.zeros(0, bool)
    distances = np.square(known).sum(axis=1) - 2 * (asked @ known.T)
    same: Array = labels[:half][distances.argmin(axis=1)] == labels[half:]
    return same
