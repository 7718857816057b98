"""Who may write to a run folder: claiming a new one, owning it, pointing `latest` at it.

Many processes may start and end at any moment, also by being killed. `mkdir` decides who gets a
number, and a lock that the operating system drops with its owner decides who writes.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from nnctl.errors import RunError, SystemFailure, UsageError, printable
from nnctl.files import TEMPORARY, as_system_failure, exists, is_free, locked, status_of
from nnctl.runs.folder import LATEST, RunFolder, read_manifest

GLANCE = 0.1  # seconds; `ended` holds the lock for far less
ORPHANED = 60.0  # seconds after which a folder without a manifest belongs to a dead process


@contextmanager
def new_run(
    run_dir: Path | None, runs_dir: Path, name: str, *, overwrite: bool = False
) -> Iterator[RunFolder]:
    """Own a folder for a new run: `run_dir`, else the next numbered one in `runs_dir`.

    If it ends before the run has begun, the folder is as it was found.

    Raises:
        UsageError: the folder is called `latest`.
        RunError: it holds something already, or is in use.

    """
    if run_dir is None:
        run, is_new = RunFolder(claim_numbered(runs_dir, name)), True
    else:
        run, is_new = RunFolder(run_dir), not exists(run_dir)
        _make(run_dir)
    with ExitStack() as stack:
        try:
            stack.enter_context(owned(run.path))
            check_free(run.path, overwrite)
            replaced = not _is_empty(run.path)
        except SystemFailure:
            if is_new:
                _remove_if_empty(run.path)
            raise
        # The old manifest stays until the new one is there: at any moment it can be seen whose
        # folder this is.
        if replaced:
            _clear(run)
        try:
            yield run
        finally:
            if not replaced and not _may_be_there(run.config):
                with suppress(SystemFailure):
                    _clear(run, also_manifest=True)
                if is_new:
                    _remove_if_empty(run.path)


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Be the only process that writes to the folder of a run or a sweep.

    The operating system drops the lock when its owner ends, however it ends.

    Raises:
        RunError: another process writes to it.

    """
    with locked(folder, GLANCE) as mine:
        if not mine:
            raise RunError(f"{printable(folder)}: in use by another process; wait for it to end")
        yield


def ended(run: RunFolder) -> bool:
    """Return whether a run is over: it has had its last word, or its process was killed."""
    return exists(run.summary) or is_free(run.path)


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse a folder that a new run may not write to.

    Raises:
        UsageError: it is called `latest`.
        RunError: it holds something, and it is not a run that `overwrite` gives up.

    """
    if path.name == LATEST:
        raise UsageError(f"{printable(path)}: `latest` names the newest run; choose another name")
    if not exists(path):
        return
    found = status_of(path)
    if found is None or not stat.S_ISDIR(found.st_mode):
        raise RunError(f"{printable(path)}: exists, and is not a folder")
    if _is_empty(path):
        return
    try:
        read_manifest(RunFolder(path))
    except RunError:
        raise RunError(
            f"{printable(path)}: holds files that are not a run's; choose another --run-dir"
        ) from None
    if not overwrite:
        raise RunError(
            f"{printable(path)}: holds a run already\n"
            "continue it with --resume, replace it with --overwrite, or choose another --run-dir"
        )


def claim_numbered(parent: Path, name: str) -> Path:
    """Make and return the folder `parent/NAME-001`, or the next number that is free.

    `mkdir` decides, so that processes that start at the same moment never share a folder.
    """
    _make(parent)
    taken = re.compile(re.escape(name) + r"-(\d{1,18})")
    number = 0
    with as_system_failure("reading", parent):
        for path in parent.iterdir():
            match = taken.fullmatch(path.name)
            if match and not _swept(path):
                number = max(number, int(match[1]))
    while True:
        number += 1
        path = parent / f"{name}-{number:03d}"
        with as_system_failure("creating", path), suppress(FileExistsError):
            path.mkdir()
            return path


def point_latest(runs_dir: Path, run: RunFolder) -> None:
    """Make `runs_dir/latest` a relative link to the run, in one step; only a link is replaced."""
    # It lies in the run's folder, which nobody else writes to: nothing can come in between.
    temporary, latest = run.path / f"{TEMPORARY}{LATEST}", runs_dir / LATEST
    with suppress(OSError):  # some file systems have no links; the name is a convenience
        temporary.unlink(missing_ok=True)
        is_ours = latest.is_symlink() or not os.path.lexists(latest)
        if is_ours and run.path.parent.resolve() == runs_dir.resolve():
            temporary.symlink_to(run.path.resolve().name)
            temporary.replace(latest)
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


def _make(folder: Path) -> None:
    with as_system_failure("creating", folder):
        folder.mkdir(parents=True, exist_ok=True)


def _is_empty(path: Path) -> bool:
    """Return whether a folder holds nothing but the temporary files of killed processes."""
    with as_system_failure("reading", path):
        return all(name.startswith(TEMPORARY) for name in os.listdir(path))


def _may_be_there(path: Path) -> bool:
    """Return whether a file is there, or can't be seen: then nothing is removed for its absence."""
    try:
        return exists(path)
    except SystemFailure:
        return True


def _swept(path: Path) -> bool:
    """Remove an empty folder that a process claimed and was killed; return whether it was one."""
    try:
        if not _is_empty(path) or time.time() - path.stat().st_mtime < ORPHANED:
            return False
        for leftover in path.iterdir():
            leftover.unlink()
        path.rmdir()
        return True
    except (OSError, SystemFailure):
        return False


def _clear(run: RunFolder, *, also_manifest: bool = False) -> None:
    """Remove what nnctl wrote into a run, the manifest if asked to; links, not their targets.

    What else lies there is somebody's own and stays.
    """
    checkpoints = run.last.parent
    with as_system_failure("clearing", run.path):
        if checkpoints.is_symlink():
            checkpoints.unlink()
        for path in run.own_files:
            if also_manifest or path != run.manifest:
                path.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            for name in os.listdir(checkpoints):
                if name.startswith(TEMPORARY):
                    (checkpoints / name).unlink(missing_ok=True)
        _remove_if_empty(checkpoints)


def _remove_if_empty(folder: Path) -> None:
    """Remove a folder that is there and holds nothing."""
    with suppress(OSError):
        folder.rmdir()
