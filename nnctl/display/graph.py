"""A computational graph: as a tree for people, as plain values for JSON, as text for Graphviz.

Every line of the tree but the first is one use of a node, so a variable may have several. A tree
that grows too deep for the terminal goes on below.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from nnctl.display.tables import figures, fits
from nnctl.graph.graph import Edge, Graph, Leaf, Node

HEADINGS = ("node", "value", "upstream", "* local", "= gradient", "numerical")
LEGEND = """\
upstream: the gradient that arrives from the node above
local: the derivative of the node above by this input
gradient: their product, the derivative of the whole expression by this input
numerical: the same without the chain rule, (L(x + h) - L(x - h)) / 2h"""
FIGURES = 56  # columns of the terminal, about, that the tree leaves to the figures beside it
MIN_DEPTH = 4  # levels of a tree before it goes on below
TERMS = 8  # of a long sum that are written out


@dataclass(frozen=True)
class Line:
    """What one line of the tree tells of a node; empty where there is nothing to tell."""

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
    """The graph of `expression` after its way forward and back."""

    expression: str
    graph: Graph

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the value, the tree with its figures, and what they mean."""
        guides = ("|- ", "`- ", "|  ") if options.ascii_only else ("├─ ", "└─ ", "│  ")
        depth = max(MIN_DEPTH, (options.max_width - FIGURES) // len(guides[0]))
        lines = list(_tree(self.graph, guides, depth))
        yield Text(f"{_title(self.expression, self.graph)}\n")
        table = figures(HEADINGS, [line.cells() for line in lines])
        if fits(table, console, options):
            yield table
        else:
            yield Text("\n".join(text for line in lines for text in line.stacked()))
        for text in _sums(self.graph):
            yield Text(f"\n{text}")
        yield Text(f"\n{LEGEND}", style="dim")


def number(value: float) -> str:
    """Return `value` with six significant digits, without a sign before 0."""
    return f"{value + 0.0:.6g}"


def _tree(graph: Graph, guides: tuple[str, str, str], depth: int) -> Iterator[Line]:
    """Yield a line for the result and one for each edge, at most `depth` levels to a tree."""
    branch, last, through = guides
    inputs: dict[Node, list[Edge]] = defaultdict(list)
    for use in graph.edges():
        inputs[use.target].append(use)
    repeated = _repeated(graph)
    trees = deque([("", graph.result)])
    count = 1
    while trees:
        title, root = trees.popleft()
        nodes: list[tuple[str, str, int, Node, Edge | None]] = [(title, "", 0, root, None)]
        while nodes:
            guide, indent, level, node, edge = nodes.pop()
            name, below = node.symbol, inputs[node]
            if below and level == depth:
                count += 1
                trees.append((f"({count}) ", node))
                name, below = f"{name} ({count})", []
            numerical = ""
            if isinstance(node, Leaf):
                several = node in repeated
                numerical = "below" if several else number(graph.numerical_gradient(node))
            yield Line(
                guide,
                indent + (through if below else "   "),
                name,
                number(node.value),
                upstream=number(edge.target.gradient) if edge else "",
                local=number(edge.local_derivative) if edge else "",
                gradient=number(edge.gradient if edge else node.gradient),
                numerical=numerical,
            )
            if below:
                x, y = below
                nodes.append((indent + last, indent + "   ", level + 1, y.source, y))
                nodes.append((indent + branch, indent + through, level + 1, x.source, x))


def _repeated(graph: Graph) -> dict[Leaf, list[float]]:
    """Return the leaves that are used several times, and what each use brings to the gradient."""
    uses: dict[Leaf, list[float]] = defaultdict(list)
    for edge in graph.edges():
        if isinstance(edge.source, Leaf):
            uses[edge.source].append(edge.gradient)
    return {leaf: gradients for leaf, gradients in uses.items() if len(gradients) > 1}


def _sums(graph: Graph) -> Iterator[str]:
    """Say of each variable that is used several times that its gradient is a sum."""
    for leaf, gradients in _repeated(graph).items():
        terms = [number(gradient) for gradient in gradients]
        if len(terms) > TERMS:
            terms[TERMS - 1 : -1] = ["..."]
        yield (
            f"{leaf.name} is used {len(gradients)} times, its gradient is the sum over the uses:\n"
            f"{' + '.join(terms)} = {number(leaf.gradient)}; "
            f"numerical {number(graph.numerical_gradient(leaf))}"
        )


def _title(expression: str, graph: Graph) -> str:
    """Return the expression on one line, and its value."""
    return f"{' '.join(expression.split())} = {number(graph.result.value)}"


def _kind(node: Node) -> str:
    """Return what a node is: variable, number, add or multiply."""
    if isinstance(node, Leaf):
        return "variable" if node.name else "number"
    return type(node).__name__.lower()


def _identifiers(graph: Graph) -> dict[Node, str]:
    """Return an id for each node: a variable's is its name, the others are numbered."""
    others = [node for node in graph.nodes if _kind(node) != "variable"]
    numbered = {node: str(position) for position, node in enumerate(others, 1)}
    return {node: numbered.get(node) or node.symbol for node in graph.nodes}


def plain(expression: str, graph: Graph) -> dict[str, Any]:
    """Return the fields of `nnctl graph --json`; inputs are named by their ids."""
    ids = _identifiers(graph)
    inputs: dict[Node, list[Edge]] = defaultdict(list)
    for edge in graph.edges():
        inputs[edge.target].append(edge)
    return {
        "expression": expression,
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


def dot(expression: str, graph: Graph) -> str:
    """Return the graph in Graphviz's language; values stand in the nodes, gradients at the edges.

    Whatever is quoted holds names, numbers and operators alone, none of which needs an escape.
    """
    ids = _identifiers(graph)
    lines = [f'label="{_title(expression, graph)}"', "rankdir=LR"]
    for node in graph.nodes:
        label = rf"{node.symbol}\n{number(node.value)}\ngradient {number(node.gradient)}"
        shape = "box" if isinstance(node, Leaf) else "ellipse"
        lines.append(f'"{ids[node]}" [label="{label}", shape={shape}]')
    for edge in graph.edges():
        upstream, local = number(edge.target.gradient), number(edge.local_derivative)
        label = f"{upstream} * {local} = {number(edge.gradient)}"
        lines.append(f'"{ids[edge.source]}" -> "{ids[edge.target]}" [label="{label}"]')
    return "\n".join(["digraph {", *(f"  {line};" for line in lines), "}"])
