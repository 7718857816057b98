"""How commands open a data set, a checkpoint, or all that an experiment needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nnctl.errors import ConfigError, UsageError, printable

if TYPE_CHECKING:
    from nnctl.config import Settings
    from nnctl.datasets import DataSet, Source
    from nnctl.runs.checkpoint import Checkpoint
    from nnctl.runs.experiment import Experiment
    from nnctl.runs.find import Found
    from nnctl.runs.folder import RunFolder
    from nnctl.runs.weights import TrainedWeights

DEFAULT_CONFIG = "quickstart"


def read_settings(config: str, overrides: tuple[tuple[str, str], ...]) -> Settings:
    """Return the settings of `--config`, and say so where another file may have been meant.

    A `name` among the overrides may hold values, as in `lr{learning_rate}-s{seed}`.

    Raises:
        ConfigError: as `load_settings`; or the name has a field that is no key, or several.

    """
    from nnctl.config import load_settings, with_name
    from nnctl.display.output import note
    from nnctl.files import exists, has_separator

    patterns = [text for key, text in overrides if key == "name" and "{" in text]
    plain = tuple((k, text) for k, text in overrides if k != "name" or "{" not in text)
    settings = load_settings(config, plain)
    copy = Path(f"{config}.yaml")
    if config != "-" and not has_separator(config) and not exists(Path(config)) and exists(copy):
        note(
            f"{printable(config)} is the config that comes with nnctl; the file here is "
            f"{printable(copy)}: --config {printable(copy)}"
        )
    return with_name(settings, patterns[-1]) if patterns else settings


def open_data(
    settings: Settings,
    source: Source,
    *,
    inputs: int | None = None,
    quiet: bool = False,
    parts: tuple[str, ...] = ("train", "test"),
    resumed: bool = False,
) -> DataSet:
    """Return the data set of `settings`, fetched if need be; shapes are checked before that.

    `inputs` is how many pixels the weights take, if there are any already. `quiet` leaves out the
    progress of a download, not its warnings. Only `parts` are read. Whether the images are enough
    is left open for a run that is `resumed`: where they are not, they are not the run's.

    Raises:
        ConfigError: the network does not fit the data set, or nothing is left to monitor.
        DataError: the data can't be had.

    """
    from nnctl import datasets
    from nnctl.config import check_shapes, with_counts
    from nnctl.display.downloads import download_progress

    if "test" not in parts and settings.data.validation == 0:
        raise settings.error(
            "data.validation", "--no-test needs a validation set: data.validation above 0"
        )
    name = settings.data.dataset
    description = datasets.describe(name, parts=parts)
    units = check_shapes(settings, description.inputs, description.classes)
    if inputs not in (None, description.inputs):
        raise ConfigError(
            f"{printable(name)}: its images have {description.inputs:,} pixels, but the network "
            f"was trained on {inputs:,}\nname the data set that it was trained on, or one alike"
        )
    if "train" in parts and not resumed:
        with_counts(settings, description.train_samples)
    with download_progress(quiet=quiet) as progress:
        return datasets.load(name, source, progress=progress, classes=units, parts=parts)


def open_experiment(
    config: str | None,
    run: str | None,
    overrides: tuple[tuple[str, str], ...],
    runs_dir: Path,
    source: Source,
    *,
    quiet: bool = False,
) -> Experiment:
    """Return what `--config` or `--run` names, not both; without either the bundled quickstart.

    Raises:
        UsageError: both were given, or an override does not fit the run's weights.
        RunError: run or checkpoint are missing or damaged.

    """
    from nnctl.config import load_settings, settings_from_dict, to_dict
    from nnctl.runs.experiment import Experiment

    if run is None:
        settings = read_settings(config or DEFAULT_CONFIG, overrides)
        return Experiment(settings, open_data(settings, source, quiet=quiet))
    context = click.get_current_context()
    if context.get_parameter_source("config") == click.core.ParameterSource.COMMANDLINE:
        raise UsageError("--config and --run can't be combined: a run brings its own config")
    key = "data.dataset"
    dataset = dict(overrides).get(key)
    weights = find_weights(run, runs_dir, dataset=dataset, option=f"--set {key}")
    checkpoint, folder = weights.checkpoint, weights.run
    if folder is not None:
        settings = load_settings(str(folder.config), overrides)
    else:
        settings = settings_from_dict(to_dict(checkpoint.settings), overrides)
    if settings.network != checkpoint.settings.network:
        raise UsageError(
            "--set network.*: the run's weights belong to the network it was made with"
        )
    data = open_data(settings, source, inputs=checkpoint.inputs, quiet=quiet)
    return Experiment(settings, data, run, checkpoint, folder)


def find_run(name: str, runs_dir: Path) -> RunFolder:
    """Return the run that RUN names, and say so where it might mean another.

    Raises:
        UsageError, RunError, SystemFailure: as `nnctl.runs.find.find_run`.

    """
    from nnctl.runs.find import find, run_of

    found = find(name, runs_dir)
    run = run_of(found)
    note_hidden(name, found)
    return run


def note_hidden(name: str, found: Found) -> None:
    """Say on standard error that a folder here has the name of the run that was found."""
    from nnctl.display.output import note

    if found.hidden is not None:
        shown = printable(name)
        note(f"{shown} is the run {printable(found.run)}; the folder here is ./{shown}")


def find_weights(
    name: str,
    runs_dir: Path,
    *,
    which: str | None = None,
    dataset: str | None = None,
    option: str = "--dataset",
    for_data: bool = True,
) -> TrainedWeights:
    """Return the checkpoint that RUN names, and say so where it might mean another.

    Raises:
        UsageError, RunError, SystemFailure: as `nnctl.runs.find.find` and
            `nnctl.runs.weights.read_weights`, which explains the arguments.

    """
    from nnctl.runs.find import find
    from nnctl.runs.weights import read_weights

    found = find(name, runs_dir)
    note_hidden(name, found)
    return read_weights(name, found, which=which, dataset=dataset, option=option, for_data=for_data)


def warn_of_other_data(checkpoint: Checkpoint, data: DataSet) -> None:
    """Say on standard error that a network was not trained on the data it is measured on."""
    from nnctl.datasets import contents
    from nnctl.display.output import warn

    trained_on = contents(checkpoint.data_sha256)
    if any(trained_on.get(name) != sha for name, sha in contents(data.sha256).items()):
        warn(
            f"{printable(data.name)}: not the data that this network was trained on; the split "
            "into training and validation images may be another"
        )
