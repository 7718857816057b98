"""Limits of the options of layers, losses, optimizers, schedules and initializers.

Each of these kinds is a dataclass whose fields are its config keys. A limit stands in the
field's type, `Annotated[float, Range(ge=0, lt=1)]`, and is read by the class itself, by the
config reader and by the JSON Schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Range:
    """The numbers an option may take; None where it has no bound."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def complaint(self, value: float) -> str | None:
        """Return what is wrong with `value`, as in "must be at least 1", or None.

        >>> Range(gt=0).complaint(0)
        'must be above 0'
        """
        if self.ge is not None and not value >= self.ge:
            return f"must be at least {self.ge}"
        if self.gt is not None and not value > self.gt:
            return f"must be above {self.gt}"
        if self.le is not None and not value <= self.le:
            return f"must be at most {self.le}"
        if self.lt is not None and not value < self.lt:
            return f"must be below {self.lt}"
        return None


Count = Annotated[int, Range(ge=1)]
Positive = Annotated[float, Range(gt=0)]
NotNegative = Annotated[float, Range(ge=0)]
Epsilon = Annotated[float, Range(ge=1e-30)]  # float32 takes much smaller ones for zero
Fraction = Annotated[float, Range(ge=0, lt=1)]


@cache  # resolving the types of a class takes longer than all else that making a layer does
def limits(kind: type) -> dict[str, Range]:
    """Return the `Range` of each option of `kind` that has one."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.name: extra
        for field in fields(kind)
        if get_origin(hints[field.name]) is Annotated
        for extra in get_args(hints[field.name])
        if isinstance(extra, Range)
    }


class Hyperparameters:
    """Base of every kind: refuses options outside their limits with a `ValueError`."""

    def __post_init__(self) -> None:
        """Check every limited option."""
        kind: Any = type(self)  # which mypy doesn't take for hashable
        for name, allowed in limits(kind).items():
            value: Any = getattr(self, name)
            if complaint := allowed.complaint(value):
                raise ValueError(f"{name} {complaint}, not {value}")


def kind_of(registry: Mapping[str, type], thing: object) -> str:
    """Return the name that `registry` has for the class of `thing`, else the class's own name."""
    own = type(thing)
    return next((name for name, kind in registry.items() if kind is own), own.__name__)
