"""A computational graph: as a tree for people, as plain values for JSON, as text for Graphviz.

Every line of the tree but the first is one use of a node, so a leaf may have several. An operation
that is used several times, and what grows too deep for the terminal, go on below.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from nnctl.display.columns import Column, Shrinking
from nnctl.display.tables import GAPS, figures, fits
from nnctl.graph.descent import DescentStep
from nnctl.graph.expression import Expression
from nnctl.graph.graph import Edge, Graph, Leaf, Node, Operation

HEADINGS = ("node", "value", "upstream", "* local", "= gradient", "numerical")
LEGEND = """\
upstream: the gradient that arrives from the node above, z
local: the derivative of z by this input; x and y are the inputs of z
gradient: their product, the derivative of the whole expression by this input
numerical: the same without the chain rule, (L(x + h) - L(x - h)) / 2h"""
MIN_DEPTH = 3  # levels of a tree before it goes on below
TERMS = 8  # of a long sum that are written out


@dataclass(frozen=True)
class Line:
    """What one line of the tree says of a node; empty where there is nothing to say."""

    guide: str  # stands before the node
    indent: str  # stands before further lines of the node
    name: str
    value: str
    upstream: str = ""
    local: str = ""
    gradient: str = ""
    numerical: str = ""

    def cells(self) -> list[str]:
        """Return the row of a table, below `HEADINGS`."""
        node = self.guide + self.name
        return [node, self.value, self.upstream, self.local, self.gradient, self.numerical]

    def stacked(self) -> Iterator[str]:
        """Yield the same in lines for a narrow terminal."""
        yield f"{self.guide}{self.name} = {self.value}"
        way = " * ".join(filter(None, (self.upstream, self.local)))
        yield f"{self.indent}gradient {way}{' = ' if way else ''}{self.gradient}"
        if self.numerical:
            yield f"{self.indent}numerical {self.numerical}"


@dataclass(frozen=True)
class GraphTree:
    """The graph of `expression` after its way forward and back.

    `story` says what it shows, and `claims` what some gradients were known to be: a formula and
    its value for the name of a leaf.
    """

    expression: Expression
    story: str = ""
    claims: Mapping[str, tuple[str, float]] = field(default_factory=dict)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the value, the tree with its figures, and what they mean."""
        graph = self.expression.graph
        drawing = _Drawing(graph, options.ascii_only)
        lines = drawing.lines(options.max_width)
        yield Text(f"{_title(self.expression)}\n")
        tables = (figures(HEADINGS, [line.cells() for line in lines], gap) for gap in GAPS)
        stacked = Text("\n".join(text for line in lines for text in line.stacked()))
        yield next((table for table in tables if fits(table, console, options)), stacked)
        for text in (*drawing.sums(), *_kinks(graph)):
            yield Text(f"\n{text}")
        if self.story:
            yield Text(f"\n{self.story}")
        for name, (formula, value) in self.claims.items():
            yield Text(f"gradient of {name} = {formula} = {number(value)}")
        yield Text(f"\n{LEGEND}", style="dim")


