"""`nnctl runs`: runs that were trained, and folders that somebody else filled."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from nnctl.cli.group import run
from nnctl.config import load_settings
from nnctl.datasets import Source
from nnctl.datasets import load as load_data
from nnctl.runs.checkpoint import dump
from nnctl.runs.checkpoint import load as load_checkpoint
from nnctl.runs.folder import RunFolder
from nnctl.runs.lock import new_run
from nnctl.runs.recorder import train
from nnctl.runs.resume import resume_point
from nnctl.runs.statistics import mcnemar

Capture = pytest.CaptureFixture[str]


def output(capsys: Capture, *arguments: str) -> str:
    assert run(["runs", *arguments]) == 0
    return capsys.readouterr().out


def listed(capsys: Capture, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output(capsys, "list", "--json", *arguments).splitlines()]


def compared(capsys: Capture, *arguments: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(output(capsys, "compare", "--json", *arguments))
    return content


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))


def started(runs_dir: Path, **times: str) -> None:
    for name, time in times.items():
        edit(runs_dir / f"{name}-001" / "manifest.json", started=f"2026-01-01T{time}+00:00")


def write_predictions(run_dir: Path, right: str, split: str = "validation") -> None:
    """Write predictions of images of class 0: 0 where `right` has a 1, else 1."""
    rows = [f"{i},0,{0 if c == '1' else 1},0.9,0.1" for i, c in enumerate(right)]
    lines = ["index,label,prediction,probability,loss", *rows, ""]
    (run_dir / f"{split}_predictions.csv").write_text("\n".join(lines))


def like(runs_dir: Path, run: str, name: str, seed: int, **figures: float) -> None:
    """Copy a run under another name, as if it had been trained with this seed to these figures."""
    shutil.copytree(runs_dir / run, runs_dir / name)
    config = runs_dir / name / "config.yaml"
    config.write_text(re.sub(r"(?m)^seed: .*$", f"seed: {seed}", config.read_text()))
    edit(runs_dir / name / "summary.json", seed=seed, **figures)


# list


def test_list_has_the_newest_run_first(runs_dir: Path, capsys: Capture) -> None:
    started(runs_dir, wide="10:00:00", narrow="12:00:00", unheld="11:00:00")
    names = [row["run"] for row in listed(capsys)]
    assert names == ["narrow-001", "unheld-001", "wide-001"]
    lines = output(capsys, "list").splitlines()
    assert [line.split()[0] for line in lines] == ["run", *names]


def test_list_tells_key_settings_and_results(runs_dir: Path, capsys: Capture) -> None:
    (row,) = listed(capsys, "narrow-001")
    summary = json.loads((runs_dir / "narrow-001" / "summary.json").read_bytes())
    for key in ("status", "epochs", "best_epoch", "validation_accuracy", "test_loss", "seconds"):
        assert row[key] == summary[key]
    assert row["verdict"] == summary["overfitting"]["verdict"]
    assert (row["units"], row["optimizer"], row["learning_rate"]) == ("4-10", "momentum", 0.01)
    assert (row["dataset"], row["batch_size"], row["seed"]) == ("mnist-sample", 100, 0)
    assert row["run_dir"] == "runs/narrow-001"


def test_list_csv_says_the_same_as_json(runs_dir: Path, capsys: Capture) -> None:
    rows = list(csv.DictReader(io.StringIO(output(capsys, "list", "--csv"))))
    expected = listed(capsys)
    assert [list(row) for row in rows] == [list(row) for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row == {key: "" if value is None else str(value) for key, value in other.items()}


def test_list_sorts_by_a_field_best_first(runs_dir: Path, capsys: Capture) -> None:
    def order(field: str) -> list[str]:
        return [row["run"].removesuffix("-001") for row in listed(capsys, "--by", field)]

    assert order("validation_accuracy") == ["wide", "narrow", "unheld"]  # the last has none
    assert order("validation_loss") == ["wide", "narrow", "unheld"]
    assert order("optimizer.learning_rate")[0] == "narrow"
    assert order("epochs")[0] == "unheld"
    assert order("run") == ["narrow", "unheld", "wide"]


@pytest.mark.parametrize("command", ["list", "compare"])
def test_unknown_field_is_a_usage_error(runs_dir: Path, capsys: Capture, command: str) -> None:
    assert run(["runs", command, "--by", "test_acuracy"]) == 2
    assert "did you mean test_accuracy?" in capsys.readouterr().err
    assert run(["runs", command, "--csv", "--json"]) == 2


def test_list_names_folders_that_are_no_runs_in_a_warning(runs_dir: Path, capsys: Capture) -> None:
    (runs_dir / "foreign").mkdir()
    (runs_dir / "a file").write_text("")
    (runs_dir / "wide-001" / "summary.json").write_text("{")
    (runs_dir / "unheld-001" / "config.yaml").write_text("network: 3")
    assert run(["runs", "list", "--json"]) == 0
    out, errors = capsys.readouterr()
    assert [json.loads(line)["run"] for line in out.splitlines()] == ["narrow-001"]
    warnings = [line for line in errors.splitlines() if line.startswith("nnctl: warning: ")]
    assert len(warnings) == 3
    assert "runs/foreign: not a run, it has no manifest.json" in warnings[0]
    assert "runs/unheld-001: its config can't be used" in warnings[1]
    assert "runs/wide-001/summary.json: damaged" in warnings[2]


@pytest.mark.parametrize("time", ["2020-01-01T00:00:00", "0001-01-01T00:00:00+14:00"])
def test_list_survives_a_run_of_impossible_times(
    runs_dir: Path, capsys: Capture, time: str
) -> None:
    path = runs_dir / "narrow-001" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"started": time}))
    assert run(["runs", "list"]) == 0
    out, errors = capsys.readouterr()
    assert "wide-001" in out
    assert "narrow-001" not in out
    assert "narrow-001/manifest.json: damaged: started is no time" in errors


def test_list_names_folders_that_may_not_be_read_in_a_warning(
    runs_dir: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(run_folder: RunFolder) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(run_folder.manifest))

    monkeypatch.setattr("nnctl.runs.run.read_stored_run", refuse)
    assert run(["runs", "list", "--json"]) == 0
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors.startswith(
        "nnctl: warning: left out: reading runs/narrow-001: permission denied; "
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs", "list", "--runs-dir", "runs"],
        ["evaluate", "wide-001", "--predictions", "runs/p.csv"],
        ["train", "-c", "quickstart", "--run-dir", "runs/empty", "--check"],
    ],
)
def test_permissions_are_no_matter_of_usage(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    (runs_dir / "empty").mkdir()
    (runs_dir / "p.csv").touch()
    monkeypatch.setattr(os, "access", lambda path, mode, **options: False)
    assert run(arguments) == 0  # the system itself, which is not asked here, decides


def test_list_leaves_out_no_run_whose_name_begins_with_a_dot(
    runs_dir: Path, capsys: Capture
) -> None:
    (runs_dir / ".cache").mkdir()
    (runs_dir / "wide-001").rename(runs_dir / ".wide-001")
    assert run(["runs", "list", "--json"]) == 0
    out, errors = capsys.readouterr()
    assert ".wide-001" in [json.loads(line)["run"] for line in out.splitlines()]
    assert errors == ""


def test_list_of_an_empty_folder_is_empty(runs_dir: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "none").mkdir()
    for form in ([], ["--json"], ["--csv"]):
        assert output(capsys, "list", "--runs-dir", "none", *form) == ""
    assert run(["runs", "list", "--runs-dir", "missing"]) == 5
    assert "missing: no such folder" in capsys.readouterr().err


def test_run_that_is_under_way_is_listed_by_its_metrics(runs_dir: Path, capsys: Capture) -> None:
    (before,) = listed(capsys, "wide-001")
    for name in ("summary.json", "test_predictions.csv"):
        (runs_dir / "wide-001" / name).unlink()
    (row,) = listed(capsys, "wide-001")
    assert (row["status"], row["verdict"], row["test_accuracy"]) == ("unfinished", None, None)
    for key in ("epochs", "best_epoch", "validation_accuracy", "train_loss"):
        assert row[key] == before[key]
    assert "3 epochs so far" in output(capsys, "show", "wide-001")
    (runs_dir / "wide-001" / "metrics.jsonl").unlink()
    (row,) = listed(capsys, "wide-001")
    assert (row["epochs"], row["best_epoch"], row["validation_loss"]) == (0, None, None)
    assert "no epoch is finished yet" in output(capsys, "show", "wide-001")


def test_words_stand_below_their_heading_whichever_run_comes_first(
    runs_dir: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    (runs_dir / "wide-001" / "summary.json").unlink()  # so it has no verdict
    started(runs_dir, wide="12:00:00", narrow="11:00:00")
    heading, first, second = output(capsys, "list", "wide-001", "narrow-001").splitlines()
    column = heading.index("overfitting")
    assert first[column] == "-"
    assert second[column].isalpha()


# Folders filled by a stranger.

WRONG = [
    ("summary.json", {"status": 3}),
    ("summary.json", {"status": "\x1b[31mred"}),
    ("summary.json", {"validation_accuracy": "0.9"}),
    ("summary.json", {"best_epoch": 1.5}),
    ("summary.json", {"overfitting": None}),
    ("summary.json", {"overfitting": {"verdict": "overfitting", "evidence": {}}}),
    ("manifest.json", {"started": "yesterday"}),
    ("manifest.json", {"started": "\x1b]0;title\x07"}),
    ("manifest.json", {"threads": "two"}),
    ("manifest.json", {"data_sha256": ["a"]}),
]


@pytest.mark.parametrize(("name", "changes"), WRONG)
def test_run_with_values_of_the_wrong_kind_is_damaged(
    runs_dir: Path, capsys: Capture, name: str, changes: dict[str, Any]
) -> None:
    edit(runs_dir / "wide-001" / name, **changes)
    for arguments in (["show", "wide-001"], ["list", "wide-001"], ["compare", "wide-001"]):
        assert run(["runs", *arguments]) == 5
        out, errors = capsys.readouterr()
        assert out == ""
        assert errors.startswith(f"nnctl: error: runs/wide-001/{name}: damaged")
        assert errors.replace("\n", "").isprintable()


def test_claim_of_overfitting_without_evidence_is_damaged(runs_dir: Path, capsys: Capture) -> None:
    path = runs_dir / "wide-001" / "summary.json"
    claim = json.loads(path.read_bytes())["overfitting"] | {"verdict": "overfitting"}
    claim["evidence"]["standard_error"] = None
    edit(path, overfitting=claim)
    assert run(["runs", "show", "wide-001"]) == 5
    assert "verdict" in capsys.readouterr().err


def test_metrics_without_a_monitored_loss_are_damaged(runs_dir: Path, capsys: Capture) -> None:
    path = runs_dir / "wide-001" / "metrics.jsonl"
    path.write_text(path.read_text().replace('"validation_loss":', '"validation_loss":null,"x":'))
    assert run(["runs", "show", "wide-001"]) == 5
    assert "metrics.jsonl: damaged" in capsys.readouterr().err


def test_names_and_messages_reach_the_terminal_escaped(
    runs_dir: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    (runs_dir / "wide-001").rename(runs_dir / "a\x1b[31m\nb")
    (runs_dir / "unheld-001").rename(runs_dir / "c\udcff")
    shutil.rmtree(runs_dir / "narrow-001")
    (runs_dir / "d\x1b[2J").mkdir()
    for arguments in (["list"], ["compare"], ["list", "--csv"], ["list", "--json"]):
        assert run(["runs", *arguments]) == 0
        out, errors = capsys.readouterr()
        if arguments != ["list", "--csv"]:  # whose quotes hold a newline as it is
            assert "\x1b" not in out + errors
        assert r"d\x1b[2J" in errors
        assert "c\\udcff" in out.replace("\\\\", "\\")


# show


def test_show_json_holds_config_figures_and_metrics(runs_dir: Path, capsys: Capture) -> None:
    content = json.loads(output(capsys, "show", "wide-001", "--json"))
    summary = json.loads((runs_dir / "wide-001" / "summary.json").read_bytes())
    assert content["overfitting"] == summary["overfitting"]
    assert content["config"]["training"]["epochs"] == 3
    assert content["config"]["network"][1] == {"relu": {}}
    lines = (runs_dir / "wide-001" / "metrics.jsonl").read_text().splitlines()
    assert content["metrics"] == [json.loads(line) for line in lines]


def test_show_prints_a_config_that_trains_again(runs_dir: Path, capsys: Capture) -> None:
    out = output(capsys, "show", "wide-001")
    text = out[out.index("name: wide") :].split("\n\n")[0]
    Path("again.yaml").write_text(text)
    assert load_settings("again.yaml") == load_settings("runs/wide-001/config.yaml")


def test_show_defaults_to_the_latest_run(runs_dir: Path, capsys: Capture) -> None:
    out = output(capsys, "show")
    assert out.startswith("unheld-001: completed")
    assert "Judged by the test set, as no validation set was held out" in " ".join(out.split())
    assert run(["runs", "show", "nowhere"]) == 5


# compare


def test_compare_shows_only_the_settings_that_differ(runs_dir: Path, capsys: Capture) -> None:
    content = compared(capsys, "narrow-001", "wide-001")
    assert content["settings"] == ["network.0.affine.units", "optimizer.learning_rate"]
    best, other = content["runs"]
    assert (best["run"], other["run"]) == ("wide-001", "narrow-001")
    assert best["settings"] == {"network.0.affine.units": 50, "optimizer.learning_rate": 0.1}
    assert other["settings"] == {"network.0.affine.units": 4, "optimizer.learning_rate": 0.01}
    head, first, second, *_ = output(capsys, "compare", "narrow-001", "wide-001").splitlines()
    assert head.split()[:3] == ["run", "units", "learning_rate"]
    assert first.split()[:3] == ["wide-001", "50", "0.1"]
    assert second.split()[:3] == ["narrow-001", "4", "0.01"]
    rows = list(csv.DictReader(io.StringIO(output(capsys, "compare", "--csv"))))
    assert [row["run"] for row in rows] == ["wide-001", "narrow-001", "unheld-001"]
    assert [row["network.0.affine.units"] for row in rows] == ["50", "4", "50"]
    assert [row["data.validation"] for row in rows] == ["300", "300", "0"]
    assert "settings" not in rows[0]  # a dictionary is no cell


def test_compare_says_when_validation_sets_differ(runs_dir: Path, capsys: Capture) -> None:
    assert "Their validation sets differ" in output(capsys, "compare", "wide-001", "unheld-001")
    assert "validation sets" not in output(capsys, "compare", "wide-001", "narrow-001")


def test_compare_takes_networks_of_other_layers_as_one_setting(
    runs_dir: Path, capsys: Capture
) -> None:
    path = runs_dir / "narrow-001" / "config.yaml"
    path.write_text(path.read_text().replace("- relu", "- tanh\n- dropout: 0.5"))
    content = compared(capsys, "narrow-001", "wide-001")
    assert content["settings"] == ["network", "optimizer.learning_rate"]
    networks = [entry["settings"]["network"] for entry in content["runs"]]
    assert networks == ["affine 50, relu, affine 10", "affine 4, tanh, dropout 0.5, affine 10"]


def test_compare_of_equal_runs_differs_in_nothing(runs_dir: Path, capsys: Capture) -> None:
    shutil.copytree(runs_dir / "wide-001", runs_dir / "wide-002")
    content = compared(capsys, "wide-001", "wide-002")
    assert content["settings"] == []
    assert content["difference"]["p_value"] == 1
    assert "All settings are the same." in output(capsys, "compare", "wide-*")


def test_compare_takes_a_run_that_is_named_twice_once(runs_dir: Path, capsys: Capture) -> None:
    content = compared(capsys, "wide-001", "runs/wide-001", "w*")
    assert [run["run"] for run in content["runs"]] == ["wide-001"]


def test_runs_in_folders_of_one_name_are_told_apart(runs_dir: Path, capsys: Capture) -> None:
    for trial, name in (("0000", "wide-001"), ("0001", "narrow-001")):
        shutil.copytree(runs_dir / name, runs_dir.parent / "trials" / trial / "seed-0")
    pattern = "trials/*/seed-0"
    names = ["0000/seed-0", "0001/seed-0"]
    assert sorted(row["run"] for row in listed(capsys, pattern)) == names
    found = compared(capsys, pattern)["difference"]
    assert [found["first"], found["second"]] == names
    assert run(["plot", pattern]) == 0
    assert all(name in capsys.readouterr().out for name in names[:1])


def test_compare_tests_the_best_two_on_their_validation_images(
    runs_dir: Path, capsys: Capture
) -> None:
    write_predictions(runs_dir / "wide-001", "1" * 30)
    write_predictions(runs_dir / "narrow-001", "0" * 8 + "1" * 22)
    found = compared(capsys, "wide-001", "narrow-001")["difference"]
    assert (found["first"], found["second"], found["samples"]) == ("wide-001", "narrow-001", 30)
    assert (found["only_first"], found["only_second"]) == (8, 0)
    assert found["p_value"] == pytest.approx(2 / 256) == pytest.approx(mcnemar(8, 0))
    assert found["beyond_chance"] is True
    said = " ".join(output(capsys, "compare", "wide-001", "narrow-001").split())
    assert "differ by more than chance on the 30 validation images: 8 only wide-001 got" in said
    # The test images only where they are asked for.
    assert (
        compared(capsys, "wide-001", "narrow-001", "--split", "test")["difference"]["samples"] > 30
    )
    write_predictions(runs_dir / "narrow-001", "1" * 30)
    assert compared(capsys, "wide-001", "narrow-001")["difference"]["beyond_chance"] is False


def test_compare_says_of_equal_bytes_that_they_are_equal(runs_dir: Path, capsys: Capture) -> None:
    shutil.copytree(runs_dir / "wide-001", runs_dir / "wide-002")
    found = compared(capsys, "wide-*")["difference"]
    assert (found["identical"], found["p_value"]) == (True, 1.0)
    assert "wide-001 and wide-002 are the same to the byte." in output(capsys, "compare", "wide-*")
    assert compared(capsys, "wide-001", "narrow-001")["difference"]["identical"] is False


def test_compare_shows_threads_for_they_change_bytes(runs_dir: Path, capsys: Capture) -> None:
    shutil.copytree(runs_dir / "wide-001", runs_dir / "wide-002")
    edit(runs_dir / "wide-002" / "manifest.json", threads=2)
    assert compared(capsys, "wide-*")["settings"] == ["threads"]


def test_compare_shows_what_all_layers_share_in_one_column(runs_dir: Path, capsys: Capture) -> None:
    shutil.copytree(runs_dir / "wide-001", runs_dir / "wide-002")
    config = runs_dir / "wide-002" / "config.yaml"
    config.write_text(config.read_text().replace("he_normal", "zeros"))
    assert compared(capsys, "wide-*")["settings"] == ["network.0+2.affine.initializer.kind"]


def test_compare_groups_runs_that_differ_in_the_seed_alone(runs_dir: Path, capsys: Capture) -> None:
    """Worked by hand: differences 2, 1 and 3 points, mean 2, standard error 1 / sqrt(3)."""
    for seed, (wide, narrow) in enumerate([(0.95, 0.93), (0.94, 0.93), (0.96, 0.93)]):
        like(runs_dir, "wide-001", f"w-{seed}", seed, validation_accuracy=wide)
        like(runs_dir, "narrow-001", f"n-{seed}", seed, validation_accuracy=narrow)
    content = compared(capsys, "w-*", "n-*")
    wide, narrow = content["groups"]
    assert (wide["seeds"], wide["n"], wide["runs"]) == ([0, 1, 2], 3, ["w-0", "w-1", "w-2"])
    assert wide["mean"] == pytest.approx(0.95)
    assert wide["standard_deviation"] == pytest.approx(0.01)
    half = 4.30265273 * 0.01 / math.sqrt(3)  # Student's t, two degrees of freedom, 95 %
    assert wide["interval"] == pytest.approx([0.95 - half, 0.95 + half])
    assert narrow["standard_deviation"] == pytest.approx(0)
    found = content["group_difference"]
    assert found["mean"] == pytest.approx(0.02)
    assert found["interval"] == pytest.approx([0.02 - half, 0.02 + half])
    assert found["p_value"] == pytest.approx(0.0741799, abs=1e-6)  # t = 2 sqrt(3), 2 degrees
    said = " ".join(output(capsys, "compare", "w-*", "n-*").split())
    assert "n-0 to n-2 may be equally good: validation accuracy +2.00 points for the first" in said
    assert compared(capsys, "w-*")["group_difference"] is None


def test_compare_says_by_how_much_the_best_of_several_flatters(
    runs_dir: Path, capsys: Capture
) -> None:
    shutil.copytree(runs_dir / "wide-001", runs_dir / "wide-002")
    write_predictions(runs_dir / "wide-001", "1" * 90 + "0" * 10, "test")
    write_predictions(runs_dir / "wide-002", "1" * 82 + "0" * 10 + "1" * 8, "test")
    found = compared(capsys, "wide-*")["flattery"]
    # One of two is right on 16 of 100: 8 of variance each, sqrt(8) / sqrt(pi) of 100 images.
    assert (found["runs"], found["samples"]) == (2, 100)
    assert found["accuracy"] == pytest.approx(math.sqrt(8 / math.pi) / 100)
    assert "would still look 1.60 points better" in " ".join(
        output(capsys, "compare", "wide-*").split()
    )
    assert compared(capsys, "wide-001")["flattery"] is None


def test_compare_does_not_test_what_has_other_images(runs_dir: Path, capsys: Capture) -> None:
    pair = ("wide-001", "narrow-001")
    write_predictions(runs_dir / "narrow-001", "1" * 30)
    reason = "wide-001 and narrow-001 have different validation images"
    content = compared(capsys, *pair)
    assert (content["difference"], content["reason"]) == (None, reason)
    shutil.copy(runs_dir / "wide-001" / "validation_predictions.csv", runs_dir / "narrow-001")
    assert compared(capsys, *pair)["reason"] is None
    edit(runs_dir / "narrow-001" / "manifest.json", data_sha256={"train-images-idx3-ubyte": "0"})
    assert compared(capsys, *pair)["reason"] == reason
    (runs_dir / "narrow-001" / "validation_predictions.csv").unlink()
    assert compared(capsys, *pair)["reason"] == "narrow-001 keeps no validation predictions"
    assert "narrow-001 keeps no validation predictions." in output(capsys, "compare", *pair)


@pytest.mark.parametrize("content", ["", "index,label\n", "label,prediction\n1\n", "\x00" * 99])
def test_damaged_predictions_are_named(runs_dir: Path, capsys: Capture, content: str) -> None:
    (runs_dir / "wide-001" / "validation_predictions.csv").write_text(content)
    assert run(["runs", "compare", "wide-001", "narrow-001"]) == 5
    assert "wide-001/validation_predictions.csv: damaged" in capsys.readouterr().err


# What a person sees.


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_runs_fit_the_terminal_and_its_characters(
    runs_dir: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, width: int, locale: str
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LC_ALL", locale)
    for module in ("columns", "runs"):
        monkeypatch.setattr(f"nnctl.display.{module}.is_on_terminal", lambda: True)
    listing, comparison = output(capsys, "list"), output(capsys, "compare")
    for text in (listing, comparison):
        assert max(map(cell_len, text.splitlines())) <= width
        assert text.isascii()
        for name in ("wide-001", "narrow-001", "unheld-001"):
            assert name in text
    assert "validation" in listing
    for shown in ("units", "learning_rate", "epochs", "validation"):
        assert shown in comparison
    shown = output(capsys, "show", "wide-001")
    assert shown.isascii() == (locale == "C")


# verify


def test_verify_proves_exact_resume_and_only_reads_the_run(runs_dir: Path, capsys: Capture) -> None:
    before = {path: path.read_bytes() for path in runs_dir.rglob("*") if path.is_file()}
    found = json.loads(output(capsys, "verify", "wide-001", "--json"))
    assert found["exact"] is True
    last = (runs_dir / "wide-001" / "checkpoints" / "last.safetensors").read_bytes()
    digest = hashlib.sha256(last).hexdigest()
    assert {found["uninterrupted"], found["interrupted"], found["recorded"]} == {digest}
    assert 0 < found["step"] < found["steps"] == 30
    assert before == {path: path.read_bytes() for path in runs_dir.rglob("*") if path.is_file()}
    said = output(capsys, "verify")  # the latest
    assert "unheld-001: exact" in said
    assert f"of {2 * math.ceil(1000 / 100)}: " in said


def test_verify_compares_only_the_copies_with_other_threads(
    runs_dir: Path, capsys: Capture
) -> None:
    with_one = json.loads(output(capsys, "verify", "wide-001", "--json"))
    with_two = json.loads(output(capsys, "verify", "wide-001", "--json", "--threads", "2"))
    assert (with_two["exact"], with_two["recorded"]) == (True, None)
    assert with_two["uninterrupted"] != with_one["uninterrupted"]


def test_verify_fails_for_a_run_whose_bytes_are_others(runs_dir: Path, capsys: Capture) -> None:
    checkpoints = runs_dir / "wide-001" / "checkpoints"
    found = load_checkpoint(checkpoints / "last.safetensors")
    progress = replace(found.snapshot.progress, loss_sum=1.0)
    forged = replace(found, snapshot=replace(found.snapshot, progress=progress))
    (checkpoints / "last.safetensors").write_bytes(b"".join(dump(forged)))
    assert run(["runs", "verify", "wide-001", "narrow-001"]) == 3
    out, errors = capsys.readouterr()
    assert "wide-001: NOT exact" in out
    assert "narrow-001: exact" in out
    assert "nnctl: error: not exact: runs/wide-001\n" in errors


@pytest.fixture
def tuned(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run that began with the weights of wide-001, and keeps its batch losses."""
    arguments = ["--from", "wide-001", "--name", "tuned", "--set", "training.log_steps=true", "-q"]
    assert run(["train", "-c", "runs/wide-001/config.yaml", *arguments]) == 0
    monkeypatch.chdir("/")  # where the weights lie does not depend on the current folder
    monkeypatch.setenv("NNCTL_RUNS_DIR", str(runs_dir))
    return RunFolder(runs_dir / "tuned-001")


