"""`nnctl export`, on runs trained on the bundled sample."""

from __future__ import annotations

import builtins
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from nnctl.cli.group import run
from nnctl.export import check as checks
from nnctl.export import formats
from nnctl.export.browser import find_chromium

Capture = pytest.CaptureFixture[str]


needs_chromium = pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed")


@pytest.mark.parametrize("kind", ["onnx", "python", pytest.param("html", marks=needs_chromium)])
def test_exported_network_is_checked_on_the_test_set(
    runs_dir: Path, capsys: Capture, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "digits"
    arguments = ["export", "wide-001", "--format", kind, "--output", str(path), "--check"]
    assert run([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    data = path.read_bytes()
    assert report["bytes"] == len(data)
    assert report["sha256"] == hashlib.sha256(data).hexdigest()
    assert (report["format"], report["checkpoint"]) == (kind, "best")
    assert report["parameters"] == 784 * 50 + 50 + 50 * 10 + 10
    check = report["check"]
    assert (check["samples"], check["different"], check["passed"]) == (2000, 0, True)
    assert check["max_difference"] < (1e-4 if kind == "html" else 2e-6)
    assert run(arguments) == 0
    assert "the same predictions" in capsys.readouterr().out
    assert path.read_bytes() == data


def test_prediction_that_differs_is_a_failed_check(
    runs_dir: Path, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = formats.FORMATS["onnx"]
    wrong = right._replace(run=lambda *given: 1 - right.run(*given))
    monkeypatch.setitem(formats.FORMATS, "onnx", wrong)
    path = str(tmp_path / "digits.onnx")
    assert run(["export", "--format", "onnx", "--output", path, "--check"]) == 3
    assert "predictions differ" in capsys.readouterr().err


def test_standard_output_gets_the_file_alone(
    runs_dir: Path, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    path = tmp_path / "digits.py"
    assert run(["export", "--format", "python", "--output", str(path)]) == 0
    capfdbinary.readouterr()
    assert run(["export", "--format", "python", "--output", "-"]) == 0
    assert capfdbinary.readouterr().out == path.read_bytes()
    assert run(["export", "--format", "python", "--output", "-", "--json"]) == 2


def test_check_without_onnxruntime_says_what_to_install(
    runs_dir: Path, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(name: str, *arguments: Any) -> Any:
        if name == "onnxruntime":
            raise ModuleNotFoundError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", absent)
    path = tmp_path / "digits.onnx"
    assert run(["export", "--format", "onnx", "--output", str(path), "--check"]) == 2
    assert "pip install onnxruntime" in capsys.readouterr().err
    assert not path.exists()


def test_check_without_chromium_says_what_to_install(
    runs_dir: Path, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "find_chromium", lambda: None)
    path = tmp_path / "digits.html"
    assert run(["export", "--format", "html", "--output", str(path), "--check"]) == 2
    assert "apt install chromium" in capsys.readouterr().err
    assert not path.exists()
