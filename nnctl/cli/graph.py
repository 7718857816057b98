"""`nnctl graph`: an expression as a computational graph, with its gradients."""

from __future__ import annotations

import click

from nnctl.cli.options import help_end, json_option
from nnctl.errors import UsageError


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
        'nnctl graph -- "-a * (a + b)" a=2 b=3'
    ),
)
@click.argument("expression", metavar="EXPR")
@click.argument("assignments", metavar="[NAME=VALUE]...", nargs=-1)
@json_option
@click.option("--dot", "as_dot", is_flag=True, help="Print the graph for Graphviz: | dot -Tsvg.")
def command(expression: str, assignments: tuple[str, ...], as_json: bool, as_dot: bool) -> None:
    """Draw the computational graph of an expression, with its gradients.

    EXPR is made of names, numbers, + - * and parentheses; NAME=VALUE gives each name its value.
    Values are computed forward. Then every node passes the gradient that arrives from above,
    times its own local derivative, on to its inputs. A leaf's gradient is compared with its
    numerical derivative; a variable that is used several times gets the sum of its uses.

    -x is drawn as -1 * x. An expression that begins with - follows --.
    """
    from nnctl.graph import expression as language

    if as_json and as_dot:
        raise UsageError("--json and --dot can't be combined")
    graph = language.parse(expression, language.assignments(assignments))
    graph.forward()
    graph.backward()

    from nnctl.display.graph import GraphTree, dot, plain
    from nnctl.display.output import console, print_json

    if as_json:
        print_json(plain(expression, graph))
    elif as_dot:
        click.echo(dot(expression, graph))
    else:
        console().print(GraphTree(expression, graph))
