"""Tiny data sets, with pins and without, and servers that misbehave in every way they can."""

import base64
import gzip
import hashlib
import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings

from nnctl.training.threads import confine_blas

confine_blas()  # as every command does; from Python 3.12 on, a fork beside BLAS's threads warns

import numpy as np  # noqa: E402

from nnctl.config import Settings, settings_from_dict  # noqa: E402
from nnctl.datasets import DataSet, Samples  # noqa: E402
from nnctl.datasets.catalogue import (  # noqa: E402
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    KnownSet,
    Pin,
)

hypothesis_settings.register_profile("behaviour", deadline=None)  # never seconds
hypothesis_settings.load_profile("behaviour")

collect_ignore = ["benchmarks"]  # they are run by themselves, and import what only they need


def images_file(count: int, rows: int = 28, columns: int = 28) -> bytes:
    pixels = np.random.default_rng(count).integers(0, 256, (count, rows, columns), np.uint8)
    return struct.pack(">4I", 0x803, count, rows, columns) + pixels.tobytes()


def labels_file(count: int, classes: int = 10) -> bytes:
    labels = (np.arange(count) % classes).astype(np.uint8)
    return struct.pack(">2I", 0x801, count) + labels.tobytes()


RAW_FILES = {
    TRAIN_IMAGES: images_file(200),
    TRAIN_LABELS: labels_file(200),
    TEST_IMAGES: images_file(30),
    TEST_LABELS: labels_file(30),
}
FILES = {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in RAW_FILES.items()}
PINS = {
    name: Pin(
        len(data),
        hashlib.sha256(data).hexdigest(),
        len(RAW_FILES[name.removesuffix(".gz")]),
        hashlib.sha256(RAW_FILES[name.removesuffix(".gz")]).hexdigest(),
    )
    for name, data in FILES.items()
}


