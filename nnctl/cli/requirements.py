"""`--require 'FIELD OP VALUE'`: a condition on the final JSON that decides the exit code."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click

from nnctl.cli.completion import completing
from nnctl.errors import CheckFailed, UsageError, did_you_mean

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
FOR_WORDS = ("==", "!=")
FIELD = r"[A-Za-z_][\w.]*"
FORM = re.compile(rf"\s*({FIELD})\s*(>=|<=|==|!=|>|<)\s*([-+.\w]+)\s*")

# What other tools call a part of a field's name, and nnctl's word.
SYNONYMS = {"val": "validation", "valid": "validation", "acc": "accuracy", "eval": "test"}

# The fields that can be required: those of numbers with (), those of words with the words.
Fields = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Requirement:
    """One condition; `field` is a dotted name into the final JSON."""

    text: str
    field: str
    operator: str
    value: float | str


def require_option(
    example: str, fields: Callable[[], Fields | Sequence[str]]
) -> Callable[[Any], Any]:
    """Add the repeatable `--require`, on what `fields()` names: a list holds numbers only."""

    def known() -> Fields:
        found = fields()
        return found if isinstance(found, Mapping) else dict.fromkeys(found, ())

    def parse(
        context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
    ) -> tuple[Requirement, ...]:
        return tuple(_parse(text, known()) for text in texts)

    return click.option(
        "--require",
        "requirements",
        metavar="EXPR",
        multiple=True,
        callback=parse,
        shell_complete=completing(lambda context: known()),
        help=f"Exit with 3 unless this holds, as in '{example}'; repeatable.",
    )


def _parse(text: str, fields: Fields) -> Requirement:
    match = FORM.fullmatch(text)
    if match is None:
        if re.fullmatch(rf"\s*{FIELD}\s*", text):
            raise UsageError(
                f"--require {text!r}: the condition ends after the field; a shell takes > and < "
                f"for itself unless they are quoted\nwrite --require '{text.strip()} >= 0.9', and "
                "look for a file that the shell has made"
            )
        raise UsageError(
            f"--require {text!r}: write FIELD OP VALUE, with OP one of {' '.join(OPERATORS)}"
        )
    field, symbol, written = match.groups()
    if field not in fields:
        hint = did_you_mean(_meant(field, fields), fields, f"there are {', '.join(fields)}")
        raise UsageError(f"--require {text!r}: no such field; {hint}")
    words = fields[field]
    value = _word(text, symbol, written, words) if words else _number(text, field, written)
    return Requirement(text, field, symbol, value)


def _meant(field: str, fields: Fields) -> str:
    """Return a field's own name if it is another tool's, or lies in an object."""
    renamed = "_".join(SYNONYMS.get(part, part) for part in field.split("_"))
    if renamed in fields:
        return renamed
    ends = [name for name in fields if name.endswith(f".{field}")]  # in an object
    return ends[0] if ends else renamed


def _number(text: str, field: str, written: str) -> float:
    try:
        number = float(written)
        if not math.isfinite(number):
            raise ValueError
    except ValueError:
        raise UsageError(f"--require {text!r}: {field} is a number, {written} is none") from None
    if field.endswith("accuracy") and 1 < number <= 100:
        raise UsageError(
            f"--require {text!r}: accuracies lie between 0 and 1; did you mean {number / 100:g}?"
        )
    return number


def _word(text: str, symbol: str, written: str, words: Sequence[str]) -> str:
    if symbol not in FOR_WORDS:
        raise UsageError(
            f"--require {text!r}: a word is compared by {' or '.join(FOR_WORDS)}, not {symbol}"
        )
    if written not in words:
        hint = did_you_mean(written, words, f"it is one of {', '.join(words)}")
        raise UsageError(f"--require {text!r}: never {written}; {hint}")
    return written


def fields_of(kind: Any) -> dict[str, Sequence[str]]:
    """Return the fields of a dataclass, and of those in it, that hold numbers or one of some words.

    Names are dotted; numbers have (), words all that they may be.
    """
    found: dict[str, Sequence[str]] = {}
    for field, hint in get_type_hints(kind).items():
        for part in (hint,) if get_origin(hint) is Literal else get_args(hint) or (hint,):
            if is_dataclass(part):
                found |= {f"{field}.{name}": words for name, words in fields_of(part).items()}
            elif get_origin(part) is Literal:
                found[field] = tuple(map(str, get_args(part)))
            elif part in (int, float):
                found[field] = ()
    return found


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
        known = isinstance(value, str) or (value is not None and math.isfinite(value))
        if not known or not OPERATORS[requirement.operator](value, requirement.value):
            found = value if known else "null"
            failed.append(f"{requirement.text.strip()}: {requirement.field} is {found}")
    if failed:
        raise CheckFailed("a requirement is not met\n" + "\n".join(failed))
