"""What a person sees of the bundled configs."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from nnctl.config import BundledConfig
from nnctl.display.output import console, print_json


def print_configs(configs: Sequence[BundledConfig], *, as_json: bool) -> None:
    """Print name and description of each config."""
    if as_json:
        for config in configs:
            print_json({"name": config.name, "description": config.description})
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for config in configs:
        table.add_row(config.name, config.description)
    console().print(table)
