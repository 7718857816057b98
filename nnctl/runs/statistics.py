"""Which of several models is better by more than chance.

Student's t and its intervals, paired differences, McNemar's test, and what choosing the best adds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nnctl.nn.functions import Array

SIGNIFICANCE = 0.05  # a difference that chance makes less often than this is more than chance


def t_probability(t: float, degrees: int) -> float:
    """Return how often chance takes Student's t at least so far from 0, to either side.

    p = I_x(v/2, 1/2) with x = v / (v + t^2), v degrees of freedom and I the regularised incomplete
    beta function (Abramowitz and Stegun 1964, 26.7.1 and 26.5.2).

    >>> round(t_probability(2.776445, 4), 6)
    0.05
    """
    if math.isinf(t):
        return 0.0
    v = float(degrees)
    return _incomplete_beta(v / (v + t * t), v / 2, 0.5)


def t_quantile(confidence: float, degrees: int) -> float:
    """Return the t that chance stays within with probability `confidence`, to both sides.

    >>> round(t_quantile(0.95, 4), 6)
    2.776445
    """
    low, high = 0.0, 1.0
    while t_probability(high, degrees) > 1 - confidence:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        if t_probability(middle, degrees) > 1 - confidence:
            low = middle
        else:
            high = middle
    return middle


@dataclass(frozen=True)
class MeanEstimate:
    """A mean, what is known of it, and how often chance alone takes it so far from 0."""

    n: int
    mean: float
    standard_error: float
    interval: tuple[float, float]  # holds the true mean with the confidence asked for
    p_value: float


def estimate_mean(values: Array, confidence: float = 0.95) -> MeanEstimate:
    """Return the mean of two or more independent values, by Student's t (Student 1908).

    Of paired differences it is the paired t test: `p_value` is how often two equally good models
    would differ as much.
    """
    n = len(values)
    mean = float(np.mean(values, dtype=np.float64))
    error = float(np.std(values, ddof=1, dtype=np.float64)) / math.sqrt(n)
    half = t_quantile(confidence, n - 1) * error
    t = mean / error if error else math.copysign(math.inf, mean) if mean else 0.0
    return MeanEstimate(n, mean, error, (mean - half, mean + half), t_probability(t, n - 1))


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the probability that two equally good models differ as much as these or more.

    `only_a` samples did only the first model get right, `only_b` only the second; samples on
    which they agree say nothing. The exact two-sided test (McNemar 1947): if the models are
    equally good, each of the n samples falls to either with probability 1/2.

    >>> mcnemar(10, 0)
    0.001953125
    """
    n = only_a + only_b
    logs = (
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2)
        for i in range(min(only_a, only_b) + 1)
    )
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def expected_maximum(n: int) -> float:
    """Return the mean of the largest of `n` independent standard normal values.

    The integral of x n phi(x) Phi(x)^(n - 1), the density of the largest (David and Nagaraja 2003,
    "Order statistics", 2.1).

    >>> round(expected_maximum(2), 4), round(expected_maximum(20), 4)
    (0.5642, 1.8675)
    """
    x = np.linspace(-9, 9, 2001)
    density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    below = np.array([(1 + math.erf(value / math.sqrt(2))) / 2 for value in x])
    return float(np.sum(x * n * density * below ** (n - 1)) * (x[1] - x[0]))


def selection_bias(right: Array) -> float:
    """Return by how much the best of several models looks better than it is, as an accuracy.

    `right` (models, samples) are booleans. If the models were equally good, their accuracies would
    still differ by chance: the mean of pairs' squared differences estimates twice the variance of
    what is each one's own, for they share the samples. The best of n lies
    `expected_maximum(n)` of its standard deviations above the mean.
    """
    models, samples = right.shape
    counts = right.sum(axis=0, dtype=np.float64)
    # Over all pairs: the samples on which exactly one of the two is right.
    differing = float(np.sum(counts * (models - counts))) / (models * (models - 1) / 2)
    return expected_maximum(models) * math.sqrt(differing / 2) / int(samples)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Return I_x(a, b) by its continued fraction (Abramowitz and Stegun 1964, 26.5.8)."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):  # there it converges slowly
        return 1 - _incomplete_beta(1 - x, b, a)
    log_front = (
        *(math.lgamma(a + b), -math.lgamma(a), -math.lgamma(b)),
        *(a * math.log(x), b * math.log1p(-x)),
    )
    fraction = 1.0
    for i in range(50 + 5 * math.isqrt(round(a + b)), 0, -1):  # from its end to its front
        m = i // 2
        if i % 2:
            term = -(a + m) * (a + b + m) / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) / ((a + 2 * m - 1) * (a + 2 * m))
        fraction = 1 + term * x / fraction
    return math.exp(math.fsum(log_front)) / (a * fraction)
