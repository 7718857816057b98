"""Trained weights that a word on the command line names: which checkpoint, and do they fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nnctl.config import Settings
from nnctl.errors import ConfigError, RunError, UsageError, printable
from nnctl.files import as_text, exists, sha256_of
from nnctl.runs.checkpoint import FOLDER, Checkpoint, load
from nnctl.runs.find import Found
from nnctl.runs.folder import RunFolder, read_config
from nnctl.training.engine import InitialWeights, build_network


@dataclass(frozen=True)
class TrainedWeights:
    """A checkpoint file, and the run that it lies in."""

    path: Path
    which: str  # of its run: best, last or, if the file was named, that name
    run: RunFolder | None  # None: a file that lies in no run
    checkpoint: Checkpoint  # under the run's name, with the data set to be read


def read_weights(
    word: str,
    found: Found,
    *,
    which: str | None = None,
    dataset: str | None = None,
    option: str = "--dataset",
    for_data: bool = True,
) -> TrainedWeights:
    """Return the checkpoint that `word` means, where it `found` a run or a file.

    Of a run's two, that is `which`, else the best. `dataset` replaces the data set that was
    trained on, as `option` of the command does. Without `for_data` it need not be known.

    Raises:
        UsageError: `which` of a file; or the data set is not known.
        RunError: the checkpoint is missing or damaged.

    """
    run = found.run
    if found.checkpoint is not None:
        if which is not None:
            raise UsageError("--checkpoint chooses one of a run's; a file is one already")
        path, kind = found.checkpoint, word
    else:
        assert run is not None
        kind = which or ("best" if exists(run.best) else "last")
        path = run.best if kind == "best" else run.last
    checkpoint = load(path)
    settings = checkpoint.settings
    # Before the end of its first epoch a run has no best.
    begun = checkpoint.snapshot.progress.history and settings.data.validation
    if run is not None and which is None and kind == "last" and begun:
        raise RunError(
            f"{printable(run.best)}: missing\n"
            f"bring the original file back, or name {printable(run.last)} in its place"
        )
    if run is not None:
        own = read_config(run)
        dataset = dataset or own.data.dataset
        settings = replace(settings, name=own.name)
    if for_data and dataset is None and settings.data.dataset == FOLDER:
        raise UsageError(
            f"{printable(word)}: was trained on a folder of its own: name one with {option}"
        )
    if dataset is not None:
        settings = replace(settings, data=replace(settings.data, dataset=dataset))
    return TrainedWeights(path, kind, run, replace(checkpoint, settings=settings))


def initial_weights(
    word: str, weights: TrainedWeights, settings: Settings, inputs: int
) -> InitialWeights:
    """Return the weights that `--from` names, once they fit the network of `settings`.

    Raises:
        ConfigError: an array is missing, one too many, or of another shape.

    """
    arrays = weights.checkpoint.snapshot.parameters
    network = build_network(settings, inputs)
    wanted = {key: array.shape for key, array in network.named_arrays().items()}
    given = {key: array.shape for key, array in arrays.items()}
    for key in sorted(wanted | given):
        if wanted.get(key) != given.get(key):
            here, there = (shapes.get(key, "missing") for shapes in (wanted, given))
            raise ConfigError(
                f"--from {printable(word)}: {key} is {there} there, but {here} in this config's "
                "network\ntrain the network that the weights belong to"
            )
    path = weights.path.absolute()  # it is looked for there, from whatever folder
    return InitialWeights(arrays, as_text(path), sha256_of(path))
