import io
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType

from nnctl.display.canvas import DASHES, make_pens
from nnctl.display.charts import Chart, Mark, Point, Series, SideBySide
from nnctl.display.scales import alike, fit, round_log_numbers, round_numbers, short

NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.none()
XS = st.floats(allow_nan=True, allow_infinity=True) | st.integers(1, 10**6).map(float)


class Screen(Console):
    encoding = "utf-8"


class AsciiScreen(Console):
    encoding = "ascii"


def drawn(chart: RenderableType, width: int = 40, *, ascii_only: bool = False) -> list[str]:
    kind = AsciiScreen if ascii_only else Screen
    screen = kind(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False)
    with screen.capture() as capture:
        screen.print(chart)
    return capture.get().splitlines()


def line(*ys: float | None) -> list[Point]:
    return [(x, y) for x, y in enumerate(ys, 1)]


def test_ascii_chart_is_as_drawn_by_hand() -> None:
    chart = Chart("loss", [Series("a", line(0, 1, 2, 3))], height=4, x_label="x")
    assert drawn(chart, 16, ascii_only=True) == [
        "loss  **** a",
        "  |           **",
        "2 +       ****",
        "  |   ****",
        "0 +***",
        "  +----+-------+",
        "x      2       4",
    ]


def test_braille_dots_are_as_drawn_by_hand() -> None:
    # Two cells by one row are 4 x 4 dots: a diagonal from the lower left to the upper right.
    chart = Chart("", [Series("a", line(0, 1, 2, 3))], height=1)
    assert drawn(chart, 2)[-1] == chr(0x2800 + 0x40 + 0x20) + chr(0x2800 + 0x02 + 0x08)


@pytest.mark.parametrize("ascii_only", [False, True])
@given(
    points=st.lists(st.lists(st.tuples(XS, NUMBERS), max_size=8), max_size=7),
    mark=XS,
    width=st.integers(1, 130),
    height=st.integers(1, 12),
    log_x=st.booleans(),
    log_y=st.booleans(),
)
def test_chart_is_never_wider_than_asked(
    ascii_only: bool,
    points: list[list[Point]],
    mark: float,
    width: int,
    height: int,
    log_x: bool,
    log_y: bool,
) -> None:
    series = [Series(f"run {index} 測", curve) for index, curve in enumerate(points)]
    chart = Chart("t", series, [Mark(mark, "m")], "x", log_x, log_y, height)
    lines = drawn(chart, width, ascii_only=ascii_only)
    assert max(map(cell_len, lines)) <= width
    if ascii_only:
        assert set("".join(lines).replace("測", "")) <= set(map(chr, range(32, 127)))


@pytest.mark.parametrize("width", [14, 40, 80, 120])
def test_x_axis_is_exactly_as_wide_as_asked(width: int) -> None:
    axis = drawn(Chart("t", [Series("a", line(1, 2))]), width)[-2]
    assert cell_len(axis) == width


def test_chart_has_the_height_that_was_asked_for() -> None:
    lines = drawn(Chart("t", [Series("a", line(1, 2))], height=7))
    assert sum("│" in text or "┤" in text for text in lines) == 7


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf])
def test_missing_values_leave_a_gap(missing: float | None) -> None:
    whole = drawn(Chart("", [Series("a", line(1, 1, 1, 1, 1, 1))], height=1), 30)
    parted = drawn(Chart("", [Series("a", line(1, 1, missing, missing, 1, 1))], height=1), 30)
    plot = parted[1][len("epoch  ") :]
    assert " " not in whole[1][len("epoch  ") :]
    assert len(plot.split()) == 2
    # Five intervals over the width: the two that touch the missing points and the one between.
    assert plot.count(" ") == pytest.approx(len(plot) * 3 / 5, abs=2)


def test_log_axis_leaves_out_what_is_not_positive() -> None:
    chart = Chart("", [Series("a", line(1, 0, -1, 1))], log_y=True, height=1)
    assert len(drawn(chart, 30)[1][len("epoch  ") :].split()) == 2


def test_single_point_can_be_seen() -> None:
    text = "".join(drawn(Chart("", [Series("a", line(0.5))], height=5), 30)[1:6])
    assert any(0x2800 < ord(character) < 0x2900 for character in text)


def test_chart_without_points_still_has_axes() -> None:
    lines = drawn(Chart("t", [Series("a", [])]))
    assert "└" in lines[-2]


def test_constant_series_lies_in_the_middle() -> None:
    lines = drawn(Chart("", [Series("a", line(5, 5, 5))], height=5), ascii_only=True)
    assert ["*" in text for text in lines[1:6]] == [False, False, True, False, False]


def test_series_differ_without_colour() -> None:
    flat = [drawn(Chart("", [Series("a", line(*[n] * 9)) for n in range(4)], height=4))]
    rows = [text[len("epoch  ") :] for text in flat[0] if "┤" in text or "│" in text]
    assert len(set(rows)) == len(DASHES) == 4
    legend = flat[0][0]
    assert len({part.split(" a")[0] for part in legend.split("  ")}) == 4


