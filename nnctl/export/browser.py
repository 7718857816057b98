"""A headless Chromium, driven over a pipe: to check a page as its readers will run it.

Speaks the Chrome DevTools Protocol (https://chromedevtools.github.io/devtools-protocol/): JSON
messages with a zero byte at the end, which Chromium reads from descriptor 3 and writes to 4.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from nnctl.errors import SystemFailure

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--remote-debugging-pipe", "about:blank"),
)
PATIENCE = 60.0  # seconds for an answer
LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str | None:
    """Return the path of Chromium or Chrome, if it is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page in a Chromium of its own, which ends with the `with` block."""

    def __init__(self, program: str) -> None:
        """Start `program` with a fresh profile and an empty page.

        Raises:
            SystemFailure: it does not start, or does not answer.

        """
        self.events: list[dict[str, Any]] = []  # what the page did, as DevTools reports it
        self._number, self._session, self._rest = 0, "", b""
        self._profile = TemporaryDirectory(prefix="nnctl-chromium-", ignore_cleanup_errors=True)
        commands, self._in = os.pipe()
        self._out, answers = os.pipe()
        # Above 4, so that one is not lost when the other takes its place.
        theirs = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (commands, answers)]
        flags = [f"--user-data-dir={self._profile.name}", *FLAGS]
        launch = [sys.executable, "-I", "-S", "-c", LAUNCH, *map(str, theirs), program, *flags]
        self._process = subprocess.Popen(
            launch,
            pass_fds=theirs,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for each in (commands, answers, *theirs):
            os.close(each)
        try:
            pages = self.call("Target.getTargets")["targetInfos"]
            [page] = [each["targetId"] for each in pages if each["type"] == "page"]
            attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the browser."""
        self.close()

    def close(self) -> None:
        """End the browser and all its processes, and remove its profile."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._profile.cleanup()

    def open(self, path: Path) -> None:
        """Show the page in file `path`, and wait until it is loaded."""
        self.events.clear()
        self.call("Page.navigate", url=path.absolute().as_uri())
        self._wait_for(lambda message: message.get("method") == "Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression on the page.

        Raises:
            SystemFailure: it ended with an exception.

        """
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if details := answer.get("exceptionDetails"):
            text = details.get("exception", {}).get("description") or details["text"]
            raise SystemFailure(f"the page failed: {text.splitlines()[0]}")
        return answer["result"].get("value")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Do one command of the DevTools Protocol; return its result.

        Raises:
            SystemFailure: the browser refused it, ended, or does not answer.

        """
        self._number += 1
        number = self._number
        command: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        data = memoryview(json.dumps(command).encode() + b"\0")
        try:
            while data:
                data = data[os.write(self._in, data) :]
        except BrokenPipeError:
            raise SystemFailure("Chromium ended unexpectedly") from None
        answer = self._wait_for(lambda message: message.get("id") == number)
        if "error" in answer:
            raise SystemFailure(f"Chromium refused {method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _wait_for(self, wanted: Any) -> dict[str, Any]:
        """Return the first message that is `wanted`; events before it are kept."""
        end = time.monotonic() + PATIENCE
        while True:
            while b"\0" in self._rest:
                text, self._rest = self._rest.split(b"\0", 1)
                message: dict[str, Any] = json.loads(text)
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    return message
            ready, _, _ = select.select([self._out], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._out, 1 << 20) if ready else b""
            if not data:
                why = "ended unexpectedly" if ready else f"gave no answer for {PATIENCE:.0f} s"
                raise SystemFailure(f"Chromium {why}")
            self._rest += data
