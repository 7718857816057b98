import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nnctl import files
from nnctl.errors import SystemFailure
from nnctl.files import bundled, locked, write_atomically

# Writes one piece, says so, and then hangs in the middle of the file.
HANGING_WRITER = """
import sys, time
from pathlib import Path
from typing import Any
from nnctl.files import write_atomically
def pieces():
    yield b"half"
    print("writing", flush=True)
    time.sleep(60)
write_atomically(Path(sys.argv[1]), pieces())
"""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    return path


def hang_in_the_middle_of(path: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING_WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_write_makes_the_file_with_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "new.bin"
    previous = os.umask(0o027)
    try:
        write_atomically(path, (piece for piece in [b"one ", b"two"]))
    finally:
        os.umask(previous)
    assert path.read_bytes() == b"one two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["new.bin"]


@pytest.mark.parametrize("name", ["-x", "new\nline", "n" * 255, os.fsdecode(b"\xff\xfe")])
def test_write_takes_any_name(tmp_path: Path, name: str) -> None:
    write_atomically(tmp_path / name, b"new")
    assert (tmp_path / name).read_bytes() == b"new"


@pytest.mark.parametrize(
    ("call", "number", "words"),
    [("fsync", 28, "disk is full"), ("replace", 5, "the disk failed"), ("open", 30, "read-only")],
)
def test_write_that_fails_leaves_the_old_file_alone(
    target: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, words: str
) -> None:
    def fail(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(SystemFailure, match=f"{target}: .*{words}"):
            write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(target.parent) == ["file.bin"]


def test_write_that_is_interrupted_leaves_the_old_file_alone(target: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, pieces())
    assert target.read_bytes() == b"old"
    assert os.listdir(target.parent) == ["file.bin"]


def test_write_sweeps_up_after_killed_writers_of_any_file(target: Path) -> None:
    writers = [hang_in_the_middle_of(target.parent / name) for name in ["file.bin", "other.bin"]]
    for writer in writers:
        kill(writer)
    assert target.read_bytes() == b"old"
    assert len(os.listdir(target.parent)) == 3
    write_atomically(target, b"new")
    assert os.listdir(target.parent) == ["file.bin"]
    assert target.read_bytes() == b"new"


def test_write_spares_a_living_writer(target: Path) -> None:
    process = hang_in_the_middle_of(target)
    write_atomically(target, b"new")
    assert len(os.listdir(target.parent)) == 2
    kill(process)


def test_write_sweeps_up_after_other_machines_a_day_later(target: Path) -> None:
    fresh, old = (target.parent / f".nnctl-otherone-{age}.tmp" for age in ("fresh", "old"))
    for path in (fresh, old):
        path.write_bytes(b"half")
    os.utime(old, (0, time.time() - 25 * 60 * 60))
    write_atomically(target, b"new")
    assert sorted(os.listdir(target.parent)) == [fresh.name, "file.bin"]


def test_write_by_many_at_once_leaves_one_whole_file(target: Path) -> None:
    contents = [bytes([letter]) * 100_000 for letter in b"abcdefgh"]
    threads = [threading.Thread(target=write_atomically, args=(target, c)) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() in contents
    assert os.listdir(target.parent) == ["file.bin"]


def test_write_goes_through_devices_and_pipes(tmp_path: Path) -> None:
    write_atomically(Path("/dev/null"), b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(pipe, b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    with pytest.raises(SystemFailure, match="/dev/full: the disk is full"):
        write_atomically(Path("/dev/full"), b"lost")


def test_write_replaces_a_link_and_not_what_it_points_to(target: Path) -> None:
    """A run directory from a stranger may hold links to anything."""
    link = target.parent / "link"
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert target.read_bytes() == b"old"
    assert not link.is_symlink()
    assert link.read_bytes() == b"new"


def test_write_into_a_missing_folder_or_onto_a_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(SystemFailure, match="no such folder"):
        write_atomically(tmp_path / "missing" / "file", b"")
    with pytest.raises(SystemFailure, match="a folder is in the way"):
        write_atomically(tmp_path, b"")


def test_message_escapes_what_a_terminal_would_obey(tmp_path: Path) -> None:
    with pytest.raises(SystemFailure, match=r"\\x1b\[31m"):
        write_atomically(tmp_path / "\x1b[31m" / "file", b"")


def test_lock_has_one_holder_and_leaves_nothing(tmp_path: Path) -> None:
    with locked(tmp_path) as first, locked(tmp_path, wait=0.1) as second:
        assert (first, second) == (True, False)
    with locked(tmp_path) as again:
        assert again
    assert os.listdir(tmp_path) == []


def test_lock_and_write_do_without_locks(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*args: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    leftover = target.parent / f"{files._OURS}0.tmp"
    leftover.write_bytes(b"perhaps somebody is writing it")
    with locked(target.parent) as held:
        assert held
    write_atomically(target, b"new")
    assert target.read_bytes() == b"new"
    assert leftover.exists()


def test_bundled_finds_the_repository_or_the_wheel() -> None:
    assert (bundled("data/mnist-sample") / "README.md").is_file()


def test_write_is_durable_content_first_then_its_name(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the rename must find the content, and the name in its folder."""
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "content")
        fsync(descriptor)

    def note_replace(*paths: Any) -> None:
        calls.append("rename")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_atomically(target, b"new")
    assert calls == ["content", "rename", "folder"]
