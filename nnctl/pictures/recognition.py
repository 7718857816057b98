"""What a network makes of a person's picture, and where that picture is unlike what it knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnctl.datasets import Samples
from nnctl.datasets.batches import Gatherer
from nnctl.errors import DataError
from nnctl.files import as_text
from nnctl.nn.functions import Array
from nnctl.nn.losses import Loss
from nnctl.nn.network import Network
from nnctl.pictures.preparation import (
    INK,
    SIDE,
    THICKEST,
    THINNEST,
    USUAL,
    Digit,
    Preparation,
    prepare,
    resized,
)
from nnctl.pictures.reading import Picture

# Of MNIST's test digits all but two of a thousand have ink between these, as a mean of 0..1.
LIGHTEST, HEAVIEST = 0.034, 0.291
WIDEST = 1.6  # times its height
SMALLEST = 12  # pixels of a digit's longest side in the picture; below, there is little to see


@dataclass(frozen=True)
class Reader:
    """A trained network and what its images look like."""

    network: Network
    loss: Loss
    image_shape: tuple[int, int]  # rows, columns
    mnist_like: bool


@dataclass(frozen=True)
class Recognition:
    """One digit of a picture, read."""

    digit: Digit
    scores: Array  # (classes,): probabilities; with mean_squared_error raw outputs
    box: tuple[int, int, int, int] | None  # left, top, right, bottom in pixels of the file
    warnings: list[str]

    inverted: bool

    @property
    def prediction(self) -> int:
        """The likeliest class."""
        return int(self.scores.argmax())

    def as_json(self, file: str, class_names: Sequence[str] | None) -> dict[str, Any]:
        """Return the line of `nnctl predict --json`."""
        label = self.prediction
        return {
            "file": as_text(file),
            "box": self.box,
            "prediction": label,
            "label_name": class_names[label] if class_names else str(label),
            "probability": float(self.scores[label]),
            "probabilities": self.scores.tolist(),
            "inverted": self.inverted,
            "stroke_width": self.digit.stroke_width,
            "adjusted": self.digit.adjusted,
            "warnings": self.warnings,
        }


def recognise(
    reader: Reader, picture: Picture, *, dark_ink: bool | None, several: bool
) -> tuple[Preparation, list[Recognition]]:
    """Return the picture's stages, and what the network reads, from left to right.

    For a network whose images are not laid out as MNIST's the picture is only resized.

    Raises:
        DataError: the picture is blank.

    """
    if reader.mnist_like:
        stages = prepare(picture.grey, dark_ink=dark_ink, several=several)
    else:
        stages = resized(picture.grey, reader.image_shape, inverted=dark_ink is True)
    if not stages.digits:
        raise DataError("nothing stands out from the page")
    images = np.stack([digit.image.ravel() for digit in stages.digits])
    with np.errstate(all="ignore"):
        samples = Samples(images, np.zeros(len(images), np.uint8))
        outputs = reader.network.forward(Gatherer(samples).images(np.arange(len(images))))
        scores = reader.loss.scores(outputs).copy()
    read = []
    for digit, row in zip(stages.digits, scores, strict=True):
        box = digit.box and (
            digit.box.left * picture.shrunk,
            digit.box.top * picture.shrunk,
            min(digit.box.right * picture.shrunk, picture.columns),
            min(digit.box.bottom * picture.shrunk, picture.rows),
        )
        warnings = unlike_mnist(digit) if reader.mnist_like else []
        read.append(Recognition(digit, row, box or None, warnings, stages.inverted))
    return stages, read


def unlike_mnist(digit: Digit) -> list[str]:
    """Return where a digit lies outside of what MNIST's digits are like, in words."""
    found = []
    width, usual = digit.stroke_width, f"MNIST's have {THINNEST} to {THICKEST}"
    if digit.adjusted is not None:
        found.append(f"strokes of {width:.1f} pixels {digit.adjusted} to about {USUAL}; {usual}")
    elif not THINNEST <= width <= THICKEST:
        found.append(f"strokes of {width:.1f} pixels; {usual}")
    ink = float(digit.image.mean() / 255)
    if not LIGHTEST <= ink <= HEAVIEST:
        word = "little" if ink < LIGHTEST else "much"
        found.append(f"{ink:.0%} ink is {word}; MNIST's have {LIGHTEST:.0%} to {HEAVIEST:.0%}")
    if digit.box is None:
        return found + out_of_place(digit.image)
    rows, columns = digit.crop.shape
    if columns > WIDEST * rows:
        found.append("wider than digits are; --several reads one beside the other")
    if max(rows, columns) < SMALLEST:
        found.append(f"only {max(rows, columns)} pixels long: too small to be seen well")
    return found


def out_of_place(image: Array) -> list[str]:
    """Return where an image that passed untouched is not laid out as MNIST's are, in words."""
    found, middle = [], SIDE // 2
    profiles = [image.sum(axis=axis, dtype=float) for axis in (1, 0)]
    longest = max(int(np.ptp(np.flatnonzero(profile))) + 1 for profile in profiles)
    if longest != INK:
        found.append(f"the digit is {longest} pixels long; MNIST's are {INK}")
    centres = [profile @ np.arange(SIDE) / profile.sum() for profile in profiles]
    if max(abs(centre - middle) for centre in centres) > 1:
        found.append(f"the ink's centre is not at row and column {middle}, as MNIST's is")
    return found
