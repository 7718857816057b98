"""`nnctl train` on somebody's own data: what it holds out, and what it is asked for in vain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nnctl.cli.group import run
from nnctl.datasets import CATALOGUE

if TYPE_CHECKING:
    from tests.conftest import Server

Files = dict[str, bytes]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def config(tmp_path: Path, raw_files: Files, monkeypatch: pytest.MonkeyPatch) -> str:
    """A config that trains on a folder of 200 images, and says no more than it must."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    for name, data in raw_files.items():
        (tmp_path / "digits" / name).write_bytes(data)
    text = "network: [{affine: 10}]\ndata: {dataset: ./digits}\ntraining: {epochs: 1}\n"
    (tmp_path / "own.yaml").write_text(text)
    return "own.yaml"


def resolved(name: str = "own-001") -> str:
    return Path("runs", name, "config.yaml").read_text()


def test_a_tenth_of_a_small_training_set_is_held_out(config: str, capsys: Capture) -> None:
    assert run(["train", "-c", config, "-q"]) == 0
    assert "  validation: 20\n" in resolved()
    assert capsys.readouterr().err == ""
    assert run(["train", "--resume", "own-001", "-q", "--epochs", "2"]) == 0
    assert run(["train", "-c", "runs/own-001/config.yaml", "-q", "--name", "again"]) == 0
    assert resolved("again-001").replace("again", "own") == resolved()


def test_a_fraction_is_held_out_and_kept_as_a_count(config: str) -> None:
    assert run(["train", "-c", config, "-q", "--set", "data.validation=0.25"]) == 0
    assert "  validation: 50\n" in resolved()


def test_more_images_than_there_are_leave_no_run(config: str, capsys: Capture) -> None:
    assert run(["train", "-c", config, "--set", "data.validation=300"]) == 2
    errors = capsys.readouterr().err
    assert "--set data.validation: data.validation: 300 images are to be held out, but" in errors
    assert not Path("runs").exists()


def test_more_images_than_there_are_are_refused_before_anything_is_fetched(
    config: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOGUE, "tiny", server.tiny("good"))
    sets = ["--set", "data.dataset=tiny", "--set", "data.validation=300"]
    assert run(["train", "-c", config, *sets]) == 2
    assert server.asked == []


@pytest.mark.parametrize("options", [[], ["--check"], ["--json"], ["-q"]])
def test_what_is_asked_for_in_vain_is_a_warning(
    config: str, options: list[str], capsys: Capture
) -> None:
    sets = ["--set", "data.train_size=50", "--set", "schedule.warmup=2"]
    assert run(["train", "-c", config, *sets, *options]) == 0
    output, errors = capsys.readouterr()
    assert "nnctl: warning: training.batch_size is larger than the 50 training images" in errors
    assert "nnctl: warning: schedule.warmup of 2 epochs is longer than the training of 1" in errors
    assert "warning" not in output