def write_data(folder: Path, train: int = 400, test: int = 60) -> None:
    """Make a data set of 6 x 6 images whose ten classes can be told apart."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    prototypes = rng.integers(0, 200, (10, 36))
    for name, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % 10
        images = (prototypes[labels] + rng.integers(0, 56, (count, 36))).astype(np.uint8)
        head = struct.pack(">4I", 0x803, count, 6, 6)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = struct.pack(">2I", 0x801, count)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(head + labels.astype("u1").tobytes())


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test without the NNCTL_ variables that whoever starts the tests has set."""
    for name in [name for name in os.environ if name.startswith("NNCTL_")]:
        if not name.startswith("NNCTL_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture
def raw_files() -> dict[str, bytes]:
    return dict(RAW_FILES)


@pytest.fixture
def packed_files() -> dict[str, bytes]:
    return dict(FILES)


@pytest.fixture
def tiny_pins() -> dict[str, Pin]:
    """What `packed_files` are pinned to."""
    return dict(PINS)


def _samples(count: int) -> Samples:
    """Images of 4 x 3 pixels in five classes that can be told apart."""
    rng = np.random.default_rng(count)
    prototypes = np.random.default_rng(5).integers(0, 200, (5, 12))
    labels = (np.arange(count) % 5).astype(np.uint8)
    images = prototypes[labels] + rng.integers(0, 56, (count, 12))
    return Samples(images.astype(np.uint8), labels)


@pytest.fixture(scope="session")
def tiny_data() -> DataSet:
    return DataSet(
        name="./tiny",
        train=_samples(120),
        test=_samples(30),
        image_shape=(4, 3),
        class_names=None,
        sha256={"train-images-idx3-ubyte": "0" * 64, "t10k-images-idx3-ubyte": "1" * 64},
    )


@pytest.fixture(scope="session")
def tiny_settings() -> Callable[..., Settings]:
    """Return settings for the tiny data set; `changes` replace keys."""

    def make(**changes: Any) -> Settings:
        plain: dict[str, Any] = {
            "name": "tiny",
            "data": {"dataset": "./tiny", "validation": 40},
            "network": [{"affine": 6}, "relu", {"affine": 5}],
            "optimizer": {"kind": "adam"},
            "training": {"epochs": 3, "batch_size": 25},
        }
        for key, value in changes.items():
            merged = isinstance(value, dict) and key in ("data", "training")
            plain[key] = {**plain[key], **value} if merged else value
        return settings_from_dict(plain)

    return make


@pytest.fixture
def mnist() -> Path:
    """The folder of the real MNIST."""
    folder = Path(os.environ.get("NNCTL_TEST_MNIST") or "data/mnist")
    if not (folder / f"{TRAIN_IMAGES}.gz").is_file():
        pytest.skip(f"no MNIST in {folder}; set NNCTL_TEST_MNIST or run `nnctl data fetch mnist`")
    return folder


@dataclass
class Server:
    """Serves the tiny set's files under one path for each way to behave: /good/, /404/, ..."""

    url: str
    asked: list[str] = field(default_factory=list)  # "/good/NAME bytes=10-"
    closing: threading.Event = field(default_factory=threading.Event)

    def mirror(self, behaviour: str) -> str:
        assert behaviour in BEHAVIOURS
        return f"{self.url}/{behaviour}/"

    def tiny(self, *behaviours: str) -> KnownSet:
        """Return the tiny set with a mirror for each behaviour."""
        return KnownSet("tiny", 200, 30, PINS, tuple(self.mirror(b) for b in behaviours))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server
    gone = False  # is the next request on this connection one too many?

    def do_GET(self) -> None:
        if self.gone:
            return self.reset()
        asked_range = self.headers["Range"]
        self.state.asked.append(f"{self.path} {asked_range}" if asked_range else self.path)
        _, behaviour, name = self.path.split("/")
        self.close_connection = True
        BEHAVIOURS[behaviour](self, FILES[name])

    def log_message(self, *args: object) -> None:
        pass

    def head(self, status: int, reason: str | None = None, **headers: object) -> None:
        self.send_response(status, reason)
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def times_asked(self) -> int:
        return Counter(line.split()[0] for line in self.state.asked)[self.path]

    def reset(self) -> None:
        """Close the connection the hard way."""
        time.sleep(0.05)  # what was sent should arrive
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


def good(handler: Handler, data: bytes) -> None:
    asked_range = handler.headers["Range"]
    if asked_range is None:
        handler.head(200, Content_Length=len(data))
        handler.wfile.write(data)
        return
    start = int(asked_range.removeprefix("bytes=").removesuffix("-"))
    content_range = f"bytes {start}-{len(data) - 1}/{len(data)}"
    handler.head(206, Content_Length=len(data) - start, Content_Range=content_range)
    handler.wfile.write(data[start:])


def login(handler: Handler, data: bytes) -> None:
    """Give the file to the user "ada" with the password "s3/cret" alone."""
    asked = handler.headers["Authorization"] or ""
    if asked == f"Basic {base64.b64encode(b'ada:s3/cret').decode()}":
        good(handler, data)
    else:
        handler.head(401, Content_Length=0)


def without_range(handler: Handler, data: bytes) -> None:
    handler.head(200, Content_Length=len(data))
    handler.wfile.write(data)


def half_then_reset(handler: Handler, data: bytes) -> None:
    handler.head(200, Content_Length=len(data))
    handler.wfile.write(data[: len(data) // 2])
    handler.reset()


def first_half_then_reset(then: Callable[[Handler, bytes], None]) -> Callable[..., None]:
    def behave(handler: Handler, data: bytes) -> None:
        (half_then_reset if handler.times_asked() == 1 else then)(handler, data)

    return behave


def wrong_range(handler: Handler, data: bytes) -> None:
    handler.head(206, Content_Length=len(data), Content_Range=f"bytes 7-{len(data)}/{len(data)}")
    handler.wfile.write(data)


def chunked(handler: Handler, data: bytes) -> None:
    handler.head(200, Transfer_Encoding="chunked")
    for piece in (data[:1000], data[1000:], b""):
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))


def until_the_end(handler: Handler, data: bytes) -> None:
    handler.head(200)
    handler.wfile.write(data)


def cut(handler: Handler, data: bytes) -> None:
    handler.head(200, Content_Length=len(data))
    handler.wfile.write(data[:1000])


def short(handler: Handler, data: bytes) -> None:
    handler.head(200, Content_Length=1000)
    handler.wfile.write(data[:1000])


def endless(handler: Handler, data: bytes) -> None:
    handler.head(200)
    while not handler.state.closing.is_set():
        handler.wfile.write(data)


def wrong_bytes(handler: Handler, data: bytes) -> None:
    handler.head(200, Content_Length=len(data))
    handler.wfile.write(bytes(len(data)))


def web_page(handler: Handler, data: bytes) -> None:
    page = b"<!DOCTYPE html><title>Please log in</title>"
    handler.head(200, Content_Length=len(page), Content_Type="text/html")
    handler.wfile.write(page)


def bomb(handler: Handler, data: bytes) -> None:
    """Send something of the right size that would inflate a thousandfold, twice over."""
    packed = gzip.compress(gzip.compress(bytes(20_000_000)))[: len(data)]
    handler.head(200, Content_Length=len(data), Content_Encoding="gzip")
    handler.wfile.write(packed.ljust(len(data), b"\0"))


def labelled_as_packed(handler: Handler, data: bytes) -> None:
    """Send the right file as some servers do, calling its own gzip a transfer's."""
    handler.head(200, Content_Length=len(data), Content_Encoding="gzip")
    handler.wfile.write(data)


def drip(handler: Handler, data: bytes) -> None:
    handler.head(200, Content_Length=len(data))
    for byte in data:
        handler.wfile.write(bytes([byte]))
        if handler.state.closing.wait(0.02):
            break


def drip_headers(handler: Handler, data: bytes) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
    while not handler.state.closing.wait(0.02):
        handler.wfile.write(b"x")


def silence(handler: Handler, data: bytes) -> None:
    handler.state.closing.wait(30)


def silence_after_half(handler: Handler, data: bytes) -> None:
    handler.head(200, Content_Length=len(data))
    handler.wfile.write(data[: len(data) // 2])
    handler.state.closing.wait(30)


def garbage(handler: Handler, data: bytes) -> None:
    handler.wfile.write(b"\x1b[31mSSH-2.0-\r\n\r\n")


def redirect(target: str) -> Callable[..., None]:
    def behave(handler: Handler, data: bytes) -> None:
        name = handler.path.rsplit("/", 1)[1]
        handler.head(302, Location=target + name, Content_Length=0)

    return behave


def redirect_then_reset(handler: Handler, data: bytes) -> None:
    """Keep the connection open, as it seems, but answer nothing more on it."""
    handler.send_response(302)
    handler.send_header("Location", handler.path.replace("redirect-then-reset", "good"))
    handler.send_header("Content-Length", "0")
    handler.end_headers()
    handler.gone, handler.close_connection = True, False


def status(code: int, reason: str | None = None) -> Callable[..., None]:
    def behave(handler: Handler, data: bytes) -> None:
        handler.head(code, reason, Content_Length=0)

    return behave


BEHAVIOURS: dict[str, Callable[[Any, bytes], None]] = {
    "good": good,
    "login": login,
    "without-range": without_range,
    "chunked": chunked,
    "until-the-end": until_the_end,
    "labelled-as-packed": labelled_as_packed,
    "redirect": redirect("/good/"),
    "redirect-then-reset": redirect_then_reset,
    "reset-then-good": first_half_then_reset(good),
    "reset-then-without-range": first_half_then_reset(without_range),
    "reset-then-wrong-range": first_half_then_reset(wrong_range),
    "reset-then-404": first_half_then_reset(status(404)),
    "reset": half_then_reset,
    "cut": cut,
    "short": short,
    "endless": endless,
    "wrong-bytes": wrong_bytes,
    "web-page": web_page,
    "bomb": bomb,
    "drip": drip,
    "drip-headers": drip_headers,
    "silence": silence,
    "silence-after-half": silence_after_half,
    "garbage": garbage,
    "redirect-loop": redirect("/redirect-loop/"),
    "redirect-to-file": redirect("file:///etc/"),
    "redirect-to-https": redirect("https://127.0.0.1/"),
    "403": status(403),
    "404": status(404),
    "500": status(500),
    "503": status(503, "\x1b[31mbusy"),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # clients give up half-way here

    http = Quiet(("127.0.0.1", 0), Handler)
    state = Handler.state = Server(f"http://127.0.0.1:{http.server_port}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    state.closing.set()
    http.shutdown()
    http.server_close()
    thread.join()
