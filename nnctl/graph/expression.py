"""The language of expressions, read into a computational graph.

    program  = { NAME "=" sum ";" } sum
    sum      = product { ("+" | "-") product }
    product  = factor { ("*" | "/") factor }
    factor   = "-" factor | power
    power    = atom [ "^" factor ]
    atom     = NUMBER | NAME | FUNCTION "(" sum { "," sum } ")" | "(" sum ")"

`NAME = ...;` gives a node a name: it is computed once, however often it is used. A graph adds and
multiplies; so -x is read as -1 * x, and x - y as x + -1 * y. The text is only ever read, never run.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, NoReturn, TypeVar

from nnctl.errors import UsageError, did_you_mean, pointed, printable
from nnctl.graph.graph import Graph, Leaf, Node, Operation, Undefined
from nnctl.graph.operations import FUNCTIONS, OPERATORS, Add, Multiply, Power

MAX_LENGTH = 4000  # characters
MAX_DEPTH = 100  # of parentheses, signs and powers

NUMBER = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
SIGNED = re.compile(f"[-+]?{NUMBER.pattern}")
PUNCTUATION = "+-*/^(),;="
ELSEWHERE = {"ln": "log", "relu6": "relu", "logistic": "sigmoid", "maximum": "max"}
LOOKALIKES = dict(zip("\xd7\xb7\xf7\u2212\xb2", ("*", "*", "/", "-", "^2"), strict=True))
OPERATOR = "an operator + - * / ^"
T = TypeVar("T")


class Expression:
    """An expression as a graph; its variables have no value before `assign`.

    >>> expression = read("y = a - 1; y * y")
    >>> expression.assign({"a": 4})
    >>> expression.solve()
    9.0
    >>> expression.variables["a"].gradient
    6.0
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.graph = Graph()
        self.variables: dict[str, Leaf] = {}  # those that need a value, by first use
        self.named: dict[str, Node] = {}  # those that the expression defines
        self.columns: dict[Node, int] = {}  # from 0: of a variable the first use

    def assign(self, values: Mapping[str, float]) -> None:
        """Set the variables to `values`; a number that the expression names may be among them.

        Raises:
            UsageError: a variable has no value, or a value no variable.

        """
        missing = [name for name in self.variables if name not in values]
        constants = {name: node for name, node in self.named.items() if isinstance(node, Leaf)}
        leaves = constants | self.variables
        for name, value in values.items():
            if name not in leaves:
                self._refuse(name, missing or list(leaves))
            leaves[name].value = float(value)
        if missing:
            what = " ".join(f"{name}=NUMBER" for name in missing)
            column = self.columns[self.variables[missing[0]]]
            raise self.error(f"{missing[0]} has no value; add {what}", column)

    def solve(self) -> float:
        """Compute every value and every gradient; return the value.

        Raises:
            UsageError: a value or a gradient does not exist, or is too large.

        """
        try:
            value = self.graph.forward()
            self.graph.backward()
        except Undefined as error:
            raise self.error(str(error), self.columns[error.node]) from None
        return value

    def error(self, message: str, column: int) -> UsageError:
        """Return the error at `column`, with a caret below it."""
        return UsageError(f"column {column + 1}: {message}\n{pointed(self.text, column)}")

    def _refuse(self, name: str, known: list[str]) -> NoReturn:
        if name in self.named:
            raise UsageError(f"{name}=...: the expression computes {name}; only numbers can be set")
        there_are = f"it has {', '.join(known)}" if known else "it has none"
        hint = did_you_mean(name, known, there_are)
        raise UsageError(f"{name}=...: the expression has no variable {name}; {hint}")


def read(text: str) -> Expression:
    """Return the expression that `text` writes.

    Raises:
        UsageError: `text` is no expression.

    """
    text = _normal(text)
    if len(text) > MAX_LENGTH:
        raise UsageError(f"the expression has {len(text):,} characters; {MAX_LENGTH:,} are allowed")
    return _Parser(text).expression


