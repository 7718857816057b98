"""Nodes, graphs, and the expressions that are read into them."""

import itertools
import math
import random
import unicodedata

import pytest

from nnctl.errors import Diverged, UsageError
from nnctl.graph.descent import descend
from nnctl.graph.expression import MAX_DEPTH, MAX_LENGTH, Expression, assignments, read
from nnctl.graph.graph import Graph, Operation
from nnctl.graph.operations import FUNCTIONS, OPERATORS, Add, Multiply

SHOPPING = "(apple*2 + orange*3) * tax"
PRICES = {"apple": 100.0, "orange": 150.0, "tax": 1.1}


def parse(text: str, values: dict[str, float]) -> Expression:
    expression = read(text)
    expression.assign(values)
    return expression


def solved(text: str, values: dict[str, float]) -> Graph:
    expression = parse(text, values)
    expression.solve()
    return expression.graph


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
        ("2 ^ 3 ^ 2", 512),
        ("(2 ^ 3) ^ 2", 64),
        ("-2 ^ 2", -4),
        ("(-2) ^ 2", 4),
        ("2 ^ -1", 0.5),
        ("12 / 2 / 3", 2),
        ("12 / 2 * 3", 18),
        ("max(1, 2) * max(4, 3)", 8),
        ("log(exp(2)) + sqrt(9) + relu(-1) + relu(2)", 7),
        ("sigmoid(0) + tanh(0)", 0.5),
        ("sigmoid(-1000) + tanh(1000)", 1),
        ("y = 1 + 2; z = y * y; z - y", 6),
        ("0 ^ 0 + 0 ^ 2", 1),
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
    assert parse(text, {}).solve() == pytest.approx(value)


def test_a_difference_is_a_sum_with_a_product_by_minus_one() -> None:
    graph = solved("a - b", {"a": 5.0, "b": 3.0})
    negative, difference = graph.operations
    assert [type(negative), type(difference)] == [Multiply, Add]
    assert [node.symbol for node in negative.inputs] == ["-1", "b"]
    assert difference.inputs[1] is negative


def test_minus_before_a_number_belongs_to_it() -> None:
    assert [leaf.value for leaf in solved("-2 * a - 3", {"a": 1.0}).leaves] == [-2, 1, -3]


def written(rng: random.Random, depth: int, names: list[str]) -> str:
    """Return a random expression that may use any operator and function."""
    if depth == 0 or rng.random() < 0.15:
        return rng.choice([*names, f"{rng.uniform(0.1, 2):.2f}"])
    inner = [written(rng, depth - 1, names) for _ in range(2)]
    kind = rng.choice(["-", *OPERATORS, *FUNCTIONS])
    if kind in FUNCTIONS:
        return f"{kind}({', '.join(inner[: FUNCTIONS[kind].arity])})"
    return f"({inner[0]} {kind} {inner[1]})"


def program(rng: random.Random) -> str:
    """Return a random expression with two shared nodes; it uses a, b, c, and each of the two."""
    first, second = written(rng, 2, list("abc")), written(rng, 2, list("abcs"))
    last = written(rng, 3, list("abcst"))
    return f"s = {first}; t = {second}; {last} + 0.1 * (s * t + a + b + c)"


def is_tame(graph: Graph) -> bool:
    """Return whether a central difference can be trusted to 1e-6 here."""
    near = [node.inputs[-1].value for node in graph.operations if node.word in ("/", "log", "sqrt")]
    near += [node.inputs[0].value for node in graph.operations if node.word == "^"]
    sizes = [abs(number) for node in graph.nodes for number in (node.value, node.gradient)]
    return min(map(abs, near), default=1) > 0.2 and max(sizes) < 100


def test_a_thousand_random_graphs_are_differentiated_as_numerically() -> None:
    rng = random.Random(0)
    compared, kinks, words = 0, 0, set()
    while compared < 1000:
        expression = parse(program(rng), {name: rng.uniform(-2, 2) for name in "abc"})
        graph = expression.graph
        try:
            expression.solve()
        except UsageError:
            continue  # no value here, which other tests look at
        if not is_tame(graph):
            continue
        if any(node.kink() for node in graph.operations):
            kinks += 1
            continue
        compared += 1
        words |= {node.word for node in graph.operations}
        for leaf in expression.variables.values():
            numerical = graph.numerical_gradient(leaf)
            assert leaf.gradient == pytest.approx(numerical, rel=1e-6, abs=1e-6), expression.text
    assert words == {*OPERATORS, *FUNCTIONS}
    assert kinks < compared / 2


