"""The shell's edge cases: streams that are closed or full, odd places, limits."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.robustness.conftest import Lab, Run

NNCTL = f"{sys.executable} -m nnctl"


def shell(lab: Lab, command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of shell in which `nnctl` is the program; its errors must be in words."""
    done = subprocess.run(
        ["bash", "-c", f'nnctl() {{ {NNCTL} "$@"; }}\n{command}'],
        cwd=lab.folder,
        capture_output=True,
        env={**os.environ, **environment},
        timeout=30,
    )
    assert b"Traceback" not in done.stderr, done.stderr
    assert b"This is a bug" not in done.stderr, done.stderr
    assert b"Exception ignored" not in done.stderr, done.stderr
    return done


RESULTS = ["graph 'a*b' a=2 b=3", "graph 'a*b' a=2 b=3 --json", "config list", "--help", "train -h"]


@pytest.mark.parametrize("command", RESULTS)
def test_result_that_can_not_be_written_is_an_error(lab: Lab, command: str) -> None:
    for lost in (">/dev/full", ">&-"):
        done = shell(lab, f"nnctl {command} {lost}")
        assert done.returncode == 1
        assert done.stderr.startswith(b"nnctl: error: standard output: ")
        assert done.stderr.count(b"nnctl: error") == 1
    done = shell(lab, f"nnctl {command} | true; exit ${{PIPESTATUS[0]}}")
    assert done.returncode in (0, 1)


@pytest.mark.parametrize("lost", ["2>/dev/full", "2>&-", "2>&- <&-", "2> >(true)"])
def test_messages_that_nobody_reads_end_nothing(lab: Lab, lost: str) -> None:
    config = lab.config()
    done = shell(lab, f"nnctl train -c {config} {lost}")
    assert done.returncode == 0
    assert b"runs/tiny-001" in done.stdout
    assert lab.run().epochs == 3
    assert shell(lab, f"nnctl train -c nowhere {lost}").returncode == 2


@pytest.mark.parametrize("lost", [">/dev/full", ">&-", ">&- 2>&- <&-", "| head -1", "| true"])
@pytest.mark.parametrize("option", ["--json", "-q"])
def test_run_whose_result_is_lost_can_be_gone_on_with(
    lab: Lab, trained: Path, lost: str, option: str
) -> None:
    config = lab.config()
    done = shell(lab, f"nnctl train -c {config} {option} {lost}; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 1 or "|" in lost
    assert len(done.stdout.splitlines()) <= 1
    lab("train", "--resume", "latest", "-q").check(0)
    assert lab.run().result == lab.run(trained / "tiny-001").result


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1", "TERM": "dumb", "COLUMNS": "20"},
        {"COLUMNS": "1", "LINES": "1"},
        {"COLUMNS": "many", "TERM": ""},
        {"HOME": "", "NO_COLOR": "1", "LANG": "xx_YY.nonsense"},
    ],
    ids=lambda environment: ",".join(f"{k}={v}" for k, v in environment.items()),
)
def test_odd_environments(lab: Lab, environment: dict[str, str]) -> None:
    config = lab.config(training={"epochs": 2})
    folder = "r\u00fcn \u2713"
    done = shell(lab, f"nnctl train -c {config} --run-dir '{folder}'", **environment)
    assert done.returncode == 0, done.stderr
    if "C" in environment.get("LC_ALL", "") or environment.get("PYTHONIOENCODING") == "ascii":
        assert done.stdout.rsplit(b"\n", 2)[0].isascii()  # the path is as it is
    done = shell(lab, f"nnctl evaluate '{folder}'; nnctl runs show '{folder}'", **environment)
    assert done.returncode == 0, done.stderr
    done = shell(lab, "nnctl train -c $'n\u00f6\\e[31m\\xff'", **environment)
    assert done.returncode == 2
    assert b"\x1b" not in done.stderr


def test_folder_that_is_gone_and_folders_that_can_not_be_written(lab: Lab) -> None:
    config = lab.config()
    command = "mkdir gone; cd gone; rmdir ../gone;"
    assert shell(lab, f"{command} nnctl train -c {config}").returncode == 1
    assert shell(lab, f"{command} nnctl graph a*2 a=1").returncode == 0
    for folder in ("/sys/runs", "/proc/runs", "/dev/null", f"{config}/runs"):
        done = shell(lab, f"nnctl train -c {config} --runs-dir {folder}")
        assert done.returncode == 1, (folder, done.stderr)
        assert folder.encode() in done.stderr


def test_checkpoint_larger_than_the_limit_leaves_the_one_before(lab: Lab) -> None:
    """A failure by the kernel itself."""
    config = lab.config()
    expected = lab("train", "-c", config, "-q").check(0) and lab.run().result
    run = lab.run("tiny-002")
    lab("train", "-c", config, "-q", below=run.path, at=60).check(-9)
    last = run.path / "checkpoints" / "last.safetensors"
    before = last.read_bytes() if last.exists() else None

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    resume = ["train", "--resume", "tiny-002", "-q"]
    outcome = lab.finish(lab.start(*resume, preexec_fn=limit)).check(1)
    assert "safetensors: the file is larger than is allowed here" in outcome.err
    assert (last.read_bytes() if last.exists() else None) == before
    assert list(run.path.rglob(".nnctl*")) == []
    lab(*resume).check(0)
    assert run.result == expected


def test_predictions_go_to_devices_and_tell_of_full_ones(lab: Lab, done: Run) -> None:
    csv = (done.path / "test_predictions.csv").read_bytes()
    told = shell(lab, "nnctl evaluate --json --predictions /dev/stderr")
    assert (told.returncode, told.stderr) == (0, csv)
    shell(lab, "nnctl evaluate --predictions out.csv")
    assert (lab.folder / "out.csv").read_bytes() == csv
    for path in ("/dev/full", "no/such/folder.csv", "."):
        told = shell(lab, f"nnctl evaluate --json --predictions {path}")
        assert told.returncode == 1
        assert path.encode() in told.stderr
    assert Path("/dev/full").is_char_device()
