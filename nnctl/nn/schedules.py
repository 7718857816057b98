"""The schedules: the fraction of the learning rate that each step is taken with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from nnctl.nn.hyperparameters import Count, Fraction, Hyperparameters, Positive, Range

Warmup = Annotated[float, Range(ge=0, le=1_000_000)]  # epochs; so its steps can be counted


class Schedule(Hyperparameters):
    """A curve over the steps of training; a subclass is a dataclass of its config keys.

    `warmup` is in epochs: over them the fraction rises linearly to what the curve says.
    """

    warmup: float

    def fraction(self, step: int, steps_per_epoch: int, steps: int) -> float:
        """Return the fraction for `step` (from 0) of `steps`."""
        warmup = round(self.warmup * steps_per_epoch)
        rest = max(steps - warmup, 1)
        ramp = min(1.0, (step + 1) / warmup) if warmup else 1.0
        return ramp * self.curve(max(step - warmup, 0), steps_per_epoch, rest)

    def curve(self, step: int, steps_per_epoch: int, steps: int) -> float:
        """Return the fraction for `step` of the `steps` that follow the warm-up."""
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """The same learning rate throughout."""

    warmup: Warmup = 0.0

    def curve(self, step: int, steps_per_epoch: int, steps: int) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Step(Schedule):
    """Multiply by `factor` after every `every` epochs."""

    every: Count = 10
    factor: Positive = 0.1
    warmup: Warmup = 0.0

    def curve(self, step: int, steps_per_epoch: int, steps: int) -> float:
        """Return factor ^ (epochs since the warm-up // every), infinity where it is too large."""
        try:
            return float(self.factor ** (step // steps_per_epoch // self.every))
        except OverflowError:
            return math.inf


@dataclass(frozen=True)
class Cosine(Schedule):
    """Fall along half a cosine to `final`, a fraction of the peak.

    Loshchilov and Hutter 2017, "SGDR", equation 5, without restarts.
    """

    final: Fraction = 0.0
    warmup: Warmup = 0.0

    def curve(self, step: int, steps_per_epoch: int, steps: int) -> float:
        """Return final + (1 - final) (1 + cos(pi step / steps)) / 2."""
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * step / steps)) / 2


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Rise linearly to the peak over the fraction `rise` of training, then fall linearly to 0.

    Smith 2018, "A disciplined approach to neural network hyper-parameters", section 4.
    """

    rise: Fraction = 0.3
    warmup: Warmup = 0.0

    def curve(self, step: int, steps_per_epoch: int, steps: int) -> float:
        """Return the smaller of the rising and the falling line."""
        peak = self.rise * steps
        rising = (step + 1) / peak if step + 1 < peak else 1.0
        return min(rising, (steps - step) / (steps - peak))


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "step": Step,
    "cosine": Cosine,
    "one_cycle": OneCycle,
}
