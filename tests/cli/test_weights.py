"""`nnctl weights`, on runs trained on the bundled sample."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len
from safetensors.numpy import load_file

from nnctl.cli.group import run
from nnctl.display.weights import ASCII_SHADES, NEGATIVE, POSITIVE, SHADES
from nnctl.nn.functions import Array

Capture = pytest.CaptureFixture[str]
OFFLINE = ["--set", "data.dataset=mnist-sample"]


def output(capsys: Capture, *arguments: str) -> str:
    assert run(["weights", *arguments]) == 0
    return capsys.readouterr().out


def found(capsys: Capture, *arguments: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(output(capsys, *arguments, "--json"))
    return content


def weight(runs_dir: Path, name: str) -> Array:
    file = runs_dir / "wide-001" / "checkpoints" / "best.safetensors"
    array: Array = load_file(file)[name]
    return array


def sign(character: str, shades: tuple[str, str] = SHADES) -> int:
    return int(character in shades[0]) - int(character in shades[1])


def test_weights_of_a_run_are_its_checkpoints(runs_dir: Path, capsys: Capture) -> None:
    layers = found(capsys, "wide-001")["layers"]
    assert [layer["name"] for layer in layers] == ["0.affine", "1.relu", "2.affine"]
    assert [layer["shape"] for layer in layers] == [[784, 50], None, [50, 10]]
    for position in (0, 2):
        expected = weight(runs_dir, f"{position}.affine.weight").astype(np.float64)
        told = layers[position]["weight"]
        assert told["mean"] == pytest.approx(expected.mean(), abs=1e-9)
        assert told["std"] == pytest.approx(expected.std())
        assert (told["min"], told["max"]) == (expected.min(), expected.max())
        assert told["histogram"] == np.histogram(expected, 20)[0].tolist()
    assert layers[1]["weight"] is None


DROPOUT = [
    *("-c", "quickstart", "--set", "data.augment={shift: 2}", *OFFLINE),
    *("--set", "network=[{affine: 20}, sigmoid, {dropout: 0.5}, {affine: 10}]"),
]


@pytest.mark.parametrize(
    ("ours", "theirs"), [(["wide-001"], ["--run", "wide-001"]), (DROPOUT, DROPOUT)]
)
def test_activations_are_those_of_trace(
    runs_dir: Path, capsys: Capture, ours: list[str], theirs: list[str]
) -> None:
    layers = found(capsys, *ours)["layers"]
    assert run(["trace", *theirs, "--json"]) == 0
    traced = json.loads(capsys.readouterr().out)["layers"]
    for layer, expected in zip(layers, traced, strict=True):
        assert layer["activation"]["mean"] == expected["activation_mean"]
        assert layer["activation"]["std"] == expected["activation_std"]
        halves = np.reshape(layer["activation"]["histogram"], (10, 2)).sum(axis=1).tolist()
        assert halves == expected["activation_histogram"]
        for key in ("zero_fraction", "saturated_fraction", "dead_units"):
            assert layer[key] == expected[key]


def test_initializers_can_be_told_apart_before_training(capsys: Capture) -> None:
    def spread(initializer: str) -> tuple[float, float]:
        setting = ["--set", f"network.0.affine.initializer={initializer}", *OFFLINE]
        report = found(capsys, "-c", "quickstart", *setting)
        assert report["run"] is None
        first = report["layers"][0]
        return first["weight"]["std"], first["activation"]["std"]

    assert spread("zeros") == (0, 0)
    small, activations = spread("{kind: normal, std: 0.01}")
    assert small == pytest.approx(0.01, rel=0.02)
    assert spread("he_normal")[0] == pytest.approx((2 / 784) ** 0.5, rel=0.02)
    assert spread("{kind: normal, std: 1}")[1] == pytest.approx(100 * activations, rel=0.02)


def test_first_layer_is_drawn_as_images(runs_dir: Path, capsys: Capture) -> None:
    lines = output(capsys, "wide-001", "--units", "7").splitlines()
    assert lines[0].endswith("0.affine, 1 of 50 units")
    picture = weight(runs_dir, "0.affine.weight")[:, 7].reshape(28, 28)
    drawn = [line[:28].ljust(28) for line in lines[2:16]]
    signs = np.array([[sign(character) for character in line] for line in drawn])
    means = picture.reshape(14, 2, 28).mean(axis=1)
    assert (signs != 0).mean() > 0.3
    assert (signs * means >= 0).all()
    assert (signs[np.abs(means) > np.quantile(np.abs(means), 0.9)] != 0).all()


def test_later_layer_is_drawn_as_a_heat_map(runs_dir: Path, capsys: Capture) -> None:
    lines = output(capsys, "wide-001", "--layer", "2").splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("0 "))
    rows = np.array([[sign(c) for c in line[2:].ljust(50)] for line in lines[start : start + 10]])
    expected = weight(runs_dir, "2.affine.weight").T
    assert rows.shape == expected.shape
    assert (rows * expected >= 0).all()
    assert (rows != 0).mean() > 0.5


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize("layer", ["0", "2"])
def test_weights_fit_the_terminal_and_its_characters(
    runs_dir: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
    locale: str,
    layer: str,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LC_ALL", locale)
    text = output(capsys, "wide-001", "--layer", layer)
    if columns >= 40:
        assert max(map(cell_len, text.splitlines())) <= columns
    assert text.isascii() == (locale == "C")
    assert any(shade in text for shade in (ASCII_SHADES if locale == "C" else SHADES)[1])


def test_picture_shows_the_sign_of_every_strong_weight(
    runs_dir: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run(["weights", "wide-001", "--layer", "2", "--output", "-"]) == 0
    content = capfdbinary.readouterr().out
    picture = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
    expected = weight(runs_dir, "2.affine.weight").T
    assert picture.shape == (160, 800, 3)
    cells = picture[8::16, 8::16]
    largest = np.quantile(np.abs(expected), 0.99)
    assert (cells[expected >= largest] == POSITIVE).all()
    assert (cells[expected <= -largest] == NEGATIVE).all()
    assert (cells[np.abs(expected) < 0.02 * largest] == 255).all()
    assert run(["weights", "wide-001", "--layer", "2", "--output", "again.png"]) == 0
    assert Path("again.png").read_bytes() == content


def test_picture_of_the_first_layer_holds_all_units(runs_dir: Path) -> None:
    assert run(["weights", "wide-001", "--output", "first.png"]) == 0
    with Image.open("first.png") as picture:
        assert picture.size == (3 * (8 * 29 - 1), 3 * (7 * 29 - 1))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["wide-001", "--layer", "1"], 2, "there are 0.affine, 2.affine"),
        (["wide-001", "--units", "50"], 2, "has units 0 to 49"),
        (["wide-001", "--config", "quickstart"], 2, "RUN and --config"),
        (["wide-001", "--json", "--output", "-"], 2, "standard output"),
        (["wide-001", "--output", "picture.jpg"], 2, "must end in .png"),
        (["nowhere-001"], 5, "nowhere-001"),
    ],
)
def test_weights_refuses_what_it_cannot_draw(
    runs_dir: Path, capsys: Capture, arguments: list[str], code: int, words: str
) -> None:
    assert run(["weights", *arguments]) == code
    result, error = capsys.readouterr()
    assert result == ""
    assert error.startswith("nnctl: error: ")
    assert words in error
