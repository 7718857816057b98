"""Nodes, graphs, and the expressions that are read into them."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnctl.errors import UsageError
from nnctl.graph.expression import MAX_DEPTH, MAX_LENGTH, assignments, parse
from nnctl.graph.graph import Add, Graph, Multiply

SHOPPING = "(apple*2 + orange*3) * tax"
PRICES = {"apple": 100.0, "orange": 150.0, "tax": 1.1}


def solved(text: str, values: dict[str, float]) -> Graph:
    graph = parse(text, values)
    graph.forward()
    graph.backward()
    return graph


def gradients(graph: Graph) -> dict[str, float]:
    return {leaf.symbol: leaf.gradient for leaf in graph.leaves}


def test_multiply_passes_the_gradient_on_times_the_other_input() -> None:
    node = Multiply()
    assert node.forward(3, 5) == 15
    assert node.local_derivatives() == (5, 3)
    assert node.backward(2) == (10, 6)


def test_add_passes_the_gradient_on_unchanged() -> None:
    node = Add()
    assert node.forward(3, 5) == 8
    assert node.backward(2) == (2, 2)


def test_shopping_graph_has_the_gradients_worked_by_hand() -> None:
    graph = solved(SHOPPING, PRICES)
    assert graph.result.value == pytest.approx(715)
    expected = {"apple": 2.2, "2": 110, "orange": 3.3, "3": 165, "tax": 650}
    assert gradients(graph) == pytest.approx(expected)
    for leaf in graph.leaves:
        assert graph.numerical_gradient(leaf) == pytest.approx(leaf.gradient, rel=1e-8)


def test_variable_used_twice_is_one_leaf_with_the_sum_of_both_gradients() -> None:
    graph = solved("a * (a + b)", {"a": 2.0, "b": 3.0})
    assert gradients(graph) == {"a": 7, "b": 2}  # dL/da = 2 a + b
    a = graph.leaves[0]
    assert sorted(edge.gradient for edge in graph.edges() if edge.source is a) == [2, 5]


def test_second_backward_does_not_add_to_the_first() -> None:
    graph = solved(SHOPPING, PRICES)
    once = gradients(graph)
    graph.backward()
    assert gradients(graph) == once


def test_numerical_gradient_leaves_the_graph_as_it_was() -> None:
    graph = solved(SHOPPING, PRICES)
    before = [node.value for node in graph.nodes], list(graph.edges())
    graph.numerical_gradient(graph.leaves[0])
    assert ([node.value for node in graph.nodes], list(graph.edges())) == before


def test_wrong_local_derivative_disagrees_with_the_numerical_gradient() -> None:
    class Wrong(Multiply):
        def local_derivatives(self) -> tuple[float, float]:
            return self.x, self.y  # not swapped

    graph = Graph()
    a = graph.leaf(3.0, "a")
    graph.apply(Wrong(), a, graph.leaf(5.0))
    graph.forward()
    graph.backward()
    assert graph.numerical_gradient(a) == pytest.approx(5)
    assert a.gradient == 3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 4 - 3", 3),
        ("10 - (4 - 3)", 9),
        ("-2 * -3", 6),
        ("--2", 2),
        ("2 - -2", 4),
        ("-(1 + 2)", -3),
        (".5 + 1. + 1e2 + 1.5E-1", 101.65),
        ("((((7))))", 7),
        (" 1\t+\n2 ", 3),
    ],
)
def test_expressions_have_the_value_of_arithmetic(text: str, value: float) -> None:
    assert parse(text, {}).forward() == pytest.approx(value)


def test_a_difference_is_a_sum_with_a_product_by_minus_one() -> None:
    graph = parse("a - b", {"a": 5.0, "b": 3.0})
    negative, difference = graph.operations
    assert [type(negative), type(difference)] == [Multiply, Add]
    assert [node.symbol for node in negative.inputs] == ["-1", "b"]
    assert difference.inputs[1] is negative


@given(st.integers(0, 10**9))
def test_any_expression_is_differentiated_as_numerically(seed: int) -> None:
    rng = random.Random(seed)

    def write(depth: int) -> str:
        if depth == 0 or rng.random() < 0.2:
            return rng.choice(["a", "b", "c", f"{rng.uniform(0, 2):.2f}"])
        if rng.random() < 0.2:
            return f"-({write(depth - 1)})"
        return f"({write(depth - 1)} {rng.choice('+-*')} {write(depth - 1)})"

    values = {name: rng.uniform(-2, 2) for name in "abc"}
    text = write(5) + " + 0 * (a + b + c)"
    graph = solved(text, values)
    assert graph.result.value == pytest.approx(eval(text, {}, dict(values)))
    for leaf in graph.leaves:
        assert graph.numerical_gradient(leaf) == pytest.approx(leaf.gradient, rel=1e-4, abs=1e-4)


def test_long_chains_need_no_recursion() -> None:
    uses = MAX_LENGTH // 2
    graph = solved("+".join("a" * uses), {"a": 0.5})
    assert graph.result.value == uses / 2
    assert graph.leaves[0].gradient == uses
    right = "(" * (MAX_DEPTH - 1) + "a" + "*a)" * (MAX_DEPTH - 1)
    assert solved(right, {"a": 1.0}).leaves[0].gradient == MAX_DEPTH


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("a +", 4, "is expected here, but the expression ends"),
        ("a + * b", 5, "is expected here, not *"),
        ("a b", 3, "operator"),
        ("2a", 2, "operator"),
        ("a (b)", 3, "operator"),
        ("(a + b", 7, "parenthesis of column 1"),
        ("a + b)", 6, "never opened"),
        ("()", 2, "is expected here, not )"),
        ("a ** 2", 4, "power"),
        ("a / b", 3, "'/'"),
        ("a ^ 2", 3, "'^'"),
        ("__import__('os')", 11, "operator"),
        ("a.b", 2, "'.'"),
        ("a * é", 5, "'é' can't be used here; names have a-z, A-Z, 0-9 and _"),
        ("a + \x1b[31m", 5, "'\\x1b'"),
        ("1e999", 1, "too large"),
        ("+a", 1, "is expected here, not +"),
        ("-" * 5000 + "a", None, "4,000 are allowed"),
        ("(" * 1500 + "a" + ")" * 1500, MAX_DEPTH + 1, "deeper"),
        ("-" * 1500 + "a", MAX_DEPTH + 1, "deeper"),
        ("", None, "empty"),
        (" \t ", None, "empty"),
    ],
)
def test_errors_point_at_their_column(text: str, column: int | None, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, {"a": 1.0, "b": 2.0})
    first, *rest = str(caught.value).split("\n")
    assert message in first
    assert "\x1b" not in str(caught.value)
    if column is None:
        assert not rest
        return
    assert first.startswith(f"column {column}: ")
    shown, caret = rest
    at = caret.index("^")
    expected = text[column - 1 : column]
    if expected.isprintable():
        assert shown[at : at + 1] == expected
    assert len(shown) < 80


def test_missing_value_points_at_the_first_use_and_names_them_all() -> None:
    with pytest.raises(UsageError, match=r"column 5: b has no value; add b=NUMBER c=NUMBER"):
        parse("a + b*c + b", {"a": 1.0})


def test_unused_value_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="no variable aple; did you mean apple"):
        parse(SHOPPING, {"aple": 100.0, "orange": 150.0, "tax": 1.1})
    with pytest.raises(UsageError, match="no variable z; it has a, b"):
        parse("a + b", {"a": 1.0, "b": 1.0, "z": 1.0})
    with pytest.raises(UsageError, match="it has none"):
        parse("1 + 1", {"z": 1.0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "is not NAME=VALUE"),
        ("a=", "not a finite number"),
        ("a=ten", "not a finite number"),
        ("a=nan", "not a finite number"),
        ("a=-inf", "not a finite number"),
        ("a=1e999", "not a finite number"),
        ("a=--1", "not a finite number"),
        ("a=1_000", "not a finite number"),
        ("2=1", "a name is made of"),
        ("naïve=1", "a name is made of a-z, A-Z, 0-9 and _, not first a digit"),
        ("=1", "a name is made of"),
        ("a\x1b=1", "a name is made of"),
    ],
)
def test_assignments_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        assignments([text])
    assert "\x1b" not in str(caught.value)


def test_assignments_hold_signed_numbers_and_each_name_once() -> None:
    assert assignments(["a=-1.5", "_b2=+2e3"]) == {"a": -1.5, "_b2": 2000}
    with pytest.raises(UsageError, match="a is given twice"):
        assignments(["a=1", "a=1"])


def test_overflow_is_infinite_and_no_error() -> None:
    assert math.isinf(solved("a * a", {"a": 1e200}).result.value)