def test_verify_begins_with_the_weights_that_the_run_began_with(
    tuned: RunFolder, capsys: Capture
) -> None:
    capsys.readouterr()
    found = json.loads(output(capsys, "verify", "tuned-001", "--json"))
    assert (found["exact"], found["differences"]) == (True, [])
    digest = hashlib.sha256(tuned.last.read_bytes()).hexdigest()
    assert {found["uninterrupted"], found["interrupted"], found["recorded"]} == {digest}


def test_verify_finds_that_a_run_did_not_begin_with_the_weights_it_names(
    tuned: RunFolder, capsys: Capture
) -> None:
    """They differ in one weight, and the run's checkpoint was given their SHA-256."""
    wide, narrow = (RunFolder(tuned.path.with_name(f"{name}-001")) for name in ("wide", "narrow"))
    other = load_checkpoint(wide.best)
    other.snapshot.parameters["2.affine.bias"][0] += 0.01

    def name_origin(content: bytes) -> None:
        wide.best.write_bytes(content)
        named = replace(
            load_checkpoint(tuned.last), initial_sha256=hashlib.sha256(content).hexdigest()
        )
        tuned.last.write_bytes(b"".join(dump(named)))

    name_origin(b"".join(dump(other)))
    assert run(["runs", "verify", "tuned-001"]) == 3
    out = capsys.readouterr().out
    assert "tuned-001: NOT exact\n" in out
    assert "  differs: the run's own last.safetensors\n" in out
    assert "  differs: the run's own steps.jsonl: batch_loss is " in out
    name_origin(narrow.best.read_bytes())
    assert run(["runs", "verify", "tuned-001"]) == 5
    assert "but these do not fit its network\n" in capsys.readouterr().err


