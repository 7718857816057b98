"""`nnctl graph`: an expression as a computational graph, with its gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nnctl.cli.completion import complete_preset
from nnctl.cli.options import help_end, json_option
from nnctl.errors import UsageError

if TYPE_CHECKING:
    from nnctl.graph.expression import Expression
    from nnctl.graph.presets import Preset


class _Command(click.Command):
    """A command whose argument may look like an option, for it may begin with a minus sign."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; say what to do where an expression was taken for an option."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name.startswith("--"):
                raise
            hint = "an expression that begins with - follows --, as in: nnctl graph -- '-a * b' ..."
            raise UsageError(f"{error.format_message()}\n{hint}") from None


@click.command(
    cls=_Command,
    epilog=help_end(
        'nnctl graph "(apple*2 + orange*3) * tax" apple=100 orange=150 tax=1.1\n'
        'nnctl graph "s = sigmoid(w*x + b); -log(s)" w=0.5 x=2 b=0\n'
        "nnctl graph softmax-with-loss a1=3\n"
        'nnctl graph "(w - 3)^2 + w*b + b^2" w=0 b=1 --descend 10 --lr 0.1\n'
        'nnctl graph -- "-a * (a + b)" a=2 b=3',
        6,
    ),
)
@click.argument("expression", metavar="EXPR|PRESET", shell_complete=complete_preset)
@click.argument("assignments", metavar="[NAME=VALUE]...", nargs=-1)
@json_option
@click.option("--dot", "as_dot", is_flag=True, help="Print the graph for Graphviz: | dot -Tsvg.")
@click.option(
    "--descend",
    "steps",
    metavar="N",
    type=click.IntRange(1, 10_000),
    help="Take N steps of gradient descent on the variables, a line a step.",
)
@click.option(
    "--learning-rate",
    "--lr",
    metavar="R",
    type=float,
    help="The learning rate of --descend; default 0.1.",
)
def command(
    expression: str,
    assignments: tuple[str, ...],
    as_json: bool,
    as_dot: bool,
    steps: int | None,
    learning_rate: float | None,
) -> None:
    """Draw the computational graph of an expression, with its gradients.

    EXPR is made of names, numbers, + - * / ^, parentheses and the functions exp log sqrt sigmoid
    tanh relu max(a, b); NAME=VALUE gives each name its value. `y = EXPR;` before the last
    expression names a node, which is then computed once and may be used several times; a named
    number stays where --descend moves the variables.

    Values are computed forward. Then every node passes the gradient that arrives from above,
    times its own local derivative, on to its inputs. A leaf's gradient is compared with its
    numerical derivative; a node that is used several times gets the sum of its uses.

    PRESET is apples, sigmoid, softplus, neuron, softmax-with-loss or two-layer: a graph with a
    story, whose values can be changed. -x is drawn as -1 * x. An expression that begins with -
    follows --.

    --json: expression, value; nodes, each with id, operation, inputs, value, gradient,
    local_derivatives; variables, each with name, value, gradient, numerical_gradient. With
    --descend a line a step: step, value, variables and gradients by name.
    """
    import math

    if as_json and as_dot:
        raise UsageError("--json and --dot can't be combined")
    if as_dot and steps:
        raise UsageError("--descend and --dot can't be combined")
    if learning_rate is not None and not steps:
        raise UsageError("--lr is the rate of --descend N, which is missing")
    if learning_rate is not None and not (math.isfinite(learning_rate) and learning_rate > 0):
        raise UsageError(f"--lr {learning_rate:g}: a learning rate is a number above 0")
    graph, preset = _read(expression, assignments)

    from nnctl.display.graph import GraphTree, dot, plain
    from nnctl.display.output import console, print_json

    if steps:
        _descend(graph, steps, learning_rate or 0.1, as_json)
        return
    graph.solve()
    if as_json:
        print_json(plain(graph))
    elif as_dot:
        click.echo(dot(graph))
    elif preset is None:
        console().print(GraphTree(graph))
    else:
        values = preset.claims(graph)
        claims = {name: (text, values[name]) for name, text in preset.gradients.items()}
        console().print(GraphTree(graph, preset.story, claims))


def _read(text: str, assignments: tuple[str, ...]) -> tuple[Expression, Preset | None]:
    """Return the expression with its values, and the preset that it is, if it is one."""
    from difflib import get_close_matches

    from nnctl.graph import expression as language
    from nnctl.graph.presets import PRESETS

    preset = PRESETS.get(text)
    values = dict(preset.values) if preset else {}
    values |= language.assignments(assignments)
    try:
        expression = language.read(preset.text if preset else text)
        expression.assign(values)
    except UsageError as error:
        if preset is None and (close := get_close_matches(text, PRESETS, 1, cutoff=0.75)):
            raise UsageError(f"{error}\ndid you mean the preset {close[0]}?") from None
        raise
    return expression, preset


def _descend(expression: Expression, steps: int, learning_rate: float, as_json: bool) -> None:
    """Print a line for each step of gradient descent, also of one that ends in nothing."""
    from nnctl.display.graph import descent_table
    from nnctl.display.output import console, print_json
    from nnctl.graph.descent import descend

    taken = []
    try:
        for step in descend(expression, steps, learning_rate):
            taken.append(step)
            if as_json:
                print_json(step._asdict())
    finally:
        if taken and not as_json:
            console().print(descent_table(taken))
