"""`nnctl config`, as a person or a script meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

from nnctl.cli.group import run
from nnctl.config import bundled_configs, load_settings, to_dict
from nnctl.files import bundled

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_show_prints_a_config_that_means_the_same(here: Path, capsys: Capture) -> None:
    overrides = ["--set", "optimizer.kind=adam", "--lr", "0.5", "--epochs", "3", "--name", "b"]
    assert run(["config", "show", "--config", "two-layer", *overrides]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    (here / "shown.yaml").write_text(output)
    shown = load_settings("shown.yaml")
    assert (shown.name, shown.training.epochs) == ("b", 3)
    assert (shown.optimizer.kind, shown.optimizer.options["learning_rate"]) == ("adam", 0.5)
    assert shown.network == load_settings("two-layer").network


def test_show_prints_json(capsys: Capture) -> None:
    assert run(["config", "show", "-c", "deep", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == to_dict(load_settings("deep"))


def test_show_takes_the_config_from_the_environment(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNCTL_CONFIG", "linear")
    assert run(["config", "show"]) == 0
    assert capsys.readouterr().out.startswith("name: linear\n")
    monkeypatch.setenv("NNCTL_CONFIG", "")
    assert run(["config", "show"]) == 2
    assert "give --config FILE" in capsys.readouterr().err


def test_show_tells_all_errors_and_prints_nothing(here: Path, capsys: Capture) -> None:
    (here / "a.yaml").write_text("network:\n  - reluu\n")
    assert run(["config", "show", "-c", "a.yaml", "--set", "seed=x"]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors == (
        "nnctl: error: a.yaml:2:5: 'reluu' is no layer; did you mean relu?\n"
        "      - reluu\n"
        "        ^\n"
        "--set seed: seed must be a whole number, not the word 'x'\n"
        "    x\n"
        "    ^\n"
    )


def test_show_reads_standard_input_in_a_process() -> None:
    command = [sys.executable, "-m", "nnctl", "config", "show", "-c", "-", "--json"]
    done = subprocess.run(
        command, input=b"\xef\xbb\xbfnetwork: [{affine: 10}]\r\n", capture_output=True, check=True
    )
    assert json.loads(done.stdout)["name"] == "stdin"
    assert done.stderr == b""
    failed = subprocess.run(command, input=b"network: [\xff]", capture_output=True, check=False)
    assert (failed.returncode, failed.stdout) == (2, b"")
    assert failed.stderr.startswith(b"nnctl: error: <stdin>:1:11: byte 0xff is not UTF-8")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere paths are not the locale's")
@pytest.mark.parametrize("folder", ["./数字", "/数字"])
def test_path_that_the_locale_does_not_have_is_told(folder: str) -> None:
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "nnctl", "config", "show", "-c", "-"],
        input=f"network: [{{affine: 10}}]\ndata: {{dataset: {folder}}}".encode(),
        env=os.environ | locale,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"nnctl: error: <stdin>:2:17: data.dataset has characters that")


def test_train_tells_a_wrong_config_before_it_asks_for_data(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNCTL_DATA_DIR", str(here / "nothing"))
    monkeypatch.setenv("NNCTL_OFFLINE", "1")
    (here / "a.yaml").write_text("network: [{affine: 11}]\n")
    assert run(["train", "-c", "a.yaml"]) == 2
    assert capsys.readouterr().err.startswith(
        "nnctl: error: a.yaml:1:20: the network has 11 outputs, but the data set has 10 classes"
    )


def test_schema_is_printed_and_accepts_a_shown_config(capsys: Capture) -> None:
    assert run(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.validate(to_dict(load_settings("deep")), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"network": ["reluu"]}, schema)


@pytest.mark.parametrize("width", ["60", "80", "100"])
def test_schema_help_has_the_editors_line_in_one_piece(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    assert run(["config", "schema", "-h"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "# yaml-language-server: $schema=nnctl.schema.json" in map(str.strip, lines)


@pytest.fixture(params=[100, 40])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The width of the terminal."""
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


def test_list_names_each_config_and_what_it_shows(columns: int, capsys: Capture) -> None:
    assert run(["config", "list"]) == 0
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= columns
    for config in bundled_configs():
        assert {config.name, *config.description.split()} <= set(output.split())


def test_list_prints_a_config_a_line_as_json(capsys: Capture) -> None:
    assert run(["config", "list", "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"name": config.name, "description": config.description} for config in bundled_configs()
    ]


def test_copy_writes_a_bundled_config_under_its_name(here: Path, capsys: Capture) -> None:
    original = (bundled("configs") / "deep.yaml").read_bytes()
    assert run(["config", "copy", "deep"]) == 0
    assert capsys.readouterr().out == "deep.yaml\n"
    assert (here / "deep.yaml").read_bytes() == original
    (here / "folder").mkdir()
    assert run(["config", "copy", "deep", "folder"]) == 0
    assert run(["config", "copy", "deep", "folder/mine.yaml"]) == 0
    assert {path.name for path in (here / "folder").iterdir()} == {"deep.yaml", "mine.yaml"}
    assert load_settings("folder/mine.yaml").name == "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_copy_prints_the_path_byte_by_byte(
    here: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run(["config", "copy", "deep", os.fsdecode(b"caf\xe9.yaml")]) == 0
    assert capsysbinary.readouterr() == (b"caf\xe9.yaml\n", b"")


@pytest.mark.parametrize("kind", ["file", "link"])
def test_copy_refuses_to_overwrite(here: Path, capsys: Capture, kind: str) -> None:
    target = here / "mine.yaml"
    if kind == "file":
        target.write_text("mine")
    else:
        target.symlink_to("nowhere")
    assert run(["config", "copy", "deep", "mine.yaml"]) == 2
    assert capsys.readouterr() == (
        "",
        "nnctl: error: mine.yaml: exists already; name another DEST\n",
    )
    assert target.is_symlink() if kind == "link" else target.read_text() == "mine"
    assert [path.name for path in here.iterdir()] == ["mine.yaml"]


def test_copy_tells_what_went_wrong(capsys: Capture) -> None:
    assert run(["config", "copy", "depe"]) == 2
    assert "did you mean deep?" in capsys.readouterr().err
    assert run(["config", "copy", "../configs/deep"]) == 2
    assert run(["config", "copy", "deep", "missing/mine.yaml"]) == 1
    assert "missing/mine.yaml: there is no such folder" in capsys.readouterr().err


IMPORTS = """
import sys
from nnctl.config import load_settings
load_settings("deep")
print(*{"click", "rich", "requests", "msgspec", "jsonschema", "safetensors"} & set(sys.modules))
"""


def test_loading_a_config_imports_nothing_that_it_does_not_need() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, check=True)
    assert done.stdout.strip() == b""
