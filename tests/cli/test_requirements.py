"""`--require`: what it understands, and when it is met."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nnctl.cli.requirements import Requirement, check, numeric_fields, require_option
from nnctl.errors import CheckFailed, UsageError
from nnctl.training.events import RunFinished

FIELDS = ["accuracy", "loss", "overfitting.gap", "best_epoch"]


def parse(*texts: str) -> tuple[Requirement, ...]:
    """Return what a command with `--require` understands."""
    heard: list[tuple[Requirement, ...]] = []

    @click.command()
    @require_option("accuracy>=0.97", lambda: FIELDS)
    def command(requirements: tuple[Requirement, ...]) -> None:
        heard.append(requirements)

    arguments = [word for text in texts for word in ("--require", text)]
    CliRunner().invoke(command, arguments, catch_exceptions=False)
    return heard[0]


def is_met(text: str, result: dict[str, Any]) -> bool:
    try:
        check(parse(text), result)
    except CheckFailed:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "field", "operator", "number"),
    [
        ("accuracy>=0.97", "accuracy", ">=", 0.97),
        ("  accuracy  >=  0.97 ", "accuracy", ">=", 0.97),
        ("loss<1e-3", "loss", "<", 0.001),
        ("loss<=+.5", "loss", "<=", 0.5),
        ("overfitting.gap > -0.1", "overfitting.gap", ">", -0.1),
        ("best_epoch==7", "best_epoch", "==", 7),
        ("best_epoch!=7", "best_epoch", "!=", 7),
    ],
)
def test_requirement_is_a_field_an_operator_and_a_number(
    text: str, field: str, operator: str, number: float
) -> None:
    assert parse(text) == (Requirement(text, field, operator, number),)


@pytest.mark.parametrize(
    "text",
    [
        *("", "accuracy", "accuracy>=", ">=0.97", "accuracy=0.97", "accuracy=>0.97"),
        *("accuracy>=high", "accuracy>=0.97 loss<1", "accuracy>=0.9.7", "accuracy<>1"),
        *("accuracy>=nan", "loss<inf", "loss<1e999", "accuracy>=__import__('os')"),
    ],
)
def test_bad_syntax_is_a_usage_error_that_shows_the_form(text: str) -> None:
    with pytest.raises(UsageError, match="write FIELD OP NUMBER, with OP one of >= <= == != > <"):
        parse(text)


@pytest.mark.parametrize("field", ["acuracy", "overfitting", "overfitting.verdict", "a.b.c"])
def test_unknown_field_is_a_usage_error_that_lists_the_fields(field: str) -> None:
    with pytest.raises(UsageError, match=f"no such field; there are {', '.join(FIELDS)}"):
        parse(f"{field}>0")


@pytest.mark.parametrize(
    ("operator", "met"),
    [
        (">=", [False, True, True]),
        (">", [False, False, True]),
        ("<=", [True, True, False]),
        ("<", [True, False, False]),
        ("==", [False, True, False]),
        ("!=", [True, False, True]),
    ],
)
def test_operator_holds_below_at_and_above_the_number(operator: str, met: list[bool]) -> None:
    values = [0.25, 0.5, 0.75]
    assert [is_met(f"accuracy {operator} 0.5", {"accuracy": v}) for v in values] == met


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_number_is_compared_as_it_was_written(number: float) -> None:
    assert is_met(f"loss=={number!r}", {"loss": number})


def test_dotted_field_reaches_into_objects() -> None:
    result = {"overfitting": {"verdict": "none", "gap": 0.3}}
    assert is_met("overfitting.gap<0.4", result)
    assert not is_met("overfitting.gap<0.2", result)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("operator", [">=", "<=", "==", "!=", ">", "<"])
def test_what_is_null_in_json_meets_nothing(value: float | None, operator: str) -> None:
    assert not is_met(f"loss{operator}0", {"loss": value})


def test_null_object_meets_nothing() -> None:
    assert not is_met("overfitting.gap<1", {"overfitting": None})


def test_every_requirement_that_fails_is_told_with_what_was_found() -> None:
    wanted = parse("accuracy>=0.97", "loss<1", "overfitting.gap < 0.1")
    with pytest.raises(CheckFailed) as caught:
        check(wanted, {"accuracy": 0.95, "loss": 0.5, "overfitting": {"gap": None}})
    assert str(caught.value).splitlines() == [
        "a requirement is not met",
        "accuracy>=0.97: accuracy is 0.95",
        "overfitting.gap < 0.1: overfitting.gap is null",
    ]


def test_nothing_required_is_always_met() -> None:
    check(parse(), {})


@dataclass
class Inner:
    gap: float | None
    verdict: str


@dataclass
class Outer:
    accuracy: float
    epochs: int | None
    name: str
    inner: Inner
    maybe: Inner | None


def test_numeric_fields_are_those_of_a_dataclass_and_of_the_dataclasses_in_it() -> None:
    assert numeric_fields(Outer) == ["accuracy", "epochs", "inner.gap", "maybe.gap"]


def test_fields_of_a_run_reach_into_the_verdict() -> None:
    fields = numeric_fields(RunFinished)
    expected = {"test_accuracy", "validation_loss", "best_epoch", "seconds", "overfitting.gap"}
    assert expected | {"overfitting.evidence.loss_rise"} <= set(fields)
    assert not {"status", "run_dir", "overfitting", "overfitting.verdict"} & set(fields)
