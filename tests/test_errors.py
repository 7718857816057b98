"""The error tree, its exit codes, and what of outside text may reach a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnctl import errors
from nnctl.errors import ExitCode, NnctlError, printable

TREE = {
    errors.NnctlError: (Exception, ExitCode.SYSTEM),
    errors.SystemFailure: (errors.NnctlError, ExitCode.SYSTEM),
    errors.UsageError: (errors.NnctlError, ExitCode.USAGE),
    errors.ConfigError: (errors.UsageError, ExitCode.USAGE),
    errors.CheckFailed: (errors.NnctlError, ExitCode.CHECK_FAILED),
    errors.DataError: (errors.NnctlError, ExitCode.DATA),
    errors.RunError: (errors.NnctlError, ExitCode.RUN),
    errors.Diverged: (errors.NnctlError, ExitCode.DIVERGED),
}


def test_exit_codes_are_those_that_scripts_rely_on() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "SYSTEM": 1,
        "USAGE": 2,
        "CHECK_FAILED": 3,
        "DATA": 4,
        "RUN": 5,
        "DIVERGED": 6,
    }


def test_every_error_stands_where_the_module_draws_it() -> None:
    defined = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, NnctlError)
    }
    assert defined == set(TREE)
    drawing = {
        line.strip(" |`-").split()[0]: line for line in (errors.__doc__ or "").splitlines() if line
    }
    for kind, (parent, code) in TREE.items():
        assert kind.__bases__ == (parent,)
        assert kind.exit_code == code
        if kind is not NnctlError:
            assert f" {int(code)} " in drawing[kind.__name__]


@given(st.text(st.characters()))
def test_printable_text_is_one_line_that_no_terminal_obeys(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    categories = {unicodedata.category(character) for character in shown}
    assert categories.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})
    shown.encode()  # surrogates would fail


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_printable_text_keeps_what_can_be_read(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("caf\u00e9 \u4e2d", "caf\u00e9 \u4e2d"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x9b2J", r"\x9b2J"),  # the one-character form of ESC [
        ("\udce9", r"\udce9"),  # a byte of a path that is not UTF-8
        ("\u202e", r"\u202e"),  # turns the reading direction round
        (b"bytes", "b'bytes'"),
        (None, "None"),
    ],
)
def test_printable_escapes_the_rest_as_python_does(text: object, shown: str) -> None:
    assert printable(text) == shown
