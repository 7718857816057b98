"""Runs that don't learn, as a user meets them: train, trace, train --check and data info agree."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnctl.cli.group import run
from nnctl.datasets import Samples, Source, load
from nnctl.datasets.catalogue import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from nnctl.nn.functions import Array

SMALL = """
data: {dataset: mnist-sample, validation: 300, train_size: 1000}
network: [affine: 32, relu, affine: 10]
training: {epochs: 2}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)
    return tmp_path


def nnctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nnctl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def dark_digits(folder: Path) -> str:
    """Write 400 digits with pixels 0 and 1 into a folder of their own; return its path."""
    folder.mkdir()
    sample = load("mnist-sample", Source(offline=True))
    names = ((TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS))
    for part, (images, labels) in zip((sample.train, sample.test), names, strict=True):
        few = Samples(part.images[:400].reshape(-1, 28, 28) // 128, part.labels[:400])
        for name, array in ((images, few.images), (labels, few.labels)):
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    return str(folder)


def idx(array: Array) -> bytes:
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def test_trace_of_a_run_says_what_its_verdict_says() -> None:
    end = json.loads(
        nnctl("train", "-c", "small.yaml", "--lr", "5", "--json").stdout.splitlines()[-1]
    )
    verdict = end["overfitting"]
    assert (verdict["verdict"], verdict["cause"]) == ("not_learning", "dead_units")
    first = json.loads(nnctl("trace", "--run", "latest", "--json").stdout)["findings"][0]
    assert {key: first[key] for key in ("kind", "message", "remedy")} == {
        "kind": verdict["cause"],
        "message": verdict["message"],
        "remedy": verdict["remedy"],
    }
    shown = nnctl("runs", "show").stdout
    assert "Not learning: " in shown
    assert "Remedy: use a smaller learning rate." in shown


LARGE = [
    *("--set", "network.0.affine.initializer={normal: {std: 1.0}}"),
    *("--set", "network.2.affine.initializer={normal: {std: 1.0}}"),
]


def test_trace_of_a_run_that_began_with_other_weights_knows_its_start_or_leaves_it_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answer(*arguments: str) -> dict[str, Any]:
        assert run(list(arguments)) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    def causes(run_name: str) -> list[str]:
        return [f["kind"] for f in answer("trace", "--run", run_name, "--json")["findings"]]

    train = ("train", "-c", "small.yaml", "--json")
    for name, options in (("sound", []), ("large", LARGE)):
        answer(*train, "--lr", "1e-3", "--name", name, *options)
    # The seed's start is sound, the real one is not.
    end = answer(*train, "--from", "large-001", "--lr", "1e-3", "--name", "began-large")
    assert end["overfitting"]["cause"] == "initial_loss"
    assert causes("began-large-001") == ["initial_loss"]
    end = answer("train", "--resume", "began-large-001", "--epochs", "3", "--json")
    assert end["overfitting"]["cause"] == "initial_loss"
    # The other way round; what spoils it comes later.
    end = answer(*train, "--from", "sound-001", "--lr", "5", "--name", "began-sound", *LARGE)
    assert end["overfitting"]["cause"] == "dead_units"
    shutil.copy("runs/began-sound-001/checkpoints/last.safetensors", "alone.safetensors")
    assert causes("began-sound-001") == causes("./alone.safetensors") == ["dead_units"]
    for origin, found in (("sound-001", []), ("large-001", ["initial_loss"])):
        plan = answer(*train, "--from", origin, "--check", *(LARGE if not found else []))
        assert [finding["kind"] for finding in plan["findings"]] == found
    # Where the weights are gone, nothing is said of the start.
    for origin in ("sound", "large"):
        Path(f"runs/{origin}-001").rename(origin)
        assert "initial_loss" not in causes(f"began-{origin}-001")


def test_activation_after_the_last_layer_is_told_before_training_and_in_check() -> None:
    asked = ("train", "-c", "small.yaml", "--set", "network=[affine: 10, relu]")
    assert "nnctl: warning: 1.relu stands after the last affine layer" in nnctl(*asked).stderr
    plan = json.loads(nnctl(*asked, "--check", "--json").stdout)
    assert [finding["kind"] for finding in plan["findings"]] == ["output_activation"]
    text = nnctl(*asked, "--check").stdout
    assert "1.relu stands after the last affine layer" in text
    assert "Remedy: leave 1.relu out." in text
    healthy = nnctl("train", "-c", "small.yaml", "--check", "--json").stdout
    assert json.loads(healthy)["findings"] == []


def test_pixels_that_are_too_dark_are_told_by_info_train_and_check(folder: Path) -> None:
    digits = dark_digits(folder / "digits")
    described = json.loads(nnctl("data", "info", digits, "--json").stdout)
    assert [finding["kind"] for finding in described["findings"]] == ["input_scale"]
    assert "No pixel is larger than 1" in nnctl("data", "info", digits).stdout.replace("\n", " ")
    asked = ("train", "-c", "small.yaml", "--set", f"data={{dataset: {digits}, validation: 100}}")
    assert "no pixel is larger than 1" in nnctl(*asked, "-q").stderr
    assert "multiply the pixels by 255" in nnctl(*asked, "--check").stdout.replace("\n", " ")


def test_info_of_what_comes_with_nnctl_finds_nothing() -> None:
    assert json.loads(nnctl("data", "info", "mnist-sample", "--json").stdout)["findings"] == []
