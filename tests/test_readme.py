"""The README's commands, run; what it says they print, held against what they print."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nnctl.cli.group import run
from nnctl.cli.options import EXIT_CODES
from nnctl.config import load_settings
from nnctl.course import read_course
from nnctl.nn.layers import LAYERS
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.nn.schedules import SCHEDULES

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
CONCEPTS = re.findall(
    r"^\|.*\| `(nnctl .*)` \|$", README.split("| concept |")[1].split("\n\n")[0], re.MULTILINE
)


def blocks(language: str, containing: str = "") -> list[str]:
    return [text for kind, text in BLOCKS if kind == language and containing in text]


def shell(script: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    if "jq " in script and not shutil.which("jq"):
        pytest.skip("jq is not installed")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, "NNCTL_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `latest` is a run."""
    folder = tmp_path_factory.mktemp("readme")
    assert shell("nnctl train --config quickstart --epochs 1 -q", folder).returncode == 0
    return folder


@pytest.mark.parametrize("script", blocks("sh"))
def test_readme_recipes_run(script: str, tmp_path: Path) -> None:
    done = shell(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "error" not in done.stderr


def test_readme_has_the_concepts_of_the_course() -> None:
    table = README.split("| concept |")[1].split("\n\n")[0]
    steps = read_course("en").steps
    assert [step.command for step in steps] == CONCEPTS
    for step in steps:
        assert f"| {step.concept} | {step.code} | `{step.command}` |" in table


@pytest.mark.parametrize("command", CONCEPTS)
def test_readme_concepts_can_be_seen(
    command: str, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    monkeypatch.setenv("NNCTL_OFFLINE", "1")
    nnctl, *arguments = shlex.split(command)
    assert nnctl == "nnctl"
    assert run(arguments) == 0, capsys.readouterr().err
    assert capsys.readouterr().out


def test_readme_gradients_are_those_that_graph_prints(tmp_path: Path) -> None:
    [shown] = blocks("text", "$ nnctl graph")
    command, _, expected = shown.removeprefix("$ ").partition("\n")
    lines = [line.rstrip() for line in shell(command, tmp_path).stdout.splitlines()]
    assert lines[: len(expected.splitlines())] == expected.splitlines()


def test_readme_config_shows_every_default(tmp_path: Path) -> None:
    [text] = blocks("yaml")
    network = re.search(r"^network:.*?(?=^loss)", text, re.MULTILINE | re.DOTALL)
    assert network
    full, least = tmp_path / "full.yaml", tmp_path / "my-network.yaml"
    full.write_text(text)
    least.write_text(network.group())
    assert load_settings(str(full)) == load_settings(str(least))
    keys = re.findall(r"\w+(?=:)", shell("nnctl config show -c my-network.yaml", tmp_path).stdout)
    assert all(name in text for name in (*LAYERS, *OPTIMIZERS, *SCHEDULES, *keys))


def test_readme_config_error_is_the_real_one(tmp_path: Path) -> None:
    [expected] = blocks("text", "did you mean")
    (tmp_path / "my.yaml").write_text("network:\n  - affine: 50\n  - rellu\n  - affine: 10\n")
    done = shell("nnctl train --config my.yaml", tmp_path)
    assert (done.returncode, done.stderr) == (2, expected)


def test_readme_weights_are_read_by_plain_numpy(tmp_path: Path) -> None:
    [recipe], [code] = blocks("sh", "--resume"), blocks("python", "safetensors")
    assert shell(recipe, tmp_path).returncode == 0
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert re.fullmatch(rb"\[\d\]\s+", done.stdout), done.stderr


@pytest.mark.parametrize("left", [[], ["manifest.json"], ["manifest.json", "metrics.jsonl"]])
def test_readme_job_that_was_killed_before_it_began_is_begun(
    tmp_path: Path, trained: Path, left: list[str]
) -> None:
    [recipe] = blocks("sh", "--resume")
    (tmp_path / "job").mkdir()
    for name in left:
        shutil.copy(trained / "runs" / "quickstart-001" / name, tmp_path / "job")
    done = shell(recipe, tmp_path)
    assert (done.returncode, done.stdout) == (0, "./job\n./job\n"), done.stderr


def test_readme_layer_is_found_right(tmp_path: Path) -> None:
    [code] = blocks("python", "check_layer")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "Softplus: right\n"
    assert f"`{done.stdout.strip()}`" in README


def test_readme_has_every_exit_code() -> None:
    told = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", README, re.MULTILINE)
            for code in row.split(",")}  # fmt: skip
    assert told == {*EXIT_CODES, 129, 143}


def test_readme_real_thing_runs_on_mnist(tmp_path: Path, mnist: Path) -> None:
    [script] = blocks("bash", "nnctl data fetch mnist")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mnist").symlink_to(mnist.resolve())
    done = shell(script, tmp_path)
    assert done.returncode == 0, done.stderr
    accuracy = re.search(r"accuracy  ([\d.]+)%", done.stdout)
    assert accuracy
    assert float(accuracy.group(1)) > 96.5
