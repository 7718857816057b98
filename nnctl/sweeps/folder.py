"""A sweep's folder, which is its database: all that a sweep knows is read from here again."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nnctl.config import to_yaml
from nnctl.errors import ConfigError, RunError, UsageError, printable
from nnctl.files import as_system_failure, as_text, exists, has_separator, write_atomically
from nnctl.runs.folder import RunFolder, convert, now, read_json, to_json
from nnctl.runs.lock import claim_numbered
from nnctl.sweeps.plan import Trial
from nnctl.sweeps.settings import Search, load_search

CONFIG = "./config.yaml"  # beside sweep.yaml, so that nothing outside the folder is needed
TRIAL = "trial.json"


@dataclass(frozen=True)
class SweepFolder:
    """The paths inside a sweep's folder."""

    path: Path

    @property
    def sweep(self) -> Path:
        """The resolved sweep file; with it the sweep can be gone on with."""
        return self.path / "sweep.yaml"

    @property
    def config(self) -> Path:
        """The resolved config of every trial, before its values are set."""
        return self.path / "config.yaml"

    @property
    def summary(self) -> Path:
        """The fields of `sweep_finished`."""
        return self.path / "summary.json"

    @property
    def manifest(self) -> Path:
        """Versions, data, command line, times."""
        return self.path / "manifest.json"

    @property
    def trials(self) -> Path:
        """A folder for each trial."""
        return self.path / "trials"

    @property
    def resume_command(self) -> str:
        """What to type in a shell to go on with the sweep."""
        return f"nnctl sweep --resume {shlex.quote(str(self.path))}"

    def trial(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.trials / f"{number:04d}"

    def run(self, number: int, seed: int) -> RunFolder:
        """Return the run folder of a trial's training with a seed."""
        return RunFolder(self.trial(number) / f"seed-{seed}")


def keeper(path: Path) -> Path | None:
    """Return the folder of the run or sweep that keeps `path` as a file of its own, if any does."""
    path = path.resolve()
    for folder in path.parents[:3]:
        run, sweep = RunFolder(folder), SweepFolder(folder)
        trial = sweep.trials / path.parent.name / TRIAL
        if path in (*run.own_files, sweep.sweep, trial) and exists(run.manifest):
            return folder
    return None


def new_sweep(sweeps_dir: Path, search: Search, facts: dict[str, Any]) -> SweepFolder:
    """Return a new numbered folder that holds the search.

    Raises:
        SystemFailure: it can't be written.

    """
    sweep = SweepFolder(claim_numbered(sweeps_dir, search.name))
    with as_system_failure("creating", sweep.trials):
        sweep.trials.mkdir()
    write_atomically(sweep.manifest, to_json({**facts, "started": now(), "ended": None}))
    write_atomically(sweep.config, to_yaml(search.base).encode())
    write_search(sweep, search)
    return sweep


def write_search(sweep: SweepFolder, search: Search) -> None:
    """Write the resolved sweep file."""
    write_atomically(sweep.sweep, search.to_yaml(CONFIG).encode())


def find_sweep(name: str, sweeps_dir: Path) -> SweepFolder:
    """Return the folder of a sweep that is given by path, or by name under `sweeps_dir`.

    Raises:
        RunError: there is no such sweep.

    """
    paths = [Path(name)] if has_separator(name) else [sweeps_dir / name, Path(name)]
    for path in paths:
        if SweepFolder(path).sweep.is_file():
            return SweepFolder(path)
    known = list_sweeps(sweeps_dir)
    hint = f"sweeps there: {', '.join(map(printable, known[-5:]))}" if known else "start one first"
    raise RunError(
        f"no sweep {printable(name)!r} in {printable(sweeps_dir)}, and no such path\n{hint}"
    )


def list_sweeps(sweeps_dir: Path) -> list[str]:
    """Return the names of the sweeps in a folder, in order."""
    there = sorted(sweeps_dir.iterdir()) if sweeps_dir.is_dir() else []
    return [path.name for path in there if SweepFolder(path).sweep.is_file()]


def read_search(sweep: SweepFolder, trials: int | None = None) -> Search:
    """Return the search that a folder holds, made longer to so many `trials`.

    Raises:
        RunError: sweep.yaml can't be used.
        UsageError: a sweep can't have so many trials.

    """
    try:
        search = load_search(str(sweep.sweep), {}, {})
    except ConfigError as error:
        raise RunError(f"{printable(sweep.path)}: its sweep can't be used\n{error}") from None
    if trials is None or trials == search.trials:
        return search
    if search.method == "grid":
        raise UsageError(f"--trials: a grid tries each of its {search.trials:,} points once")
    if trials < search.trials:
        raise UsageError(
            f"--trials {trials}: the sweep has {search.trials:,} already, it can't be made shorter"
        )
    return replace(search, trials=trials)


def read_trials(sweep: SweepFolder, search: Search) -> dict[int, Trial]:
    """Return the trials that have been begun, by number.

    Raises:
        RunError: one is damaged, or does not fit the search.

    """
    trials: dict[int, Trial] = {}
    for number in range(search.trials):
        path = sweep.trial(number) / TRIAL
        if not path.exists():
            continue
        trial: Trial = convert(read_json(path), Trial, path)
        if trial.trial != number or trial.parameters.keys() != search.space.keys():
            raise RunError(f"{printable(path)}: damaged, this is not trial {number} of the sweep")
        trials[number] = trial
    return trials


def write_trial(sweep: SweepFolder, trial: Trial) -> None:
    """Write trial.json, and the trial's folder if it is new."""
    folder = sweep.trial(trial.trial)
    with as_system_failure("creating", folder):
        folder.mkdir(exist_ok=True)
    write_atomically(folder / TRIAL, to_json(asdict(trial)))


def run_dirs(sweep: SweepFolder, search: Search, trial: Trial) -> list[str]:
    """Return the run folders of a trial that are there."""
    runs = (sweep.run(trial.trial, seed) for seed in search.training_seeds())
    return [as_text(run.path) for run in runs if run.config.exists()]
