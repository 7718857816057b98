"""Numerical gradients by central differences, and when one is fit to judge another by.

f'(x) = (f(x + h) - f(x - h)) / 2h needs no backward pass, so it can judge one. `compare` tells a
wrong gradient from a kink (a ReLU that changes side between x - h and x + h) and from rounding.
`Dependence` moves many entries in one forward pass. All of it is float64: in float32 rounding
alone looks like a bug.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from nnctl.nn.functions import Array
from nnctl.nn.numerical_gradient import H, relative_error

TOLERANCE = 1e-6

EPSILON = float(np.finfo(np.float64).eps)
ROUNDING = 20.0  # a value is taken to be wrong by at most so many EPSILON of its scale

# (entries, h) -> the slopes of f to the right, (f(x + h) - f(x)) / h, and to the left of these
# entries, (n,) each. Their mean is the central difference.
Slopes = Callable[[Array, float], tuple[Array, Array]]


class Verdict(IntEnum):
    """What the comparison of an entry came to."""

    AGREES = 0
    FAILED = 1
    KINK = 2  # the slopes to both sides differ, however small the step
    ROUNDING = 3  # too small a gradient to be told from rounding errors


@dataclass(frozen=True)
class Comparison:
    """Some entries of one array's gradient, computed both ways."""

    name: str  # of the array
    full: Array  # the analytic gradient, in the array's shape
    places: Array  # (n,) where the compared entries are in it, flattened
    numerical: Array  # (n,)
    verdicts: Array  # (n,)

    @property
    def analytic(self) -> Array:
        """What backpropagation says, (n,)."""
        return self.full.reshape(-1)[self.places]

    @property
    def failed(self) -> Array:
        """Which entries failed, (n,) booleans."""
        wrong: Array = self.verdicts == Verdict.FAILED
        return wrong

    def count(self, verdict: Verdict) -> int:
        """Return the number of entries with `verdict`."""
        return int(np.count_nonzero(self.verdicts == verdict))

    def errors(self) -> Array:
        """Return the relative errors, (n,); nan where a kink or rounding stood in the way."""
        errors = relative_error(self.analytic, self.numerical)
        errors[np.isnan(errors)] = np.inf  # not a number is as wrong as can be
        errors[self.verdicts > Verdict.FAILED] = np.nan
        return errors


def compare(
    analytic: Array, slopes: Slopes, noise: Array, h: float, tolerance: float
) -> tuple[Array, Array]:
    """Return the numerical gradient and the verdict for each entry of `analytic` (n,).

    `slopes` are those of a function f, `noise` (n,) bounds the rounding error of its values.

    An entry has failed if it disagrees at h and at h / 10, with two exceptions:

    - `KINK`: the two slopes differ. Next to a kink the derivative is one of them, so it is half
      their difference away from their mean. An entry is suspected if it is not much further away
      than that, or if the slopes still differ at a smaller step. Smaller steps no longer reach
      over the kink, and the entry then agrees or fails; if it is suspected at h / 100 too, it is
      a `KINK`. Where there is no kink, the slopes come together as h shrinks.
    - `ROUNDING`: it disagrees by less than noise / h, so rounding may be the reason. The noise
      counts less at a larger step; an entry that does not agree at 100 h either is left
      undecided. The same holds next to a kink, where a smaller step makes the noise count more.
    """
    numerical = np.empty(len(analytic))
    verdicts = np.empty(len(analytic), np.int8)

    def look(entries: Array, step: float) -> tuple[Array, Array]:
        """Judge `entries` by `step`; return those that failed and how their slopes differ."""
        right, left = slopes(entries, step)
        numerical[entries] = (right + left) / 2
        # "not <=" rather than ">": a nan fails
        wrong = ~(relative_error(analytic[entries], numerical[entries]) <= tolerance)
        verdicts[entries] = np.where(wrong, Verdict.FAILED, Verdict.AGREES)
        return entries[wrong], np.abs(right - left)[wrong]

    suspects = np.arange(len(analytic))
    kinked = np.ones(len(analytic), np.bool_)  # may it still be a kink?
    before = np.full(len(analytic), np.inf)  # how the slopes differed at the step before
    for step in (h, h / 10, h / 100):
        suspects, difference = look(suspects, step)
        gap, error = np.abs(analytic - numerical)[suspects], noise[suspects] / step
        small = kinked[suspects] & (gap <= error)
        verdicts[suspects[small]] = Verdict.ROUNDING
        lasting = (difference > before[suspects] / 2) & (difference > 4 * error)
        kinked[suspects] = (gap <= 0.6 * difference) | lasting
        before[suspects] = difference
        # At h several kinks may hide each other: give every entry a second chance.
        suspects = suspects[~small & (kinked[suspects] | (step == h))]
    verdicts[suspects] = Verdict.KINK

    undecided = np.flatnonzero(verdicts == Verdict.ROUNDING)
    for step in (10 * h, 100 * h):
        undecided, _ = look(undecided, step)
    verdicts[undecided] = Verdict.ROUNDING
    return numerical, verdicts


def agrees_by_default(found: Comparison, slopes: Slopes) -> bool:
    """Return whether the entries that failed agree by the default step and tolerance.

    A numerical gradient is inexact: too large a step or too small a tolerance are no fault of
    backpropagation. What failed by the default ones disagrees here too.
    """
    entries = np.flatnonzero(found.failed)
    agrees = np.zeros(len(entries), np.bool_)
    for step in (H, H / 10):
        right, left = slopes(entries, step)
        agrees |= relative_error(found.analytic[entries], (right + left) / 2) <= TOLERANCE
    return bool(agrees.mean() >= 0.9)