@pytest.mark.parametrize("kind", [*OPERATORS.values(), *FUNCTIONS.values()])
def test_a_wrong_local_derivative_of_any_operation_is_noticed(
    kind: type[Operation], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = kind.local_derivatives
    monkeypatch.setattr(
        kind, "local_derivatives", lambda self: (right(self)[0] + 0.01, *right(self)[1:])
    )
    with pytest.raises(AssertionError):
        test_a_thousand_random_graphs_are_differentiated_as_numerically()


def test_shared_node_is_computed_once_and_its_gradients_add_up() -> None:
    graph = solved("y = a * 3; y * y + y", {"a": 2.0})
    assert [node.symbol for node in graph.operations] == ["*", "*", "+"]
    shared = graph.operations[0]
    assert (shared.name, shared.value, shared.gradient) == ("y", 6, 13)  # 2 y + 1
    assert [edge.gradient for edge in graph.edges() if edge.source is shared] == [6, 6, 1]
    assert graph.leaves[0].gradient == 39


def test_named_number_is_a_leaf_that_can_be_set_but_needs_no_value() -> None:
    assert parse("x = 3; x * w", {"w": 2.0}).solve() == 6
    expression = parse("x = 3; x * w", {"w": 2.0, "x": 5.0})
    assert expression.solve() == 10
    assert list(expression.variables) == ["w"]


def test_second_name_of_a_node_names_the_same_node() -> None:
    assert len(solved("y = a + 1; z = y; y * z", {"a": 1.0}).operations) == 2


def test_names_are_identifiers_of_any_script_however_they_are_encoded() -> None:
    korean = unicodedata.normalize("NFD", "사과")
    values = assignments([f"{korean}=100", "मूल्य=2", "é=3"])
    assert parse("사과 * मूल्य + é", values).solve() == 203


@pytest.mark.parametrize(
    ("text", "values", "gradient", "words"),
    [
        ("relu(a)", {"a": 0.0}, 0, "relu has a kink at 0"),
        ("max(a, 1)", {"a": 1.0}, 1, "max has a kink where its inputs are equal, here 1"),
        ("(0 - 2) ^ a", {"a": 2.0}, math.nan, "has no derivative by y"),
        ("0 ^ a", {"a": 0.0}, math.nan, "has no derivative by y"),
    ],
)
def test_kinks_are_named(text: str, values: dict[str, float], gradient: float, words: str) -> None:
    graph = solved(text, values)
    [kink] = filter(None, (node.kink() for node in graph.operations))
    assert words in kink
    assert graph.leaves[-1 if text[0] != "m" else 0].gradient == pytest.approx(
        gradient, nan_ok=True
    )


def test_a_square_of_a_negative_number_names_no_kink() -> None:
    graph = solved("(a - 3) ^ 2", {"a": 1.0})
    assert [node.kink() for node in graph.operations] == [None, None]
    assert graph.leaves[0].gradient == -4


def test_numerical_gradient_steps_smaller_near_the_end_of_the_domain() -> None:
    graph = solved("sqrt(a)", {"a": 1e-6})
    assert graph.numerical_gradient(graph.leaves[0]) == pytest.approx(500, rel=0.2)
    graph = solved("a ^ 2 ^ b", {"a": -1.0, "b": 1.0})
    assert math.isnan(graph.numerical_gradient(graph.leaves[-1]))


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
        ("a * a (b)", 5, "operator"),
        ("foo(b)", 1, "no function foo; there are exp, log"),
        ("simoid(b)", 1, "no function simoid; did you mean sigmoid?"),
        ("ln(b)", 1, "no function ln; did you mean log?"),
        ("a + exp", 5, "exp is a function: exp(a)"),
        ("max(a)", 1, "max takes 2 inputs, not 1"),
        ("exp(a, b)", 1, "exp takes 1 input, not 2"),
        ("exp(a; b)", 6, "operator"),
        ("a, b", 2, "a comma separates the inputs"),
        ("exp = 2; a", 1, "exp is a function; choose another"),
        ("y = a; y = b; y", 8, "y is defined twice"),
        ("y = a * b; a = 2; y", 12, "a is used before it is defined"),
        ("y = a * b; a", 1, "y is not used"),
        ("y = a * b", 10, "a ; is expected behind the value of y"),
        ("a; b", 2, "only a definition is followed by ;"),
        ("a + 2 = b", 7, "only a name can be defined"),
        ("y = a; ", 8, "is expected here, but the expression ends"),
        ("y = exp(800); y", 5, "too large for a floating-point number"),
        ("1e200 * a * 1e200", 11, "too large for a floating-point number"),
        ("a / (b - 2)", 3, "division by 0"),
        ("log(b - 2)", 1, "log of 0"),
        ("log(a - b)", 1, "log of -1"),
        ("sqrt(a - b)", 1, "sqrt of -1"),
        ("sqrt(b - 2)", 1, "derivative of sqrt is infinite at 0"),
        ("(b - 2) ^ 0.5", 9, "derivative of ^ is infinite at 0, 0.5"),
        ("(a - b) ^ 0.5", 9, "exponent is whole"),
        ("(b - 2) ^ -a", 9, "divides by 0"),
        ("1 / (a * 1e-160)", 3, "gradient is too large"),
        ("(a + b", 7, "parenthesis of column 1"),
        ("a + b)", 6, "never opened"),
        ("()", 2, "is expected here, not )"),
        ("a ** 2", 4, "a power is written with ^"),
        ("a % b", 3, "'%'"),
        ("a \xd7 b", 3, "'\xd7' can't be used here; write *"),
        ("__import__('os')", 1, "no function __import__"),
        ("a.b", 2, "'.'"),
        ("a + \x1b[31m", 5, "'\\x1b'"),
        ("1e999", 1, "too large"),
        ("+a", 1, "is expected here, not +"),
        ("-" * 5000 + "a", None, "4,000 are allowed"),
        ("(" * 1500 + "a" + ")" * 1500, MAX_DEPTH + 1, "deeper"),
        ("-" * 1500 + "a", MAX_DEPTH + 2, "deeper"),
        ("a^" * 1500 + "a", 2 * MAX_DEPTH + 3, "deeper"),
        ("exp(" * 700 + "a" + ")" * 700, 4 * MAX_DEPTH + 4, "deeper"),
        ("", None, "empty"),
        (" \t ", None, "empty"),
    ],
)
def test_errors_point_at_their_column(text: str, column: int | None, message: str) -> None:
    values = {"a": 1.0, "b": 2.0}
    with pytest.raises(UsageError) as caught:
        parse(text, {name: value for name, value in values.items() if name in text}).solve()
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