def test_verify_says_that_the_initial_weights_are_changed_or_missing(
    tuned: RunFolder, capsys: Capture
) -> None:
    wide = RunFolder(tuned.path.with_name("wide-001"))
    sha256 = hashlib.sha256(wide.best.read_bytes()).hexdigest()
    remedy = f"\nbring the original file back; its SHA-256 is {sha256}\n"
    origin = f"nnctl: error: {tuned.path}: began with the weights of {wide.best}, which "
    with wide.best.open("ab") as file:
        file.write(b"\0")
    for what in ("has changed since", "is missing"):
        assert run(["runs", "verify", "tuned-001"]) == 5
        assert f"{origin}{what}{remedy}" in capsys.readouterr().err
        wide.best.unlink(missing_ok=True)
    wide.best.mkdir()
    assert run(["runs", "verify", "tuned-001"]) == 5
    assert f"{origin}has changed since{remedy}" in capsys.readouterr().err
    manifest = json.loads(tuned.manifest.read_text())
    for entry in (None, {}, {"path": 3}, {"path": "a\0b"}):
        tuned.manifest.write_text(json.dumps(manifest | {"initial_weights": entry}))
        assert run(["runs", "verify", "tuned-001"]) == 5
        assert "a file that its manifest does not name\n" in capsys.readouterr().err