def shaken(array: Array, rng: np.random.Generator) -> Array:
    """Return `array` with every entry moved by up to a tenth of the largest."""
    size = float(np.abs(array).max(initial=0)) or 1.0
    moved: Array = array + rng.uniform(-0.1, 0.1, array.shape) * size
    return moved


def same(a: Array, b: Array) -> bool:
    """Return whether `a` and `b` are equal but for rounding."""
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)


class Dependence:
    """How the output y (batch, units) of `run` moves with the entries of `array`, which it reads.

    The array is seen as (rows, columns). Where column j of y depends on column j of the array
    alone (the weights of an affine layer, the input of an activation), a whole row can be moved
    at once, and each entry is felt in a lane of y of its own. Where row b of y depends on row b
    alone (samples), a whole column can. This is found out by trying, so it also holds for a
    layer that somebody adds; where neither holds, entries are moved one at a time.
    """

    def __init__(
        self, run: Callable[[], Array], array: Array, rng: np.random.Generator, *, samples: bool
    ) -> None:
        """Find out what can be moved at once; `samples`: the rows of the array are samples."""
        self.run = run
        self.array = array.reshape(-1, array.shape[-1] if array.ndim else 1)
        self.y = run().copy()
        self._axis: int | None = None  # along which the entries that move together lie
        if self.array.shape[1] == self.y.shape[1] and self._apart(1, rng):
            self._axis = 1
        elif samples and len(self.array) == len(self.y) and self._apart(0, rng):
            self._axis = 0

    def _apart(self, axis: int, rng: np.random.Generator) -> bool:
        """Return whether y depends, row by row or column by column, on its part of the array.

        The numbers of any two of them differ in some bit. So moving those with bit k set, and
        then the others, shows for some k if the one feels the other.
        """
        before = self.array.copy()
        y = np.moveaxis(self.y, axis, 0)
        array, moved = (np.moveaxis(a, axis, 0) for a in (self.array, shaken(before, rng)))
        numbers = np.arange(len(array))
        try:
            for bit in range(int(numbers[-1]).bit_length()):
                for some in (numbers >> bit & 1 == 1, numbers >> bit & 1 == 0):
                    array[some] = moved[some]
                    after = np.moveaxis(self.run(), axis, 0)
                    self.array[...] = before
                    if not same(after[~some], y[~some]):
                        return False
        finally:
            self.array[...] = before
        return True

    def _numbers(self, places: Array) -> tuple[Array, Array]:
        """Return which group moves each entry, and in which lane of y the entry is felt."""
        rows, columns = np.divmod(places, self.array.shape[1])
        if self._axis is None:
            return places, np.zeros_like(places)
        return (rows, columns) if self._axis == 1 else (columns, rows)

    def sample(self, groups: int | None, rng: np.random.Generator) -> Array:
        """Return the places of the entries of so many groups, None: of all."""
        group, _ = self._numbers(np.arange(self.array.size))
        last = int(group.max(initial=0))
        if groups is None or groups > last:
            return np.arange(self.array.size)
        chosen = rng.choice(np.arange(1, last), max(groups - 2, 0), replace=False)
        return np.flatnonzero(np.isin(group, [0, *chosen, last]))

    def _groups(self, places: Array) -> Iterator[tuple[Array, Array, tuple[int | slice, ...]]]:
        """Yield, group by group, positions in `places`, lanes, and what to move in the array."""
        group, lane = self._numbers(places)
        order = np.argsort(group, kind="stable")
        for mine in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
            if len(mine):
                row, column = (int(n) for n in divmod(places[mine[0]], self.array.shape[1]))
                everything = slice(None)
                index: tuple[int | slice, ...] = (row, column)
                if self._axis is not None:
                    index = (row, everything) if self._axis == 1 else (everything, column)
                yield mine, lane[mine], index

    def _moved(self, index: tuple[int | slice, ...], step: float) -> Array:
        before = np.copy(self.array[index])
        self.array[index] += step
        try:
            return self.run()
        finally:
            self.array[index] = before

    def outputs(self, places: Array, step: float) -> Array:
        """Return y with each of the entries at `places` moved alone, (n, batch, units)."""
        result = np.repeat(self.y[None], len(places), axis=0)
        for mine, lane, index in self._groups(places):
            y = self._moved(index, step)
            if self._axis is None:
                result[mine] = y
            elif self._axis == 0:
                result[mine, lane] = y[lane]
            else:
                result[mine, :, lane] = y[:, lane].T
        return result

    def slopes(self, places: Array, step: float, r: Array) -> tuple[Array, Array]:
        """Return the slopes of sum(r y) to the right and to the left, (n,) each."""
        right, left = np.empty(len(places)), np.empty(len(places))
        for mine, lane, index in self._groups(places):
            right[mine] = self._lanes(r * (self._moved(index, step) - self.y))[lane] / step
            left[mine] = self._lanes(r * (self.y - self._moved(index, -step)))[lane] / step
        return right, left

    def noise(self, places: Array, r: Array, scale: float) -> Array:
        """Return a bound of the rounding error of sum(r y) as each entry feels it, (n,)."""
        _, lane = self._numbers(places)
        total: Array = self._lanes(np.abs(r))[lane] * (ROUNDING * EPSILON * scale)
        return total

    def _lanes(self, terms: Array) -> Array:
        """Return the sum of `terms`, shaped as y, over each lane."""
        return np.atleast_1d(terms.sum(axis=None if self._axis is None else 1 - self._axis))
