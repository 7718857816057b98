"""`nnctl graph` as its user meets it."""

import json
import re
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from nnctl.cli.group import cli, run
from nnctl.graph.presets import PRESETS
from nnctl.nn.layers import Affine, Sigmoid
from nnctl.nn.losses import SoftmaxWithLoss
from nnctl.nn.network import Network

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
    """Return the figures of the first line of the tree that shows `node`."""
    pattern = re.compile(rf"[^\w*+-]*{re.escape(node)}(  .*)")
    return next(
        re.split(r"\s\s+", match[1].strip())
        for line in text.splitlines()
        if (match := pattern.match(line))
    )


def test_graph_prints_the_shopping_example() -> None:
    text = graph(*SHOPPING)
    assert text.startswith("(apple*2 + orange*3) * tax = 715\n")
    assert figures(text, "apple") == ["100", "1.1", "y = 2", "2.2", "2.2"]
    assert figures(text, "2") == ["2", "1.1", "x = 100", "110", "110"]
    assert figures(text, "orange") == ["150", "1.1", "y = 3", "3.3", "3.3"]
    assert figures(text, "3") == ["3", "1.1", "x = 150", "165", "165"]
    assert figures(text, "tax") == ["1.1", "1", "x = 650", "650", "650"]


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
        assert node["operation"] in ("variable", "number", "multiply", "add")
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


def test_graph_json_has_null_for_a_derivative_that_does_not_exist() -> None:
    [power] = [n for n in as_json("(a - 3)^2", "a=1")["nodes"] if n["operation"] == "power"]
    assert power["local_derivatives"] == [-4, None]


def test_graph_shows_a_shared_node_once_with_the_sum_of_its_gradients() -> None:
    text = graph("y = a * 3; y * y + y", "a=2")
    assert text.startswith("y = a * 3;\ny * y + y = 42\n")
    assert len(re.findall(r"─ y  ", text)) == 3
    assert len(re.findall(r"^y: \*  ", text, re.MULTILINE)) == 1
    assert "y is used 3 times, its gradient is the sum over the uses:\n6 + 6 + 1 = 13" in text


def test_graph_names_kinks() -> None:
    assert "Relu has a kink at 0: its slope is 0 on the left" in graph("relu(x)", "x=0")


@pytest.mark.parametrize("name", PRESETS)
def test_preset_tells_what_its_gradients_turn_out_to_be(name: str) -> None:
    preset = PRESETS[name]
    for change in (0.0, 0.3, -0.7):
        values = [f"{variable}={value + change}" for variable, value in preset.values.items()]
        text, report = graph(name, *values), as_json(name, *values)
        found = {each["name"]: each["gradient"] for each in report["variables"]}
        for variable, formula in preset.gradients.items():
            told = re.search(rf"gradient of {variable} = {re.escape(formula)} = (\S+)", text)
            assert told
            assert float(told[1]) == pytest.approx(found[variable], rel=1e-4, abs=1e-9)
        assert preset.story.split(".")[0] in " ".join(text.split())
        assert all(len(line) <= 80 for line in text.splitlines())
        assert "node  " in text  # a table, not the lines of a narrow terminal


def test_presets_are_those_of_the_help_and_known_when_misspelt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = re.sub(r"\s+", " ", CliRunner().invoke(cli, ["graph", "--help"]).stdout)
    assert f"PRESET is {', '.join([*PRESETS][:-1])} or {[*PRESETS][-1]}:" in words
    assert run(["graph", "softmax-with-los"]) == 2
    assert "did you mean the preset softmax-with-loss?" in capsys.readouterr().err


def test_preset_two_layer_has_the_gradients_of_the_layers() -> None:
    report = as_json("two-layer")
    value = {each["name"]: each["value"] for each in report["variables"]}
    gradient = {each["name"]: each["gradient"] for each in report["variables"]}
    network = Network([Affine(2), Sigmoid(), Affine(2)], 2, dtype=np.float64)
    names = {
        "0.affine.weight": [["w11", "w12"], ["w21", "w22"]],
        "0.affine.bias": ["b1", "b2"],
        "2.affine.weight": [["v11", "v12"], ["v21", "v22"]],
        "2.affine.bias": ["c1", "c2"],
    }
    network.load({name: np.vectorize(value.get)(places) for name, places in names.items()})
    loss = SoftmaxWithLoss()
    outputs = network.forward(np.array([[value["x1"], value["x2"]]]), training=True)
    assert loss.forward(outputs, np.array([1])) == pytest.approx(report["value"])
    assert (value["t1"], value["t2"]) == (0, 1)
    network.backward(loss.backward())
    for name, array in network.named_gradients():
        expected = np.vectorize(gradient.get)(names[name])
        np.testing.assert_allclose(array, expected, rtol=1e-12)


def test_graph_descends_a_line_a_step() -> None:
    lines = graph("(w - 3)^2 + b", "w=0", "b=1", "--descend", "2", "--lr", "0.1").splitlines()
    assert [line.split() for line in lines] == [
        ["step", "value", "w", "dL/dw", "b", "dL/db"],
        ["0", "10", "0", "-6", "1", "1"],
        ["1", "6.66", "0.6", "-4.8", "0.9", "1"],
        ["2", "4.4864", "1.08", "-3.84", "0.8", "1"],
    ]


def test_graph_descent_leaves_out_what_does_not_fit_and_json_leaves_out_nothing() -> None:
    lines = graph("two-layer", "--descend", "3").splitlines()
    assert len(lines) == 5
    assert max(map(len, lines)) <= 80
    rows = [
        json.loads(line) for line in graph("two-layer", "--descend", "3", "--json").splitlines()
    ]
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert [*rows[0]] == ["step", "value", "variables", "gradients"]
    assert len(rows[0]["variables"]) == len(rows[0]["gradients"]) == 12
    assert rows[3]["value"] < rows[0]["value"]


def test_graph_descent_that_diverges_shows_its_way_and_ends_with_six(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["graph", "w^4", "w=10", "--descend", "50", "--lr", "1"]) == 6
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split()[:2] == ["0", "10000"]
    assert "too large" in err
    assert "try a smaller --lr" in err


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


@pytest.mark.parametrize("name", PRESETS)
def test_graph_dot_of_a_preset_has_every_node_and_edge(name: str) -> None:
    text, report = graph(name, "--dot"), as_json(name)
    assert text.count(" -> ") == sum(len(node["inputs"]) for node in report["nodes"])
    assert text.count("gradient ") == len(report["nodes"])
    assert "\\n".join(PRESETS[name].text.split("; ")[:1]).split(";")[0] in text


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        *((SHOPPING, n) for n in (20, 40, 60, 80, 120)),
        *((["+".join("a" * 300), "a=1"], n) for n in (20, 80)),
    ],
)
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
        (["a", "a=1", "--descend", "3", "--dot"], ["can't be combined"]),
        (["a", "a=1", "--lr", "3"], ["--descend N"]),
        (["a", "a=1", "--descend", "3", "--lr", "0"], ["above 0"]),
        (["a", "a=1", "--descend", "3", "--lr", "nan"], ["above 0"]),
        (["a * a", "a=1e200"], ["column 3", "too large", "^"]),
        (["y = 2 * a; y", "a=1", "y=3"], ["computes y"]),
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