@pytest.mark.parametrize("steps", [20, 27])  # an epoch has ten
def test_verify_ends_its_copies_where_the_run_was_ended_by_hand(
    runs_dir: Path, capsys: Capture, steps: int
) -> None:
    config = str(runs_dir / "wide-001" / "config.yaml")
    settings = load_settings(config, [("name", "ended"), ("training.epochs", "9")])
    data, events = load_data("mnist-sample", Source()), list[Any]()
    with new_run(None, runs_dir, "ended") as ended:
        for event in train(
            *(settings, data, ended),
            threads=1,
            stop=lambda: getattr(events[-1], "step", 0) >= steps,
        ):
            events.append(event)
        for _ in train(settings, data, ended, before=resume_point(ended, ()), ending=True):
            pass
    found = json.loads(output(capsys, "verify", "ended-001", "--json"))
    assert (found["exact"], found["steps"]) == (True, steps)
    assert found["recorded"] is not None


@pytest.mark.parametrize(
    ("name", "line", "field", "said"),
    [
        ("steps.jsonl", 17, "batch_loss", "steps.jsonl: batch_loss is 0.5 in line 17, not "),
        ("metrics.jsonl", 2, "train_accuracy", "metrics.jsonl: train_accuracy is 0.5 in line 2,"),
    ],
)
def test_verify_finds_one_altered_figure(
    tuned: RunFolder, capsys: Capture, name: str, line: int, field: str, said: str
) -> None:
    path = tuned.path / name
    lines = path.read_text().splitlines(keepends=True)
    row = json.loads(lines[line - 1])
    lines[line - 1] = json.dumps(row | {field: 0.5}) + "\n"
    path.write_text("".join(lines))
    capsys.readouterr()
    assert run(["runs", "verify", "tuned-001", "--json"]) == 3
    out, errors = capsys.readouterr()
    found = json.loads(out)
    assert found["exact"] is False
    assert found["recorded"] == found["uninterrupted"]
    (difference,) = found["differences"]
    assert difference.startswith(f"the run's own {said}")
    assert str(row[field]) in difference
    assert "not exact: " in errors