def test_many_series_have_letters_at_their_ends_and_in_the_legend() -> None:
    series = [Series(f"run {n}", line(1, 2, 3 + n)) for n in range(6)]
    lines = drawn(Chart("", series, height=12), 80)
    for index, letter in enumerate("abcdef"):
        assert any(text.rstrip().endswith(letter) for text in lines[1:-2])
        assert f"{letter} " in lines[0].split(f"run {index}")[0]


def test_ascii_series_have_characters_of_their_own() -> None:
    markers = [pen.marker for pen in make_pens(20, ascii_only=True)]
    assert len(set(markers)) == 20


def test_mark_is_drawn_at_its_epoch_and_named() -> None:
    chart = Chart("", [Series("a", line(1, 1, 1, 1, 1))], [Mark(3, "best epoch 3")], height=5)
    lines = drawn(chart, 28)  # 21 cells for 5 epochs: epoch 3 is the eleventh
    assert "┊ best epoch 3" in lines[0]
    assert lines[1][len("epoch  ") + 10] == "┊"


def test_mark_outside_of_the_curves_is_still_shown() -> None:
    chart = Chart("", [Series("a", line(1, 2))], [Mark(10, "later")], height=5)
    assert lines_with(drawn(chart), "┊") >= 3


def lines_with(lines: Sequence[str], character: str) -> int:
    return sum(character in text for text in lines)


def test_x_range_leaves_room_for_what_is_to_come() -> None:
    chart = Chart("", [Series("a", line(1, 1))], x_range=(1, 11), height=1)
    plot = drawn(chart, 48)[1][len("epoch  ") :]
    assert len(plot.rstrip()) == pytest.approx(len("x" * 41) / 10, abs=1)


def test_long_legend_takes_more_lines() -> None:
    series = [Series("a name of twenty chars", line(1, 2)) for _ in range(3)]
    assert sum("name" in text for text in drawn(Chart("t", series), 40)) == 3


def test_charts_stand_side_by_side_where_there_is_room() -> None:
    charts = SideBySide([Chart("left", [Series("a", line(1, 2))])] * 2)
    assert drawn(charts, 100)[0].count("left") == 2
    narrow = drawn(charts, 60)
    assert lines_with(narrow, "left") == 0 or narrow[0].count("left") == 1
    assert "".join(narrow).count("left") == 2


@pytest.mark.parametrize(
    ("low", "high", "most", "numbers"),
    [
        (0, 1, 6, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 1, 5, [0, 0.5, 1]),
        (1, 16, 4, [5, 10, 15]),
        (-3, 3, 3, [-2, 0, 2]),
        (0.1, 0.3, 5, [0.1, 0.15, 0.2, 0.25, 0.3]),
        (1e-5, 9e-5, 5, [2e-5, 4e-5, 6e-5, 8e-5]),
        (12e9, 48e9, 4, [20e9, 30e9, 40e9]),
    ],
)
def test_round_numbers_are_multiples_of_one_two_or_five(
    low: float, high: float, most: int, numbers: list[float]
) -> None:
    assert round_numbers(low, high, most) == numbers


def test_round_numbers_of_a_whole_axis_are_whole() -> None:
    assert round_numbers(1, 3, 20, whole=True) == [1, 2, 3]


@given(st.floats(-8e307, 8e307), st.floats(-8e307, 8e307), st.integers(1, 30))
def test_round_numbers_lie_between_the_ends_and_are_not_too_many(
    a: float, b: float, most: int
) -> None:
    scale = fit([a, b])
    numbers = round_numbers(scale.low, scale.high, most)
    reach = scale.high - scale.low
    assert len(numbers) <= most
    assert all(scale.low - 1e-6 * reach <= n <= scale.high + 1e-6 * reach for n in numbers)
    assert numbers == sorted(set(numbers))


@given(st.floats(1e-290, 8e307), st.floats(1e-290, 8e307), st.integers(2, 30))
def test_round_log_numbers_lie_between_the_ends_and_are_not_too_many(
    a: float, b: float, most: int
) -> None:
    scale = fit([a, b], log=True)
    numbers = round_log_numbers(scale.low, scale.high, most)
    assert len(numbers) <= most
    assert all(scale.low * (1 - 1e-6) <= n <= scale.high * (1 + 1e-6) for n in numbers)


def test_log_axis_over_less_than_a_decade_still_has_labels() -> None:
    assert list(fit([0.31, 0.38], log=True).ticks(4).values()) == ["0.32", "0.34", "0.36", "0.38"]


@pytest.mark.parametrize(
    ("numbers", "texts"),
    [
        ([0, 0.5, 1], ["0.0", "0.5", "1.0"]),
        ([5, 10, 15], ["5", "10", "15"]),
        ([-0.25, 0, 0.25], ["-0.25", "0.00", "0.25"]),
        ([2e-5, 4e-5], ["2e-5", "4e-5"]),
        ([0, 5e9, 1e10], ["0.0e10", "0.5e10", "1.0e10"]),
        ([0], ["0"]),
        ([], []),
    ],
)
def test_labels_tell_the_numbers_exactly(numbers: list[float], texts: list[str]) -> None:
    assert alike(numbers) == texts


def test_short_numbers_are_short() -> None:
    assert [short(x) for x in (1, 0.1, 0.001, 1e-4, 1000, 20000, 5e-9)] == [
        "1", "0.1", "0.001", "1e-4", "1000", "2e4", "5e-9",
    ]  # fmt: skip
