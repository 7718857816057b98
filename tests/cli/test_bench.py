import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nnctl.cli.group import cli
from nnctl.display import bench as display
from nnctl.errors import ConfigError, UsageError
from nnctl.files import bundled
from nnctl.runs.checkpoint import dump, load
from nnctl.training import bench
from nnctl.training.bench import Benchmark, Phases, Trial


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BLOCK_SECONDS", 0.001)
    monkeypatch.setattr(bench, "BLOCKS", 3)


def run(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(cli, ["bench", *arguments], env=env, catch_exceptions=False)


def test_bench_json_has_every_figure_and_nothing_else() -> None:
    result = run("--threads", "1", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert list(report) == [field.name for field in fields(Benchmark)]
    assert list(report["phases"]) == [field.name for field in fields(Phases)]
    for trial in report["alternatives"]:
        assert list(trial) == [field.name for field in fields(Trial)]
    assert (report["threads"], report["batch_size"], report["parameters"]) == (1, 100, 79_510)
    assert sum(report["phases"].values()) == pytest.approx(report["step_seconds"])
    assert report["ratio"] == report["step_seconds"] / report["products_seconds"]


def test_bench_help_names_every_field_of_its_json() -> None:
    words = run("--help").stdout.replace(",", " ").replace(";", " ").replace("(", " ").split()
    for kind in (Benchmark, Phases, Trial):
        assert {field.name for field in fields(kind)} <= set(words)


def test_bench_uses_the_threads_that_the_blas_variables_ask_for() -> None:
    asked = {"_NNCTL_OPENBLAS_NUM_THREADS": "2"}
    assert json.loads(run("--json", "--batch-size", "1", **asked).stdout)["threads"] == 2
    assert json.loads(run("--json", "--threads", "1", **asked).stdout)["threads"] == 1


def test_checkpoint_file_of_its_own_can_be_overridden(runs_dir: Path) -> None:
    checkpoint = str(shutil.copy(runs_dir / "wide-001/checkpoints/last.safetensors", "."))
    result = run("--run", checkpoint, "--batch-size", "7", "--json")
    assert json.loads(result.stdout)["batch_size"] == 7
    with pytest.raises(ConfigError, match="batch_sise"):
        run("--run", checkpoint, "--set", "training.batch_sise=7")


def test_checkpoint_file_trained_on_a_folder_needs_one(runs_dir: Path) -> None:
    shutil.copytree(bundled("data/mnist-sample"), "digits")
    path = runs_dir / "wide-001/checkpoints/last.safetensors"
    found = load(path)
    data = replace(found.settings.data, dataset="/nowhere/digits")
    moved = replace(found, settings=replace(found.settings, data=data))
    Path("alone.safetensors").write_bytes(b"".join(dump(moved)))
    with pytest.raises(UsageError, match=r"name one with --set data\.dataset"):
        run("--run", "alone.safetensors")
    result = run("--run", "alone.safetensors", "--set", "data.dataset=./digits", "--json")
    assert json.loads(result.stdout)["batch_size"] == 100


def test_bench_advises_a_larger_batch_where_it_is_worth_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(display, "WORTH_OTHER_THREADS", 1e9)  # whatever this machine measures
    monkeypatch.setattr(display, "WORTH_LARGER_BATCHES", 0.0)
    text = " ".join(run("--batch-size", "1", "--threads", "1").stdout.split())
    assert "79,510 parameters, batch size 1, threads 1" in text
    assert "Advice: --batch-size 4 takes" in text


def test_bench_without_training_images_is_a_usage_error() -> None:
    with pytest.raises(ConfigError, match="hold out fewer"):
        run("--set", "data.validation=10000")