def test_caret_stands_below_its_column_also_behind_wide_characters() -> None:
    with pytest.raises(UsageError) as caught:
        read("사과 * + a")
    _, shown, caret = str(caught.value).split("\n")
    assert caret.index("^") == shown.index("+") + 2  # two wide characters before it


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
        ("na-ive=1", "a name is made of letters, digits and _, not first a digit"),
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


def test_descent_takes_all_variables_down_together() -> None:
    steps = list(descend(parse("c = 3; (w - c)^2 + b*b", {"w": 0.0, "b": 1.0}), 2, 0.1))
    assert [step.step for step in steps] == [0, 1, 2]
    assert [step.variables["w"] for step in steps] == pytest.approx([0, 0.6, 1.08])
    assert [step.variables["b"] for step in steps] == pytest.approx([1, 0.8, 0.64])
    assert steps[0].gradients == pytest.approx({"w": -6, "b": 2})
    assert all(after.value < before.value for before, after in itertools.pairwise(steps))


def test_descent_that_leaves_the_numbers_has_diverged() -> None:
    steps = descend(parse("w ^ 4", {"w": 10.0}), 10, 1.0)
    assert next(steps).value == 10_000
    with pytest.raises(Diverged, match=r"after step \d: column 3: .*\n.*\n.*\ntry a smaller --lr"):
        list(steps)


def test_descent_needs_a_variable() -> None:
    with pytest.raises(UsageError, match="no variable to descend on"):
        next(descend(parse("x = 1; x * x", {}), 1, 0.1))
