"""How often values occur."""

from __future__ import annotations

import numpy as np

from nnctl.nn.functions import Array


def histogram(values: Array, bins: int) -> tuple[int, ...]:
    """Return how many finite values lie in each of `bins` equal parts of their range.

    If all are equal, they lie in the middle.

    >>> import numpy as np
    >>> histogram(np.array([0.0, 1.0, 1.9, 4.0, np.nan]), 4)
    (1, 2, 0, 1)
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return (0,) * bins
    low, high = finite.min(), finite.max()
    places = (finite - low) / (high - low) * bins if high > low else np.full(finite.size, bins / 2)
    return tuple(np.bincount(np.minimum(places.astype(int), bins - 1), minlength=bins).tolist())
