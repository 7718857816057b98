"""What may import what, what must not be loaded, and that everything has its place in a table."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import nnctl
from nnctl.cli.group import COMMANDS, cli
from nnctl.cli.options import EXIT_CODES
from nnctl.errors import ExitCode
from nnctl.nn.initializers import INITIALIZERS, Initializer
from nnctl.nn.layers import LAYERS, Layer
from nnctl.nn.losses import LOSSES, Loss
from nnctl.nn.optimizers import OPTIMIZERS, Optimizer
from nnctl.nn.schedules import SCHEDULES, Schedule

PACKAGE = Path(nnctl.__file__).parent
# A room may import those before it, and what lies below all of them.
ROOMS = [
    *("course", "nn", "graph", "inspection", "datasets", "config", "training", "gradcheck", "runs"),
    *("pictures", "export", "sweeps", "display", "report", "cli"),
]
BELOW = {
    **{"nnctl": set[str](), "nnctl.errors": set[str](), "nnctl.environment": set[str]()},
    "nnctl.files": {"nnctl.errors"},
}
# Which rooms may use which library, and the modules that may do so when they are imported.
NUMERIC = {
    "nn",
    "graph",
    "inspection",
    "training",
    "gradcheck",
    "runs",
    "pictures",
    "export",
    "sweeps",
    "display",
    "report",
}
LIBRARIES = {
    "numpy": (
        NUMERIC | {"datasets", "cli"},
        NUMERIC | {"datasets.augmentation", "datasets.batches"},
    ),
    "click": ({"cli"}, {"cli"}),
    "rich": ({"display"}, {"display"}),
    "requests": ({"datasets.download"}, {"datasets.download"}),
    "yaml": ({"config"}, {"config"}),
    "msgspec": ({"runs", "sweeps", "display", "cli"}, {"runs", "sweeps", "display"}),
    "safetensors": ({"runs.checkpoint"}, set()),
    "platformdirs": ({"datasets.source"}, set()),
    "matplotlib": ({"display.plot"}, set()),
    "PIL": ({"pictures"}, set()),
    "onnxruntime": ({"export.check"}, set()),
    "optuna": ({"sweeps.bayes"}, set()),
    "distributed": ({"sweeps.cluster"}, set()),
}
RUNNER = CliRunner()
HEAVY = [
    *("PIL", "click", "matplotlib", "msgspec", "numpy", "requests", "rich", "safetensors", "yaml")
]


@dataclass(frozen=True)
class Import:
    """`module` imports `target`: at once, or inside a function or for the type checker alone."""

    module: str
    target: str
    at_once: bool


@cache
def modules() -> frozenset[str]:
    names = (path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return frozenset(".".join(name.parts).removesuffix(".__init__") for name in names)


def path_of(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports_in(node: ast.AST, module: str, at_once: bool = True) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(module, alias.name, at_once)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{module} has a relative import"
            assert child.module is not None
            for alias in child.names:
                name = f"{child.module}.{alias.name}"
                yield Import(module, name if name in modules() else child.module, at_once)
        else:
            lazy = isinstance(child, ast.FunctionDef | ast.Lambda) or (
                isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            )
            yield from imports_in(child, module, at_once and not lazy)


@cache
def imports() -> tuple[Import, ...]:
    return tuple(
        found
        for module in sorted(modules())
        for found in imports_in(ast.parse(path_of(module).read_text()), module)
    )


def room(module: str) -> str:
    """Return the room of a module of nnctl: `nn` for `nnctl.nn.layers`."""
    return module.split(".")[1]


def told(found: Import) -> str:
    return f"{found.module} imports {found.target}"


def lies_in(module: str, places: set[str]) -> bool:
    name = module.removeprefix("nnctl.")
    return name in places or name.split(".")[0] in places


# Imports.


def test_every_module_lies_in_a_room_or_below_them() -> None:
    for module in modules() - {"nnctl.__main__"}:
        assert module in BELOW or room(module) in ROOMS


def test_imports_go_downwards_only() -> None:
    upward = []
    for found in imports():
        if not found.target.startswith("nnctl") or found.module == "nnctl.__main__":
            continue
        if found.module in BELOW:
            allowed = found.target in BELOW[found.module]
        elif found.target in BELOW:
            allowed = room(found.module) != "nn" or found.target == "nnctl.errors"
        else:
            allowed = ROOMS.index(room(found.target)) <= ROOMS.index(room(found.module))
        if not allowed:
            upward.append(told(found))
    assert upward == []


def test_no_module_imports_itself_by_a_detour() -> None:
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for found in imports():
        if found.at_once and found.target in graph and found.target != found.module:
            graph[found.module].add(found.target)
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_every_library_stays_in_its_room_and_is_imported_no_earlier_than_it_must() -> None:
    wrong = []
    for found in imports():
        library = found.target.split(".")[0]
        if library == "nnctl" or library in sys.stdlib_module_names:
            continue
        anywhere, at_once = LIBRARIES[library]
        if not lies_in(found.module, at_once if found.at_once else anywhere):
            wrong.append(told(found))
    assert wrong == []


def test_commands_import_nothing_at_once_but_click_and_their_room() -> None:
    wrong = [
        told(found)
        for found in imports()
        if found.at_once
        and found.module.startswith("nnctl.cli.")
        and found.target.split(".")[0] not in sys.stdlib_module_names
        and not found.target.startswith(("click", "nnctl.cli"))
        and found.target not in ("nnctl", "nnctl.errors", "nnctl.environment")
    ]
    assert wrong == []


def test_declared_libraries_are_those_that_are_imported() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    extras = {**project["optional-dependencies"], "test": []}
    lines = [*project["dependencies"], *(line for extra in extras.values() for line in extra)]
    modules_of = {"pyyaml": "yaml", "pillow": "PIL"}
    declared = {line.split(">")[0] for line in lines}
    used = {found.target.split(".")[0] for found in imports()} - sys.stdlib_module_names
    # What only `export --check` needs is named by its message, not by an extra.
    assert {modules_of.get(name, name) for name in declared} == used - {"nnctl", "onnxruntime"}


# What a process has loaded when it is done.


def loaded(script: str, *arguments: str, cwd: Path | None = None) -> set[str]:
    """Run `script` in a process of its own; return the heavy libraries it has loaded."""
    end = f"\nprint(); print(json.dumps(sorted(set({HEAVY}) & set(sys.modules))))"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NNCTL_")}
    output = subprocess.run(
        [sys.executable, "-c", f"import json, sys\n{script}{end}", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=cwd,
        env=environment,
    ).stdout
    return set(json.loads(output.splitlines()[-1]))


MAIN = """
from nnctl.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


