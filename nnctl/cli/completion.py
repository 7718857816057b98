"""What a shell completes: configs, runs, keys and fields."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def completing(words: Callable[[click.Context], Iterable[str]], *, paths: bool = False) -> Complete:
    """Return what completes `words`; with `paths` also files, alone after a separator."""

    def complete(
        context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from nnctl.errors import NnctlError
        from nnctl.files import has_separator

        found = []
        if not has_separator(incomplete):
            with suppress(NnctlError):  # a shell that completes has no place for errors
                found = [CompletionItem(w) for w in words(context) if w.startswith(incomplete)]
        return found or ([CompletionItem(incomplete, type="file")] if paths else [])

    return complete


def _configs(context: click.Context) -> list[str]:
    from nnctl.config import bundled_configs

    here = [path.name for path in Path().glob("*.yaml")]
    return [config.name for config in bundled_configs()] + here


def _runs(context: click.Context) -> list[str]:
    from nnctl.runs.find import list_runs
    from nnctl.runs.folder import LATEST

    runs_dir = context.params.get("runs_dir") or os.environ.get("NNCTL_RUNS_DIR") or "runs"
    return [LATEST, *(run.path.name for run in list_runs(Path(runs_dir)))]


def _sweeps(context: click.Context) -> list[str]:
    from nnctl.sweeps.folder import list_sweeps

    sweeps_dir = context.params.get("sweeps_dir") or os.environ.get("NNCTL_SWEEPS_DIR") or "sweeps"
    return list_sweeps(Path(sweeps_dir))


def _datasets(context: click.Context) -> Iterable[str]:
    from nnctl.datasets import CATALOGUE

    return CATALOGUE


def _presets(context: click.Context) -> Iterable[str]:
    from nnctl.graph.presets import PRESETS

    return PRESETS


def _methods(context: click.Context) -> Iterable[str]:
    from nnctl.sweeps.settings import METHODS

    return METHODS


def _objectives(context: click.Context) -> Iterable[str]:
    from nnctl.sweeps.settings import OBJECTIVES

    return OBJECTIVES


def _keys(context: click.Context) -> list[str]:
    """Return the keys of the config that is named, or of quickstart, each with its =."""
    from nnctl.config import leaves, load_settings, to_dict

    config = context.params.get("config")
    settings = load_settings(config if config and config != "-" else "quickstart")
    return [f"{path}=" for path, _ in leaves(to_dict(settings))]


def _fields(context: click.Context) -> Sequence[str]:
    """Return the fields of an overview of runs, and the keys of a config."""
    from nnctl.runs.run import OVERVIEW

    return [*OVERVIEW, *(key.rstrip("=") for key in _keys(context))]


complete_config = completing(_configs, paths=True)
complete_run = completing(_runs, paths=True)
complete_sweep = completing(_sweeps, paths=True)
complete_dataset = completing(_datasets, paths=True)
complete_preset = completing(_presets)
complete_method = completing(_methods)
complete_objective = completing(_objectives)
complete_key = completing(_keys)
complete_field = completing(_fields)
