"""Whether images are laid out as MNIST's are, so that a person's picture can be made like them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnctl.datasets.idx import Array

SHAPE = 28, 28  # rows, columns
INK = 20  # pixels, the longest side of a digit
SAMPLES = 1_000  # that are looked at
SHARE = 0.95  # of them must be so


def is_mnist_like(images: Array, image_shape: tuple[int, int]) -> bool:
    """Return whether `images` (n, pixels) are 28 x 28 with 20 pixels of ink about the centre.

    So nearly all of MNIST's are: the longest side of what is not black is 20 pixels, and its
    centre of mass lies within half a pixel of row and column 14, counted from 0.
    """
    import numpy as np

    if image_shape != SHAPE or not len(images):
        return False
    chosen = images[:: max(1, len(images) // SAMPLES)].reshape(-1, *SHAPE)
    mass = np.maximum(chosen.sum(axis=(1, 2), dtype=np.int64), 1)
    fits = np.full(len(chosen), True)
    longest = np.zeros(len(chosen), int)
    for axis in (1, 2):
        profile = chosen.sum(axis=3 - axis, dtype=np.int64)  # (n, 28)
        inked = profile > 0
        extent = 28 - inked.argmax(axis=1) - inked[:, ::-1].argmax(axis=1)
        longest = np.maximum(longest, extent)
        centre = profile @ np.arange(28) / mass
        fits &= abs(centre - 14) <= 0.5
    return bool((fits & (longest == INK)).mean() >= SHARE)
