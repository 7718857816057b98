"""Scales: from values to positions, and to the round numbers that label an axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LARGEST = 8e307  # differences of numbers up to it are finite
SMALLEST = 1e-290  # values that differ by less are drawn as one


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high`, which lie at the positions 0 and 1."""

    low: float
    high: float
    log: bool = False
    whole: bool = False  # only whole numbers make sense as ticks

    def position(self, value: float | None) -> float | None:
        """Return where a value lies, None for one that can't be drawn."""
        if value is None or not math.isfinite(value) or (self.log and value <= 0):
            return None
        value = min(max(value, -LARGEST), LARGEST)
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return (math.log(value) - low) / (high - low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int) -> dict[float, str]:
        """Return at most so many round numbers between the ends, each with its label."""
        if self.log:
            numbers = round_log_numbers(self.low, self.high, most)
            if len(numbers) > 1:
                return {number: short(number) for number in numbers}
        numbers = round_numbers(self.low, self.high, most, whole=self.whole)
        return dict(zip(numbers, alike(numbers), strict=True))


def fit(values: Iterable[float], *, log: bool = False, whole: bool = False) -> Scale:
    """Return the scale on which all of `values` that can be drawn have room."""
    finite = [
        min(max(value, -LARGEST), LARGEST)
        for value in values
        if math.isfinite(value) and (value > 0 or not log)
    ]
    if not finite:
        return Scale(1.0, 10.0, log, whole) if log else Scale(0.0, 1.0, log, whole)
    low, high = min(finite), max(finite)
    if log:
        low = max(low, SMALLEST)
        high = max(high, low)
        if math.log(high / low) < 1e-9:
            low, high = low / 2, high * 2
    elif high - low <= max(1e-12 * max(abs(low), abs(high)), SMALLEST):
        reach = 0.1 * abs(low)
        if whole or reach < SMALLEST:
            reach = max(1.0, 1e-6 * abs(low))
        low, high = max(low - reach, -LARGEST), min(high + reach, LARGEST)
    return Scale(low, high, log, whole)


def round_numbers(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Return the multiples of 1, 2 or 5 times a power of ten from `low` to `high`.

    The finest step is taken that gives no more than `most` of them.

    >>> round_numbers(0.07, 0.43, 5)
    [0.1, 0.2, 0.3, 0.4]
    """
    exponent = math.floor(math.log10((high - low) / max(most, 1))) - 1
    if whole:
        exponent = max(exponent, 0)
    while True:
        for factor in (1, 2, 5):
            # Integers as long as possible: 3 / 10 is 0.3, which 3 * 0.1 is not.
            up, down = factor * 10 ** max(exponent, 0), 10 ** max(-exponent, 0)
            first = math.ceil(low / up * down - 1e-9)
            last = math.floor(high / up * down + 1e-9)
            if last - first < most:
                return [multiple * up / down for multiple in range(first, last + 1)]
        exponent += 1


def round_log_numbers(low: float, high: float, most: int) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten from `low` to `high`, or as few as `most` allows.

    >>> round_log_numbers(0.04, 3, 9)
    [0.05, 0.1, 0.2, 0.5, 1.0, 2.0]
    >>> round_log_numbers(0.04, 300, 4)
    [0.1, 1.0, 10.0, 100.0]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = 1
    while True:
        for factors in ((1, 2, 5), (1,)) if every == 1 else ((1,),):
            numbers = [
                float(f"{factor}e{exponent}")
                for exponent in range(first, last + 1)
                if exponent % every == 0
                for factor in factors
            ]
            numbers = [x for x in numbers if low * (1 - 1e-9) <= x <= high * (1 + 1e-9)]
            if len(numbers) <= most:
                return numbers
        every += 1


def short(number: float) -> str:
    """Return a number in few characters.

    >>> short(0.05), short(1e-12), short(2e6)
    ('0.05', '1e-12', '2e6')
    """
    plain = f"{number:g}"
    mantissa, _, exponent = f"{number:e}".partition("e")
    scientific = f"{float(mantissa):g}e{int(exponent)}"
    return scientific if "e" in plain or len(plain) > len(scientific) + 1 else plain


def alike(numbers: Sequence[float]) -> list[str]:
    """Return the numbers with the same decimals, as few as tell them exactly.

    >>> alike([0.9, 0.95, 1.0]), alike([0.0, 2e7])
    (['0.90', '0.95', '1.00'], ['0e7', '2e7'])
    """
    largest = max(map(abs, numbers), default=0.0)
    if largest == 0:
        return ["0" for _ in numbers]
    # Up to a million as it is, beyond with the power of ten that all of them share.
    power = 0 if 1e-4 <= largest < 1e6 else math.floor(math.log10(largest) + 1e-9)
    for decimals in range(16):
        texts = [f"{number / 10.0**power:.{decimals}f}" for number in numbers]
        shown = (float(text) * 10.0**power for text in texts)
        if all(
            math.isclose(*pair, abs_tol=1e-9 * largest) for pair in zip(numbers, shown, strict=True)
        ):
            break
    return [f"{text}e{power}" for text in texts] if power else texts
