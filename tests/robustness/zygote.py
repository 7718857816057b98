"""Runs nnctl in forks of one process that has imported everything: a start costs milliseconds.

Each line of standard input is a request in JSON, each line of standard output its answer. The
forks run the real command line, `nnctl.cli.main`, with files as their standard streams. A fault
is injected where Python meets the operating system: into the n-th write, sync, rename, ... that
concerns a file below a folder.

Request: {"arguments": [...], "cwd": "...", "stdout": "FILE", "stderr": "FILE",
          "fault": null or {"below": "...", "at": n, "errno": n or null to be killed},
          "hidden": null or {"below": "...", "at": n or null for every look, "errno": n},
          "kill_after": null or seconds, "signals": [[seconds, number], ...],
          "when": null or {"file": "...", "lines": n, "number": signal}}
Answer: {"status": exit code, or minus the signal's number, "seconds": s, "memory": bytes,
         "calls": [...]}
"""

from __future__ import annotations

import builtins
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from nnctl.training.threads import confine_blas

CALLS = ("open", "fsync", "replace", "mkdir", "symlink", "unlink")


class Injector:
    """Counts the calls that concern files below a folder, and makes one of them fail."""

    def __init__(self, below: str, at: int, number: int | None, log: int) -> None:
        self.below, self.at, self.number, self.log = below, at, number, log
        self.count = 0

    def concerns(self, target: object) -> bool:
        if isinstance(target, int):
            target = os.readlink(f"/proc/self/fd/{target}")
        path = os.path.abspath(os.fsdecode(os.fspath(target)))  # type: ignore[call-overload]
        return path == self.below or path.startswith(self.below + os.sep)

    def call(self, name: str, target: object, half: Callable[[], object] = lambda: None) -> None:
        """Pass, or fail after doing `half` of the work."""
        if not self.concerns(target):
            return
        self.count += 1
        shown = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(target)
        os.write(self.log, f"{name} {os.path.basename(shown)}\n".encode())
        if self.count == self.at:
            half()
            if self.number is None:
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                raise OSError(self.number, os.strerror(self.number), shown)

    def install(self) -> None:
        for name in CALLS:
            setattr(os, name, self.wrapped(name, getattr(os, name)))
        builtins.open = self.open  # type: ignore[assignment]

    def wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *arguments: Any, **options: Any) -> Any:
            if name != "open" or arguments[0] & (os.O_WRONLY | os.O_RDWR):
                subject = arguments[0] if name in ("replace", "symlink") else target
                self.call(name, subject if name != "symlink" else options.get("dst", subject))
            return real(target, *arguments, **options)

        return call

    def open(self, file: Any, mode: str = "r", buffering: int = -1, **options: Any) -> Any:
        if mode not in ("wb", "ab") or not self.concerns(file):
            return io.open(file, mode, buffering, **options)  # noqa: UP020
        injector = self

        class Written(io.FileIO):
            def write(self, data: Any) -> int:
                half = bytes(data)[: len(data) // 2]
                injector.call("write", self.fileno(), lambda: super(Written, self).write(half))
                return super().write(data) or 0

        raw = Written(file, mode)
        return raw if buffering == 0 else io.BufferedWriter(raw)


LOOKS = ("stat", "lstat", "open", "listdir", "scandir")


def hide(below: str, at: int | None, number: int, log: int) -> None:
    """Let looks at what lies below a folder fail: the `at`-th, or all of them."""
    count = 0

    def hidden(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def look(target: Any = ".", *arguments: Any, **options: Any) -> Any:
            nonlocal count
            if not isinstance(target, int):
                path = os.path.abspath(os.fsdecode(target))
                if path.startswith(below + os.sep):
                    count += 1
                    os.write(log, f"{name} {os.path.basename(path)}\n".encode())
                    if at in (None, count):
                        raise OSError(number, os.strerror(number), str(target))
            return real(target, *arguments, **options)

        return look

    for name in LOOKS:
        setattr(os, name, hidden(name, getattr(os, name)))


def child(request: dict[str, Any], log: int) -> None:
    os.chdir(request["cwd"])
    sys.argv = ["nnctl", *request["arguments"]]
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(request[name], flags), number)
    if fault := request.get("fault"):
        Injector(os.path.realpath(fault["below"]), fault["at"], fault["errno"], log).install()
    if hidden := request.get("hidden"):
        hide(os.path.realpath(hidden["below"]), hidden["at"], hidden["errno"], log)
    from nnctl.cli import main

    status = 99
    try:
        main()
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # what a person would see: a traceback
    finally:
        sys.stderr.flush()
        os._exit(status)


def lines_in(path: str) -> int:
    try:
        with open(path, "rb") as file:
            return file.read().count(b"\n")
    except OSError:
        return 0


def answer(request: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if not pid:
        os.close(reading)
        child(request, writing)
    os.close(writing)
    events = [(after, number) for after, number in request.get("signals", [])]
    if request.get("kill_after") is not None:
        events.append((request["kill_after"], signal.SIGKILL))
    events.append((30.0, signal.SIGKILL))
    events.sort()
    when = request.get("when")
    ended, status, usage = 0, 0, None
    while not ended:
        if events and time.monotonic() - started >= events[0][0]:
            os.kill(pid, events.pop(0)[1])
        if when and lines_in(when["file"]) >= when["lines"]:
            os.kill(pid, when["number"])
            when = None
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if not ended:
            time.sleep(0.0005)
    seconds = time.monotonic() - started
    os.set_blocking(reading, False)  # a worker may hold the other end for a moment
    calls = b""
    try:
        while part := os.read(reading, 1 << 16):
            calls += part
    except BlockingIOError:
        pass
    os.close(reading)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "seconds": seconds,
        "memory": usage.ru_maxrss * 1024 if usage else 0,
        "calls": calls.decode(errors="replace").splitlines(),
    }


MODULES = (
    *("cli.group", "cli.train", "cli.evaluate", "cli.runs", "cli.plot", "cli.loading"),
    *("display.training", "display.downloads", "display.dashboard", "display.evaluation"),
    *("display.runs", "display.curves", "runs.recorder", "runs.resume", "runs.find"),
    *("runs.compare", "runs.verify", "training.mistakes", "config"),
)

if __name__ == "__main__":
    confine_blas()
    for module in ("msgspec", "safetensors.numpy", *(f"nnctl.{name}" for name in MODULES)):
        import_module(module)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
