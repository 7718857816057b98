"""The files of a run are read within limits, and hold what they may hold."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from nnctl.errors import RunError, SystemFailure, UsageError
from nnctl.files import as_text
from nnctl.runs import folder as runs
from nnctl.runs import lock
from nnctl.runs.find import find_run
from nnctl.runs.folder import RunFolder, read_json, read_metrics, read_regular
from nnctl.training.events import EpochFinished

ROW = EpochFinished(
    epoch=1,
    step=10,
    train_loss=0.5,
    train_accuracy=0.75,
    validation_loss=None,
    validation_accuracy=None,
    test_loss=0.25,
    test_accuracy=1.0,
    batch_loss=1e-300,
    learning_rate=0.1,
    seconds=1.5,
    evaluation_seconds=float("nan"),
    samples_per_second=float("inf"),
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_row_is_read_back_and_what_is_not_finite_is_null(run: RunFolder) -> None:
    runs.append_row(run, ROW)
    runs.append_row(run, ROW)
    expected = vars(ROW) | {"evaluation_seconds": None, "samples_per_second": None}
    assert read_metrics(run) == [expected] * 2
    assert "NaN" not in run.metrics.read_text()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"epoch": 1}',
        runs.json_line(ROW).replace(b'"epoch":1', b'"epoch":"1"').strip(),
        runs.json_line(ROW).replace(b"0.75", b'"\\u001b[31m"').strip(),
        runs.json_line(ROW).replace(b"0.75", b"NaN").strip(),
        runs.json_line(ROW).replace(b"0.75", b"[0.75]").strip(),
    ],
)
def test_damaged_line_is_named_and_a_torn_one_left_out(run: RunFolder, line: bytes) -> None:
    good = runs.json_line(ROW)
    run.metrics.write_bytes(good + line + b"\n" + good)
    with pytest.raises(RunError, match=r"metrics\.jsonl:2: damaged line"):
        read_metrics(run)
    run.metrics.write_bytes(good + line)
    assert len(read_metrics(run)) == 1


def test_repair_keeps_the_epochs_of_the_history_and_their_timings(run: RunFolder) -> None:
    runs.append_row(run, ROW)
    timed = run.metrics.read_bytes()
    run.metrics.write_bytes(timed.replace(b"0.75", b"0.5") + b'{"epoch": 2, "st')
    runs.repair_metrics(run, [ROW])
    assert run.metrics.read_bytes() == timed
    before = run.metrics.stat().st_ino
    runs.repair_metrics(run, [ROW])
    assert run.metrics.stat().st_ino == before  # nothing was to be done
    runs.repair_metrics(run, [])
    assert run.metrics.read_bytes() == b""


def test_failed_row_leaves_the_file_as_it_was(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.append_row(run, ROW)
    before = run.metrics.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SystemFailure, match=r"metrics\.jsonl: the disk is full"):
        runs.append_row(run, ROW)
    assert run.metrics.read_bytes() == before


def test_files_without_end_are_refused(tmp_path: Path) -> None:
    huge, pipe = tmp_path / "huge", tmp_path / "pipe"
    with huge.open("wb") as file:
        file.truncate(2**40)
    os.mkfifo(pipe)
    for path, words in (
        (huge, "too large"),
        (pipe, "not a file"),
        (Path("/dev/zero"), "not a file"),
        (tmp_path, "not a file"),
        (tmp_path / "x", "missing"),
        (huge / "x", "missing"),
    ):
        with pytest.raises(RunError, match=words):
            read_regular(path)


@pytest.mark.parametrize("content", ["", "[]", "1", "{", "\udcff", "[" * 100_000, "{}x"])
def test_json_must_be_an_object(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunError, match=r"x\.json: damaged, not a JSON object"):
        read_json(path)


def test_json_holds_paths_of_any_bytes() -> None:
    text = as_text(os.fsdecode(b"a\xff\x1b"))
    assert json.loads(runs.json_line({"path": text})) == {"path": "a\\udcff\x1b"}


@pytest.mark.parametrize(
    ("built", "blas"),
    [
        ({"blas": {"name": "x", "version": "1.2"}}, "x 1.2"),
        ({"blas": {"name": "x"}}, "x"),
        ({}, ""),
    ],
)
def test_manifest_tells_of_blas_what_numpy_knows(
    built: dict[str, Any], blas: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    monkeypatch.setattr("numpy.show_config", lambda mode: {"Build Dependencies": built})
    assert runs.new_manifest()["blas"] == blas


def test_latest_is_found_as_the_run_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("runs")
    with pytest.raises(RunError, match="there is no run yet"):
        find_run("latest", folder)
    with lock.new_run(None, folder, "x") as run:
        run.manifest.write_text("{}")
        run.config.write_text("")
    lock.point_latest(folder, run)
    assert os.readlink(folder / "latest") == "x-001"
    for name in ("latest", "x-001", "runs/latest", "runs/x-001"):
        assert find_run(name, folder).path == folder / "x-001"
    with pytest.raises(RunError, match=r"no run 'nope' in runs.*\nruns in runs: x-001"):
        find_run("nope", folder)


def test_latest_of_another_folder_is_left_alone(tmp_path: Path) -> None:
    with lock.new_run(tmp_path / "elsewhere" / "x", tmp_path, "x") as run:
        lock.point_latest(tmp_path / "runs", run)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "latest").mkdir()  # somebody's own
    with lock.new_run(None, tmp_path / "runs", "x") as run:
        run.config.write_text("")
        lock.point_latest(tmp_path / "runs", run)
    assert os.listdir(tmp_path / "runs" / "latest") == []
    assert os.listdir(run.path) == ["config.yaml"]


def test_folder_is_as_it_was_if_the_run_does_not_begin(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    for run_dir in (folder, tmp_path / "new", None):
        with lock.new_run(run_dir, tmp_path / "runs", "x") as run:
            run.manifest.write_text("{}")
    assert sorted(os.listdir(tmp_path)) == ["empty", "runs"]
    assert os.listdir(folder) == os.listdir(tmp_path / "runs") == []


def test_run_can_not_be_called_latest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`latest` names the newest run"):
        lock.check_free(tmp_path / "latest", overwrite=False)


@pytest.mark.parametrize("arguments", [["--mirror"], ["--mirror="]])
def test_manifest_keeps_no_password_of_the_command_line(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://ada:secret@example.org/mnist/"
    typed = [*arguments, url] if arguments == ["--mirror"] else [f"--mirror={url}"]
    monkeypatch.setattr("sys.argv", ["nnctl", "train", *typed])
    command = runs.new_manifest()["command"]
    assert "secret" not in command
    assert "example.org/mnist/" in command
