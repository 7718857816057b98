"""What is asked for is done, or a line says that it was not; - is standard output everywhere."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import BashComplete

from nnctl.cli.group import cli, run
from nnctl.display import output
from nnctl.runs import recorder
from nnctl.runs.checkpoint import dump, load

Text = pytest.CaptureFixture[str]

TRAIN = ["train", "-c", "quickstart", "--set", "data.train_size=1000", "-q"]


def said(capfd: Text, *arguments: str, code: int = 0) -> tuple[str, str]:
    """Run a command; return what it printed on the two streams."""
    capfd.readouterr()
    assert run([*arguments]) == code, capfd.readouterr()
    return capfd.readouterr()


# Standard output.


def test_dash_is_standard_output(runs_dir: Path, capfd: Text) -> None:
    out, _ = said(capfd, "evaluate", "wide-001", "--predictions", "-")
    assert out == (runs_dir / "wide-001" / "test_predictions.csv").read_text()
    assert said(capfd, "plot", "wide-001", "--output", "-")[0].startswith("<?xml")
    assert "network:" in said(capfd, "config", "copy", "quickstart", "-")[0]
    assert os.listdir() == ["runs"]
    _, errors = said(capfd, "evaluate", "wide-001", "--predictions", "-", "--json", code=2)
    assert "both want standard output" in errors


def test_quiet_evaluation_is_the_accuracy(runs_dir: Path, capfd: Text) -> None:
    out, errors = said(capfd, "evaluate", "wide-001", "-q")
    full = json.loads(said(capfd, "evaluate", "wide-001", "--json")[0])
    assert (float(out), errors) == (full["accuracy"], "")


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [False, True])
def test_names_are_escaped_for_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    raw = io.BytesIO()
    stream = (Terminal if terminal else io.TextIOWrapper)(raw, encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    name = "a\x1b[31m\x9b1mb"
    output.print_path(name)
    output.print_json({"name": name})
    output.print_csv([{"name": name}])
    lines = raw.getvalue().decode().split("\n")
    assert json.loads(lines[1]) == {"name": name}
    assert any("\x9b" in line for line in lines) is not terminal
    assert all(line.isprintable() for line in lines) is terminal


@pytest.mark.parametrize("size", ["0", "-1", "1000000", "many", "", "9" * 5000])
def test_width_that_makes_no_sense_counts_as_unset(
    monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    monkeypatch.setenv("COLUMNS", size)
    monkeypatch.setenv("LINES", size)
    assert 20 <= output.console().width <= 1000
    assert 5 <= output.console().height <= 1000
    monkeypatch.setenv("COLUMNS", "33")
    assert output.console().width == 33


def test_charts_are_in_ascii_where_a_variable_asks_for_it(
    runs_dir: Path, capfd: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value, ascii_only in (("1", True), ("0", False), ("", False), ("no", False)):
        monkeypatch.setenv("NNCTL_ASCII", value)
        assert said(capfd, "plot", "wide-001")[0].isascii() is ascii_only
    assert "NNCTL_ASCII" in said(capfd, "--help")[0]


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_traceback_is_shown_where_it_is_asked_for(
    capfd: Text, monkeypatch: pytest.MonkeyPatch, value: str, shown: bool
) -> None:
    monkeypatch.setenv("NNCTL_DEBUG", value)
    assert ("Traceback" in said(capfd, "evaluate", "./nowhere", code=5)[1]) is shown


# What was not done.


def test_bundled_config_beside_a_copy_of_it_is_reported(
    tmp_path: Path, capfd: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said(capfd, "config", "copy", "quickstart")
    _, errors = said(capfd, *TRAIN, "--epochs", "1")
    assert errors == (
        "nnctl: quickstart is the config that comes with nnctl; the file here is quickstart.yaml: "
        "--config quickstart.yaml\n"
    )
    assert said(capfd, "config", "show", "-c", "quickstart.yaml")[1] == ""


def test_run_that_stopped_early_says_that_nothing_is_left(
    tmp_path: Path, capfd: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stopping = "training.early_stopping={patience: 1, min_delta: 9}"
    said(capfd, *TRAIN, "--set", stopping)
    out, errors = said(capfd, "train", "--resume", "latest", "--epochs", "100", "-q")
    assert out == "runs/quickstart-001\n"
    assert errors == (
        "nnctl: runs/quickstart-001 stopped early, after 2 epochs: there is nothing left to train\n"
    )


def test_run_here_that_a_name_hides_is_reported(runs_dir: Path, capfd: Text) -> None:
    shutil.copytree(runs_dir / "narrow-001", "wide-001")
    out, errors = said(capfd, "evaluate", "wide-001", "--json")
    assert json.loads(out)["run_dir"] == "runs/wide-001"
    assert errors == ("nnctl: wide-001 is the run runs/wide-001; the folder here is ./wide-001\n")
    out, errors = said(capfd, "evaluate", "./wide-001", "--json")
    assert (json.loads(out)["run_dir"], errors) == ("./wide-001", "")


# Names.


def test_name_may_hold_values_of_the_config(
    tmp_path: Path, capfd: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    show = ["config", "show", "-c", "quickstart", "--json", "--lr", "0.03", "--seed", "7"]
    out, _ = said(capfd, *show, "--name", "lr{learning_rate}-s{seed}-{optimizer.kind}")
    assert json.loads(out)["name"] == f"lr0.03-s7-{json.loads(out)['optimizer']['kind']}"
    assert "did you mean seed?" in said(capfd, *show, "--name", "s{sed}", code=2)[1]
    assert "not one key" in said(capfd, *show, "--name", "{kind}", code=2)[1]
    assert "a name must be" in said(capfd, *show, "--name", "s/{seed}", code=2)[1]


# Other weights, and an end by hand.


def test_from_takes_a_checkpoint_file_in_the_runs_folder_by_its_name(
    runs_dir: Path, capfd: Text
) -> None:
    """Such a file lies in no run, and not in the current folder either."""
    best = runs_dir / "wide-001" / "checkpoints" / "best.safetensors"
    shutil.copy(best, runs_dir / "mine.safetensors")
    config = str(runs_dir / "wide-001" / "config.yaml")
    said(capfd, "train", "-c", config, "--from", "mine.safetensors", "--name", "more", "-q")
    manifest = json.loads((runs_dir / "more-001" / "manifest.json").read_text())
    assert manifest["initial_weights"]["path"] == str(runs_dir / "mine.safetensors")


def test_run_begins_with_the_weights_of_another(runs_dir: Path, capfd: Text) -> None:
    best = runs_dir / "wide-001" / "checkpoints" / "best.safetensors"
    config = str(runs_dir / "wide-001" / "config.yaml")
    trained = load(best).snapshot.parameters
    shutil.copy(best, "alone.safetensors")
    digests = set()
    for number, origin in enumerate(("wide-001", str(best), "./alone.safetensors"), 1):
        arguments = ["--from", origin, "--name", "more", "--lr", "1e-30", "--epochs", "1", "-q"]
        out, _ = said(capfd, "train", "-c", config, *arguments)
        assert out == f"runs/more-00{number}\n"
        manifest = json.loads((runs_dir / f"more-00{number}" / "manifest.json").read_text())
        digests.add(manifest["initial_weights"]["sha256"])
        last = load(runs_dir / f"more-00{number}" / "checkpoints" / "last.safetensors")
        for name, array in trained.items():
            assert (last.snapshot.parameters[name] == array).all()
    assert len(digests) == 1
    _, errors = said(capfd, "train", "-c", config, "--from", "narrow-001", code=2)
    assert "0.affine.bias is (4,) there, but (50,) in this config's network" in errors


def test_run_that_began_with_other_weights_is_resumed_with_them(
    runs_dir: Path, capfd: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it was killed before its first step."""
    train = ["train", "-c", str(runs_dir / "wide-001" / "config.yaml"), "--from", "wide-001", "-q"]
    said(capfd, *train, "--name", "whole")

    class Killed(BaseException):
        pass

    def be_killed(*arguments: Any, **options: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(recorder, "record", be_killed)
        with pytest.raises(Killed):
            run([*train, "--name", "killed"])
    said(capfd, "train", "--resume", "killed-001", "-q")
    lasts = [
        (runs_dir / name / "checkpoints" / "last.safetensors").read_bytes()
        for name in ("killed-001", "whole-001")
    ]
    assert lasts[0] == lasts[1]


def test_interrupted_run_is_ended_by_hand_with_its_final_figures(
    runs_dir: Path, capfd: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = runs_dir / "wide-001"
    expected = json.loads(said(capfd, "evaluate", "wide-001", "--json")[0])
    summary = json.loads((run_dir / "summary.json").read_text())
    config = (run_dir / "config.yaml").read_text()
    resume = ["train", "--resume", "wide-001", "--json"]
    out, _ = said(capfd, *resume, "--epochs", "50", "--finish")
    end = json.loads(out.splitlines()[-1])
    assert (end["event"], end["status"], end["epochs"]) == ("run_finished", "early_stopped", 3)
    assert end["test_accuracy"] == expected["accuracy"] == summary["test_accuracy"]
    assert json.loads((run_dir / "summary.json").read_text())["status"] == "early_stopped"
    assert config.replace("epochs: 3", "epochs: 50") == (run_dir / "config.yaml").read_text()
    assert json.loads(said(capfd, *resume)[0])["status"] == "early_stopped"
    assert "--resume" in said(capfd, *TRAIN, "--finish", code=2)[1]


# Memory.


def test_run_without_memory_says_what_needs_less_and_how_to_go_on(
    tmp_path: Path, capfd: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said(capfd, *TRAIN, "--epochs", "2", "--name", "whole")
    calls = []

    def fail(checkpoint: Any) -> Any:
        calls.append(checkpoint)
        if len(calls) == 2:
            raise MemoryError
        return dump(checkpoint)

    with monkeypatch.context() as patch:
        patch.setattr(recorder, "dump", fail)
        _, errors = said(capfd, *TRAIN, "--epochs", "2", "--name", "short", code=1)
    assert errors.splitlines() == [
        "nnctl: error: out of memory; a smaller network or batch size needs less, "
        "as does --threads 1",
        "go on with: nnctl train --resume runs/short-001",
    ]
    said(capfd, "train", "--resume", "runs/short-001", "-q")
    lasts = [Path(f"runs/{n}-001/checkpoints/last.safetensors") for n in ("whole", "short")]
    assert lasts[0].read_bytes() == lasts[1].read_bytes()


def test_import_that_finds_no_memory_is_no_bug(
    capfd: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise ImportError("lib.so: failed to map segment from shared object: Cannot allocate")

    monkeypatch.setattr(cli, "main", fail)
    assert "error: out of memory" in said(capfd, "train", code=1)[1]


# Completion.


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train -c quick", "quickstart"),
        ("train --resume wi", "wide-001"),
        ("evaluate la", "latest"),
        ("plot nar", "narrow-001"),
        ("runs compare wide-001 nar", "narrow-001"),
        ("train --set optimizer.l", "optimizer.learning_rate="),
        ("train --set data.val", "data.validation="),
        ("train --require test_a", "test_accuracy"),
        ("evaluate --require acc", "accuracy"),
        ("runs list --by validation_a", "validation_accuracy"),
        *((f"{command} wi", "wide-001") for command in ("report", "weights", "export")),
        ("predict --run wi", "wide-001"),
        ("graph sof", "softmax-with-loss"),
        ("sweep -c quick", "quickstart"),
        ("sweep --vary optimizer.l", "optimizer.learning_rate="),
        ("sweep --set training.e", "training.epochs="),
        ("sweep --method b", "bayes"),
        ("sweep --objective val", "validation_accuracy"),
        ("sweep --resume some", "some-001"),
        ("evaluate --dataset mnist-s", "mnist-sample"),
        ("data show --augment augm", "augmented"),
    ],
)
def test_shell_completes_what_nnctl_knows(runs_dir: Path, words: str, expected: str) -> None:
    (runs_dir.parent / "sweeps" / "some-001").mkdir(parents=True)
    (runs_dir.parent / "sweeps" / "some-001" / "sweep.yaml").touch()
    *before, last = words.split()
    found = BashComplete(cli, {}, "nnctl", "_NNCTL_COMPLETE").get_completions(before, last)
    assert expected in [item.value for item in found]


def test_help_says_how_completion_is_turned_on(capfd: Text) -> None:
    out, _ = said(capfd, "--help")
    for shell in ("bash_source", "zsh_source", "fish_source"):
        assert f"_NNCTL_COMPLETE={shell} nnctl" in out


# One of a kind.


def test_one_of_a_kind_is_said_in_the_singular(runs_dir: Path, capfd: Text) -> None:
    one = ["--epochs", "1", "--batch-size", "1", "--threads", "1", "--check"]
    out, _ = said(capfd, *TRAIN[:-1], *one)
    assert out.endswith("1,000 steps an epoch of 1 image, 1 epoch, 1 thread\n")
    assert ", 1 image of " in said(capfd, "gradcheck", "-c", "tiny", "--samples", "1")[0]


# What nnctl keeps.


@pytest.mark.parametrize(
    "command",
    [
        *("export wide-001 --format python --output", "report wide-001 --output"),
        *("evaluate wide-001 --predictions", "weights wide-001 --output", "plot --output"),
    ],
)
@pytest.mark.parametrize(
    "kept",
    [
        *("latest/config.yaml", "wide-001/test_predictions.csv"),
        *("wide-001/checkpoints/best.safetensors", "a-sweep/sweep.yaml"),
        "a-sweep/trials/0003/trial.json",
    ],
)
def test_no_result_replaces_a_file_that_a_run_or_sweep_keeps(
    runs_dir: Path, capfd: Text, command: str, kept: str
) -> None:
    sweep = runs_dir / "a-sweep"
    (sweep / "trials" / "0003").mkdir(parents=True)
    for name in ("manifest.json", "sweep.yaml", "trials/0003/trial.json"):
        (sweep / name).write_text("{}")
    path = runs_dir / kept
    before = path.read_bytes()
    _, errors = said(capfd, *command.split(), str(path), code=2)
    assert f"{kept} belongs to {runs_dir}/" in errors
    assert path.read_bytes() == before


def test_results_may_lie_in_a_run(runs_dir: Path, capfd: Text) -> None:
    for _ in range(2):
        said(capfd, "export", "--format", "python", "--output", "runs/latest/model.py")
    assert (runs_dir / "latest" / "model.py").exists()