def assignments(texts: Iterable[str]) -> dict[str, float]:
    """Return the values in `texts`, each of the form NAME=VALUE.

    >>> assignments(["apple=100", "세금=1.1"])
    {'apple': 100.0, '세금': 1.1}

    Raises:
        UsageError: a text has another form, or a name is there twice.

    """
    values: dict[str, float] = {}
    for text in map(_normal, texts):
        name, equals, number = (part.strip() for part in text.partition("="))
        if not equals:
            raise UsageError(f"'{printable(text)}' is not NAME=VALUE, as in apple=100")
        if not name.isidentifier():
            raise UsageError(
                f"'{printable(text)}': a name is made of letters, digits and _, not first a digit"
            )
        if not SIGNED.fullmatch(number) or not math.isfinite(float(number)):
            raise UsageError(f"'{printable(text)}': '{printable(number)}' is not a finite number")
        if name in values:
            raise UsageError(f"{name} is given twice")
        values[name] = float(number)
    return values


def _normal(text: str) -> str:
    """Return `text` with one form for each letter, whatever keyboard or file it comes from."""
    return re.sub(r"\s", " ", unicodedata.normalize("NFC", text))


class _Token(NamedTuple):
    text: str  # empty at the end
    column: int  # from 0


class _Parser:
    """Reads one expression from left to right, one token ahead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.expression = Expression(text)
        self.graph = self.expression.graph
        self.unused: dict[str, int] = {}  # definitions, and their columns
        self.depth = 0
        self.token = _Token("", 0)
        self.advance()
        if not self.token.text:
            raise UsageError("the expression is empty; write one as in 'apple * 2'")
        while self.definition():
            pass
        if self.token.text:
            self.fail(self.unexpected())
        for name, column in self.unused.items():
            self.fail(f"{name} is not used by what follows it", column)

    def definition(self) -> bool:
        """Read up to a semicolon and return True, or read the last expression."""
        name = self.token
        if name.text.isidentifier() and self.text[self.end :].lstrip().startswith("="):
            self.advance()
            self.advance()
            self.define(name, self.sum())
            if self.token.text != ";":
                self.fail(f"a ; is expected behind the value of {name.text}" + self.found())
            self.advance()
            return True
        self.sum()
        if self.token.text == ";":
            self.fail("only a definition is followed by ; as in: y = a * b; y * y")
        return False

    def define(self, name: _Token, node: Node) -> None:
        """Give `node` a name, unless it has one already: then both name the same node."""
        if name.text in FUNCTIONS:
            self.fail(f"{name.text} is a function; choose another name", name.column)
        if name.text in self.expression.named:
            self.fail(f"{name.text} is defined twice", name.column)
        if name.text in self.expression.variables:
            self.fail(f"{name.text} is used before it is defined", name.column)
        if node.name is None:
            node.name = name.text
        self.expression.named[name.text] = node
        self.unused[name.text] = name.column

    def sum(self) -> Node:
        """Read terms that are added or subtracted."""
        total = self.product()
        while (sign := self.token).text in ("+", "-"):
            self.advance()
            term = self.product()
            if sign.text == "-":
                term = self.negative(term, sign.column)
            total = self.apply(Add(), sign.column, total, term)
        return total

    def product(self) -> Node:
        """Read factors that are multiplied or divided."""
        result = self.factor()
        while (operator := self.token).text in ("*", "/"):
            self.advance()
            if self.token.text == "*":
                self.fail("a power is written with ^, as in a ^ 2")
            kind = OPERATORS[operator.text]
            result = self.apply(kind(), operator.column, result, self.factor())
        return result

    def factor(self) -> Node:
        """Read a power with any number of minus signs before it."""
        sign = self.token
        if sign.text != "-":
            return self.power()
        self.advance()
        return self.negative(self.deeper(self.factor), sign.column)

    def power(self) -> Node:
        """Read an atom, or one to a power; a ^ b ^ c is a ^ (b ^ c)."""
        base = self.atom()
        operator = self.token
        if operator.text != "^":
            return base
        self.advance()
        return self.apply(Power(), operator.column, base, self.deeper(self.factor))

    def atom(self) -> Node:
        """Read a number, a name, a function's value, or something in parentheses."""
        token = self.token
        if NUMBER.fullmatch(token.text):
            self.advance()
            if not math.isfinite(float(token.text)):
                self.fail("the number is too large", token.column)
            return self.leaf(float(token.text), token.column)
        if token.text.isidentifier():
            self.advance()
            return self.function(token) if self.token.text == "(" else self.name(token)
        if token.text != "(":
            self.fail("a number, a name or ( is expected here" + self.found())
        [node] = self.deeper(self.arguments)
        return node

    def arguments(self) -> list[Node]:
        """Read what stands between parentheses, separated by commas."""
        opened = self.token.column + 1
        self.advance()
        nodes = [self.sum()]
        while self.token.text == ",":
            self.advance()
            nodes.append(self.sum())
        if self.token.text != ")":
            unclosed = f"the parenthesis of column {opened} is not closed"
            self.fail(self.unexpected() if self.token.text else unclosed)
        self.advance()
        return nodes

    def function(self, token: _Token) -> Node:
        """Read the inputs of a function."""
        kind = FUNCTIONS.get(token.text)
        if kind is None:
            there_are = f"there are {', '.join(FUNCTIONS)}"
            hint = did_you_mean(ELSEWHERE.get(token.text, token.text), FUNCTIONS, there_are)
            product = f"; {OPERATOR} is missing" if token.text in self.known() else ""
            self.fail(f"there is no function {token.text}{product or f'; {hint}'}", token.column)
        inputs = self.deeper(self.arguments)
        if len(inputs) != kind.arity:
            takes = "1 input" if kind.arity == 1 else f"{kind.arity} inputs"
            self.fail(f"{token.text} takes {takes}, not {len(inputs)}", token.column)
        return self.apply(kind(), token.column, *inputs)

    def name(self, token: _Token) -> Node:
        """Return the one node of a name."""
        if token.text in FUNCTIONS:
            inputs = ", ".join("ab"[: FUNCTIONS[token.text].arity])
            self.fail(f"{token.text} is a function: {token.text}({inputs})", token.column)
        self.unused.pop(token.text, None)
        if token.text in self.expression.named:
            return self.expression.named[token.text]
        if token.text not in self.expression.variables:
            leaf = self.leaf(math.nan, token.column, token.text)
            self.expression.variables[token.text] = leaf
        return self.expression.variables[token.text]

    def known(self) -> set[str]:
        """Return the names that have been read so far."""
        return {*self.expression.named, *self.expression.variables}

    def negative(self, node: Node, column: int) -> Node:
        """Return -1 * node, or the negative number."""
        if isinstance(node, Leaf) and node.name is None:
            node.value = -node.value
            return node
        return self.apply(Multiply(), column, self.leaf(-1.0, column), node)

    def leaf(self, value: float, column: int, name: str | None = None) -> Leaf:
        """Add a leaf that stands at `column`."""
        leaf = self.graph.leaf(value, name)
        self.expression.columns[leaf] = column
        return leaf

    def apply(self, operation: Operation, column: int, *inputs: Node) -> Operation:
        """Add an operation that stands at `column`."""
        self.expression.columns[operation] = column
        return self.graph.apply(operation, *inputs)

    def deeper(self, read: Callable[[], T]) -> T:
        """Read something nested."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"nested deeper than {MAX_DEPTH} levels")
        result = read()
        self.depth -= 1
        return result

    @property
    def end(self) -> int:
        """Where the token ends."""
        return self.token.column + len(self.token.text)

    def advance(self) -> None:
        """Read the next token."""
        start = self.end
        start += len(self.text[start:]) - len(self.text[start:].lstrip())
        first = self.text[start : start + 1]
        if match := NUMBER.match(self.text, start):
            end = match.end()
        else:
            end = start + len(first)
            if first.isidentifier():
                while ("_" + self.text[end : end + 1]).isidentifier() and end < len(self.text):
                    end += 1
        self.token = _Token(self.text[start:end], start)
        if first and not match and not first.isidentifier() and first not in PUNCTUATION:
            like = LOOKALIKES.get(first)
            allowed = f"write {like}" if like else "there are + - * / ^ and parentheses"
            self.fail(f"'{printable(first)}' can't be used here; {allowed}")

    def found(self) -> str:
        """Say what is there instead."""
        return f", not {self.token.text}" if self.token.text else ", but the expression ends"

    def unexpected(self) -> str:
        """Say what is wrong with a token that can't follow a complete value."""
        match self.token.text:
            case ")":
                return "this parenthesis was never opened"
            case ",":
                return "a comma separates the inputs of a function, as in max(a, b)"
            case "=":
                return "only a name can be defined, at the start or behind a ;"
        return f"{OPERATOR} is missing here"

    def fail(self, message: str, column: int | None = None) -> NoReturn:
        """Raise the error at `column`, by default the token's."""
        raise self.expression.error(message, self.token.column if column is None else column)
