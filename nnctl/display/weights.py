"""Weights as pictures: blue above zero, orange below it, and nothing at zero."""

from __future__ import annotations

import math

import numpy as np

from nnctl.display.png import png
from nnctl.nn.functions import Array

POSITIVE, NEGATIVE = (11, 107, 203), (201, 84, 24)
LEVELS = 24  # of a colour, beside none: as many as can be told apart
GAP = 1  # pixels between pictures


def levels(weights: Array, largest: float) -> Array:
    """Return weights as whole numbers from -LEVELS to LEVELS, which `largest` and beyond get."""
    shares = np.nan_to_num(weights / (largest or 1.0))
    rounded: Array = np.rint(np.clip(shares, -1.0, 1.0) * LEVELS).astype(np.intp)
    return rounded


def tiled(images: Array, columns: int) -> Array:
    """Return images (n, rows, columns) beside and below each other as one, `GAP` apart."""
    count, height, width = images.shape
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP), images.dtype)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        y, x = row * (height + GAP), column * (width + GAP)
        sheet[y : y + height, x : x + width] = image
    return sheet


def weights_png(weights: Array, largest: float) -> bytes:
    """Return weights (rows, columns) as a PNG; zero is see-through, so that any ground suits."""
    opacity = np.rint(np.linspace(0, 255, LEVELS + 1)).astype(np.uint8)
    palette = np.zeros((2 * LEVELS + 1, 4), np.uint8)
    palette[LEVELS:, :3], palette[LEVELS:, 3] = POSITIVE, opacity
    palette[:LEVELS, :3], palette[:LEVELS, 3] = NEGATIVE, opacity[:0:-1]
    return png((levels(weights, largest) + LEVELS).astype(np.uint8), palette)
