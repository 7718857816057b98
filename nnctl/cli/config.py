"""`nnctl config`: what a config means, what it may hold, and the ones that come with nnctl."""

from __future__ import annotations

from pathlib import Path

import click

from nnctl.cli.completion import complete_config
from nnctl.cli.options import config_option, help_end, json_option, set_options
from nnctl.errors import UsageError


@click.group(epilog=help_end("nnctl config list\nnnctl config show --config deep"))
def command() -> None:
    """Show, describe, list and copy configs.

    A config is a YAML file, or JSON, of which only `network` is required; `nnctl config show`
    fills in the rest.
    """


@command.command(epilog=help_end("nnctl config show --config two-layer --set optimizer.kind=adam"))
@config_option
@set_options
@json_option
def show(config: str | None, overrides: tuple[tuple[str, str], ...], as_json: bool) -> None:
    """Print a config in full, with every default.

    Short forms are written out and overrides applied. What is printed is a config again, and
    trains the same.
    """
    from nnctl.cli.loading import read_settings
    from nnctl.config import to_dict, to_yaml

    if config is None:
        raise UsageError("give --config FILE; `nnctl config list` names some that are bundled")
    settings = read_settings(config, overrides)
    if as_json:
        from nnctl.display.output import print_json

        print_json(to_dict(settings))
    else:
        click.echo(to_yaml(settings), nl=False)


@command.command(epilog=help_end("nnctl config schema > nnctl.schema.json"))
def schema() -> None:
    """Print the JSON Schema of a config, for editors.

    An editor that completes and checks YAML finds it by a first line such as

    \b
      # yaml-language-server: $schema=nnctl.schema.json
    """  # noqa: D301 (click's mark for lines that stay as they are)
    import json

    from nnctl.config import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@command.command("list", epilog=help_end("nnctl config list"))
@json_option
def list_(as_json: bool) -> None:
    """List the bundled configs and what each shows."""
    from nnctl.config import bundled_configs
    from nnctl.display.config import print_configs

    print_configs(bundled_configs(), as_json=as_json)


@command.command(epilog=help_end("nnctl config copy two-layer my-experiment.yaml"))
@click.argument("name", shell_complete=complete_config)
@click.argument("destination", metavar="[DEST]", default=".", type=click.Path(path_type=Path))
def copy(name: str, destination: Path) -> None:
    """Copy a bundled config, to change it.

    DEST is a file, a folder, or - for standard output; default NAME.yaml in the current folder. A
    file that exists is never overwritten.
    """
    from nnctl.config import bundled_config
    from nnctl.display.output import print_path, write_result

    if destination == Path("-"):
        write_result(destination, bundled_config(name).path.read_bytes())
        return
    print_path(bundled_config(name).copy(destination))
