"""HTML and SVG from plain data: what is not markup already is escaped, so nothing slips through.

element("p", "1 < 2 ", element("b", name), class_="note")
"""

from __future__ import annotations

import html

from nnctl.errors import printable

# Elements of HTML that hold nothing and have no end.
VOID = {"br", "img", "meta"}


class Markup(str):
    """Text that is HTML or SVG already."""

    __slots__ = ()


def escaped(text: object) -> Markup:
    r"""Return `text` as it can stand in HTML; only line breaks are left of what can't be seen.

    >>> escaped("<b>\x1b\n")
    '&lt;b&gt;\\x1b\n'
    """
    if isinstance(text, Markup):
        return text
    return Markup(html.escape("\n".join(map(printable, str(text).split("\n")))))


def joined(*parts: object) -> Markup:
    """Return the parts one after the other, escaped if they are not markup."""
    return Markup("".join(map(escaped, parts)))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return an element; attributes that are None are left out.

    `class_` means class, and `aria_label` aria-label.

    >>> element("p", "1 < 2", class_="note", title=None)
    '<p class="note">1 &lt; 2</p>'
    """
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    shown = "".join(
        f' {name}="{escaped(value)}"' for name, value in named.items() if value is not None
    )
    if tag in VOID:
        return Markup(f"<{tag}{shown}>")
    return Markup(f"<{tag}{shown}>{joined(*children)}</{tag}>")
