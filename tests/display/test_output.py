import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from nnctl.display.output import can_redraw, console, print_json, print_path


class Stream(io.TextIOWrapper):
    """A standard stream of a given encoding, a terminal if so wished."""

    def __init__(self, encoding: str = "utf-8", *, terminal: bool = False) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture(autouse=True)
def unicode_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.delenv("LC_CTYPE", raising=False)
    monkeypatch.setenv("LANG", "en_GB.UTF-8")


@pytest.mark.parametrize(
    ("encoding", "locale", "ascii_only"),
    [
        ("utf-8", {}, False),
        ("ascii", {}, True),
        ("latin-1", {}, True),
        ("utf-8", {"LANG": "C"}, True),
        ("utf-8", {"LC_ALL": "POSIX", "LANG": "en_GB.UTF-8"}, True),
        ("utf-8", {"LC_ALL": "", "LC_CTYPE": "C.UTF-8", "LANG": "C"}, False),
    ],
)
def test_console_speaks_ascii_where_nothing_else_gets_out(
    monkeypatch: pytest.MonkeyPatch, encoding: str, locale: dict[str, str], ascii_only: bool
) -> None:
    monkeypatch.setattr(sys, "stdout", Stream(encoding))
    for name, value in locale.items():
        monkeypatch.setenv(name, value)
    assert console().options.ascii_only is ascii_only


def test_console_prints_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console().print("[bold]x[/bold] :smile: 12")
    assert capsys.readouterr().out == "[bold]x[/bold] :smile: 12\n"


@pytest.mark.parametrize(
    ("terminal", "term", "redraws"),
    [
        (True, "xterm-256color", True),
        (True, "dumb", False),
        (True, "", False),
        (False, "xterm-256color", False),
    ],
)
def test_only_a_real_terminal_is_drawn_over(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, term: str, redraws: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("FORCE_COLOR", "1")  # wishes for colour make no terminal of a pipe
    assert can_redraw(Stream(terminal=terminal)) is redraws


def test_json_is_one_line_with_null_for_what_is_not_finite(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_json({"a": math.nan, "b": [math.inf, 1.5], "c": "two\nlines"})
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    assert json.loads(text) == {"a": None, "b": [None, 1.5], "c": "two\nlines"}


def test_json_is_utf8_whatever_the_stream_encodes(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream("ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    print_json({"name": "große"})
    assert stream.bytes.getvalue() == '{"name":"große"}\n'.encode()


def test_path_is_printed_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream("ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    print_path(Path("runs/\udcff é"))
    assert stream.bytes.getvalue() == b"runs/\xff \xc3\xa9\n"


def test_output_for_scripts_needs_no_rich() -> None:
    code = "import sys, nnctl.display.training as t; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
