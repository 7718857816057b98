"""Images in the terminal: two pixels to a character, one above the other.

    console().print(Gallery(images, captions))

With colour a half block shows both pixels in their own grey. Without it, the character whose ink
comes closest to the two stands for them. An image that is wider than the terminal is shrunk.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from rich.color import Color
from rich.columns import Columns
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from nnctl.nn.functions import Array

# How bright each character makes the upper and the lower half of its place, 0..1.
BLOCKS = {
    " ": (0.0, 0.0),
    "░": (0.25, 0.25),
    "▒": (0.5, 0.5),
    "▓": (0.75, 0.75),
    "█": (1.0, 1.0),
    "▀": (1.0, 0.0),
    "▄": (0.0, 1.0),
}
ASCII = {
    " ": (0.0, 0.0),
    ".": (0.0, 0.3),
    "'": (0.3, 0.0),
    ":": (0.3, 0.3),
    "_": (0.0, 0.7),
    '"': (0.7, 0.0),
    "+": (0.5, 0.5),
    "#": (0.8, 0.8),
    "@": (1.0, 1.0),
}


@dataclass(frozen=True)
class Picture:
    """One image (rows, columns) of bytes, 0 dark and 255 bright, with a caption below it."""

    image: Array
    caption: str = ""

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the width: the image's own, or what the terminal leaves for it."""
        width = shrink(self.image, options.max_width).shape[1]
        return Measurement(width, width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines of the image, then the caption."""
        image = shrink(self.image, options.max_width)
        in_colour = console.color_system is not None and not console.no_color
        for upper, lower in row_pairs(image):
            if in_colour and not options.ascii_only:
                places = zip(upper.astype(int), lower.astype(int), strict=True)
                for greys, same in itertools.groupby(places):
                    yield Segment("▀" * len(list(same)), _style(*greys))
            else:
                yield Segment(_characters(upper, lower, ASCII if options.ascii_only else BLOCKS))
            yield Segment.line()
        yield from caption_below(image, self.caption, console, options)


@dataclass(frozen=True)
class Gallery:
    """Images (n, rows, columns) side by side, as many as the width takes, each with its caption."""

    images: Array
    captions: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield row after row of pictures."""
        pairs = zip(self.images, self.captions, strict=True)
        yield Columns([Picture(*pair) for pair in pairs], padding=(0, 2))


def row_pairs(image: Array) -> Array:
    """Return the rows of `image` two by two, (lines, 2, columns); an odd last one gets zeros."""
    rows, columns = image.shape
    pairs = np.zeros((math.ceil(rows / 2), 2, columns))
    pairs.reshape(-1, columns)[:rows] = image
    return pairs


def caption_below(
    image: Array, caption: str, console: Console, options: ConsoleOptions
) -> Iterable[Segment]:
    """Return the caption of an image, centred below it and folded to its width; "": nothing."""
    if not caption:
        return ()
    text = Text(caption, justify="center", overflow="fold")
    return console.render(text, options.update(width=image.shape[1]))


def shrink(image: Array, width: int) -> Array:
    """Return `image` no wider than `width`: squares of pixels become their mean."""
    rows, columns = image.shape
    factor = math.ceil(columns / max(width, 1))
    if factor == 1:
        return image
    rows, columns = math.ceil(rows / factor), math.ceil(columns / factor)
    padded = np.zeros((rows * factor, columns * factor))
    padded[: image.shape[0], : image.shape[1]] = image
    squares = padded.reshape(rows, factor, columns, factor)
    means: Array = squares.mean(axis=(1, 3))
    return means


def _characters(upper: Array, lower: Array, glyphs: dict[str, tuple[float, float]]) -> str:
    """Return the character for each pair of pixels whose brightness comes closest to theirs."""
    pixels = np.stack([upper, lower], axis=-1) / 255
    inks = np.array(list(glyphs.values()))
    distances = np.square(pixels[:, None] - inks).sum(axis=-1)
    names = list(glyphs)
    return "".join(names[nearest] for nearest in distances.argmin(axis=1))


@cache
def _style(upper: int, lower: int) -> Style:
    return Style(color=Color.from_rgb(upper, upper, upper), bgcolor=Color.from_rgb(*[lower] * 3))
