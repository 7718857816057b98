"""Numerical gradients by central differences, and what they can say about an analytic one.

f'(x) = (f(x + h) - f(x - h)) / 2h needs no backward pass, so it can judge one. `judge` tells a
wrong gradient from a kink (a ReLU at 0 has no derivative) and from rounding. `Perturbation`
perturbs many entries in one forward pass. All of it is float64: in float32 rounding alone looks
like a bug.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from nnctl.gradcheck.thresholds import (
    JUMP_LASTS,
    JUMP_SHOWS,
    LARGER_STEPS,
    NEAR_JUMP,
    STILL_MOVING,
    VANISHING,
)
from nnctl.nn.functions import Array
from nnctl.nn.numerical_gradient import relative_error

# (entries, h) -> the slopes of f to the right, (f(x + h) - f(x)) / h, and to the left of these
# entries, (n,) each. Their mean is the central difference.
Slopes = Callable[[Array, float], tuple[Array, Array]]


class Status(IntEnum):
    """What the comparison of an entry came to."""

    AGREES = 0
    SUBGRADIENT = 1  # at a kink, and between the slopes to both sides
    FAILED = 2
    OUTSIDE = 3  # at a kink, and not between the slopes to both sides
    KINK = 4  # a kink so near that no step judges it
    ROUNDING = 5  # too small a gradient to be told from rounding errors


@dataclass(frozen=True)
class Comparison:
    """Some entries of one array's gradient, computed both ways."""

    name: str  # of the array
    full: Array  # the analytic gradient, in the array's shape
    places: Array  # (n,) where the compared entries are in it, flattened
    analytic: Array  # (n,) by backpropagation
    numerical: Array  # (n,) at a kink, the subgradient nearest to the analytic value
    status: Array  # (n,)

    @property
    def failed(self) -> Array:
        """Which entries are wrong, (n,) booleans."""
        wrong: Array = (self.status == Status.FAILED) | (self.status == Status.OUTSIDE)
        return wrong

    def count(self, status: Status) -> int:
        """Return the number of entries with `status`."""
        return int(np.count_nonzero(self.status == status))

    def unjudged(self, tolerance: float, largest: float) -> Array:
        """Return which entries nothing can be said about, (n,) booleans.

        Rounding is no obstacle where it hides less than `tolerance` of the `largest` gradient of
        the network: a gradient of 0, as of a bias below batch_norm, is never exactly 0.
        """
        gap = np.abs(self.analytic - self.numerical)
        hidden = (self.status == Status.ROUNDING) & ~(gap <= tolerance * largest)
        result: Array = hidden | (self.status == Status.KINK)
        return result

    def errors(self) -> Array:
        """Return the relative errors, (n,); nan where a kink or rounding stood in the way."""
        errors = relative_error(self.analytic, self.numerical)
        errors[np.isnan(errors)] = np.inf  # not a number is as wrong as can be
        errors[self.status >= Status.KINK] = np.nan
        return errors

    def fail_where(self, other: Comparison) -> None:
        """Take over what has failed in `other`, a comparison of all of the array's entries."""
        wrong = other.failed[self.places]
        self.status[wrong] = Status.FAILED
        self.analytic[wrong] = other.analytic[self.places][wrong]
        self.numerical[wrong] = other.numerical[self.places][wrong]


def judge(
    analytic: Array, slopes: Slopes, noise: Array, h: float, tolerance: float
) -> tuple[Array, Array]:
    """Return the numerical gradient and the `Status` of each entry of `analytic` (n,).

    `slopes` are those of a function f, `noise` (n,) bounds the rounding error of its values.

    An entry that disagrees at h is tried at h / 10, and at h / 100 as long as it may be a kink:
    the slopes to both sides differ and the analytic value is not much further from their mean
    than half their difference, or they differ as much as at the larger step. Smaller steps no
    longer reach over a kink nearby, and the entry then agrees or fails. If it is on the kink
    itself, any value between the two slopes is a subgradient.

    An entry that fails, or disagrees by less than noise / h, is then tried at larger steps, where
    rounding errors count less.
    """
    n = len(analytic)
    numerical, right, left = np.full((3, n), np.nan)
    status = np.empty(n, np.int8)

    def look(entries: Array, step: float) -> Array:
        """Compare `entries` at `step`; return those that disagree."""
        if not len(entries):
            return entries
        right[entries], left[entries] = slopes(entries, step)
        numerical[entries] = (right[entries] + left[entries]) / 2
        # "not <=" rather than ">": a nan fails
        wrong = ~(relative_error(analytic[entries], numerical[entries]) <= tolerance)
        status[entries] = np.where(wrong, Status.FAILED, Status.AGREES)
        suspects: Array = entries[wrong]
        return suspects

    suspects = np.arange(n)
    kinked = np.ones(n, np.bool_)  # may it still be a kink?
    on_kink = np.zeros(n, np.bool_)  # do the slopes still differ as much as at the step before?
    jump = np.full(n, np.inf)  # between the slopes
    error = np.zeros(n)  # of a slope, by rounding
    for step in (h, h / 10, h / 100):
        before = numerical.copy()
        suspects = look(suspects, step)
        if not len(suspects):
            break
        error[suspects] = noise[suspects] / step
        gap, now = np.abs(analytic - numerical), np.abs(right - left)
        on_kink[suspects] = ((now > JUMP_LASTS * jump) & (now > JUMP_SHOWS * error))[suspects]
        jump[suspects] = now[suspects]
        small = kinked & (gap <= error)
        status[suspects[small[suspects]]] = Status.ROUNDING
        kinked[suspects] = ((gap <= NEAR_JUMP * now) | on_kink)[suspects]
        # Rounding errors would hide a kink's jump at the next step: it is judged by this one.
        hidden = on_kink & (now <= 10 * JUMP_SHOWS * error)
        # At h several kinks may hide each other: give every entry a second chance.
        going_on = ~small & ~hidden & (kinked | (step == h))
        suspects = suspects[going_on[suspects]]

    at = np.flatnonzero(on_kink & (status == Status.FAILED))
    numerical[at] = np.clip(analytic, np.fmin(right, left), np.fmax(right, left))[at]
    inside = relative_error(analytic[at], numerical[at]) <= tolerance
    inside |= np.abs(analytic - numerical)[at] <= error[at]
    status[at] = np.where(inside, Status.SUBGRADIENT, Status.OUTSIDE)
    # A central difference that depends on the step has a kink within the last one.
    off = suspects[~on_kink[suspects]]
    moving = np.abs(numerical - before)[off] > STILL_MOVING * np.abs(analytic - numerical)[off]
    status[off[moving]] = Status.KINK

    tried = np.flatnonzero((status == Status.FAILED) | (status == Status.ROUNDING))
    earlier, best = status.copy(), numerical.copy()
    for step in (step for step in LARGER_STEPS if step > h):
        tried = look(tried, step)
        nearer = tried[np.abs(analytic - numerical)[tried] < np.abs(analytic - best)[tried]]
        nearer = nearer[earlier[nearer] == Status.ROUNDING]  # a wrong value is near to nothing
        best[nearer] = numerical[nearer]
    status[tried], numerical[tried] = earlier[tried], best[tried]
    return numerical, status


