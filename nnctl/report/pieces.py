"""The page itself, and the pieces that all of its parts are made of.

The page makes no request, runs no script, and can be printed. Its Content-Security-Policy allows
pictures that it holds itself, and its style sheet.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nnctl import __version__
from nnctl.display.columns import Column
from nnctl.display.markup import Markup, element

HEATS = 9  # shades of a confusion


def page(title: str, parts: Iterable[Markup]) -> bytes:
    """Return a whole page with this title."""
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8") + _shades()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title}: nnctl report"),
        element("style", Markup(style)),
    )
    footer = element("footer", f"made with nnctl {__version__}")
    body = element("body", element("main", *parts), footer)
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n".encode()


def _shades() -> str:
    """Return the style of the confusion matrix's shades."""
    rules = []
    for level in range(1, HEATS + 1):
        opacity = 0.08 + 0.57 * level / HEATS
        rules.append(f".right-{level} {{ background: rgb(16 132 60 / {opacity:.2f}); }}")
        rules.append(f".wrong-{level} {{ background: rgb(214 38 38 / {opacity:.2f}); }}")
    return "\n".join(rules) + "\n"


def section(heading: str, *parts: Markup, is_wide: bool = False) -> Markup:
    """Return a part of the page below a heading; as wide as the page if `is_wide`."""
    return element("section", element("h2", heading), *parts, class_="full" if is_wide else None)


def pairs(facts: Mapping[str, object]) -> Markup:
    """Return facts, each with its name."""
    rows = (element("div", element("dt", key), element("dd", facts[key])) for key in facts)
    return element("dl", *rows, class_="facts")


def table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], text_columns: int = 1
) -> Markup:
    """Return a table: so many columns of text, then figures."""

    def cells(tag: str, row: Sequence[object]) -> list[Markup]:
        kinds = [None if place < text_columns else "number" for place in range(len(row))]
        return [element(tag, cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)]

    head = element("thead", element("tr", *cells("th", headings)))
    body = element("tbody", *(element("tr", *cells("td", row)) for row in rows))
    return element("div", element("table", head, body), class_="wide")


def columns_table(columns: Sequence[Column]) -> Markup:
    """Return a table of columns, the first of which names its rows."""
    kinds = [None if place == 0 or c.is_text else "number" for place, c in enumerate(columns)]
    head = (element("th", c.heading, class_=kind) for c, kind in zip(columns, kinds, strict=True))
    rows = (
        element("tr", *(element("td", x, class_=kind) for x, kind in zip(row, kinds, strict=True)))
        for row in zip(*(column.cells for column in columns), strict=True)
    )
    parts = element("thead", element("tr", *head)), element("tbody", *rows)
    return element("div", element("table", *parts), class_="wide")
