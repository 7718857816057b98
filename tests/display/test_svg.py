"""SVG and PNG made without a library: read back by those who have one."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from nnctl.display.charts import Chart, Mark, Series
from nnctl.display.markup import Markup, element, escaped
from nnctl.display.png import png
from nnctl.display.svg import COLOURS, DASHES, drawing, figure
from nnctl.display.weights import LEVELS, tiled, weights_png


def curves(chart: Chart) -> list[list[tuple[float, float]]]:
    root = ElementTree.fromstring(drawing(chart))
    return [
        [(float(x), float(y)) for x, y in (p.split(",") for p in line.attrib["points"].split())]
        for line in root.iter("polyline")
    ]


def test_svg_places_points_in_proportion() -> None:
    ((first, second, third),) = curves(Chart("loss", [Series("a", [(1, 0.0), (2, 1.0), (5, 4.0)])]))
    assert (second[0] - first[0]) / (third[0] - first[0]) == pytest.approx(0.25, abs=0.01)
    assert (first[1] - second[1]) / (first[1] - third[1]) == pytest.approx(0.25, abs=0.01)


def test_svg_leaves_gaps_where_nothing_is_known() -> None:
    points = [(1, 0.5), (2, 0.4), (3, None), (4, float("nan")), (5, 0.2), (6, 0.1)]
    assert [len(line) for line in curves(Chart("loss", [Series("a", points)]))] == [2, 2]


def test_svg_shows_a_lone_point_and_no_point() -> None:
    assert "<circle" in drawing(Chart("loss", [Series("a", [(1, 0.5)])]))
    assert "no value" in drawing(Chart("loss", [Series("a", [])]))


def test_svg_of_many_points_is_small_and_keeps_every_peak() -> None:
    noise = np.random.default_rng(0).random(20_000)
    noise[7777], noise[3333] = 2.0, -1.0
    chart = Chart("loss", [Series("a", [*enumerate(noise.tolist())])])
    assert len(drawing(chart)) < 20_000
    ((*places,),) = curves(chart)
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    heights = [y for _, y in places]
    left, right = places[0][0], places[-1][0]
    for index, found in ((7777, min(heights)), (3333, max(heights))):
        x = places[heights.index(found)][0]
        assert (x - left) / (right - left) == pytest.approx(index / 20_000, abs=0.01)


def test_svg_on_a_log_axis_is_even_in_powers_of_ten() -> None:
    chart = Chart("loss", [Series("a", [(1, 1.0), (2, 0.1), (3, 0.01), (4, 0.0)])], log_y=True)
    ((a, b, c),) = curves(chart)
    assert b[1] - a[1] == pytest.approx(c[1] - b[1], abs=0.2)


def test_svg_curves_differ_without_colour_and_are_named() -> None:
    names = [f"run {index}" for index in range(COLOURS * DASHES)]
    drawn = figure(Chart("loss", [Series(name, [(1, 0.5), (2, 0.1)]) for name in names]))
    classes = re.findall(r'<polyline points="[^"]*" class="([^"]*)"', drawn)
    assert len(set(classes)) == len(names)
    assert len({found.split()[1] for found in classes[:DASHES]}) == DASHES
    assert all(f" {name}</span>" in drawn for name in names)


def test_svg_escapes_names() -> None:
    hostile = "</svg><script>&\x1b"
    drawn = figure(Chart(hostile, [Series(hostile, [(1, 2.0)])], [Mark(1, hostile)], hostile))
    assert "<script" not in drawn
    assert "\x1b" not in drawn
    assert drawn.count("&lt;script&gt;&amp;\\x1b") >= 4
    ElementTree.fromstring(drawn)


def test_markup_is_escaped_once_and_only_once() -> None:
    assert escaped(escaped("<")) == "&lt;"
    assert element("p", Markup("<b>&lt;</b>"), "<") == "<p><b>&lt;</b>&lt;</p>"
    assert element("p", title='"><script>') == '<p title="&quot;&gt;&lt;script&gt;"></p>'


def test_png_is_what_others_read() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 13), np.uint8)
    picture = Image.open(io.BytesIO(png(pixels)))
    picture.load()
    assert picture.mode == "L"
    assert np.array_equal(np.array(picture), pixels)
    palette = np.random.default_rng(1).integers(0, 256, (256, 4), np.uint8)
    coloured = Image.open(io.BytesIO(png(pixels, palette))).convert("RGBA")
    assert np.array_equal(np.array(coloured), palette[pixels])


def test_weights_are_see_through_at_zero_and_strongest_at_the_ends() -> None:
    weights = np.array([[-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, np.nan]])
    picture = np.array(Image.open(io.BytesIO(weights_png(weights, 1.0))).convert("RGBA"))[0]
    assert picture[:, 3].tolist() == [255, 255, 128, 0, 128, 255, 0]
    assert (picture[1, :3] != picture[5, :3]).any()
    assert LEVELS % 2 == 0  # so that a half is one of them


def test_tiles_lie_apart_in_reading_order() -> None:
    images = np.arange(1, 4)[:, None, None] * np.ones((3, 2, 2))
    sheet = tiled(images, 2)
    assert sheet.tolist() == [
        *[[1, 1, 0, 2, 2]] * 2,
        [0, 0, 0, 0, 0],
        *[[3, 3, 0, 0, 0]] * 2,
    ]
