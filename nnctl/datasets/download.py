"""Pinned files out of a list of mirrors, whatever their servers do.

A file is held in memory until its size and hash are right: nothing wrong ever reaches the disk,
and a killed download leaves nothing there. The network is talked to in a thread of its own, so
that names that don't resolve, headers that drip and bodies that stall hold the caller up no
longer than `Limits` allow.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from http.client import IncompleteRead
from queue import Empty, SimpleQueue
from urllib.parse import urljoin, urlsplit

import requests

from nnctl import __version__
from nnctl.datasets.catalogue import Pin
from nnctl.datasets.source import FetchProgress, Limits
from nnctl.errors import printable

_CHUNK = 2**16
_REDIRECTS = 10


class MirrorsError(Exception):
    """No mirror gave the file; the message has a line for each, with its URL and the reason."""


class _MirrorError(Exception):
    """A mirror is given up."""


class _BrokenError(_MirrorError):
    """The connection broke; what has arrived so far may be good."""


def download(
    pins: Mapping[str, Pin], mirrors: Sequence[str], limits: Limits, progress: FetchProgress
) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each pinned file, size and hash checked.

    Mirrors are tried in order, those that have failed before last. Raises `MirrorsError`.
    """
    failures: Counter[str] = Counter()
    for name, pin in pins.items():
        reasons: list[str] = []
        for mirror in sorted(mirrors, key=failures.__getitem__):
            url = f"{mirror.rstrip('/')}/{name}"
            try:
                data = _from_mirror(url, name, pin, limits, progress)
            except _MirrorError as failure:
                failures[mirror] += 1
                reasons.append(f"{printable(url)}: {failure}")
                if len(reasons) < len(mirrors):
                    progress.warn(f"{reasons[-1]}; trying the next mirror")
            else:
                yield name, data
                break
        else:
            raise MirrorsError("\n".join(reasons))


def _from_mirror(url: str, name: str, pin: Pin, limits: Limits, progress: FetchProgress) -> bytes:
    """Return the file at `url`, going on after a broken connection as long as that helps."""
    body = bytearray()
    progress.transfer(name, 0, pin.size)
    for _ in range(limits.attempts):
        before = len(body)
        reason = ""
        try:
            for piece_end in _receive(url, body, pin.size, limits):
                progress.transfer(name, piece_end, pin.size)
            break
        except _MirrorError as failure:
            reason = str(failure)
            if not isinstance(failure, _BrokenError) or len(body) <= before:
                break
    if reason or len(body) < pin.size:
        got = f"got {len(body):,} of {pin.size:,} bytes" if body else ""
        raise _MirrorError(", then: ".join(filter(None, [got, reason])) + _web_page(body))
    if (digest := hashlib.sha256(body).hexdigest()) != pin.sha256:
        raise _MirrorError(f"wrong content: SHA-256 {digest}, not {pin.sha256}" + _web_page(body))
    return bytes(body)


def _receive(url: str, body: bytearray, size: int, limits: Limits) -> Iterator[int]:
    """Append to `body` what is missing of it, yielding its length after each piece."""
    pipe: SimpleQueue[int | bytes | Exception] = SimpleQueue()
    given_up = threading.Event()
    threading.Thread(
        target=_talk, args=(url, len(body), limits, pipe, given_up), daemon=True
    ).start()
    try:
        since, mark = time.monotonic(), len(body)
        while True:
            left = since + limits.window - time.monotonic()
            if left <= 0:
                if (new := len(body) - mark) < limits.minimum_rate * limits.window:
                    raise _MirrorError(f"too slow: {new:,} bytes in {limits.window:g} s")
                since, mark = time.monotonic(), len(body)
                continue
            try:
                item = pipe.get(timeout=left)
            except Empty:
                continue
            match item:
                case int(offset):
                    del body[offset:]
                    mark = len(body)
                case b"":
                    return
                case bytes(piece) if len(body) + len(piece) <= size:
                    body += piece
                    yield len(body)
                case bytes():
                    raise _MirrorError(f"longer than the {size:,} bytes it should have")
                case _MirrorError():
                    raise item
                case Exception():
                    raise _BrokenError(_root_cause(item)) from item
    finally:
        given_up.set()


def _talk(
    url: str,
    start: int,
    limits: Limits,
    pipe: SimpleQueue[int | bytes | Exception],
    given_up: threading.Event,
) -> None:
    """Put into `pipe` the offset at which the answer begins, its pieces and b"", or an error."""
    try:
        with requests.Session() as session, _open(session, url, start, limits) as response:
            pipe.put(_offset(response, start))
            piece = b"-"
            while piece and not given_up.is_set():
                # As many bytes as are there, still packed if the server thinks it packed them.
                piece = response.raw.read1(_CHUNK, decode_content=False)
                pipe.put(piece)
    except Exception as error:
        pipe.put(error)


def _open(session: requests.Session, url: str, start: int, limits: Limits) -> requests.Response:
    headers = {"Accept-Encoding": "identity", "User-Agent": f"nnctl/{__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
    scheme = urlsplit(url).scheme  # in small letters
    for _ in range(_REDIRECTS + 1):
        response = session.get(
            url, headers=headers, stream=True, allow_redirects=False, timeout=limits.window
        )
        target = session.get_redirect_target(response)
        if target is None:
            return response
        response.close()
        session.close()  # a server may end this connection unannounced: the next one is new
        url = urljoin(url, target)
        if urlsplit(url).scheme != scheme:
            shown = printable(url.partition("?")[0])[:200]  # a query may hold a signature
            raise _MirrorError(f"refused: redirects from {scheme} to {shown}")
    raise _MirrorError(f"redirects more than {_REDIRECTS} times")


def _offset(response: requests.Response, start: int) -> int:
    """Return where in the file the body of `response` begins: `start`, or 0 for a server's own."""
    if response.status_code == 200:
        return 0
    if response.status_code != 206:
        reason = printable(response.reason)[:80]
        raise _MirrorError(f"HTTP {response.status_code} {reason}".rstrip())
    content_range = response.headers.get("Content-Range", "")
    if not re.match(rf"bytes {start}-", content_range):
        raise _MirrorError(f"answers bytes from {start} on with {printable(content_range)[:80]!r}")
    return start


def _root_cause(error: BaseException) -> str:
    """Return the words of the innermost error; urllib3 wraps errors in errors."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    if isinstance(error, IncompleteRead):
        return "the connection ended"
    return printable(getattr(error, "strerror", None) or error or type(error).__name__)[:200]


def _web_page(body: bytearray) -> str:
    return " (a web page, it seems)" if body.lstrip()[:1] == b"<" else ""
