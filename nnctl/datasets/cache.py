"""The pinned files of a known data set on this machine: checked at every use, fetched if need be.

A file's hash alone decides whether it is used. So it does not matter who put the file there, or
what has happened to it since. Locks only spare work; files appear whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nnctl.datasets.catalogue import KnownSet, Pin
from nnctl.datasets.source import SILENT, Progress, Source
from nnctl.errors import DataError, printable
from nnctl.files import bundled, locked, told, write_atomically


@dataclass(frozen=True)
class FileStatus:
    """What a check of one file found; `problem` is for people and empty when it is ready."""

    path: Path
    state: Literal["ready", "missing", "damaged"]
    problem: str = ""
    bytes: int | None = None
    sha256: str | None = None


def folder_of(known: KnownSet, source: Source) -> Path:
    """Return the folder of `known`'s files, whether they are there or not."""
    return source.folder() / known.name if known.mirrors else bundled(f"data/{known.name}")


def check(path: Path, pin: Pin) -> tuple[FileStatus, bytes]:
    """Return how the file at `path` stands against `pin`, and its content if it is ready."""
    with told("reading", path):
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                return FileStatus(path, "damaged", "not a regular file"), b""
            if found.st_size != pin.size:
                problem = f"{found.st_size:,} bytes, not {pin.size:,}"
                return FileStatus(path, "damaged", problem, found.st_size), b""
            data = path.read_bytes()
        except FileNotFoundError:
            return FileStatus(path, "missing", "missing"), b""
    digest = hashlib.sha256(data).hexdigest()
    if digest != pin.sha256:
        problem = f"SHA-256 {digest}, not {pin.sha256}"
        return FileStatus(path, "damaged", problem, len(data), digest), b""
    return FileStatus(path, "ready", "", len(data), digest), data


def check_all(known: KnownSet, source: Source) -> tuple[FileStatus, ...]:
    """Return how each file of `known` stands."""
    folder = folder_of(known, source)
    return tuple(check(folder / name, pin)[0] for name, pin in known.pins.items())


def read(known: KnownSet, name: str, source: Source, progress: Progress = SILENT) -> bytes:
    """Return the content of file `name`; if it isn't ready, fetch all that is missing first."""
    path = folder_of(known, source) / name
    for last_try in (False, False, True):
        status, data = check(path, known.pins[name])
        if status.state == "ready":
            return data
        if not last_try:  # another process may set a file aside that has just become good
            fetch(known, source, progress)
    raise DataError(f"{_name(status)}; something keeps changing it: stop that, then run again")


def fetch(known: KnownSet, source: Source, progress: Progress = SILENT) -> tuple[FileStatus, ...]:
    """Make all files of `known` ready and return those that weren't, as they were found.

    A damaged file is kept aside as NAME.bad. Raises `DataError` with a way out, `SystemFailure`.
    """
    broken = [status for status in check_all(known, source) if status.state != "ready"]
    if not broken:
        return ()
    if not known.mirrors:
        raise DataError(f"{_name(broken[0])}; it comes with nnctl: install nnctl again")
    if source.offline:
        listed = "\n".join(_name(status) for status in broken)
        raise DataError(
            f"{known.name} is not complete and --offline forbids downloading\n{listed}\n"
            "Run once without it, or put these files there by hand"
        )
    folder = folder_of(known, source)
    with told("creating", folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, source.limits.lock_wait):
        broken = [status for status in check_all(known, source) if status.state != "ready"]
        for status in broken:
            if status.state == "damaged":
                _set_aside(status, progress)
        _download(known, broken, source, progress)
    return tuple(broken)


def _download(
    known: KnownSet, broken: list[FileStatus], source: Source, progress: Progress
) -> None:
    from nnctl.datasets.download import MirrorsError, download

    pins = {status.path.name: known.pins[status.path.name] for status in broken}
    folder = folder_of(known, source)
    mirrors = source.mirrors or known.mirrors
    try:
        for name, data in download(pins, mirrors, source.limits, progress):
            write_atomically(folder / name, data)
    except MirrorsError as failed:
        raise DataError(
            f"{known.name} could not be downloaded\n{failed}\n"
            f"Name another server with --mirror URL, or put these files into "
            f"{printable(folder.absolute())} by hand: {', '.join(known.pins)}"
        ) from failed


def _set_aside(status: FileStatus, progress: Progress) -> None:
    """Rename a file that must not be used to NAME.bad."""
    kept = status.path.with_name(f"{status.path.name}.bad")
    with told("renaming", status.path), suppress(FileNotFoundError):
        os.replace(status.path, kept)
    progress.warn(f"{_name(status)}; kept aside as {printable(kept.name)}")


def _name(status: FileStatus) -> str:
    return f"{printable(status.path)}: {status.problem}"
