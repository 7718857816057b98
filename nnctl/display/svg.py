"""Charts as SVG, for pages: the same plain data that the terminal and matplotlib draw.

Colours, dashes and fonts are the page's: the classes are `chart`, `grid`, `axis`, `mark`, and for
curves `c0`..`c7` (colour) with `d0`..`d3` (dash), so that no colour is needed to tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from nnctl.display.canvas import Place
from nnctl.display.charts import Chart, Series, lines
from nnctl.display.markup import Markup, element, joined

WIDTH, HEIGHT = 360, 220
TOP, RIGHT, BOTTOM = 8, 12, 34
CHARACTER = 6.3  # width of one in a label
COLOURS, DASHES = 8, 4
LEGEND = 24  # width of a sample in the legend


def figure(chart: Chart) -> Markup:
    """Return a chart as a figure: its title, a legend, the drawing."""
    entries = [
        element("span", _sample(index), " ", series.name, class_="entry")
        for index, series in enumerate(chart.series)
    ]
    entries += [
        element("span", _swatch("mark"), " ", mark.name, class_="entry") for mark in chart.marks
    ]
    caption = element("figcaption", element("b", chart.title), " ", joined(*entries))
    return element("figure", caption, drawing(chart), class_="chart")


def drawing(chart: Chart) -> Markup:
    """Return the SVG of a chart, without title and legend."""
    x_scale, y_scale = chart.scales()
    y_ticks = y_scale.ticks(6)
    left = 14 + CHARACTER * max(map(len, y_ticks.values()), default=0)
    x_ticks = x_scale.ticks(8)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def place(across: float, up: float) -> tuple[float, float]:
        return left + across * (right - left), bottom - up * (bottom - TOP)

    parts = []
    for tick, label in y_ticks.items():
        _, y = place(0, y_scale.position(tick) or 0)
        parts.append(_line(left, y, right, y, "grid"))
        parts.append(_text(left - 6, y + 4, label, "end"))
    for tick, label in x_ticks.items():
        x, _ = place(x_scale.position(tick) or 0, 0)
        parts.append(_line(x, bottom, x, bottom + 4, "axis"))
        parts.append(_text(x, bottom + 16, label, "middle"))
    parts.append(_line(left, bottom, right, bottom, "axis"))
    parts.append(_text((left + right) / 2, HEIGHT - 4, chart.x_label, "middle"))
    for mark in chart.marks:
        if (across := x_scale.position(mark.x)) is not None:
            x, _ = place(across, 0)
            parts.append(_line(x, TOP, x, bottom, "mark"))
    for index, series in enumerate(chart.series):
        for line in lines(series.points, x_scale, y_scale):
            parts.append(_curve([place(*point) for point in line], index))
    return element(
        "svg",
        element("title", _in_words(chart)),
        *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
    )


def _in_words(chart: Chart) -> str:
    """Return what the chart shows, for those who can't see it."""
    ends = [f"{series.name} {_span(series)}" for series in chart.series if _known(series)]
    return f"{chart.title} over {chart.x_label}: {'; '.join(ends) or 'no value'}"


def _span(series: Series) -> str:
    first, *rest = _known(series)
    return f"from {first:.4g} to {rest[-1]:.4g}" if rest else f"{first:.4g}"


def _known(series: Series) -> list[float]:
    return [y for _, y in series.points if y is not None]


def _curve(places: Sequence[tuple[float, float]], index: int) -> Markup:
    if len(places) == 1:  # a line of one point is not to be seen
        ((x, y),) = places
        return element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3, class_=_classes(index))
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in _thinned(places))
    return element("polyline", points=points, class_=_classes(index))


def _thinned(places: Sequence[Place]) -> Sequence[Place]:
    """Return the places; where many share a pixel's column, its highest and lowest alone."""
    if len(places) <= 2 * WIDTH:
        return places
    kept: list[Place] = []
    for _, column in groupby(places, key=lambda place: round(place[0])):
        by_height = sorted(column, key=lambda place: place[1])
        kept += sorted({by_height[0], by_height[-1]})
    return kept


def _classes(index: int) -> str:
    return f"c{index % COLOURS} d{(index + index // COLOURS) % DASHES}"


def _sample(index: int) -> Markup:
    return _swatch(_classes(index))


def _swatch(classes: str) -> Markup:
    line = _line(0, 5, LEGEND, 5, classes)
    return element(
        "svg", line, viewBox=f"0 0 {LEGEND} 10", width=LEGEND, height=10, aria_hidden="true"
    )


def _line(x1: float, y1: float, x2: float, y2: float, classes: str) -> Markup:
    return element(
        "line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=classes
    )


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)
