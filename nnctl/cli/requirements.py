"""`--require 'FIELD OP NUMBER'`: a condition on the final JSON that decides the exit code."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, get_args, get_type_hints

import click

from nnctl.errors import CheckFailed, UsageError

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
FORM = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(>=|<=|==|!=|>|<)\s*([-+.\w]+)\s*")


@dataclass(frozen=True)
class Requirement:
    """One condition; `field` is a dotted name into the final JSON."""

    text: str
    field: str
    operator: str
    number: float


def require_option(example: str, fields: Callable[[], Sequence[str]]) -> Callable[[Any], Any]:
    """Add the repeatable `--require`, on the numeric fields that `fields()` names."""

    def parse(
        context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
    ) -> tuple[Requirement, ...]:
        return tuple(_parse(text, fields()) for text in texts)

    return click.option(
        "--require",
        "requirements",
        metavar="EXPR",
        multiple=True,
        callback=parse,
        help=f"Exit with 3 unless this holds, as in '{example}'; repeatable.",
    )


def _parse(text: str, fields: Sequence[str]) -> Requirement:
    match = FORM.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        field, symbol, number = match.groups()
        requirement = Requirement(text, field, symbol, float(number))
        if not math.isfinite(requirement.number):
            raise ValueError
    except ValueError:
        raise UsageError(
            f"--require {text!r}: write FIELD OP NUMBER, with OP one of {' '.join(OPERATORS)}"
        ) from None
    if field not in fields:
        raise UsageError(f"--require {text!r}: no such field; there are {', '.join(fields)}")
    return requirement


def numeric_fields(kind: Any) -> list[str]:
    """Return the dotted names of the numbers in a dataclass and the dataclasses in it."""
    names = []
    for field, hint in get_type_hints(kind).items():
        for part in get_args(hint) or (hint,):
            if is_dataclass(part):
                names += [f"{field}.{name}" for name in numeric_fields(part)]
            elif part in (int, float):
                names.append(field)
    return names


def check(requirements: Sequence[Requirement], result: dict[str, Any]) -> None:
    """Hold `result`, the command's final JSON, against the requirements.

    Raises:
        CheckFailed: one or more are not met; null meets none, nor does what isn't finite.

    """
    failed = []
    for requirement in requirements:
        value: Any = result
        for key in requirement.field.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        finite = value is not None and math.isfinite(value)
        if not finite or not OPERATORS[requirement.operator](value, requirement.number):
            found = value if finite else "null"
            failed.append(f"{requirement.text.strip()}: {requirement.field} is {found}")
    if failed:
        raise CheckFailed("a requirement is not met\n" + "\n".join(failed))