def test_verify_finds_lines_that_are_missing_or_too_many_and_leaves_times_out(
    tuned: RunFolder, capsys: Capture
) -> None:
    steps = tuned.steps.read_text().splitlines(keepends=True)
    slow = [json.loads(line) | {"seconds": 99.0} for line in tuned.metrics.read_text().splitlines()]
    tuned.metrics.write_text("".join(f"{json.dumps(row)}\n" for row in slow))
    one_more = json.dumps({"step": len(steps) + 1, "batch_loss": 0.5}) + "\n"
    for lines, said in (
        (steps, []),
        (steps[:-1], ["the run's own steps.jsonl: ends at line 30"]),
        ([*steps, one_more], ["the run's own steps.jsonl: one line more at line 31"]),
    ):
        tuned.steps.write_text("".join(lines))
        capsys.readouterr()
        assert run(["runs", "verify", "tuned-001", "--json"]) == (3 if said else 0)
        assert json.loads(capsys.readouterr().out)["differences"] == said


@pytest.mark.parametrize("columns", ["20", "80"])
def test_tables_into_a_pipe_are_whole_and_a_terminal_is_told_what_is_left_out(
    runs_dir: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for command in (["list"], ["compare"]):
        assert run(["runs", *command]) == 0
        out, errors = capsys.readouterr()
        heading = out.splitlines()[0]
        assert {"validation", "test", "time", "overfitting"} <= set(heading.split())
        assert errors == ""
    monkeypatch.setattr("nnctl.display.columns.is_on_terminal", lambda: True)
    assert run(["runs", "list"]) == 0
    assert "nnctl: left out for want of room: " in capsys.readouterr().err
