import json

import pytest
from click.testing import CliRunner

from nnctl.cli.group import cli
from nnctl.training import bench


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BLOCK_SECONDS", 0.001)
    monkeypatch.setattr(bench, "BLOCKS", 3)


def run(*arguments: str, **env: str) -> str:
    result = CliRunner().invoke(cli, ["bench", *arguments], env=env, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_bench_json_has_every_figure() -> None:
    report = json.loads(run("--threads", "1", "--json"))
    assert set(report["phases"]) == {"gather", "forward", "loss", "backward", "optimizer", "rest"}
    assert (report["threads"], report["batch_size"], report["parameters"]) == (1, 100, 79_510)
    assert report["ratio"] > 1
    assert report["step_seconds_by_threads"]["1"] == report["step_seconds"]


@pytest.mark.parametrize("columns", ["40", "100"])
def test_bench_table_fits_and_ends_with_advice(columns: str) -> None:
    text = run("--batch-size", "10", COLUMNS=columns, LC_ALL="C")
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= int(columns)
    for word in ("gather", "forward", "loss", "backward", "optimizer", "rest", "whole step"):
        assert word in text
    assert "images a second" in " ".join(text.split())
    assert "Advice: " in text
