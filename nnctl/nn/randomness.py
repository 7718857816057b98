"""One seed, one independent stream of random numbers for each concern."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Concern(IntEnum):
    """What random numbers are drawn for; the values are part of what a seed means."""

    INITIALIZATION = 0
    SPLIT = 1
    SHUFFLE = 2
    DROPOUT = 3
    SAMPLE = 4
    AUGMENTATION = 5
    SWEEP = 6


def generator(seed: int, concern: Concern, *key: int) -> np.random.Generator:
    """Return the generator of `concern`, further told apart by `key` (epoch, layer, ...).

    A stream is a function of its arguments alone. So nothing of it needs saving: whoever knows
    the seed and the position knows the numbers.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(concern, *key))
    return np.random.Generator(np.random.SFC64(sequence))
