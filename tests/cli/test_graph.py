"""`nnctl graph` as its user meets it."""

import json
import re
from typing import Any

import pytest
from click.testing import CliRunner

from nnctl.cli.group import cli, run

SHOPPING = ["(apple*2 + orange*3) * tax", "apple=100", "orange=150", "tax=1.1"]


def graph(*arguments: str, columns: int = 80, **env: str) -> str:
    result = CliRunner().invoke(
        cli, ["graph", *arguments], env={"COLUMNS": str(columns), **env}, catch_exceptions=False
    )
    assert result.exit_code == 0
    return result.stdout


def as_json(*arguments: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(graph(*arguments, "--json"))
    return report


def figures(text: str, node: str) -> list[str]:
    """Return the numbers of the first line of the tree that shows `node`."""
    pattern = re.compile(rf"[^\w*+-]*{re.escape(node)}(  .*)")
    return next(match[1].split() for line in text.splitlines() if (match := pattern.match(line)))


def test_graph_prints_the_shopping_example() -> None:
    text = graph(*SHOPPING)
    assert text.startswith("(apple*2 + orange*3) * tax = 715\n")
    assert figures(text, "apple") == ["100", "1.1", "2", "2.2", "2.2"]
    assert figures(text, "2") == ["2", "1.1", "100", "110", "110"]
    assert figures(text, "orange") == ["150", "1.1", "3", "3.3", "3.3"]
    assert figures(text, "3") == ["3", "1.1", "150", "165", "165"]
    assert figures(text, "tax") == ["1.1", "1", "650", "650", "650"]


def test_graph_shows_each_use_of_a_variable_and_their_sum() -> None:
    text = graph("a * (a + b)", "a=2", "b=3")
    assert len(re.findall(r"─ a  ", text)) == 2
    assert "a is used 2 times" in text
    assert "2 + 5 = 7; numerical 7" in text


def test_graph_json_has_the_fields_of_the_contract() -> None:
    report = as_json(*SHOPPING)
    assert list(report) == ["expression", "value", "nodes", "variables"]
    assert report["expression"] == SHOPPING[0]
    assert report["value"] == pytest.approx(715)
    fields = ["id", "operation", "inputs", "value", "gradient", "local_derivatives"]
    assert all(list(node) == fields for node in report["nodes"])
    assert [v["name"] for v in report["variables"]] == ["apple", "orange", "tax"]
    assert [v["gradient"] for v in report["variables"]] == pytest.approx([2.2, 3.3, 650])
    for variable in report["variables"]:
        assert variable["numerical_gradient"] == pytest.approx(variable["gradient"])


def test_graph_json_can_be_computed_again_from_its_nodes() -> None:
    report = as_json("x * (x - y) * 2", "x=3", "y=1")
    nodes = {node["id"]: node for node in report["nodes"]}
    assert len(nodes) == len(report["nodes"])
    assert nodes["x"]["operation"] == "variable"
    shares = dict.fromkeys(nodes, 0.0)
    for node in report["nodes"]:
        inputs = [nodes[name]["value"] for name in node["inputs"]]
        if node["operation"] == "multiply":
            assert node["value"] == inputs[0] * inputs[1]
            assert node["local_derivatives"] == inputs[::-1]
        elif node["operation"] == "add":
            assert node["value"] == sum(inputs)
            assert node["local_derivatives"] == [1, 1]
        else:
            assert (inputs, node["local_derivatives"]) == ([], [])
        for name, derivative in zip(node["inputs"], node["local_derivatives"], strict=True):
            shares[name] += node["gradient"] * derivative
    shares[report["nodes"][-1]["id"]] = 1.0  # the result's own
    assert shares == {name: node["gradient"] for name, node in nodes.items()}


def test_graph_json_has_null_for_what_is_not_finite() -> None:
    assert as_json("a * a", "a=1e200")["value"] is None


def test_graph_dot_is_well_formed() -> None:
    text = graph("x * (x - 2)", "x=3", "--dot")
    lines = text.splitlines()
    assert (lines[0], lines[-1]) == ("digraph {", "}")
    quoted = r'"[^"]*"'
    attributes = rf"\[label={quoted}(, shape=\w+)?\]"
    statement = (
        rf"  (label={quoted}|rankdir=LR|{quoted} {attributes}|{quoted} -> {quoted} {attributes});"
    )
    assert all(re.fullmatch(statement, line) for line in lines[1:-1])
    declared = re.findall(r'^  ("[^"]*") \[', text, re.MULTILINE)
    used = re.findall(r'^  ("[^"]*") -> ("[^"]*")', text, re.MULTILINE)
    assert len(declared) == len(set(declared))
    assert {name for edge in used for name in edge} == set(declared)
    assert sum(source == '"x"' for source, _ in used) == 2


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 120])
@pytest.mark.parametrize("text", [SHOPPING, ["+".join("a" * 300), "a=1"]])
def test_graph_keeps_to_the_width_and_to_ascii_where_asked(text: list[str], columns: int) -> None:
    shown = graph(*text, columns=columns, LC_ALL="C")
    assert shown.isascii()
    assert max(map(len, shown.splitlines())) <= columns


def test_graph_that_is_too_deep_for_the_terminal_goes_on_below() -> None:
    text = graph("+".join("a" * 300), "a=1")
    assert len(re.findall(r"─ a  ", text)) == 300
    titles = re.findall(r"^\((\d+)\) \+", text, re.MULTILINE)
    references = re.findall(r"─ \+ \((\d+)\)", text)
    assert titles == references == [str(k) for k in range(2, len(titles) + 2)]
    assert "a is used 300 times" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a +", "a=1"], ["column 4", "^"]),
        (["aple", "apple=1"], ["apple", "did you mean aple"]),
        (["a", "a=x"], ["not a finite number"]),
        (["a"], ["column 1", "a=NUMBER"]),
        (["a", "a=1", "--json", "--dot"], ["can't be combined"]),
        (["-a * 2", "a=1"], ["follows --"]),
    ],
)
def test_graph_mistakes_end_with_two_and_a_remedy(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["graph", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("nnctl: error: ")
    assert all(word in err for word in words)


def test_graph_misspelt_option_is_no_expression(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["graph", "a", "a=1", "--jsn"]) == 2
    err = capsys.readouterr().err
    assert "--json" in err
    assert "follows --" not in err


def test_graph_takes_an_expression_with_a_sign_after_two_dashes() -> None:
    assert graph("--", "-a * 2", "a=3").startswith("-a * 2 = -6\n")
