"""What `nnctl evaluate` shows: figures, the table of classes, confusions, mistakes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style
from rich.text import Text

from nnctl.display.digits import Gallery
from nnctl.display.output import console
from nnctl.display.tables import NOTHING, figures
from nnctl.errors import counted, printable
from nnctl.nn.functions import Array
from nnctl.nn.metrics import ClassFigures
from nnctl.training.evaluation import EvaluationReport
from nnctl.training.mistakes import Mistake

SHADES = "░▒▓█"  # of a confusion, from rare to frequent
ASCII_SHADES = ":+*#"
WRONG = (64, 16, 16), (200, 24, 24)  # the background of a rare and of the most frequent confusion
RIGHT = (16, 56, 32), (16, 112, 48)  # of a class that is seldom and always recognised
CONFUSIONS = 5  # are named below the matrix
CLASS_COLUMNS = ("class", "precision", "recall", "F1", "images")


def print_evaluation(
    report: EvaluationReport,
    class_names: Sequence[str] | None,
    image_shape: tuple[int, int],
    mistakes: Sequence[Mistake],
    *,
    probabilities: bool,
    batch_size: int,
    seconds: float,
) -> None:
    """Print the figures of an evaluation for a person, then mistakes as pictures.

    `probabilities` says whether the mistakes' scores are that, or a network's raw outputs;
    `seconds` is how long it took to read the images, `batch_size` at a time.
    """
    out = console()
    confusion = np.array(report.confusion_matrix)
    low, high = report.accuracy_interval
    checkpoint = printable(report.checkpoint)
    if report.run_dir is not None and checkpoint in ("best", "last"):
        checkpoint = f"{printable(Path(report.run_dir).name)}, {checkpoint} checkpoint"
    out.print(
        f"{checkpoint}: {printable(report.dataset)}, {report.split} split, "
        f"{counted(report.samples, 'image')}"
    )
    samples = report.samples
    batches = math.ceil(samples / batch_size)
    of = f"1 batch of {samples:,}" if batches == 1 else f"{batches:,} batches of {batch_size:,}"
    out.print(f"read in {of}, in {seconds:.2f} s")
    out.print(f"\nloss      {report.loss:.4f}")
    out.print(f"accuracy  {report.accuracy:.2%} (95% interval {low:.2%} to {high:.2%})\n")
    out.print(figures(CLASS_COLUMNS, class_cells(report.per_class, class_names)))
    out.print("\nConfusion matrix: rows are true classes, columns predictions")
    out.print(HeatMap(confusion, class_names))
    if often := often_confused(confusion, class_names):
        out.print(f"\nMost often confused: {often}")
    if mistakes:
        wrong = int(confusion.sum() - confusion.trace())
        out.print(f"\nMost confident mistakes ({len(mistakes)} of {wrong:,}):\n")
        images = np.stack([mistake.image.reshape(image_shape) for mistake in mistakes])
        captions = [caption(mistake, class_names, probabilities) for mistake in mistakes]
        out.print(Gallery(images, captions))


def class_label(label: int, class_names: Sequence[str] | None) -> str:
    """Return a class as people know it: by its name, or the digit itself."""
    return class_names[label] if class_names else str(label)


def class_cells(rows: Sequence[ClassFigures], class_names: Sequence[str] | None) -> list[list[str]]:
    """Return the figures of each class as people read them, below `CLASS_COLUMNS`."""
    cells = []
    for row in rows:
        label = f"{row.label} {class_names[row.label]}" if class_names else str(row.label)
        ratios = (row.precision, row.recall, row.f1)
        shown = [NOTHING if ratio is None else f"{ratio:.1%}" for ratio in ratios]
        cells.append([label, *shown, f"{row.support:,}"])
    return cells


def often_confused(confusion: Array, class_names: Sequence[str] | None) -> str:
    """Return the pairs of classes that are confused most often, in words."""
    wrong = confusion * ~np.eye(len(confusion), dtype=bool)
    places = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [(*divmod(int(place), len(confusion)), int(wrong.flat[place])) for place in places]
    return ", ".join(
        f"{class_label(true, class_names)} as {class_label(predicted, class_names)} ({count:,})"
        for true, predicted, count in pairs
        if count
    )


def caption(mistake: Mistake, class_names: Sequence[str] | None, probabilities: bool) -> str:
    """Return which image a mistake is, and the likeliest classes with their scores, on lines."""
    lines = [f"image {mistake.index}: {class_label(mistake.label, class_names)}"]
    for label, score in zip(mistake.classes, mistake.scores, strict=True):
        shown = f"{score:6.1%}" if probabilities else f"{score:6.3f}"
        lines.append(f"{class_label(label, class_names)} {shown}")
    return "\n".join(lines)


@dataclass(frozen=True)
class HeatMap:
    """A confusion matrix (classes, classes) of counts: a number and a shade in every place.

    The shade is the share of the row's samples; with colour it is the background, without it a
    character before the number. Where the counts don't fit stand percentages of the row, and
    where these don't, the shades alone.
    """

    confusion: Array
    class_names: Sequence[str] | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield a line for each true class, and one that explains the shades."""
        classes = len(self.confusion)
        labels = [str(label) for label in range(classes)]
        margin = len(labels[-1]) + 1
        room = (options.max_width - margin) // classes  # for a place
        if room < 1:
            yield Text(f"(of {classes} classes: too wide for this terminal; --json has it)")
            return
        width, unit, numbers = self._numbers(room)
        names = [f"{label:>{margin - 1}} " for label in labels]
        if self.class_names and width > 1:
            longest = max(map(len, self.class_names))
            if margin + longest + width * classes <= options.max_width:
                pairs = zip(names, self.class_names, strict=True)
                names = [f"{label}{name:<{longest}}" for label, name in pairs]
                margin += longest
        # The eight colours of old terminals have no shades.
        in_colour = console.color_system in ("256", "truecolor") and not console.no_color
        glyphs = ASCII_SHADES if options.ascii_only else SHADES
        zero = "." if options.ascii_only else "·"
        heads = (f"{label[-width:]:>{width}}" for label in labels)
        yield Text(" " * margin + "".join(heads), style="dim", no_wrap=True)
        worst, shades = heats(self.confusion)
        for true, name in enumerate(names):
            line = Text(name, no_wrap=True)
            for predicted, number in enumerate(numbers[true]):
                heat, right = shades[true, predicted], true == predicted
                glyph = " " if right or in_colour else glyphs[math.ceil(heat * len(glyphs)) - 1]
                if not self.confusion[true, predicted]:
                    line.append(f"{zero:>{width}}", "dim")
                elif width == 1:
                    line.append("\\" if right else glyph, _style(heat, right, in_colour))
                else:
                    cell = f"{glyph + number:>{width}}" if len(number) < width else number
                    line.append(cell, _style(heat, right, in_colour))
            yield line
        if worst:
            scale = "the brightest red" if in_colour else glyphs[-1]
            yield Text(f"{unit}{scale}: up to {worst:.1%} of a row", style="dim")

    def _numbers(self, room: int) -> tuple[int, str, list[list[str]]]:
        """Return the width of a place within `room`, what its numbers are, and these."""
        counts, classes = self.confusion.tolist(), len(self.confusion)
        digits = len(f"{self.confusion.max()}")
        if room >= digits + 2:
            return (
                digits + 2,
                "",
                [[str(count) if count else "" for count in row] for row in counts],
            )
        if room >= 3:
            shares = _shares(self.confusion).tolist()
            percentages = [[_percent(share) for share in row] for row in shares]
            return 3, "numbers are percentages of a row; ", percentages
        return 1, "", [[""] * classes] * classes


def _shares(confusion: Array) -> Array:
    """Return each count as a fraction of its row, (classes, classes)."""
    shares: Array = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    return shares


def heats(confusion: Array) -> tuple[float, Array]:
    """Return the largest share of a row off the diagonal, and all shares on a scale of 0..1.

    Off the diagonal the scale is that of the largest share there.
    """
    shares, diagonal = _shares(confusion), np.eye(len(confusion), dtype=bool)
    worst = float((shares * ~diagonal).max())
    return worst, np.where(diagonal, shares, shares / (worst or 1))


def _percent(share: float) -> str:
    """Return a share in at most three characters; where it rounds to 0 the shade says enough."""
    rounded = f"{share * 100:.0f}"
    return "" if rounded == "0" else rounded


def _style(heat: float, right: bool, in_colour: bool) -> Style:
    """Return how a place that is not zero is written."""
    if not in_colour:
        return Style(bold=right)
    low, high = RIGHT if right else WRONG
    mixed = [round(a + (b - a) * heat) for a, b in zip(low, high, strict=True)]
    return Style(color="white", bgcolor=Color.from_rgb(*mixed), bold=right)