def test_network_core_loads_numpy_alone() -> None:
    names = [module for module in sorted(modules()) if module.startswith("nnctl.nn.")]
    assert loaded("".join(f"import {name}\n" for name in names)) == {"numpy"}


def test_help_and_version_load_click_alone() -> None:
    for option in ("--help", "--version"):
        assert loaded(MAIN, option) == {"click"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_loads_click_alone(name: str) -> None:
    assert loaded(MAIN, name, "--help") == {"click"}


def test_shell_completion_loads_click_alone() -> None:
    script = (
        "import os\n"
        "os.environ.update(_NNCTL_COMPLETE='bash_complete', COMP_WORDS='nnctl t', COMP_CWORD='1')"
    )
    assert loaded(script + MAIN) == {"click"}


def test_train_from_a_warm_cache_loads_no_network_and_no_plots(tmp_path: Path) -> None:
    arguments = ["--epochs", "1", "--set", "data.train_size=500", "--runs-dir", "runs"]
    found = loaded(MAIN, "train", "-c", "quickstart", *arguments, cwd=tmp_path)
    assert "numpy" in found
    assert found.isdisjoint({"requests", "matplotlib"})


def test_train_without_drawing_loads_no_rich(tmp_path: Path) -> None:
    arguments = ["--epochs", "1", "--set", "data.train_size=500", "--quiet"]
    found = loaded(MAIN, "train", "-c", "quickstart", *arguments, cwd=tmp_path)
    assert found.isdisjoint({"requests", "matplotlib", "rich"})


# Tables.

REGISTRIES: list[tuple[type, dict[str, type]]] = [
    (Layer, LAYERS),
    (Loss, LOSSES),
    (Initializer, INITIALIZERS),
    (Optimizer, OPTIMIZERS),
    (Schedule, SCHEDULES),
]


@pytest.mark.parametrize(("base", "registry"), REGISTRIES)
def test_every_kind_can_be_reached_by_one_name(base: type, registry: dict[str, type]) -> None:
    module = import_module(base.__module__)
    kinds = {
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, base) and is_dataclass(kind) and not kind.__name__.startswith("_")
    }
    assert set(registry.values()) == kinds
    assert len(registry) == len(kinds)


def context_of(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return command.make_context(name, [], parent, resilient_parsing=True)


def walk(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """Yield every command with the words that call it."""
    yield context.command_path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from walk(child, context_of(child, name, context))


def test_table_of_commands_is_the_folder_of_commands() -> None:
    found = {
        module.rsplit(".", 1)[1].replace("_", "-")
        for module in modules()
        if module.startswith("nnctl.cli.")
        for node in ast.parse(path_of(module).read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "command"
    }
    assert found == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_ends_with_an_example_and_its_exit_codes(name: str) -> None:
    top = context_of(cli, "nnctl", None)
    command = cli.get_command(top, name)
    assert command is not None
    for words, each in walk(command, context_of(command, name, top)):
        arguments = words.split()[1:]
        helps = [
            RUNNER.invoke(cli, [*arguments, option], prog_name="nnctl")
            for option in ("-h", "--help")
        ]
        assert {result.exit_code for result in helps} == {0}, words
        assert helps[0].output == helps[1].output
        assert each.help, words
        text, example = helps[0].output.split("\n  Example:\n")
        example, codes = example.split("\n  Exit codes:\n")
        assert words in example
        lines = [line.split(maxsplit=1) for line in codes.strip().splitlines()]
        assert {int(code): meaning for code, meaning in lines}.items() <= EXIT_CODES.items()
        assert [int(code) for code, _ in lines[:3]] == [0, 1, 2]
        assert "Usage: nnctl" in text


def test_commands_that_read_data_take_the_same_four_options() -> None:
    shared = {"--data-dir", "--offline", "--mirror", "--threads"}
    top = context_of(cli, "nnctl", None)
    readers = {}
    for name in COMMANDS:
        command = cli.get_command(top, name)
        assert command is not None
        for words, each in walk(command, context_of(command, name, top)):
            found = shared & {option for parameter in each.params for option in parameter.opts}
            if found:
                readers[words.removeprefix("nnctl ")] = found
    assert readers == dict.fromkeys(
        ["train", "evaluate", "export", "report", "gradcheck", "trace", "lr-find", "bench"]
        + ["runs verify", "sweep", "weights"]
        + [f"data {name}" for name in ("fetch", "verify", "info", "path", "show")],
        shared,
    )


def test_help_knows_every_exit_code() -> None:
    assert set(EXIT_CODES) == {*map(int, ExitCode), 130}
