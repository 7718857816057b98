"""`nnctl evaluate`, on runs trained on the bundled sample."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len

from nnctl.cli.group import run
from nnctl.config import load_settings
from nnctl.datasets import Source, load
from nnctl.files import bundled
from nnctl.nn.metrics import wilson_interval
from nnctl.runs.folder import RunFolder
from nnctl.runs.recorder import begin, record
from nnctl.training import evaluation
from nnctl.training.process_group import ProcessGroup
from nnctl.training.trainer import Trainer

Capture = pytest.CaptureFixture[str]
TRAINING = ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]


def report(capsys: Capture, *arguments: str) -> dict[str, Any]:
    assert run(["evaluate", *arguments, "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def refused(capsys: Capture, *arguments: str) -> tuple[int, str]:
    code = run(["evaluate", *arguments])
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("nnctl: error: ")
    assert "unexpected" not in errors
    return code, errors


def test_evaluate_agrees_with_ten_lines_of_numpy(runs_dir: Path, capsys: Capture) -> None:
    from safetensors.numpy import load_file

    found = report(capsys, "wide-001")
    test = load("mnist-sample", Source()).test
    w = load_file(runs_dir / "wide-001" / "checkpoints" / "best.safetensors")
    hidden = np.maximum(test.images / 255 @ w["0.affine.weight"] + w["0.affine.bias"], 0)
    logits = hidden @ w["2.affine.weight"] + w["2.affine.bias"]
    logits -= logits.max(axis=1, keepdims=True)
    predictions = logits.argmax(axis=1)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[range(2000), test.labels]
    assert found["accuracy"] == (predictions == test.labels).mean()
    assert found["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    for true in range(10):
        row = np.bincount(predictions[test.labels == true], minlength=10)
        assert found["confusion_matrix"][true] == row.tolist()


def test_evaluate_json_has_the_fields_of_the_contract(runs_dir: Path, capsys: Capture) -> None:
    found = report(capsys)  # the latest, which has no validation set
    assert list(found) == [
        *("run_dir", "checkpoint", "dataset", "split", "samples", "loss", "accuracy"),
        *("accuracy_interval", "per_class", "confusion_matrix"),
    ]
    assert Path(found["run_dir"]).resolve() == runs_dir / "unheld-001"
    assert (found["checkpoint"], found["split"]) == ("last", "test")
    assert (found["dataset"], found["samples"]) == ("mnist-sample", 2000)
    right = sum(found["confusion_matrix"][label][label] for label in range(10))
    assert found["accuracy"] == right / 2000
    assert found["accuracy_interval"] == list(wilson_interval(right, 2000))
    for label, figures in enumerate(found["per_class"]):
        assert list(figures) == ["label", "precision", "recall", "f1", "support"]
        assert (figures["label"], figures["support"]) == (label, 200)
        assert figures["recall"] == found["confusion_matrix"][label][label] / 200


def test_evaluate_gives_what_training_found_at_its_end(runs_dir: Path, capsys: Capture) -> None:
    summary = json.loads((runs_dir / "wide-001" / "summary.json").read_bytes())
    for split in ("test", "validation"):
        found = report(capsys, "wide-001", "--split", split)
        assert found["loss"] == summary[f"{split}_loss"]
        assert found["accuracy"] == summary[f"{split}_accuracy"]
    last = json.loads((runs_dir / "wide-001" / "metrics.jsonl").read_bytes().splitlines()[-1])
    found = report(capsys, "wide-001", "--split", "validation", "--checkpoint", "last")
    assert (found["checkpoint"], found["loss"]) == ("last", last["validation_loss"])


@pytest.mark.parametrize("size", ["1", "7", "2000", "100000"])
def test_evaluate_does_not_depend_on_the_batch_size(
    runs_dir: Path, capsys: Capture, size: str
) -> None:
    found, usual = report(capsys, "--batch-size", size), report(capsys)
    assert found["confusion_matrix"] == usual["confusion_matrix"]
    assert found["loss"] == pytest.approx(usual["loss"], rel=1e-6)


def test_predictions_of_the_test_set_are_the_runs_own(runs_dir: Path, tmp_path: Path) -> None:
    assert run(["evaluate", "wide-001", "--predictions", "p.csv"]) == 0
    own = runs_dir / "wide-001" / "test_predictions.csv"
    assert (tmp_path / "p.csv").read_bytes() == own.read_bytes()


def test_predictions_name_places_in_the_original_file(
    runs_dir: Path, tmp_path: Path, capsys: Capture
) -> None:
    images = load("mnist-sample", Source()).train
    places: dict[str, list[int]] = {}
    for split, samples in (("train", 1000), ("validation", 300)):
        found = report(capsys, "wide-001", "--split", split, "--predictions", f"{split}.csv")
        assert found["samples"] == samples
        with open(tmp_path / f"{split}.csv", encoding="ascii", newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["index", "label", "prediction", "probability"]
        places[split] = [int(row["index"]) for row in rows]
        assert [int(row["label"]) for row in rows] == images.labels[places[split]].tolist()
        right = [row["label"] == row["prediction"] for row in rows]
        assert sum(right) / samples == found["accuracy"]
        assert all(0.1 <= float(row["probability"]) <= 1 for row in rows)  # the largest of ten
    assert set(places["train"]).isdisjoint(places["validation"])


def test_checkpoint_file_needs_no_run_around_it(runs_dir: Path, capsys: Capture) -> None:
    inside = report(capsys, "wide-001")
    shutil.copy(runs_dir / "wide-001" / "checkpoints" / "best.safetensors", "alone.safetensors")
    shutil.rmtree(runs_dir)
    Path("config.yaml").write_text("network: this is no run's\n")
    alone = report(capsys, "alone.safetensors")
    assert (alone["run_dir"], alone["checkpoint"]) == (None, "alone.safetensors")
    for key in ("loss", "accuracy", "confusion_matrix", "dataset"):
        assert alone[key] == inside[key]
    assert run(["evaluate", "alone.safetensors"]) == 0
    assert capsys.readouterr().out.startswith("alone.safetensors: mnist-sample, test split")


def test_checkpoint_file_in_a_project_is_not_taken_for_a_run(
    runs_dir: Path, capsys: Capture
) -> None:
    Path("app/models").mkdir(parents=True)
    Path("app/manifest.json").write_text('{"name": "somebody\'s app"}')
    shutil.copy(runs_dir / "wide-001" / "checkpoints" / "best.safetensors", "app/models")
    assert report(capsys, "app/models/best.safetensors")["run_dir"] is None


def test_checkpoint_file_inside_a_run_belongs_to_it(
    runs_dir: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs_dir / "wide-001" / "checkpoints")
    assert report(capsys, "best.safetensors")["run_dir"] == str(runs_dir / "wide-001")


def test_require_is_decided_after_everything_is_written(
    runs_dir: Path, tmp_path: Path, capsys: Capture
) -> None:
    arguments = ["evaluate", "wide-001", "--json", "--predictions", "p.csv"]
    assert run([*arguments, "--require", "accuracy > 0.1", "--require", "samples==2000"]) == 0
    (tmp_path / "p.csv").unlink()
    capsys.readouterr()
    assert run([*arguments, "--require", "accuracy>=0.9999"]) == 3
    output, errors = capsys.readouterr()
    assert json.loads(output)["accuracy"] < 0.9999
    assert "accuracy>=0.9999: accuracy is 0." in errors
    assert (tmp_path / "p.csv").exists()


def test_require_of_an_unknown_field_ends_before_anything_starts(
    runs_dir: Path, tmp_path: Path, capsys: Capture
) -> None:
    arguments = "--require", "test_accuracy>0.9", "--predictions", "p.csv"
    code, errors = refused(capsys, *arguments)
    assert code == 2
    assert "did you mean accuracy?" in errors
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["nowhere"], 5, "no run 'nowhere'"),
        (["nowhere.safetensors"], 5, "no run 'nowhere.safetensors'"),
        (["./nowhere.safetensors"], 5, "there is no such path"),
        (["unheld-001", "--checkpoint", "best"], 5, "best.safetensors"),
        (["unheld-001", "--split", "validation"], 2, "held no validation images out"),
        (["runs/wide-001/checkpoints/last.safetensors", "--checkpoint", "best"], 2, "--checkpoint"),
        (["--batch-size", "0"], 2, "--batch-size"),
        (["--dataset", "mnits"], 2, "did you mean mnist"),
        (["--predictions", "nowhere/p.csv"], 1, "nowhere/p.csv"),
    ],
)
def test_evaluate_refuses_what_it_cannot_do(
    runs_dir: Path, capsys: Capture, arguments: list[str], code: int, reason: str
) -> None:
    found, errors = refused(capsys, *arguments)
    assert reason in errors
    assert found == code


def test_damaged_checkpoint_is_refused(runs_dir: Path, capsys: Capture) -> None:
    path = runs_dir / "wide-001" / "checkpoints" / "best.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    code, errors = refused(capsys, "wide-001")
    assert code == 5
    assert "best.safetensors" in errors


def test_best_checkpoint_that_is_gone_is_not_replaced_by_the_last(
    runs_dir: Path, capsys: Capture
) -> None:
    folder = runs_dir / "wide-001" / "checkpoints"
    (folder / "best.safetensors").unlink()
    code, errors = refused(capsys, "wide-001")
    assert code == 5
    assert "runs/wide-001/checkpoints/best.safetensors: missing" in errors
    assert "name runs/wide-001/checkpoints/last.safetensors" in errors
    assert report(capsys, "wide-001", "--checkpoint", "last")["checkpoint"] == "last"
    report(capsys, str(folder / "last.safetensors"))


def test_run_ended_in_its_first_epoch_is_measured_by_its_last_checkpoint(
    tmp_path: Path, runs_dir: Path, capsys: Capture
) -> None:
    settings = load_settings("quickstart", [("training.checkpoint_seconds", "0")])
    with closing(Trainer(settings, load("mnist-sample", Source()), 1)) as trainer:
        run_folder = RunFolder(tmp_path / "begun")
        run_folder.path.mkdir()
        for _ in record(trainer, run_folder, begin(trainer, run_folder), lambda: True):
            pass
    found = report(capsys, "./begun")
    assert (found["checkpoint"], found["samples"]) == ("last", 2000)


def test_threads_are_taken_from_option_then_variables(
    runs_dir: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    class Recorder(ProcessGroup):
        def __init__(self, size: int) -> None:
            sizes.append(size)
            super().__init__(size)

    monkeypatch.setattr(evaluation, "ProcessGroup", Recorder)
    monkeypatch.setenv("_NNCTL_OMP_NUM_THREADS", "3")  # as it is kept for this
    monkeypatch.delenv("_NNCTL_OPENBLAS_NUM_THREADS", raising=False)
    for arguments, variable in ((["--threads", "1"], "2"), ([], "2"), ([], "")):
        monkeypatch.setenv("NNCTL_THREADS", variable)
        report(capsys, "wide-001", *arguments)
    assert sizes == [1, 2, 3]


def test_data_that_are_not_those_of_training_are_warned_of(
    runs_dir: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "digits"
    shutil.copytree(bundled("data/mnist-sample"), folder)
    checkpoint = str(runs_dir / "wide-001" / "checkpoints" / "last.safetensors")
    assert report(capsys, checkpoint, "--dataset", "./digits")["samples"] == 2000
    config = runs_dir / "wide-001" / "config.yaml"
    text = config.read_text()
    assert "mnist-sample" in text
    config.write_text(text.replace("mnist-sample", str(folder)))
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):  # the same, unpacked
        packed = (folder / f"{name}.gz").read_bytes()
        (folder / f"{name}.gz").write_bytes(gzip.decompress(packed))
    assert run(["evaluate", "wide-001", "--split", "validation"]) == 0
    assert capsys.readouterr().err == ""
    labels = folder / "train-labels-idx1-ubyte.gz"
    values = bytearray(gzip.decompress(labels.read_bytes()))
    values[8] = (values[8] + 1) % 10
    labels.write_bytes(gzip.compress(values))
    assert run(["evaluate", "wide-001", "--split", "train"]) == 0
    assert "warning" in capsys.readouterr().err
    assert run(["evaluate", "wide-001"]) == 0  # the test pair is as it was
    assert capsys.readouterr().err == ""


def test_folder_with_the_test_pair_alone_is_measured_on(
    runs_dir: Path, tmp_path: Path, capsys: Capture
) -> None:
    whole = report(capsys, "wide-001")
    shutil.copytree(bundled("data/mnist-sample"), tmp_path / "test", ignore=lambda *_: TRAINING)
    alone = report(capsys, "wide-001", "--dataset", "./test")
    assert {k: v for k, v in alone.items() if k != "dataset"} == {
        k: v for k, v in whole.items() if k != "dataset"
    }
    code, errors = refused(capsys, "wide-001", "--dataset", "./test", "--split", "train")
    assert code == 4
    assert "test/train-images-idx3-ubyte: missing" in errors


@pytest.mark.parametrize("command", [["evaluate", "wide-001"], ["bench", "--run", "wide-001"]])
def test_images_of_another_size_are_refused(
    runs_dir: Path, tmp_path: Path, capsys: Capture, command: list[str]
) -> None:
    (tmp_path / "small").mkdir()
    for name, count in (("train", 400), ("t10k", 20)):
        images = struct.pack(">4I", 0x803, count, 10, 10) + bytes(100 * count)
        (tmp_path / "small" / f"{name}-images-idx3-ubyte").write_bytes(images)
        labels = struct.pack(">2I", 0x801, count) + bytes(count)
        (tmp_path / "small" / f"{name}-labels-idx1-ubyte").write_bytes(labels)
    option = "--dataset=./small" if command[0] == "evaluate" else "--set=data.dataset=./small"
    assert run([*command, option]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("nnctl: error: ")
    assert "its images have 100 pixels, but the network was trained on 784" in errors


def test_evaluate_draws_the_mistakes_it_was_asked_for(
    runs_dir: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert run(["evaluate", "--errors", "5"]) == 0
    output = capsys.readouterr().out
    assert "Most confident mistakes (5 of " in output
    assert output.count("image ") == 5
    assert run(["evaluate", "--errors", "0"]) == 0
    assert "mistakes" not in capsys.readouterr().out


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_evaluate_fits_the_terminal_and_its_characters(
    runs_dir: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, width: int, locale: str
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LC_ALL", locale)
    assert run(["evaluate", "wide-001"]) == 0
    output = capsys.readouterr().out
    assert max(map(cell_len, output.splitlines())) <= width
    assert output.isascii() == (locale == "C")
    assert "\x1b" not in output
