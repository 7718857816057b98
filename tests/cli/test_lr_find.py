"""`nnctl lr-find` as its user meets it."""

import json
import math
import statistics
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nnctl.cli.group import cli, run
from nnctl.config import load_settings
from nnctl.datasets import Source, load
from nnctl.training import lr_find
from nnctl.training.events import StepFinished
from nnctl.training.trainer import Trainer


def found(*arguments: str, columns: int = 80) -> str:
    result = CliRunner().invoke(
        cli, ["lr-find", *arguments], env={"COLUMNS": str(columns)}, catch_exceptions=False
    )
    assert result.exit_code == 0
    return result.stdout


def as_json(*arguments: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(found(*arguments, "--json"))
    return report


def test_lr_find_suggests_a_third_of_the_rate_with_the_lowest_loss() -> None:
    report = as_json("-c", "tiny")
    losses = [
        (point["loss"], point["learning_rate"]) for point in report["points"] if point["loss"]
    ]
    assert (report["lowest"]["loss"], report["lowest"]["learning_rate"]) == min(losses)
    assert report["suggestion"] == pytest.approx(min(losses)[1] / 3, rel=0.05)
    text = found("-c", "tiny")
    assert f"--lr {report['suggestion']:g}" in text
    assert f"suggestion {report['suggestion']:g}" in text
    assert max(map(len, text.splitlines())) <= 80


def test_lr_find_is_repeatable_and_starts_where_the_config_says() -> None:
    assert as_json("-c", "tiny") == as_json("-c", "tiny")
    other = as_json("-c", "tiny", "--seed", "3")
    assert other["seeds"] == [3, 4, 5]
    assert other["points"] != as_json("-c", "tiny")["points"]


def test_lr_find_takes_the_steps_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lr_find, "RATES", [0.1] * 20)
    monkeypatch.setattr(lr_find, "SMOOTHING", 0.0)
    monkeypatch.setattr(lr_find, "EXPLODED", math.inf)
    data, settings = load("mnist-tiny", Source(offline=True)), load_settings("tiny")
    curves = []
    for seed in (8, 9, 10):
        with closing(Trainer(replace(settings, seed=seed), data, threads=1)) as trainer:
            events = (event for event in trainer.events() if isinstance(event, StepFinished))
            means = [next(events).batch_loss for _ in range(20)]
        # The running mean of the epoch, back into the losses of its batches.
        curves.append([mean * (k + 1) - means[k - 1] * k for k, mean in enumerate(means)])
    expected = [statistics.median(losses) for losses in zip(*curves, strict=True)]
    losses = [point["loss"] for point in as_json("-c", "tiny", "--threads", "1")["points"]]
    assert losses == pytest.approx(expected, rel=1e-6)


def test_lr_find_stops_where_the_loss_explodes_and_draws_no_more() -> None:
    points = as_json("-c", "quickstart", "--set", "data.train_size=400")["points"]
    exploded = [point["loss"] is None for point in points]
    assert exploded == sorted(exploded)
    assert 0 < sum(exploded) < len(points)


def test_lr_find_goes_on_with_another_epoch_where_images_are_few() -> None:
    report = as_json("-c", "tiny", "--set", "data.train_size=6", "--batch-size", "4")
    assert len(report["points"]) == len(lr_find.RATES)
    assert report["points"][150]["loss"] is not None


def test_lr_find_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found("-c", "tiny")
    assert list(tmp_path.iterdir()) == []


def test_lr_find_says_when_no_rate_has_a_loss(capsys: pytest.CaptureFixture[str]) -> None:
    huge = "network.0.affine.initializer={kind: normal, std: 1e300}"
    assert run(["lr-find", "-c", "tiny", "--set", huge]) == 6
    assert "start with smaller weights" in capsys.readouterr().err
