"""What `nnctl train` prints where: in pipes, on terminals, for scripts."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nnctl.cli.group import cli, run
from nnctl.training.events import EpochFinished, RunFinished, RunStarted

CONFIG = """
data: {dataset: mnist-sample, train_size: 600, validation: 200}
network:
  - affine: 50
  - relu
  - affine: 10
training: {epochs: 2, batch_size: 100}
"""
TRAIN = ["train", "--config", "small.yaml", "--threads", "1"]
COLOUR = re.compile(r"\x1b\[[0-9;]*3\dm")


@pytest.fixture(autouse=True)
def no_settings_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(CONFIG)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "LC_ALL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("TERM", "xterm-256color")


def train(*arguments: str) -> Result:
    return CliRunner().invoke(cli, [*TRAIN, *arguments])


def process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [sys.executable, "-m", "nnctl", *TRAIN, *arguments]
    return subprocess.run(command, text=True, encoding="utf-8", timeout=60, **options)


def on_terminal(*arguments: str, stdout: bool, **environment: str) -> tuple[str, str]:
    """Run with standard error on a terminal; return what it got, and standard output if apart."""
    reader, writer = pty.openpty()
    received: list[bytes] = []

    def listen() -> None:
        try:
            while data := os.read(reader, 65536):
                received.append(data)
        except OSError:  # how Linux tells that the other end was closed
            pass

    thread = Thread(target=listen)
    thread.start()
    output: Any = writer if stdout else subprocess.PIPE
    done = process(*arguments, stdout=output, stderr=writer, env={**os.environ, **environment})
    os.close(writer)
    thread.join()
    os.close(reader)
    assert done.returncode == 0
    return b"".join(received).decode().replace("\r\n", "\n"), done.stdout or ""


def test_result_is_on_standard_output_and_a_line_an_epoch_on_standard_error() -> None:
    result = train()
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[-1] == "runs/small-001"
    assert lines[-2].startswith("completed after 2 epochs")
    assert [result.stdout.count(f"{title}  ") for title in ("loss", "accuracy (%)")] == [2, 1]
    assert "gap: validation - train" in result.stdout
    assert "Overfitting is undecided" in result.stdout
    progress = result.stderr.splitlines()
    assert [line.split("  ")[0] for line in progress] == ["epoch 1/2", "epoch 2/2"]
    assert "\x1b" not in result.output


def test_figures_at_the_end_are_those_of_the_summary() -> None:
    stdout = train().stdout
    summary = json.loads(Path("runs/small-001/summary.json").read_bytes())
    for part in ("train", "validation", "test"):
        figures = f"{summary[f'{part}_loss']:.4f} +{summary[f'{part}_accuracy']:.2%}"
        assert re.search(rf"^{part} +{figures}$", stdout, re.MULTILINE)
    assert f"best epoch {summary['best_epoch']} " in stdout


def test_json_lines_have_the_fields_of_the_contract() -> None:
    result = train("--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    names = ["run_started", "epoch_finished", "epoch_finished", "run_finished"]
    assert [line["event"] for line in lines] == names
    kinds: list[Any] = [RunStarted, EpochFinished, EpochFinished, RunFinished]
    for line, kind in zip(lines, kinds, strict=True):
        assert list(line) == ["event", *(field.name for field in fields(kind))]
    rows = Path("runs/small-001/metrics.jsonl").read_text().splitlines()
    assert [json.loads(row) for row in rows] == [
        {key: value for key, value in line.items() if key != "event"} for line in lines[1:3]
    ]
    evidence = lines[-1]["overfitting"]["evidence"]
    assert list(evidence) == ["best_epoch", "loss_rise", "standard_error"]
    assert len(result.stderr.splitlines()) == 2


def test_json_and_quiet_leave_standard_error_empty() -> None:
    result = train("--json", "-q")
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 4


def test_quiet_prints_the_run_directory_alone() -> None:
    result = train("-q")
    assert (result.stdout, result.stderr) == ("runs/small-001\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_quiet_prints_a_path_byte_for_byte() -> None:
    folder = os.fsdecode(b"a\xff b\n")
    assert train("-q", "--run-dir", folder).stdout_bytes == b"./a\xff b\n\n"


def test_quiet_imports_nothing_to_draw_with() -> None:
    code = (
        "import sys; from nnctl.cli.group import run; code = run(sys.argv[1:]);"
        "sys.exit(code or any(name in sys.modules for name in ('rich', 'requests')))"
    )
    command = [sys.executable, "-c", code, *TRAIN, "-q"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_validation_the_curves_show_test_figures_and_say_so() -> None:
    result = train("--set", "data.validation=0")
    assert "test (no validation set)" in result.stdout
    assert "validation loss" not in result.stdout
    assert "test loss" in result.stderr


def test_same_seed_prints_the_same_figures() -> None:
    first, second = train().stdout, train().stdout
    assert first.splitlines()[:-2] == second.splitlines()[:-2]  # but for time and folder


def test_dashboard_is_drawn_on_a_terminal_and_gives_way_to_the_result() -> None:
    terminal, _ = on_terminal(stdout=True)
    drawn, _, left = re.split(r"(\x1b\[\d+A)", terminal)[-3:]
    assert "step 0/12" in terminal
    assert "step" not in left
    assert re.fullmatch(r"(\x1b\[K\n)+\x1b\[K\r", drawn)  # wiped, line by line
    assert left.rstrip().endswith("runs/small-001")


def test_dashboard_stays_where_the_result_goes_elsewhere() -> None:
    terminal, output = on_terminal(stdout=False)
    assert "epoch 2/2  100%" in terminal
    assert output.rstrip().endswith("runs/small-001")
    assert "\x1b" not in output


def test_json_on_the_same_terminal_is_not_torn_by_a_dashboard() -> None:
    terminal, _ = on_terminal("--json", stdout=True)
    assert "\x1b" not in terminal
    assert terminal.count('{"event"') == 4


def test_json_in_a_pipe_comes_with_a_dashboard_on_the_terminal() -> None:
    terminal, output = on_terminal("--json", stdout=False)
    assert "step 0/12" in terminal
    assert [json.loads(line)["event"][:3] for line in output.splitlines()] == [
        "run",
        "epo",
        "epo",
        "run",
    ]


def test_dumb_terminal_gets_no_escape_sequence() -> None:
    terminal, _ = on_terminal(stdout=True, TERM="dumb")
    assert "\x1b" not in terminal
    assert "epoch 2/2" in terminal


def test_no_color_is_respected() -> None:
    assert COLOUR.search(on_terminal(stdout=True)[0])
    assert not COLOUR.search(on_terminal(stdout=True, NO_COLOR="1")[0])


def test_quiet_draws_nothing_on_a_terminal() -> None:
    assert on_terminal("-q", stdout=True)[0] == "runs/small-001\n"


def test_c_locale_gets_ascii() -> None:
    done = process(env={**os.environ, "LC_ALL": "C"})
    assert done.stdout.isascii()
    assert done.stderr.isascii()
    assert "**** train" in done.stdout


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_result_keeps_to_the_width(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert max(map(len, train().stdout.splitlines())) <= width


def test_run_directory_is_never_broken_over_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    folder = "runs/" + "a long name with spaces " * 4 + "x"
    assert train("--run-dir", folder).stdout.splitlines()[-1] == folder


def assert_told(stderr: str, reason: str) -> None:
    """Hold what isn't progress against an error and the way to go on."""
    error, remedy = [line for line in stderr.splitlines() if not line.startswith("epoch ")]
    assert error.startswith("nnctl: error: standard output: ")
    assert reason in error
    assert remedy == "go on with: nnctl train --resume runs/small-001"


