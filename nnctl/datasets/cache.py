"""The pinned files of a known data set on this machine: checked at every use, fetched if need be.

A file's hash alone decides whether it is used: that of the .gz as it is downloaded, or that of
what is in it. So it does not matter who put the file there, how it is packed, or what has happened
to it since. Locks only spare work; files appear whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nnctl.datasets import idx, unpacked
from nnctl.datasets.catalogue import FILES, KnownSet, Pin
from nnctl.datasets.packing import FileStatus, names, near_misses
from nnctl.datasets.source import SILENT, FetchProgress, Source
from nnctl.errors import DataError, printable
from nnctl.files import as_system_failure, bundled, locked, write_atomically

if TYPE_CHECKING:
    from nnctl.datasets.idx import Array


def folder_of(known: KnownSet, source: Source) -> Path:
    """Return the folder of `known`'s files, whether they are there or not."""
    return source.folder() / known.name if known.mirrors else bundled(f"data/{known.name}")


def check(path: Path, pin: Pin) -> tuple[FileStatus, bytes]:
    """Return how the file at `path` stands against `pin`, and its content if it is ready.

    The content is the pinned .gz, or else what is in it.
    """
    largest = pin.unpacked_size + pin.unpacked_size // 1000 + 4096  # gzip's worst
    with as_system_failure("reading", path):
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                return FileStatus(path, "damaged", "not a regular file"), b""
            if found.st_size > largest:
                problem = f"{found.st_size:,} bytes, more than {largest:,}"
                return FileStatus(path, "damaged", problem, found.st_size), b""
            data = path.read_bytes()
        except FileNotFoundError:
            return FileStatus(path, "missing", "missing"), b""
    digest = hashlib.sha256(data).hexdigest()
    if digest in (pin.sha256, pin.unpacked_sha256):
        return FileStatus(path, "ready", "", len(data), digest), data
    if idx.is_gzip(data):
        content, problem = _unpack_other(data, path, pin)
    elif len(data) in (pin.size, pin.unpacked_size):
        content, problem = b"", f"SHA-256 {digest}, not {pin.sha256}"
    else:
        problem = f"{len(data):,} bytes, not {pin.size:,} ({pin.unpacked_size:,} unpacked)"
        content = b""
    state: Literal["damaged", "ready"] = "damaged" if problem else "ready"
    return FileStatus(path, state, problem, len(data), digest), content


def _unpack_other(packed: bytes, path: Path, pin: Pin) -> tuple[bytes, str]:
    """Return what is in a file that is gzipped otherwise than the pinned one, or what is wrong."""
    content = bytearray()
    try:
        for piece in idx.inflate(packed, path):
            content += piece
            if len(content) > pin.unpacked_size:
                return b"", f"more than {pin.unpacked_size:,} bytes once unpacked"
    except DataError as error:
        return b"", str(error).removeprefix(f"{printable(path)}: ")
    if (digest := hashlib.sha256(content).hexdigest()) != pin.unpacked_sha256:
        return b"", f"SHA-256 {digest} once unpacked, not {pin.unpacked_sha256}"
    return bytes(content), ""


def check_all(known: KnownSet, source: Source) -> tuple[FileStatus, ...]:
    """Return how each file of `known` stands."""
    return tuple(_look(known, name, source)[0] for name in known.pins)


def read(
    known: KnownSet, base: str, source: Source, progress: FetchProgress = SILENT
) -> tuple[Array, Path]:
    """Return the values of file `base` and its path; fetch all that is missing if it isn't ready.

    `base` is its name without .gz.
    """
    name = f"{base}.gz"
    for last_try in (False, False, True):
        for path in _places(known, name, source):
            status, data = check(path, known.pins[name])
            if status.state == "ready":
                return _values(known, base, path, data, source), path
        if not last_try:  # another process may set a file aside that has just become good
            fetch(known, source, progress)
    wrong = _look(known, name, source)[0]
    raise DataError(f"{_name(wrong)}; something keeps changing it: stop that, then run again")


def _values(known: KnownSet, base: str, path: Path, data: bytes, source: Source) -> Array:
    """Return the values of a file whose content `check` has found ready."""
    dimensions = FILES[base]
    if not idx.is_gzip(data):
        return idx.decode(data, dimensions, path)
    if not known.mirrors:  # what is bundled is left as it is
        return idx.decode(idx.unpack(data, dimensions, path), dimensions, path)
    kept = source.folder() / unpacked.FOLDER / known.name / base
    return unpacked.read(data, dimensions, path, kept)


