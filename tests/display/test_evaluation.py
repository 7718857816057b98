"""The heat map of a confusion matrix, at all widths and with few characters."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from nnctl.datasets.catalogue import CATALOGUE
from nnctl.display.evaluation import ASCII_SHADES, SHADES, HeatMap, print_evaluation
from nnctl.nn.functions import Array
from nnctl.nn.metrics import per_class, wilson_interval
from nnctl.training.evaluation import EvaluationReport
from nnctl.training.mistakes import Mistake


class Ascii(Console):
    @property
    def encoding(self) -> str:
        return "ascii"


def drawn(heat_map: HeatMap, width: int = 80, kind: type[Console] = Console) -> list[str]:
    console = kind(file=io.StringIO(), width=width, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(heat_map)
    return capture.get().splitlines()


def confusion(classes: int = 10) -> Array:
    counts = np.random.default_rng(0).poisson(3.0, (classes, classes))
    np.fill_diagonal(counts, 1000)
    return counts


def numbers(line: str, shades: str = SHADES) -> list[int]:
    for character in f"·.{shades}":
        line = line.replace(character, " 0 " if character in "·." else " ")
    return [int(word) for word in line.split()]


@pytest.mark.parametrize(("kind", "shades"), [(Console, SHADES), (Ascii, ASCII_SHADES)])
def test_heat_map_shows_every_count(kind: type[Console], shades: str) -> None:
    counts = confusion()
    head, *rows, _ = drawn(HeatMap(counts), kind=kind)
    assert numbers(head) == list(range(10))
    for label, row in enumerate(rows):
        assert numbers(row, shades) == [label, *counts[label].tolist()]
        assert row.isascii() == (kind is Ascii)


def test_heat_map_shades_by_the_share_of_the_row() -> None:
    counts = np.array([[50, 10, 40], [25, 975, 0], [0, 200, 1800]])  # .1 .4, .025, .1
    _, first, second, third, legend = drawn(HeatMap(counts))
    assert first.split() == ["0", "50", "░10", "█40"]
    assert second.split() == ["1", "░25", "975", "·"]
    assert third.split() == ["2", "·", "░200", "1800"]
    assert legend == "█: up to 40.0% of a row"


def test_heat_map_of_a_faultless_network_has_no_shade() -> None:
    lines = drawn(HeatMap(np.diag([5, 7])))
    assert [line.split() for line in lines] == [["0", "1"], ["0", "5", "·"], ["1", "·", "7"]]


def test_heat_map_on_a_narrow_terminal_shows_percentages() -> None:
    counts = np.full((10, 10), 2)
    np.fill_diagonal(counts, 982)
    counts[3] = [0, 0, 0, 1000, 0, 0, 0, 0, 0, 0]
    counts[4, 5] = 102
    counts[4, 4] -= 100
    counts[5, 0], counts[5, 5] = 5, 979  # half a percent
    head, *rows, _, _ = drawn(HeatMap(counts), width=40)
    assert head.split() == [str(label) for label in range(10)]
    assert rows[0].split() == ["0", "98", *["░"] * 9]  # two in a thousand round to 0 %
    assert rows[3].split() == ["3", "·", "·", "·100", *["·"] * 6]
    assert rows[5].split() == ["5", *["░"] * 5, "98", *["░"] * 4]
    assert rows[4].split() == ["4", *["░"] * 4, "88█10", *["░"] * 4]


@pytest.mark.parametrize("classes", [2, 10, 47, 100, 256])
@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_heat_map_never_exceeds_the_terminal(classes: int, width: int) -> None:
    lines = drawn(HeatMap(confusion(classes)), width=width)
    assert max(map(cell_len, lines)) <= width
    if classes + 4 <= width:
        assert len(lines) > classes


def test_heat_map_names_classes_where_there_is_room() -> None:
    names = CATALOGUE["fashion-mnist"].class_names
    assert any("9 Ankle boot" in line for line in drawn(HeatMap(confusion(), names), 120))
    assert not any("Ankle boot" in line for line in drawn(HeatMap(confusion(), names), 40))


def test_heat_map_in_colour_keeps_the_numbers_and_needs_no_shades() -> None:
    counts = confusion()
    console = Console(file=io.StringIO(), width=80, color_system="truecolor", force_terminal=True)
    with console.capture() as capture:
        console.print(HeatMap(counts))
    assert not any(shade in capture.get() for shade in SHADES)
    assert "\x1b[1;37;48;2;" in capture.get()  # a background of its own for each number


def test_evaluation_of_clothes_names_the_classes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    counts = np.diag([90] * 10)
    counts[6, 0], counts[9, 7] = 8, 3
    report = EvaluationReport(
        run_dir="runs/clothes-001",
        checkpoint="best",
        dataset="fashion-mnist",
        split="test",
        samples=911,
        loss=0.25,
        accuracy=900 / 911,
        accuracy_interval=wilson_interval(900, 911),
        per_class=per_class(counts),
        confusion_matrix=counts.tolist(),
    )
    image = np.zeros(784, np.uint8)
    mistake = Mistake(index=12, label=6, image=image, classes=(0, 6), scores=(0.8, 0.15))
    names = CATALOGUE["fashion-mnist"].class_names
    took: dict[str, Any] = {"batch_size": 250, "seconds": 0.04}
    print_evaluation(report, names, (28, 28), [mistake], probabilities=True, **took)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "clothes-001, best checkpoint: fashion-mnist, test split, 911 images"
    assert lines[1] == "read in 4 batches of 250, in 0.04 s"
    assert lines[4] == "accuracy  98.79% (95% interval 97.85% to 99.32%)"
    assert [line.split() for line in lines if line.startswith("6 Shirt")] == [
        ["6", "Shirt", "100.0%", "91.8%", "95.7%", "98"],
        ["6", "Shirt", "█8", *["·"] * 5, "90", *["·"] * 3],
    ]
    assert "Most often confused: Shirt as T-shirt/top (8), Ankle boot as Sneaker (3)" in lines
    assert "Most confident mistakes (1 of 11):" in lines
    assert lines[-3:] == ["image 12: Shirt", "T-shirt/top  80.0%", "Shirt  15.0%"]
    print_evaluation(report, names, (28, 28), [mistake], probabilities=False, **took)
    assert "T-shirt/top  0.800" in capsys.readouterr().out