def jittered(array: Array, rng: np.random.Generator) -> Array:
    """Return `array` with every entry moved by up to a tenth of the largest, of 1 if all vanish."""
    size = float(np.abs(array).max(initial=0))
    if size < VANISHING:
        size = 1.0
    moved: Array = array + rng.uniform(-0.1, 0.1, array.shape) * size
    return moved


def equal_but_for_rounding(a: Array, b: Array) -> bool:
    """Return whether `a` and `b` are equal but for rounding."""
    if a.shape != b.shape:
        return False
    # Mostly they are the same to the last bit, which is found out in a fifth of the time.
    return np.array_equal(a, b) or np.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)


class Perturbation:
    """What the output y (batch, units) of `run` becomes when entries of `array` are perturbed.

    `run` reads the array, which is seen as (rows, columns). Where column j of y depends on column
    j of the array alone (the weights of an affine layer, the input of an activation), a whole row
    is perturbed at once: the effect of each entry is in a column of y of its own. Where row b of
    y depends on row b alone (samples), a whole column is. Trying shows which of the two holds, so
    that it works for any layer; where neither does, entries are perturbed one at a time.
    """

    def __init__(
        self, run: Callable[[], Array], array: Array, rng: np.random.Generator, *, samples: bool
    ) -> None:
        """Find out what can be perturbed at once; `samples`: the rows of the array are samples."""
        self.run = run
        self.array = array.reshape(-1, array.shape[-1] if array.ndim else 1)
        self.y = run().copy()
        self._axis: int | None = None  # along which the entries that move together lie
        if self.array.shape[1] == self.y.shape[1] and self._separable(1, rng):
            self._axis = 1
        elif samples and len(self.array) == len(self.y) and self._separable(0, rng):
            self._axis = 0

    def _separable(self, axis: int, rng: np.random.Generator) -> bool:
        """Return whether each row or column of y depends on that of the array alone.

        The numbers of any two of them differ in some bit. So perturbing those with bit k set, and
        then the others, shows for some k whether one depends on the other.
        """
        before = self.array.copy()
        y = np.moveaxis(self.y, axis, 0)
        array, moved = (np.moveaxis(a, axis, 0) for a in (self.array, jittered(before, rng)))
        numbers = np.arange(len(array))
        try:
            for bit in range(int(numbers[-1]).bit_length()):
                for some in (numbers >> bit & 1 == 1, numbers >> bit & 1 == 0):
                    array[some] = moved[some]
                    after = np.moveaxis(self.run(), axis, 0)
                    self.array[...] = before
                    if not equal_but_for_rounding(after[~some], y[~some]):
                        return False
        finally:
            self.array[...] = before
        return True

    def _numbers(self, places: Array) -> tuple[Array, Array]:
        """Return in which group each entry is perturbed, and which lane of y depends on it."""
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
        """Yield, group by group, positions in `places`, lanes, and what to change in the array."""
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

    def noise(self, places: Array, r: Array, uncertainty: Array) -> Array:
        """Return the error of sum(r y) as each entry changes it, (n,), for that of each y."""
        _, lane = self._numbers(places)
        total: Array = self._lanes(np.abs(r) * uncertainty)[lane]
        return total

    def _lanes(self, terms: Array) -> Array:
        """Return the sum of `terms`, shaped as y, over each lane."""
        return np.atleast_1d(terms.sum(axis=None if self._axis is None else 1 - self._axis))
