"""Files that are there whole or not at all, locks of folders, and what comes with nnctl.

Hides the temporary file beside the target, the syncs and the rename that make a write atomic,
and the sweeping up of what a killed process left. A temporary file is locked while it is
written, and the kernel frees the lock when the process ends: what is not locked can go.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from zlib import crc32

from nnctl.errors import SystemFailure, printable

if sys.platform != "win32":
    import fcntl

# What the usual failures mean for a person, and what to do.
REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "the file is larger than is allowed here; choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose another folder or change its permissions",
    errno.EPERM: "permission denied; choose another folder or change its permissions",
    errno.ENOENT: "there is no such folder; check the path",
    errno.ENOTDIR: "a part of the path is a file, not a folder; check the path",
    errno.EEXIST: "a file is in the way; remove it or choose another name",
    errno.EISDIR: "a folder is in the way; remove it or choose another name",
    errno.ENOTEMPTY: "a folder is in the way; remove it or choose another name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EIO: "the disk failed to read or write; check it",
    errno.ENOMEM: "out of memory; end other programs or allow this one more",
    errno.EMFILE: "too many files are open; `ulimit -n` allows more",
}
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)

# The locks of another machine on a shared disk can't be seen everywhere: only the temporary files
# of this one are removed as soon as they are unlocked, the others when they are a day old.
TEMPORARY = ".nnctl-"  # begins the name of every temporary file
_OURS = (
    f"{TEMPORARY}{crc32(os.fsencode(os.uname().nodename) if hasattr(os, 'uname') else b''):08x}-"
)
_DAY = 24 * 60 * 60.0

SEPARATORS = tuple(filter(None, (os.sep, os.altsep)))  # between the parts of a path


def write_atomically(path: Path, data: bytes | Iterable[bytes | memoryview]) -> None:
    """Make `data` the content of `path`: after any fault it is the old content or the new one.

    A device or a pipe is written to as it is. Raises `SystemFailure` with the file and a reason.
    """
    chunks = [data] if isinstance(data, bytes) else data
    with as_system_failure("writing", path):
        # A rename over /dev/null or /dev/stdout would take the device away from everybody.
        if path.parent == Path("/dev") or (path.exists() and not path.is_file()):
            with open(path, "wb") as stream:
                stream.writelines(chunks)
            return
        _sweep(path.parent)
        descriptor, temporary = _create_temporary(path.parent)
        try:
            with open(descriptor, "wb") as stream:
                stream.writelines(chunks)
                stream.flush()
                os.fsync(descriptor)
                os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(path.parent)


@contextmanager
def as_system_failure(doing: str, path: Path) -> Iterator[None]:
    """Turn an `OSError` into a `SystemFailure`: what was done, to which file, why not, a remedy."""
    try:
        yield
    except OSError as error:
        raise SystemFailure(f"{doing} {printable(path)}: {reason(error)}") from error


def reason(error: OSError) -> str:
    """Return why the system refused something, and what to do, as a person would say it."""
    return printable(REASONS.get(error.errno or 0) or error.strerror or error)


@contextmanager
def locked(folder: Path, wait: float = 0.0) -> Iterator[bool]:
    """Hold the lock of `folder`; yield False if another process keeps it longer than `wait` s.

    The lock needs no file of its own, and ends with its process in whatever way that ends. On a
    file system without locks everybody gets it.
    """
    with as_system_failure("opening", folder):
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        end = time.monotonic() + wait
        while not (held := _try_lock(descriptor)) and time.monotonic() < end:
            time.sleep(0.05)
        yield held
    finally:
        os.close(descriptor)


def is_free(folder: Path) -> bool:
    """Return whether nobody holds the lock of `folder`; False where there are no locks.

    To find out it is held for microseconds: who wants it should wait a little.
    """
    with as_system_failure("opening", folder):
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        return _try_lock(descriptor, without_locks=False)
    finally:
        os.close(descriptor)


def exists(path: Path) -> bool:
    """Return whether there is something at `path`, a link that leads nowhere included.

    What can't be seen is not absent: raises `SystemFailure` with the reason.
    """
    with as_system_failure("looking at", path):
        try:
            os.lstat(path)
        except OSError as error:
            if error.errno in _ABSENT:
                return False
            raise
    return True


def status_of(path: Path) -> os.stat_result | None:
    """Return what the system says of `path`, links followed, or None where there is nothing.

    What can't be seen is not absent: raises `SystemFailure` with the reason.
    """
    with as_system_failure("looking at", path):
        try:
            return os.stat(path)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
        except ValueError:  # no path has a null character
            return None


def is_folder(path: Path) -> bool:
    """Return whether `path` is a folder; raises as `status_of`."""
    status = status_of(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def is_file(path: Path) -> bool:
    """Return whether `path` is a regular file; raises as `status_of`."""
    status = status_of(path)
    return status is not None and stat.S_ISREG(status.st_mode)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file; raises `SystemFailure` if it can't be read."""
    import hashlib

    with as_system_failure("reading", path), open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def has_separator(name: str) -> bool:
    """Return whether `name` is a path rather than a word: a path has a separator."""
    return any(separator in name for separator in SEPARATORS)


def as_text(value: object) -> str:
    r"""Return a path or an argument as JSON can hold it: bytes that are no UTF-8 are escaped.

    >>> as_text("a\udcffb")
    'a\\udcffb'
    """
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def bundled(relative: str) -> Path:
    """Return where a file or folder that comes with nnctl lies: in the wheel or the repository."""
    package = Path(__file__).parent
    installed = package / "_bundled" / relative
    return installed if installed.exists() else package.parent / relative


def _try_lock(descriptor: int, without_locks: bool = True) -> bool:
    """Return whether the lock was free; `without_locks` where there are none to be had."""
    if sys.platform == "win32":
        return without_locks
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return without_locks
    return True


def _create_temporary(folder: Path) -> tuple[int, Path]:
    """Create a file in `folder` and lock it; return its descriptor and path."""
    while True:
        temporary = folder / f"{_OURS}{secrets.token_hex(6)}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        # Another process may have swept it away in between; then try the next name.
        if _try_lock(descriptor) and os.fstat(descriptor).st_nlink:
            return descriptor, temporary
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove the temporary files in `folder` whose writers are dead."""
    with suppress(OSError):
        names = [name for name in os.listdir(folder) if name.startswith(TEMPORARY)]
        for name in names:
            with suppress(OSError), open(folder / name, "rb+") as stream:
                dead = name.startswith(_OURS) and _try_lock(stream.fileno(), without_locks=False)
                if dead or time.time() - os.fstat(stream.fileno()).st_mtime > _DAY:
                    os.unlink(folder / name)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable, where folders can be synced."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