def fetch(
    known: KnownSet, source: Source, progress: FetchProgress = SILENT
) -> tuple[FileStatus, ...]:
    """Make all files of `known` ready and return those that weren't, as they were found.

    A damaged file is kept aside as NAME.bad as soon as a good one has come in its place. Raises
    `DataError` with a way out, `SystemFailure`.
    """
    broken = _broken(known, source)
    if not broken:
        return ()
    found = [status for statuses in broken.values() for status in statuses]
    listed = "\n".join(map(_name, found))
    folder = folder_of(known, source)
    if not known.mirrors:
        raise DataError(f"{listed}\n{known.name} comes with nnctl: install nnctl again")
    if source.offline:
        raise DataError(
            f"{known.name} is not complete and --offline forbids downloading\n{listed}\n"
            f"Run once without it, or put these files into {printable(folder.absolute())} by "
            "hand, gzipped or not"
        )
    with as_system_failure("creating", folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, source.limits.lock_wait):
        broken = _broken(known, source)
        _download(known, broken, source, progress)
    return tuple(statuses[0] for statuses in broken.values())


def _broken(known: KnownSet, source: Source) -> dict[str, list[FileStatus]]:
    """Return what `_look` finds of each file that isn't ready."""
    looked = {name: _look(known, name, source) for name in known.pins}
    return {name: found for name, found in looked.items() if found[0].state != "ready"}


def _look(known: KnownSet, name: str, source: Source) -> list[FileStatus]:
    """Return the status of the file that is ready, else of all that lie in its places.

    The first is that of the file in the set's own folder, which may be missing: what lies loose
    in the folder of all data sets may belong to another one.
    """
    folder, found = folder_of(known, source), []
    for path in _places(known, name, source):
        status, _ = check(path, known.pins[name])
        if status.state == "ready":
            return [status]
        if status.state == "damaged":
            found.append(status)
    if not found or found[0].path.parent != folder:
        base = name.removesuffix(".gz")
        meant = near_misses(folder, base) or near_misses(folder.parent, base)
        found.insert(0, FileStatus(folder / name, "missing", f"missing{meant}"))
    return found


def _places(known: KnownSet, name: str, source: Source) -> Iterator[Path]:
    """Yield where a file may lie: in the set's own folder, or loose in that of all data sets."""
    folder = folder_of(known, source)
    for place in (folder, folder.parent) if known.mirrors else (folder,):
        for each in names(name.removesuffix(".gz")):
            yield place / each


def _download(
    known: KnownSet, broken: Mapping[str, list[FileStatus]], source: Source, progress: FetchProgress
) -> None:
    from nnctl.datasets.download import MirrorsError, download

    pins = {name: known.pins[name] for name in broken}
    folder = folder_of(known, source)
    mirrors = source.mirrors or known.mirrors
    try:
        for name, data in download(pins, mirrors, source.limits, progress):
            ours = [s for s in broken[name] if s.path.parent == folder and s.state == "damaged"]
            with _set_aside(ours, progress):
                write_atomically(folder / name, data)
    except MirrorsError as failed:
        found = [status for statuses in broken.values() for status in statuses]
        unusable = "".join(f"{_name(s)}\n" for s in found if s.problem != "missing")
        raise DataError(
            f"{known.name} could not be downloaded\n{failed}\n{unusable}"
            f"Name another server with --mirror URL, or put these files into "
            f"{printable(folder.absolute())} by hand, gzipped or not: {', '.join(known.pins)}"
        ) from failed


@contextmanager
def _set_aside(statuses: list[FileStatus], progress: FetchProgress) -> Iterator[None]:
    """Rename files that must not be used to NAME.bad, unless their successor can't be written."""
    renamed: list[tuple[Path, Path]] = []
    try:
        for status in statuses:
            kept = status.path.with_name(f"{status.path.name}.bad")
            with as_system_failure("renaming", status.path), suppress(FileNotFoundError):
                os.replace(status.path, kept)
                renamed.append((status.path, kept))
        yield
    except BaseException:
        for path, kept in renamed:
            with suppress(OSError):
                os.replace(kept, path)
        raise
    for status in statuses:
        progress.warn(f"{_name(status)}; kept aside as {printable(status.path.name)}.bad")


def _name(status: FileStatus) -> str:
    return f"{printable(status.path)}: {status.problem}"