@pytest.mark.parametrize("options", [[], ["--json"], ["-q"]])
def test_full_disk_behind_standard_output_is_told(options: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = process(*options, stdout=full)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if not line.startswith("epoch ")]
    assert errors[0].startswith("nnctl: error: ")
    assert "No space left" in errors[0]
    # A run that isn't finished can be gone on with.
    assert errors[1:] == (
        ["go on with: nnctl train --resume runs/small-001"] if options == ["--json"] else []
    )


@pytest.mark.parametrize("options", [[], ["--json"], ["-q"]])
def test_closed_pipe_behind_standard_output_is_told(options: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = process(*options, stdout=writer)
    os.close(writer)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "nnctl: error: standard output: Broken pipe" in done.stderr


@pytest.mark.parametrize("path", ["/dev/full", "closed"])
def test_lost_standard_error_stops_no_training(path: str) -> None:
    options: dict[str, Any] = {"preexec_fn": lambda: os.close(2)} if path == "closed" else {}
    with open("/dev/full", "w") as full:
        done = process(stderr=full, **options)
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith("runs/small-001")


def test_closed_standard_output_is_told() -> None:
    done = process(preexec_fn=lambda: os.close(1))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("nnctl: error: standard output: ")


def test_diverged_run_shows_its_curves_and_no_test_figures(
    capfd: pytest.CaptureFixture[str],
) -> None:
    wild = ["--lr", "1e18", "--set", "optimizer.kind=sgd"]
    code = run([*TRAIN, *wild])
    out, err = capfd.readouterr()
    assert code == 6
    assert "diverged after 0 epochs" in out
    assert out.splitlines()[-1] == "runs/small-001"
    assert err.startswith("nnctl: error: training diverged")
    code = run([*TRAIN, *wild, "--json"])
    last = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert code == 6
    assert (last["event"], last["status"], last["test_loss"]) == ("run_finished", "diverged", None)


def test_resume_of_a_finished_run_prints_its_end_again() -> None:
    first = train().stdout
    resume = ["train", "--resume", "small-001"]
    again = CliRunner().invoke(cli, resume)
    assert again.exit_code == 0
    assert again.stdout == first
    last = CliRunner().invoke(cli, [*resume, "--json"]).stdout
    summary = json.loads(Path("runs/small-001/summary.json").read_bytes())
    assert json.loads(last) == {"event": "run_finished", **summary}
    assert CliRunner().invoke(cli, [*resume, "-q"]).stdout == "runs/small-001\n"


def test_damaged_summary_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    train()
    path = Path("runs/small-001/summary.json")
    path.write_text('{"status": "completed", "epochs": "many"}')
    assert run(["train", "--resume", "latest"]) == 5
    assert f"{path}: damaged" in capfd.readouterr().err


def test_check_prints_layers_and_steps_and_writes_no_run() -> None:
    result = train("--check")
    assert result.exit_code == 0
    assert re.search(r"^0\.affine +\(100, 50\) +39,250$", result.stdout, re.MULTILINE)
    assert re.search(r"^total +39,760$", result.stdout, re.MULTILINE)
    assert "6 steps an epoch of 100 images, 2 epochs" in result.stdout
    assert "600 train, 200 validation, 2,000 test" in result.stdout
    assert not Path("runs").exists()


def test_check_as_json_is_one_object() -> None:
    plan = json.loads(train("--check", "--json").stdout)
    assert plan["steps_per_epoch"] == 6
    assert [layer["output_shape"] for layer in plan["layers"]] == [[100, 50], [100, 50], [100, 10]]
    assert sum(layer["parameters"] for layer in plan["layers"]) == plan["parameters"] == 39760
    assert train("--check", "-q").stdout == ""


@pytest.mark.parametrize("requirement", ["test_acuracy>=0.9", "test_accuracy", "status==1"])
def test_requirement_that_makes_no_sense_is_refused_before_anything_starts(
    requirement: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([*TRAIN, "--require", requirement]) == 2
    assert not Path("runs").exists()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("requirement", "code"),
    [("test_accuracy >= 0.1", 0), ("test_accuracy>1", 3), ("overfitting.gap<100", 0)],
)
def test_requirement_decides_the_exit_code_when_all_is_written(
    requirement: str, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([*TRAIN, "--require", requirement]) == code
    captured = capfd.readouterr()
    assert captured.out.splitlines()[-1] == "runs/small-001"
    assert ("nnctl: error" in captured.err) is (code == 3)
    assert Path("runs/small-001/test_predictions.csv").exists()


def test_no_test_leaves_the_test_files_unread(tmp_path: Path, raw_files: dict[str, bytes]) -> None:
    """They need not even be there; and the run goes on without them."""
    (tmp_path / "data").mkdir()
    for name, data in raw_files.items():
        if name.startswith("train"):
            (tmp_path / "data" / name).write_bytes(data)
    config = tmp_path / "config.yaml"
    config.write_text("data: {dataset: ./data, validation: 50}\nnetwork: [{affine: 10}]\n")
    arguments = ["train", "-c", str(config), "--no-test", "--epochs", "1", "--json"]
    for words in (arguments, ["train", "--resume", "latest", "--epochs", "2", "--json"]):
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == 0, result.output
        finished = json.loads(result.stdout.splitlines()[-1])
        assert finished["test_loss"] is finished["test_accuracy"] is None
        assert finished["validation_accuracy"] is not None
    assert not Path("runs/latest/test_predictions.csv").exists()
    assert run([*arguments, "--set", "data.validation=0"]) == 2  # nothing would be monitored
    assert run(["train", "-c", str(config), "-q"]) == 4
