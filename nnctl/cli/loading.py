"""How commands come by a data set, a run or a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nnctl.errors import UsageError

if TYPE_CHECKING:
    from nnctl.config import Settings
    from nnctl.datasets import DataSet, Source
    from nnctl.training.checkpoint import Checkpoint
    from nnctl.training.runs import RunFolder


def open_data(settings: Settings, source: Source) -> DataSet:
    """Return the data set of `settings`, fetched if need be; shapes are checked before that.

    Raises:
        ConfigError: the network does not fit the data set.
        DataError: the data can't be had.

    """
    from nnctl import datasets
    from nnctl.config import build, check_shapes
    from nnctl.nn.layers import LAYERS

    name = settings.data.dataset
    description = datasets.describe(name, source)
    check_shapes(settings, description.inputs, description.classes)
    units = description.inputs
    for choice in settings.network:
        units = build(LAYERS, choice).output_units(units)
    return datasets.load(name, source, progress=download_progress(), classes=units)


def find_checkpoint(
    name: str, runs_dir: Path, *, which: str | None = None, dataset: str | None = None
) -> tuple[Checkpoint, RunFolder | None, str]:
    """Return a checkpoint, its run if it lies in one, and which it is: best, last or its path.

    `name` is a run or a safetensors file, `dataset` replaces the data set that was trained on.

    Raises:
        RunError: run or checkpoint are missing or damaged.

    """
    from nnctl.config import load_settings
    from nnctl.training.checkpoint import FOLDER, load
    from nnctl.training.runs import RunFolder, find_run

    path = Path(name)
    run: RunFolder | None
    if path.suffix == ".safetensors":
        if which is not None:
            raise UsageError("--checkpoint chooses one of a run's; a file is one already")
        run, which = RunFolder(path.parent.parent), name
    else:
        run = find_run(name, runs_dir)
        which = which or ("best" if run.best.exists() else "last")
        path = run.best if which == "best" else run.last
    checkpoint = load(path)
    settings = checkpoint.settings
    if run.config.is_file():
        recorded = load_settings(str(run.config))
        dataset = dataset or recorded.data.dataset
        settings = replace(settings, name=recorded.name)
    else:
        run = None
    if dataset is None and settings.data.dataset == FOLDER:
        raise UsageError(f"{name}: was trained on a folder of its own: name one with --dataset")
    if dataset is not None:
        settings = replace(settings, data=replace(settings.data, dataset=dataset))
    return replace(checkpoint, settings=settings), run, which