class _Drawing:
    """A graph as lines of trees."""

    def __init__(self, graph: Graph, ascii_only: bool) -> None:
        self.guides = ("|- ", "`- ", "|  ") if ascii_only else ("├─ ", "└─ ", "│  ")
        self.graph = graph
        self.inputs: dict[Node, list[Edge]] = defaultdict(list)
        self.uses: dict[Node, list[Edge]] = defaultdict(list)
        for use in graph.edges():
            self.inputs[use.target].append(use)
            self.uses[use.source].append(use)
        self.numerical = {leaf: number(graph.numerical_gradient(leaf)) for leaf in graph.leaves}

    def lines(self, width: int) -> list[Line]:
        """Return the lines, in trees that fit into `width` cells if there is a way."""
        for depth in range(width // len(self.guides[0]), MIN_DEPTH, -1):
            lines = list(self.trees(depth))
            columns = zip(HEADINGS, *(line.cells() for line in lines), strict=True)
            if sum(max(map(cell_len, cells)) + min(GAPS) for cells in columns) <= width:
                return lines
        return list(self.trees(MIN_DEPTH))

    def trees(self, depth: int) -> Iterator[Line]:
        """Yield a line for each root and one for each edge, at most `depth` levels to a tree.

        The tree of an operation that is used several times comes after all of its uses.
        """
        branch, last, through = self.guides
        trees = deque([("", self.graph.result)])
        still = {node: len(uses) for node, uses in self.uses.items()}
        count = 1
        while trees:
            title, root = trees.popleft()
            nodes: list[tuple[str, str, int, Node, Edge | None]] = [(title, "", 0, root, None)]
            while nodes:
                guide, indent, level, node, edge = nodes.pop()
                name, below = _label(node), self.inputs[node]
                if below and edge and len(self.uses[node]) > 1:
                    still[node] -= 1
                    if not still[node]:
                        trees.append(("", node))
                    name, below = node.name or name, []
                elif below and level == depth:
                    count += 1
                    trees.append((f"({count}) ", node))
                    name, below = f"{name} ({count})", []
                numerical = ""
                if isinstance(node, Leaf):
                    numerical = "below" if len(self.uses[node]) > 1 else self.numerical[node]
                yield Line(
                    guide,
                    indent + (through if below else "   "),
                    name,
                    number(node.value),
                    upstream=number(edge.target.gradient) if edge else "",
                    local=_local(edge) if edge else "",
                    gradient=number(edge.gradient if edge else node.gradient),
                    numerical=numerical,
                )
                for use in reversed(below):
                    lead, rest = (last, "   ") if use is below[-1] else (branch, through)
                    nodes.append((indent + lead, indent + rest, level + 1, use.source, use))

    def sums(self) -> Iterator[str]:
        """Say of each node that is used several times that its gradient is a sum."""
        for node, uses in self.uses.items():
            if len(uses) == 1:
                continue
            terms = [number(use.gradient) for use in uses]
            if len(terms) > TERMS:
                terms[TERMS - 1 : -1] = ["..."]
            text = (
                f"{node.name} is used {len(uses)} times, its gradient is the sum over the uses:\n"
                f"{' + '.join(terms)} = {number(node.gradient)}"
            )
            yield text + (f"; numerical {self.numerical[node]}" if isinstance(node, Leaf) else "")


def _kinks(graph: Graph) -> Iterator[str]:
    """Say where the expression has no derivative."""
    for text in dict.fromkeys(node.kink() for node in graph.operations):
        if text:
            yield f"{text[0].upper()}{text[1:]}."


def number(value: float) -> str:
    """Return `value` with five significant digits, without a sign before 0."""
    return "none" if math.isnan(value) else f"{value + 0.0:.5g}"


def _local(edge: Edge) -> str:
    """Return a local derivative with the formula that it comes from."""
    value = number(edge.local_derivative)
    return value if edge.formula == value else f"{edge.formula} = {value}"


def _label(node: Node) -> str:
    """Return the node's name, and what it computes."""
    if node.name and isinstance(node, Operation):
        return f"{node.name}: {node.symbol}"
    return node.symbol


def _title(expression: Expression) -> str:
    """Return the definitions, a line each, then the last expression and its value."""
    *definitions, last = (" ".join(part.split()) for part in expression.text.split(";"))
    value = number(expression.graph.result.value)
    return "\n".join([*(f"{text};" for text in definitions), f"{last} = {value}"])


def _kind(node: Node) -> str:
    """Return what a node is: variable, number, or its operation."""
    if isinstance(node, Leaf):
        return "variable" if node.name else "number"
    return type(node).__name__.lower()


def _identifiers(graph: Graph) -> dict[Node, str]:
    """Return an id for each node: its name if it has one, the others are numbered."""
    unnamed = (node for node in graph.nodes if not node.name)
    numbers = {node: str(position) for position, node in enumerate(unnamed, 1)}
    return {node: node.name or numbers[node] for node in graph.nodes}


def plain(expression: Expression) -> dict[str, Any]:
    """Return the fields of `nnctl graph --json`; inputs are named by their ids."""
    graph = expression.graph
    ids = _identifiers(graph)
    inputs: dict[Node, list[Edge]] = defaultdict(list)
    for edge in graph.edges():
        inputs[edge.target].append(edge)
    return {
        "expression": expression.text,
        "value": graph.result.value,
        "nodes": [
            {
                "id": ids[node],
                "operation": _kind(node),
                "inputs": [ids[edge.source] for edge in inputs[node]],
                "value": node.value,
                "gradient": node.gradient,
                "local_derivatives": [edge.local_derivative for edge in inputs[node]],
            }
            for node in graph.nodes
        ],
        "variables": [
            {
                "name": leaf.name,
                "value": leaf.value,
                "gradient": leaf.gradient,
                "numerical_gradient": graph.numerical_gradient(leaf),
            }
            for leaf in graph.leaves
            if leaf.name
        ],
    }


def dot(expression: Expression) -> str:
    """Return the graph in Graphviz's language; values stand in the nodes, gradients at the edges.

    Whatever is quoted holds names, numbers and operators alone, none of which needs an escape.
    """
    graph = expression.graph
    ids = _identifiers(graph)
    title = _title(expression).replace("\n", r"\n")
    lines = [f'label="{title}"', "rankdir=LR"]
    for node in graph.nodes:
        label = rf"{_label(node)}\n{number(node.value)}\ngradient {number(node.gradient)}"
        shape = "box" if isinstance(node, Leaf) else "ellipse"
        lines.append(f'"{ids[node]}" [label="{label}", shape={shape}]')
    for edge in graph.edges():
        label = f"{number(edge.target.gradient)} * ({_local(edge)}) = {number(edge.gradient)}"
        lines.append(f'"{ids[edge.source]}" -> "{ids[edge.target]}" [label="{label}"]')
    return "\n".join(["digraph {", *(f"  {line};" for line in lines), "}"])


def descent_table(steps: Sequence[DescentStep]) -> Shrinking:
    """Return a line a step: the value, then each variable with its gradient, as far as fits."""
    names = list(steps[0].variables)
    columns = [
        Column("step", [str(step.step) for step in steps]),
        Column("value", [number(step.value) for step in steps]),
    ]
    for order, name in enumerate(names, 1):
        values = [number(step.variables[name]) for step in steps]
        slopes = [number(step.gradients[name]) for step in steps]
        columns += [
            Column(name, values, order=order),
            Column(f"dL/d{name}", slopes, order=order + len(names)),
        ]
    return Shrinking(columns)
