"""`--require`: what it understands, and when it is met."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nnctl.cli.requirements import Requirement, check, fields_of, require_option
from nnctl.errors import CheckFailed, UsageError
from nnctl.training.events import RunFinished

VERDICTS = ("none", "overfitting", "undecided")
FIELDS = {
    **dict.fromkeys(
        ["accuracy", "validation_accuracy", "loss", "overfitting.gap", "best_epoch"], ()
    ),
    "overfitting.verdict": VERDICTS,
}


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
        *("", "accuracy>=", ">=0.97", "accuracy=0.97", "accuracy=>0.97"),
        *("accuracy>=0.97 loss<1", "accuracy<>1", "accuracy>=__import__('os')"),
    ],
)
def test_bad_syntax_is_a_usage_error_that_shows_the_form(text: str) -> None:
    with pytest.raises(UsageError, match="write FIELD OP VALUE, with OP one of >= <= == != > <"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("accuracy", r"a shell takes > and < for itself .*\nwrite --require 'accuracy >= 0.9'"),
        ("accuracy>=high", "accuracy is a number, high is none"),
        ("accuracy>=0.9.7", "0.9.7 is none"),
        ("accuracy>=nan", "nan is none"),
        ("loss<inf", "inf is none"),
        ("loss<1e999", "1e999 is none"),
        ("accuracy>=80", "accuracies lie between 0 and 1; did you mean 0.8?"),
        ("validation_accuracy > 97.5", "did you mean 0.975?"),
        ("acuracy>0", "no such field; did you mean accuracy?"),
        ("val_accuracy>0.9", "did you mean validation_accuracy?"),
        ("val_acc>0.9", "did you mean validation_accuracy?"),
        ("verdict==none", "did you mean overfitting.verdict?"),
        ("qqq>0", "no such field; there are accuracy, validation_accuracy, loss"),
        ("overfitting.verdict==nonee", "never nonee; did you mean none?"),
        ("overfitting.verdict==1", "never 1; it is one of none, overfitting, undecided"),
        ("overfitting.verdict>none", "a word is compared by == or !=, not >"),
    ],
)
def test_requirement_that_makes_no_sense_gets_the_right_word(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(text)


def test_words_are_compared_too() -> None:
    result = {"overfitting": {"verdict": "none"}}
    assert is_met("overfitting.verdict == none", result)
    assert not is_met("overfitting.verdict!=none", result)
    assert is_met("overfitting.verdict != overfitting", result)
    assert not is_met("overfitting.verdict == none", {"overfitting": {"verdict": None}})


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
    verdict: Literal["none", "some"]


@dataclass
class Outer:
    accuracy: float
    epochs: int | None
    name: str
    inner: Inner
    maybe: Inner | None


def test_fields_are_numbers_and_words_of_a_dataclass_and_of_the_dataclasses_in_it() -> None:
    assert fields_of(Outer) == {
        **{"accuracy": (), "epochs": (), "inner.gap": (), "inner.verdict": ("none", "some")},
        **{"maybe.gap": (), "maybe.verdict": ("none", "some")},
    }


def test_fields_of_a_run_reach_into_the_verdict() -> None:
    fields = fields_of(RunFinished)
    expected = {"test_accuracy", "validation_loss", "best_epoch", "seconds", "overfitting.gap"}
    assert expected | {"overfitting.evidence.loss_rise"} <= set(fields)
    assert "completed" in fields["status"]
    assert "overfitting" in fields["overfitting.verdict"]
    assert not {"run_dir", "overfitting"} & set(fields)
