"""Downloads and the cache, against servers and neighbours that misbehave."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nnctl.datasets import cache, idx
from nnctl.datasets.catalogue import TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from nnctl.datasets.source import FetchProgress, Limits, Source
from nnctl.errors import DataError, SystemFailure, UsageError

if TYPE_CHECKING:
    from tests.conftest import Server

Files = dict[str, bytes]
IMPATIENT = Limits(window=0.8, minimum_rate=1000)
FIRST = f"{TRAIN_IMAGES}.gz"


class Recorder(FetchProgress):
    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.transfers: list[tuple[str, int, int]] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def transfer(self, name: str, received: int, total: int) -> None:
        self.transfers.append((name, received, total))


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(data_dir=tmp_path / "data")


@pytest.mark.parametrize(
    "behaviour",
    [
        "good",
        "without-range",
        "chunked",
        "until-the-end",
        "labelled-as-packed",
        "redirect",
        "redirect-then-reset",
        "reset-then-good",
        "reset-then-without-range",
    ],
)
def test_download_gives_the_pinned_files(
    server: Server, source: Source, folder: Path, packed_files: Files, behaviour: str
) -> None:
    progress = Recorder()
    fetched = cache.fetch(server.tiny(behaviour), source, progress)
    assert files_in(folder) == packed_files
    assert [(status.path.name, status.state) for status in fetched] == [
        (name, "missing") for name in packed_files
    ]
    assert progress.warnings == []
    size = len(packed_files[FIRST])
    assert progress.transfers[0] == (FIRST, 0, size)
    assert (FIRST, size, size) in progress.transfers


def test_download_goes_on_where_the_connection_broke(
    server: Server, source: Source, packed_files: Files
) -> None:
    cache.fetch(server.tiny("reset-then-good"), source)
    half = len(packed_files[FIRST]) // 2
    assert f"/reset-then-good/{FIRST} bytes={half}-" in server.asked


FAILURES = {
    "403": "HTTP 403 Forbidden",
    "404": "HTTP 404 Not Found",
    "500": "HTTP 500 Internal Server Error",
    "503": r"HTTP 503 \x1b[31mbusy",
    "cut": "got 1,000 of {size:,} bytes, then: the connection ended",
    "short": "got 1,000 of {size:,} bytes",
    "endless": "longer than the {size:,} bytes it should have",
    "wrong-bytes": "wrong content: SHA-256",
    "web-page": "got 43 of {size:,} bytes (a web page, it seems)",
    "bomb": "wrong content: SHA-256",
    "reset": "got {half:,} of {size:,} bytes, then: Connection reset by peer",
    "reset-then-404": "got {half:,} of {size:,} bytes, then: HTTP 404 Not Found",
    "reset-then-wrong-range": "answers bytes from {half} on with 'bytes 7-",
    "drip": "too slow",
    "drip-headers": "too slow: 0 bytes in 0.8 s",
    "silence": "",  # our time-out and the socket's are the same
    "silence-after-half": "got {half:,} of {size:,} bytes, then: ",
    "garbage": r"\x1b[31mSSH",
    "redirect-loop": "redirects more than 10 times",
    "redirect-to-file": "refused: redirects from http to file:///etc/",
    "redirect-to-https": "refused: redirects from http to https://127.0.0.1/",
}
SLOW = {"drip", "drip-headers", "silence", "silence-after-half"}


@pytest.mark.parametrize("behaviour", FAILURES)
def test_failing_mirror_is_named_and_the_next_one_used(
    server: Server, tmp_path: Path, folder: Path, packed_files: Files, behaviour: str
) -> None:
    progress = Recorder()
    source = Source(tmp_path / "data", limits=IMPATIENT if behaviour in SLOW else Limits())
    cache.fetch(server.tiny(behaviour, "good"), source, progress)
    size = len(packed_files[FIRST])
    (warning,) = progress.warnings  # once: from then on the good one is asked first
    assert warning.startswith(f"{server.mirror(behaviour)}{FIRST}: ")
    assert warning.endswith("; trying the next mirror")
    assert FAILURES[behaviour].format(size=size, half=size // 2) in warning
    assert warning.isprintable()
    assert files_in(folder) == packed_files


def test_refused_connection_leads_to_the_next_mirror(
    server: Server, source: Source, folder: Path, packed_files: Files
) -> None:
    progress = Recorder()
    closed = "http://127.0.0.1:1/"
    cache.fetch(replace(server.tiny(), mirrors=(closed, server.mirror("good"))), source, progress)
    assert progress.warnings == [f"{closed}{FIRST}: Connection refused; trying the next mirror"]
    assert files_in(folder) == packed_files


def test_all_mirrors_failed_names_each_and_the_way_out(
    server: Server, source: Source, folder: Path
) -> None:
    with pytest.raises(DataError) as caught:
        cache.fetch(server.tiny("404", "wrong-bytes", "short"), source)
    message = str(caught.value)
    for mirror, reason in [
        ("404", "HTTP 404"),
        ("wrong-bytes", "wrong"),
        ("short", "got 1,000 of"),
    ]:
        assert f"\n{server.mirror(mirror)}{FIRST}: {reason}" in message
    assert f"put these files into {folder} by hand" in message
    assert f"{TEST_LABELS}.gz" in message
    assert files_in(folder) == {}


def test_mirrors_of_the_source_replace_the_known_ones(
    server: Server, tmp_path: Path, packed_files: Files
) -> None:
    source = Source(tmp_path, mirrors=(server.mirror("good").rstrip("/"),))
    cache.fetch(server.tiny("404"), source)
    assert files_in(tmp_path / "tiny") == packed_files
    assert all(line.startswith("/good/") for line in server.asked)


@pytest.mark.parametrize("mirror", ["file:///tmp", "127.0.0.1", "http://", "", "\x1b[31m"])
def test_mirror_that_is_no_address_is_a_usage_error(
    server: Server, tmp_path: Path, mirror: str
) -> None:
    with pytest.raises(UsageError, match="not an http:// or https:// address"):
        cache.fetch(server.tiny("good"), Source(tmp_path, mirrors=(mirror,)))


def with_password(url: str, password: str = "s3%2Fcret") -> str:
    return url.replace("http://", f"http://ada:{password}@")


def test_mirror_with_a_password_is_asked_with_it(
    server: Server, tmp_path: Path, packed_files: Files
) -> None:
    mirrors = (server.mirror("login"), with_password(server.mirror("login")))
    progress = Recorder()
    cache.fetch(server.tiny("404"), Source(tmp_path, mirrors=mirrors), progress)
    assert files_in(tmp_path / "tiny") == packed_files
    assert [warning.split(": ")[1] for warning in progress.warnings] == [
        "HTTP 401 Unauthorized; trying the next mirror"
    ]


@pytest.mark.parametrize("behaviour", ["404", "reset", "garbage", "redirect-loop", "wrong-bytes"])
def test_password_of_a_mirror_is_in_no_message(
    server: Server, tmp_path: Path, behaviour: str
) -> None:
    progress = Recorder()
    mirror = with_password(server.mirror(behaviour))
    closed = with_password("http://127.0.0.1:1/")
    with pytest.raises(DataError) as caught:
        cache.fetch(server.tiny("404"), Source(tmp_path, mirrors=(mirror, closed)), progress)
    for message in (str(caught.value), *progress.warnings):
        assert "cret" not in message
        assert "http://***@127.0.0.1:" in message


@pytest.mark.parametrize("password", ["s3/cret", "s3@cret", "s3#cret", "s3?cret", "s3 cret"])
def test_password_that_makes_no_address_is_not_shown_either(password: str) -> None:
    with pytest.raises(UsageError, match=r"write @ as %40 and / as %2F in a password") as caught:
        Source(mirrors=(with_password("http://example.org/", password),))
    assert "s3" not in str(caught.value)
    assert "cret" not in str(caught.value)


def test_only_what_is_missing_is_downloaded(
    server: Server, source: Source, warm: Path, packed_files: Files
) -> None:
    (warm / f"{TRAIN_LABELS}.gz").unlink()
    cache.fetch(server.tiny("good"), source)
    assert server.asked == [f"/good/{TRAIN_LABELS}.gz"]
    assert files_in(warm) == packed_files


@pytest.mark.parametrize("offline", [True, False])
def test_warm_cache_asks_nobody_and_writes_nothing(
    server: Server, warm: Path, raw_files: Files, offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError

    for name in ("locked", "write_atomically"):
        monkeypatch.setattr(cache, name, forbidden)
    warm.chmod(0o555)
    source = Source(warm.parent, offline=offline)
    for base, data in raw_files.items():
        values, path = cache.read(server.tiny("good"), base, source)
        assert idx.header(values.shape) + values.tobytes() == data
        assert path == warm / f"{base}.gz"
    assert cache.fetch(server.tiny("good"), source) == ()
    assert server.asked == []


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "folder", "fifo"])
def test_damaged_file_is_kept_aside_and_fetched_again(
    server: Server, source: Source, warm: Path, packed_files: Files, damage: str
) -> None:
    progress = Recorder()
    bad = warm / FIRST
    good = bad.read_bytes()
    flipped = good[:5000] + bytes([good[5000] ^ 1]) + good[5001:]
    bad.unlink()
    match damage:
        case "folder":
            bad.mkdir()
        case "fifo":
            os.mkfifo(bad)
        case _:
            bad.write_bytes({"flip": flipped, "cut": good[:-1], "empty": b""}[damage])
    cache.read(server.tiny("good"), TRAIN_IMAGES, source, progress)
    assert (warm / FIRST).read_bytes() == good
    assert (warm / f"{FIRST}.bad").exists()
    if damage == "flip":
        assert (warm / f"{FIRST}.bad").read_bytes() == flipped
    (warning,) = progress.warnings
    assert warning.startswith(f"{bad}: ")
    assert warning.endswith(f"kept aside as {FIRST}.bad")
    assert sorted(os.listdir(warm)) == sorted([*packed_files, f"{FIRST}.bad"])
    assert server.asked == [f"/good/{FIRST}"]


def test_damaged_file_is_neither_used_nor_renamed_when_nothing_can_be_fetched(
    server: Server, source: Source, warm: Path
) -> None:
    (warm / FIRST).write_bytes(b"by hand")
    before = files_in(warm)
    with pytest.raises(DataError, match="HTTP 404") as caught:
        cache.read(server.tiny("404"), TRAIN_IMAGES, source)
    assert f"\n{warm / FIRST}: 7 bytes, not " in str(caught.value)
    assert files_in(warm) == before


def test_damaged_file_keeps_its_name_when_its_successor_cannot_be_written(
    server: Server, source: Source, warm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise SystemFailure(f"writing {path}: the disk is full")

    (warm / FIRST).write_bytes(b"by hand")
    before = files_in(warm)
    monkeypatch.setattr(cache, "write_atomically", full)
    progress = Recorder()
    with pytest.raises(SystemFailure, match="disk is full"):
        cache.fetch(server.tiny("good"), source, progress)
    assert files_in(warm) == before
    assert progress.warnings == []


def test_offline_names_what_is_damaged_or_missing_and_touches_nothing(
    server: Server, warm: Path
) -> None:
    (warm / FIRST).write_bytes(b"damaged")
    (warm / f"{TRAIN_LABELS}.gz").unlink()
    before = files_in(warm)
    with pytest.raises(DataError) as caught:
        cache.read(server.tiny("good"), TRAIN_IMAGES, Source(warm.parent, offline=True))
    assert f"{warm / FIRST}: 7 bytes, not " in str(caught.value)
    assert f"{warm / TRAIN_LABELS}.gz: missing" in str(caught.value)
    assert "--offline" in str(caught.value)
    assert server.asked == []
    assert files_in(warm) == before


def test_folder_that_cannot_be_made_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SystemFailure, match=str(tmp_path / "file")):
        cache.fetch(server.tiny("good"), Source(tmp_path / "file"))
    assert server.asked == []


# Loads the tiny set in a process of its own, from the mirror in argv[2].
CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import PINS
from nnctl.datasets import CATALOGUE, Source, load
from nnctl.datasets.catalogue import KnownSet
from nnctl.errors import NnctlError
CATALOGUE["tiny"] = KnownSet("tiny", 200, 30, PINS, (sys.argv[2],))
try:
    data = load("tiny", Source(Path(sys.argv[3])))
except NnctlError as error:
    sys.exit(f"{error.exit_code} {error}")
print(data.train.images.shape, data.test.labels.shape)
"""


