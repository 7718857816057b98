"""Expressions of names, numbers, + - * and parentheses, read into a computational graph.

    sum      = product { ("+" | "-") product }
    product  = factor { "*" factor }
    factor   = NUMBER | NAME | "(" sum ")" | "-" factor

The text is only ever read, never run. A graph adds and multiplies; so -x is read as -1 * x, and
x - y as x + -1 * y.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, NoReturn

from nnctl.errors import UsageError, printable
from nnctl.graph.graph import Add, Graph, Leaf, Multiply, Node

MAX_LENGTH = 4000  # characters
MAX_DEPTH = 100  # of parentheses and signs
MAX_SHOWN = 72  # characters of a long expression in an error

NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
IN_NAMES = "a-z, A-Z, 0-9 and _"
NUMBER = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
SIGNED = re.compile(f"[-+]?{NUMBER.pattern}")


def parse(text: str, values: Mapping[str, float]) -> Graph:
    """Return the graph of the expression `text`, its variables set to `values`.

    >>> parse("2 * (a - 1)", {"a": 4}).forward()
    6.0

    Raises:
        UsageError: `text` is no expression, a variable has no value, or a value no variable.

    """
    if len(text) > MAX_LENGTH:
        raise UsageError(f"the expression has {len(text):,} characters; {MAX_LENGTH:,} are allowed")
    return _Parser(text, values).graph


def assignments(texts: Iterable[str]) -> dict[str, float]:
    """Return the values in `texts`, each of the form NAME=VALUE.

    >>> assignments(["apple=100", "tax=1.1"])
    {'apple': 100.0, 'tax': 1.1}

    Raises:
        UsageError: a text has another form, or a name is there twice.

    """
    values: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        if not equals:
            raise UsageError(f"'{printable(text)}' is not NAME=VALUE, as in apple=100")
        if not NAME.fullmatch(name):
            raise UsageError(
                f"'{printable(text)}': a name is made of {IN_NAMES}, not first a digit"
            )
        if not SIGNED.fullmatch(number) or not math.isfinite(float(number)):
            raise UsageError(f"'{printable(text)}': '{printable(number)}' is not a finite number")
        if name in values:
            raise UsageError(f"{name} is given twice")
        values[name] = float(number)
    return values


class _Token(NamedTuple):
    text: str  # empty at the end
    column: int  # from 0


class _Parser:
    """Reads one expression from left to right, one token ahead."""

    def __init__(self, text: str, values: Mapping[str, float]) -> None:
        self.text = re.sub(r"\s", " ", text)
        self.values = values
        self.graph = Graph()
        self.variables: dict[str, tuple[Leaf, int]] = {}  # and the column of the first use
        self.depth = 0
        self.token = _Token("", 0)
        self.advance()
        if not self.token.text:
            raise UsageError("the expression is empty; write one as in 'apple * 2'")
        self.sum()
        if self.token.text:
            self.fail(self.unexpected())
        self.check_names()

    def check_names(self) -> None:
        """Hold the variables against the values that were given."""
        missing = [name for name in self.variables if name not in self.values]
        unused = [name for name in self.values if name not in self.variables]
        if unused:
            close = difflib.get_close_matches(unused[0], missing or self.variables, 1)
            there_are = f"it has {', '.join(self.variables)}" if self.variables else "it has none"
            raise UsageError(
                f"{unused[0]}=...: the expression has no variable {unused[0]}; "
                + (f"did you mean {close[0]}?" if close else there_are)
            )
        if missing:
            what = " ".join(f"{name}=NUMBER" for name in missing)
            column = self.variables[missing[0]][1]
            self.fail(f"{missing[0]} has no value; add {what}", column)

    def sum(self) -> Node:
        """Read terms that are added or subtracted."""
        total = self.product()
        while (sign := self.token.text) in ("+", "-"):
            self.advance()
            term = self.product()
            total = self.graph.apply(Add(), total, self.negative(term) if sign == "-" else term)
        return total

    def product(self) -> Node:
        """Read factors that are multiplied."""
        result = self.factor()
        while self.token.text == "*":
            self.advance()
            if self.token.text == "*":
                self.fail("there is no power; write a product, as in a * a")
            result = self.graph.apply(Multiply(), result, self.factor())
        return result

    def factor(self) -> Node:
        """Read a number, a name, something in parentheses, or one of these with a minus sign."""
        token = self.token
        if NUMBER.fullmatch(token.text):
            self.advance()
            if not math.isfinite(float(token.text)):
                self.fail("the number is too large", token.column)
            return self.graph.leaf(float(token.text))
        if NAME.fullmatch(token.text):
            self.advance()
            return self.variable(token)
        if token.text not in ("(", "-"):
            self.fail("a number, a name or ( is expected here" + self.found())
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"nested deeper than {MAX_DEPTH} levels")
        self.advance()
        if token.text == "-":
            node: Node = self.negative(self.factor())
        else:
            node = self.sum()
            if self.token.text != ")":
                opened = f"the parenthesis of column {token.column + 1} is not closed"
                self.fail(self.unexpected() if self.token.text else opened)
            self.advance()
        self.depth -= 1
        return node

    def variable(self, token: _Token) -> Leaf:
        """Return the one leaf of a name."""
        if token.text not in self.variables:
            leaf = self.graph.leaf(self.values.get(token.text, math.nan), token.text)
            self.variables[token.text] = leaf, token.column
        return self.variables[token.text][0]

    def negative(self, node: Node) -> Node:
        """Return -1 * node."""
        return self.graph.apply(Multiply(), self.graph.leaf(-1.0), node)

    def advance(self) -> None:
        """Read the next token."""
        start = self.token.column + len(self.token.text)
        start += len(self.text[start:]) - len(self.text[start:].lstrip())
        rest = self.text[start:]
        match = NUMBER.match(rest) or NAME.match(rest)
        self.token = _Token(match.group() if match else rest[:1], start)
        if rest and not match and rest[0] not in "+-*()":
            letter = rest[0].isalpha()
            allowed = f"names have {IN_NAMES}" if letter else "there are + - * and parentheses"
            self.fail(f"'{printable(rest[0])}' can't be used here; {allowed}")

    def found(self) -> str:
        """Say what is there instead."""
        return f", not {self.token.text}" if self.token.text else ", but the expression ends"

    def unexpected(self) -> str:
        """Say what is wrong with a token that can't follow a complete value."""
        if self.token.text == ")":
            return "this parenthesis was never opened"
        return "an operator + - * is missing here"

    def fail(self, message: str, column: int | None = None) -> NoReturn:
        """Raise the error at `column`, by default the token's, with a caret below it."""
        at = self.token.column if column is None else column
        start = max(0, at - MAX_SHOWN * 2 // 3)
        shown = printable(self.text[start : start + MAX_SHOWN])
        raise UsageError(f"column {at + 1}: {message}\n    {shown}\n    {' ' * (at - start)}^")
