"""A person's picture on its way to the network, and what the network reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.columns import Columns
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from nnctl.display.dashboard import bar
from nnctl.display.digits import Gallery
from nnctl.display.digits import Picture as Drawing
from nnctl.display.evaluation import class_label
from nnctl.display.output import console, warn
from nnctl.errors import printable
from nnctl.nn.functions import Array
from nnctl.pictures.preparation import Preparation, as_bytes, fit
from nnctl.pictures.reading import Picture
from nnctl.pictures.recognition import Recognition

DRAWN = 28  # columns of a stage that is drawn
WIDE = 58  # of a picture of several digits
LIKELIEST = 3  # classes that are named
BAR = 24  # cells of a bar that stands for certainty


def print_recognition(
    file: str,
    picture: Picture,
    stages: Preparation,
    found: Sequence[Recognition],
    class_names: Sequence[str] | None,
    *,
    probabilities: bool,
) -> None:
    """Print a picture's stages and the likeliest classes of each of its digits.

    `probabilities` says whether the scores are that, or a network's raw outputs.
    """
    out = console()
    read = " ".join(class_label(each.prediction, class_names) for each in found)
    out.print(f"{printable(file)}: {read}\n", style="bold")
    several = len(found) > 1
    width = WIDE if several else DRAWN
    drawings = [Drawing(_drawn(picture.grey / 255, width), "the picture")]
    if found[0].digit.box is not None:
        drawings.append(Drawing(_drawn(stages.ink, width), "its ink"))
    if several:
        out.print(Columns(drawings, padding=(0, 2)))
        out.print("\nwhat the network sees\n")
        images = np.stack([each.digit.image for each in found])
        lines = [_likeliest(each, class_names, probabilities) for each in found]
        out.print(Gallery(images, ["\n".join(each) for each in lines]))
    else:
        [one] = found
        if one.digit.box is not None:
            drawings.append(Drawing(_drawn(one.digit.crop, DRAWN), "the ink's box"))
        drawings.append(Drawing(one.digit.image, "what the network sees"))
        out.print(Columns(drawings, padding=(0, 2)))
        out.print()
        out.print(Likeliest(one, class_names, probabilities))
    out.print()
    for number, each in enumerate(found, 1):
        which = f", digit {number}" if several else ""
        for warning in each.warnings:
            warn(f"{printable(file)}{which}: {warning}")


def _drawn(ink: Array, width: int) -> Array:
    """Return an image of 0..1 as bytes: `width` columns wide or DRAWN rows high, up to white.

    A narrow one gets margins, so that captions have room.
    """
    rows, columns = ink.shape
    small = fit(ink, width if columns >= rows else DRAWN)
    canvas = np.zeros((small.shape[0], max(small.shape[1], DRAWN)))
    left = (canvas.shape[1] - small.shape[1]) // 2
    canvas[:, left : left + small.shape[1]] = small / (small.max() or 1)
    return as_bytes(canvas)


def _likeliest(
    read: Recognition, class_names: Sequence[str] | None, probabilities: bool
) -> dict[str, float]:
    """Return a line for each of the likeliest classes, name and score, with the score."""
    best = np.argsort(-read.scores, kind="stable")[:LIKELIEST].tolist()
    names = [class_label(label, class_names) for label in best]
    width = max(map(len, names))
    scores = [float(read.scores[label]) for label in best]
    return {
        f"{name:<{width}} {score:6.1%}" if probabilities else f"{name:<{width}} {score:6.3f}": score
        for name, score in zip(names, scores, strict=True)
    }


@dataclass(frozen=True)
class Likeliest:
    """The likeliest classes, a line each: name, score, and a bar."""

    read: Recognition
    class_names: Sequence[str] | None
    probabilities: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines."""
        for line, score in _likeliest(self.read, self.class_names, self.probabilities).items():
            room = min(BAR, options.max_width - len(line) - 2)
            yield Text(f"{line}  {bar(score, room, options)}", no_wrap=True)
