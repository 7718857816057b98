"""Weights as pictures, in files, pages and terminals, and their distributions.

Blue is above zero, orange below it. Without colour two kinds of characters tell the sign.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
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

from nnctl.display.charts import sparkline
from nnctl.display.digits import caption_below, row_pairs, shrink
from nnctl.display.png import png
from nnctl.display.tables import NOTHING, Rows
from nnctl.errors import counted
from nnctl.inspection.weights import Distribution, LayerDistributions
from nnctl.nn.functions import Array

POSITIVE, NEGATIVE = (11, 107, 203), (201, 84, 24)
GLOWING = (98, 176, 255), (255, 150, 84)  # the same on a dark ground
LEVELS = 24  # of a colour, beside none: as many as can be told apart
GAP = 1  # pixels between pictures
SIDE = 800  # pixels that a picture file has at least, where the weights are few

# From small to large, above and below zero.
SHADES = "░▒▓█", "-~=≡"
ASCII_SHADES = ":+*#", "-~=%"
FIGURES = ("mean", "std", "min", "histogram", "max")
MORE = ("zeros", "saturated", "dead")


def levels(weights: Array, largest: float, count: int = LEVELS) -> Array:
    """Return weights as whole numbers from -count to count, which `largest` and beyond get."""
    shares = np.nan_to_num(weights / (largest or 1.0))
    rounded: Array = np.rint(np.clip(shares, -1.0, 1.0) * count).astype(np.intp)
    return rounded


def tiled(images: Array, columns: int) -> Array:
    """Return images (n, rows, columns) beside and below each other as one, `GAP` apart."""
    count, height, width = images.shape
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP), images.dtype)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        y, x = row * (height + GAP), column * (width + GAP)
        sheet[y : y + height, x : x + width] = image
    return sheet


def weights_png(weights: Array, largest: float, *, opaque: bool = False) -> bytes:
    """Return weights (rows, columns) as a PNG.

    Zero is white if it is to be `opaque`, else see-through, so that any ground suits.
    """
    strengths = np.linspace(0, 1, LEVELS + 1)
    halves = [_colours(colour, strengths, opaque) for colour in (NEGATIVE, POSITIVE)]
    palette = np.concatenate([halves[0][:0:-1], halves[1]])
    return png((levels(weights, largest) + LEVELS).astype(np.uint8), palette)


def _colours(colour: tuple[int, int, int], strengths: Array, opaque: bool) -> Array:
    """Return a colour in these strengths, 0..1, as rows of red, green, blue and opacity."""
    rows = np.full((len(strengths), 4), 255.0)
    if opaque:
        rows[:, :3] += strengths[:, None] * (np.array(colour) - 255.0)
    else:
        rows[:, :3], rows[:, 3] = colour, 255 * strengths
    rounded: Array = np.rint(rows).astype(np.uint8)
    return rounded


def enlarged(weights: Array) -> Array:
    """Return weights (rows, columns) as squares of pixels, so that few of them can be seen."""
    factor = max(1, SIDE // max(weights.shape))
    squares: Array = weights.repeat(factor, axis=0).repeat(factor, axis=1)
    return squares


@dataclass(frozen=True)
class UnitPicture:
    """A unit's weights as an image (rows, columns), two rows to a line.

    `largest` and beyond get the full shade. Without colour a character stands for both rows' mean.
    """

    weights: Array
    largest: float
    caption: str = ""

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the width: the weights' own, or what the terminal leaves for them."""
        width = shrink(self.weights, options.max_width).shape[1]
        return Measurement(width, width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines, then the caption."""
        weights = shrink(self.weights, options.max_width)
        for pair in row_pairs(weights):
            if _in_colour(console, options):
                places = zip(*levels(pair, self.largest).tolist(), strict=True)
                for place, same in itertools.groupby(places):
                    yield Segment("▀" * len(list(same)), _style(*place))
            else:
                yield Segment(_characters(pair.mean(axis=0), self.largest, _shades(options)))
            yield Segment.line()
        yield from caption_below(weights, self.caption, console, options)


@dataclass(frozen=True)
class WeightGallery:
    """Units' pictures (n, rows, columns) side by side, as many as the width takes."""

    images: Array
    captions: Sequence[str]
    largest: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield row after row of pictures."""
        maps = [
            UnitPicture(image, self.largest, caption)
            for image, caption in zip(self.images, self.captions, strict=True)
        ]
        yield Columns(maps, padding=(0, 2))


@dataclass(frozen=True)
class WeightMatrix:
    """Weights (units, inputs): a line for each unit, in blocks of as many inputs as fit."""

    weights: Array
    units: Sequence[int]  # their numbers
    largest: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield block after block, each below the numbers of its inputs."""
        margin = len(str(max(self.units))) + 1
        inputs, room = self.weights.shape[1], max(options.max_width - margin, 1)
        in_colour = _in_colour(console, options)
        for start in range(0, inputs, room):
            block = self.weights[:, start : start + room]
            if room < inputs:
                last = start + block.shape[1] - 1
                yield Text(f"inputs {start:,} to {last:,}", style="dim")
            for unit, row in zip(self.units, block, strict=True):
                yield Segment(f"{unit:>{margin - 1}} ")
                if in_colour:
                    for level, same in itertools.groupby(levels(row, self.largest).tolist()):
                        yield Segment(" " * len(list(same)), Style(bgcolor=_colour(level)))
                else:
                    yield Segment(_characters(row, self.largest, _shades(options)))
                yield Segment.line()


def _in_colour(console: Console, options: ConsoleOptions) -> bool:
    has_colour = console.color_system is not None and not console.no_color
    return has_colour and not options.ascii_only


def _shades(options: ConsoleOptions) -> tuple[str, str]:
    return ASCII_SHADES if options.ascii_only else SHADES


@dataclass(frozen=True)
class WeightLegend:
    """What the shades mean."""

    largest: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield a line."""
        ends = f"the strongest: {self.largest:.3g} and beyond"
        if _in_colour(console, options):
            yield Text(f"blue: above zero, orange: below zero; {ends}", style="dim")
        else:
            above, below = _shades(options)
            yield Text(f"above zero {above}  below zero {below}  {ends}")


@dataclass(frozen=True)
class DistributionsView:
    """Histograms of each layer's weights and of its activations."""

    layers: Sequence[LayerDistributions]
    batch_size: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield two tables."""
        ascii_only = options.ascii_only
        yield Text("Weights", style="bold")
        yield Rows(
            ("layer", "shape", *FIGURES),
            [
                [layer.name, "x".join(map(str, layer.shape)), *_figures(layer.weight, ascii_only)]
                for layer in self.layers
                if layer.weight is not None and layer.shape is not None
            ],
        )
        images = counted(self.batch_size, "image")
        yield Text(f"\nActivations: what each layer puts out for {images}", style="bold")
        yield Rows(
            ("layer", *FIGURES, *MORE),
            [
                [
                    layer.name,
                    *_figures(layer.activation, ascii_only),
                    f"{layer.zero_fraction:.1%}",
                    NOTHING
                    if layer.saturated_fraction is None
                    else f"{layer.saturated_fraction:.1%}",
                    NOTHING if layer.dead_units is None else str(layer.dead_units),
                ]
                for layer in self.layers
            ],
        )


def _figures(found: Distribution, ascii_only: bool) -> list[str]:
    """Return mean, std, and the histogram between its ends."""
    low, high = (NOTHING if end is None else f"{end + 0.0:.3g}" for end in (found.min, found.max))
    bars = sparkline(found.histogram, ascii_only)
    return [f"{found.mean + 0.0:.3g}", f"{found.std:.3g}", low, bars, high]


def _characters(weights: Array, largest: float, shades: tuple[str, str]) -> str:
    """Return a character for each weight: of one kind above zero, of another below."""
    above, below = shades
    glyphs = f"{below[::-1]} {above}"
    return "".join(glyphs[level + len(below)] for level in levels(weights, largest, len(below)))


@cache
def _style(upper: int, lower: int) -> Style:
    return Style(color=_colour(upper), bgcolor=_colour(lower))


def _colour(level: int) -> Color:
    bright = GLOWING[0] if level > 0 else GLOWING[1]
    return Color.from_rgb(*(round(part * abs(level) / LEVELS) for part in bright))
