"""A second look, at a point nearby, where the first one can't say much.

On a kink much is right, and where a gradient is 0 throughout, as with black images, nothing shows
that it is computed at all. A little further on, at other parameters and images, both is otherwise.
"""

from __future__ import annotations

import numpy as np

from nnctl.gradcheck.finite_differences import Comparison, Status, jittered
from nnctl.gradcheck.network import NetworkUnderTest, copied
from nnctl.nn.functions import Array


def largest_gradient(comparisons: list[Comparison]) -> float:
    """Return the largest gradient of the network, against which others are small."""
    return max((float(np.abs(found.full).max(initial=0)) for found in comparisons), default=0.0)


def look_nearby(
    tested: NetworkUnderTest,
    comparisons: list[Comparison],
    h: float,
    tolerance: float,
    *,
    layers_right: bool,
) -> None:
    """Compare doubtful entries again, at jittered parameters and images; settle their status.

    Doubtful are entries on a kink, entries that rounding hides, and all of an array whose gradient
    is 0 throughout. What fails nearby has failed. What agrees nearby has passed if it could not
    be judged; so has a value outside the slopes of both sides, where several kinks may meet, as
    long as every layer is right by itself.
    """
    largest = largest_gradient(comparisons)
    doubtful = []
    for found in comparisons:
        on_kink = (found.status == Status.SUBGRADIENT) | (found.status == Status.OUTSIDE)
        unclear = on_kink | found.unjudged(tolerance, largest)
        agrees = (found.status == Status.AGREES) & (not found.full.any())
        doubtful.append(np.flatnonzero(unclear | agrees))
    if not any(map(len, doubtful)):
        return
    network, rng = copied(tested.network), tested.rng
    for array in network.named_parameters().values():
        array[...] = jittered(array, rng)
    x = jittered(tested.inputs[0], rng)
    nearby = NetworkUnderTest(network, tested.loss, x, tested.labels, rng)
    there = [
        parameter.compare(found.places[entries], h, tolerance)
        for found, entries, parameter in zip(
            comparisons, doubtful, nearby.parameters(), strict=False
        )
    ]
    largest = largest_gradient(there)
    for found, entries, other in zip(comparisons, doubtful, there, strict=True):
        _settle(found, entries, other, other.unjudged(tolerance, largest), layers_right)


def _settle(
    found: Comparison, entries: Array, there: Comparison, unjudged: Array, layers_right: bool
) -> None:
    """Set the status of `entries` of `found` by what they came to nearby."""
    here = found.status[entries]
    if layers_right:
        here = np.where(here == Status.OUTSIDE, Status.KINK, here)
    undecided = (here == Status.KINK) | (here == Status.ROUNDING)
    judged = (there.status == Status.AGREES) | (there.status == Status.ROUNDING) & ~unjudged
    taken = (there.status == Status.FAILED) | undecided & judged
    found.status[entries] = np.where(taken, there.status, here)
    found.analytic[entries[taken]] = there.analytic[taken]
    found.numerical[entries[taken]] = there.numerical[taken]
