"""A second look, at a point nearby, where the first one can't say much.

On a kink much is right, and where a gradient is 0 throughout, as with black images, nothing shows
that it is computed at all. A little further on, at other parameters and images, both is otherwise.
"""

from __future__ import annotations

import numpy as np

from nnctl.gradcheck.finite_differences import Comparison, Status, jittered
from nnctl.gradcheck.network import NetworkUnderTest, copied
from nnctl.gradcheck.thresholds import TOLERANCE
from nnctl.nn.numerical_gradient import H


def largest_gradient(comparisons: list[Comparison]) -> float:
    """Return the largest gradient of the network, against which others are small."""
    return max((float(np.abs(found.full).max(initial=0)) for found in comparisons), default=0.0)


def look_nearby(
    tested: NetworkUnderTest,
    comparisons: list[Comparison],
    tolerance: float,
    *,
    layers_right: bool,
) -> None:
    """Compare doubtful entries again, at jittered parameters and images; settle their status.

    Doubtful are entries on a kink, entries that rounding hides, and all of an array whose gradient
    is 0 throughout. What fails nearby has failed. What agrees nearby has passed if it could not
    be judged; so has a value outside the slopes of both sides, where several kinks may meet, as
    long as every layer is right by itself. The step is the default one, and nothing fails by a
    smaller tolerance than the default one, so that no step or tolerance asked for is to blame.
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
    if not nearby.forward_works:
        return
    there = [
        parameter.compare(found.places[entries], H, max(tolerance, TOLERANCE))
        for found, entries, parameter in zip(
            comparisons, doubtful, nearby.parameters(), strict=True
        )
    ]
    largest = largest_gradient(there)
    for found, entries, other in zip(comparisons, doubtful, there, strict=True):
        here = found.status[entries]
        if layers_right:
            here[here == Status.OUTSIDE] = Status.KINK
        agrees = (other.status == Status.AGREES) & (other.errors() <= tolerance)
        agrees |= (other.status == Status.ROUNDING) & ~other.unjudged(tolerance, largest)
        undecided = (here == Status.KINK) | (here == Status.ROUNDING)
        taken = (other.status == Status.FAILED) | (undecided & agrees)
        found.status[entries] = np.where(taken, other.status, here)
        found.analytic[entries[taken]] = other.analytic[taken]
        found.numerical[entries[taken]] = other.numerical[taken]