def child(mirror: str, data_dir: Path, **options: Any) -> subprocess.Popen[str]:
    here = Path(__file__).parents[1]
    arguments = [sys.executable, "-c", CHILD, str(here), mirror, str(data_dir)]
    return subprocess.Popen[str](
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


LOADED = "(200, 784) (30,)\n"


@pytest.mark.parametrize("locks", ["with-locks", "without-locks"])
def test_parallel_cold_starts_all_succeed(
    server: Server, source: Source, folder: Path, packed_files: Files, tmp_path: Path, locks: str
) -> None:
    environment = dict(os.environ)
    if locks == "without-locks":
        (tmp_path / "sitecustomize.py").write_text(
            "import errno, fcntl\n"
            "def flock(*args): raise OSError(errno.ENOLCK, 'no locks available')\n"
            "fcntl.flock = flock\n"
        )
        environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{environment.get('PYTHONPATH', '')}"
    folder.mkdir(parents=True)
    (folder / FIRST).write_bytes(b"damaged")
    children = [child(server.mirror("good"), folder.parent, env=environment) for _ in range(4)]
    assert [process.communicate() for process in children] == [(LOADED, "")] * 4
    found = files_in(folder)
    found.pop(f"{FIRST}.bad")
    assert found == packed_files
    if locks == "with-locks":
        assert len(server.asked) == 4


def test_killed_download_blocks_nobody_and_leaves_nothing(
    server: Server, source: Source, folder: Path, packed_files: Files
) -> None:
    killed = child(server.mirror("silence-after-half"), folder.parent)
    while not server.asked:
        assert killed.poll() is None
    waiting = child(server.mirror("good"), folder.parent)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert waiting.communicate() == (LOADED, "")
    assert files_in(folder) == packed_files


def test_disk_that_fills_up_is_told_and_nothing_partial_stays(server: Server, folder: Path) -> None:
    """A limit on the size of files stands in for a small disk: writes fail half-way."""

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    process = child(server.mirror("good"), folder.parent, preexec_fn=small_disk)
    _, errors = process.communicate()
    assert errors.startswith(f"1 writing {folder / FIRST}: the file is larger than is allowed")
    assert files_in(folder) == {}
