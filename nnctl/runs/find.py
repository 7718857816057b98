"""What RUN means on the command line: the one place where a word becomes a run folder.

A word with a separator is a path and nothing else. Another one is the name of a run in the runs
folder, and only if there is none, of a folder here. Both may lead to a checkpoint file inside a
run, or be `latest`. Where several runs are meant, it may be a pattern such as `lr0.3*`.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnctl.errors import RunError, UsageError, printable
from nnctl.files import as_system_failure, exists, has_separator, status_of
from nnctl.runs.folder import LATEST, RunFolder

CHECKPOINT = ".safetensors"


@dataclass(frozen=True)
class Found:
    """What a word led to: a run, a checkpoint file in a run, or one on its own."""

    run: RunFolder | None  # None: a checkpoint file that lies in no run
    checkpoint: Path | None = None  # the file, if one was named
    hidden: Path | None = None  # a run here that the word would mean, were there no such name


def find(word: str, runs_dir: Path) -> Found:
    """Return the run or the checkpoint file that `word` means.

    Raises:
        UsageError: it is no word for a run: empty, an option, or a pattern.
        RunError: there is no such run, or it is something else.
        SystemFailure: it can't be seen.

    """
    if not word:
        raise UsageError("RUN is empty: give a run's name or path, or `latest`")
    candidates = _candidates(word, runs_dir)
    found = [answer for answer in map(_at, candidates) if answer is not None]
    if not found:
        raise _absent(word, candidates, runs_dir)
    first, *others = found
    hidden = others[0].run if others else None
    if hidden is None or first.run is None or hidden.path.samefile(first.run.path):
        return first
    return Found(first.run, first.checkpoint, hidden.path)


def find_run(word: str, runs_dir: Path) -> RunFolder:
    """Return the run that `word` means, also by a checkpoint file in it.

    Raises:
        UsageError, RunError, SystemFailure: as `find`, or the file lies in no run.

    """
    return run_of(find(word, runs_dir))


def run_of(found: Found) -> RunFolder:
    """Return the run that was found.

    Raises:
        RunError: it is a checkpoint file that lies in no run.

    """
    if found.run is None:
        raise RunError(
            f"{printable(found.checkpoint)}: a checkpoint on its own, in no run's folder\n"
            "start a new run from its weights with `nnctl train --config FILE --from FILE`"
        )
    return found.run


def find_runs(words: Iterable[str], runs_dir: Path) -> list[RunFolder]:
    """Return the runs that `words` mean, each once; a word may be a pattern.

    Raises:
        UsageError, RunError, SystemFailure: as `find`; or a pattern matches no run.

    """
    runs: dict[Path, RunFolder] = {}
    for word in words:
        literal = not glob.has_magic(word) or any(map(exists, _candidates(word, runs_dir)))
        matching = [find_run(word, runs_dir)] if literal else _matching(word, runs_dir)
        if not matching:
            raise RunError(f"{printable(word)}: no run matches{_hint(runs_dir)}")
        for run in matching:
            runs.setdefault(run.path.resolve(), run)
    return list(runs.values())


def list_runs(runs_dir: Path) -> list[RunFolder]:
    """Return the runs in a folder, by name; `latest` is not one of them."""
    if status_of(runs_dir) is None:
        return []
    with as_system_failure("reading", runs_dir):
        names = sorted(os.listdir(runs_dir))
    runs = (RunFolder(runs_dir / name) for name in names if name != LATEST)
    return [run for run in runs if is_run(run)]


def distinct_names(runs: Sequence[RunFolder]) -> list[str]:
    """Return what tells runs apart: their folders' names, with as many parents as it takes.

    A sweep's trials all end in seed-0: they are 0000/seed-0, 0001/seed-0 and so on.
    """
    paths = [run.path.resolve() for run in runs]
    longest = max((len(path.parts) for path in paths), default=0)
    for count in range(1, longest + 1):
        names = [os.path.join(*path.parts[-count:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            break
    return names if paths else []


def is_run(run: RunFolder) -> bool:
    """Return whether a folder is a run's: it has a manifest, or what should be one."""
    return exists(run.manifest)


def _candidates(word: str, runs_dir: Path) -> list[Path]:
    """Return the places that a word may mean, the first first."""
    path = Path(word)
    if has_separator(word) or word in (os.curdir, os.pardir):
        return [path]
    return [runs_dir / word, path]


def _at(path: Path) -> Found | None:
    """Return the run or the checkpoint file at a path; None if it is neither."""
    found = status_of(path)
    if found is None:
        return None
    if stat.S_ISDIR(found.st_mode):
        if path.name == LATEST and path.is_symlink():
            path = path.parent / path.readlink()
        run = RunFolder(path)
        return Found(run) if is_run(run) else None
    if path.suffix != CHECKPOINT:
        return None
    folder = path.parent
    if folder.name in ("", os.pardir):  # its own name and parent can't be read from it
        folder = Path(os.path.abspath(folder))
    run = RunFolder(folder.parent)
    inside = folder.name == run.last.parent.name
    return Found(run if inside and is_run(run) else None, path)


def _absent(word: str, candidates: Sequence[Path], runs_dir: Path) -> Exception:
    """Return what is wrong with a word that leads to no run, said as truly as can be seen."""
    for path in candidates:
        shown = printable(RunFolder(path))
        if not exists(path):
            continue
        found = status_of(path)
        if found is None:
            return RunError(
                f"{shown}: a link to {printable(os.readlink(path))}, which leads nowhere"
                f"{_hint(runs_dir)}"
            )
        if stat.S_ISDIR(found.st_mode):
            return RunError(
                f"{shown}: a folder, but not a run's: it has no manifest.json{_hint(runs_dir)}"
            )
        owner = RunFolder(path.absolute().parent)
        hint = f"\nthe run is {printable(path.parent)}" if is_run(owner) else _hint(runs_dir)
        return RunError(f"{shown}: a file, neither a run's folder nor a checkpoint{hint}")
    if word.startswith("-"):
        return UsageError(
            f"{printable(word)!r} looks like an option, but stands where a RUN is expected\n"
            "give a run's name or path, or `latest`, there"
        )
    if glob.has_magic(word) and (matching := _matching(word, runs_dir)):
        names = ", ".join(printable(run) for run in matching)
        return UsageError(f"{printable(word)}: a pattern, where one run is meant; matches {names}")
    if len(candidates) == 1:
        return RunError(f"{printable(word)}: there is no such path{_hint(runs_dir)}")
    return RunError(
        f"no run {printable(word)!r} in {printable(runs_dir)}, and no such folder here"
        f"{_hint(runs_dir)}"
    )


def _matching(pattern: str, runs_dir: Path) -> list[RunFolder]:
    """Return the runs whose paths match a pattern, by name: in the runs folder, or else here."""
    for path in _candidates(pattern, runs_dir):
        # Only the word is a pattern; the runs folder may have a name with brackets.
        whole = path if has_separator(pattern) else Path(glob.escape(str(path.parent)), path.name)
        paths = sorted(map(Path, glob.glob(str(whole))))
        runs = [RunFolder(match) for match in paths if match.name != LATEST]
        if runs := [run for run in runs if is_run(run)]:
            return runs
    return []


def _hint(runs_dir: Path) -> str:
    """Return a line that names the last runs there are."""
    known = [run.path.name for run in list_runs(runs_dir)]
    if not known:
        return "\nthere is no run yet; `nnctl train --config quickstart` makes one"
    return f"\nruns in {printable(runs_dir)}: {', '.join(map(printable, known[-5:]))}"
